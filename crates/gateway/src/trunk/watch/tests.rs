//! A sender's kernel and its peer in milliseconds of virtual time, looked at as the relay does.

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const QUARTER_MS: u64 = 5_000;
const RTT_MS: u64 = 218;
const RTO_MS: u64 = 420;
/// `TCP_RTO_MAX`.
const RTO_MAX_MS: u64 = 120_000;

/// How a leg's socket behaves: what is sent at a time is answered a round trip later unless the way is cut then.
#[derive(Default)]
struct Leg {
    now: u64,
    heard: u64,
    sent: u64,
    /// The first byte that is on its way was sent then.
    since: Option<u64>,
    timeouts: u8,
    probes: u8,
    next_try: u64,
    wait: u64,
    cut: Option<std::ops::Range<u64>>,
    window_closed: bool,
    /// The peer dropped what was on its way when it closed its window, and so it's sent again.
    shrunk: bool,
}

impl Leg {
    fn is_cut(&self, at: u64) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.contains(&at))
    }

    fn send(&mut self) {
        if self.since.is_none() {
            (self.since, self.wait) = (Some(self.now), RTO_MS);
            self.next_try = self.now + RTO_MS;
        }
        self.sent = self.now;
    }

    /// Goes on to `until`; the timers run out on the way.
    fn run(&mut self, until: u64) {
        for now in self.now..=until {
            self.now = now;
            let Some(since) = self.since else { continue };
            let tried_at = self.next_try - self.wait;
            let reached = tried_at.max(since) + RTT_MS;
            if now == reached && !self.is_cut(tried_at.max(since)) && !self.is_cut(now) {
                (self.heard, self.probes) = (now, 0);
                if !self.window_closed && !self.shrunk {
                    (self.since, self.timeouts) = (None, 0);
                    continue;
                }
            }
            if now == self.next_try {
                self.wait = (self.wait * 2).min(RTO_MAX_MS);
                self.next_try = now + self.wait;
                if self.window_closed {
                    self.probes += 1;
                } else {
                    self.timeouts = self.timeouts.saturating_add(1);
                    self.sent = now;
                }
            }
        }
    }

    fn path(&self) -> PathInfo {
        PathInfo {
            unacknowledged_segments: u32::from(self.since.is_some() && !self.window_closed),
            timeouts: self.timeouts,
            probes: self.probes,
            sent_ago: Duration::from_millis(self.now - self.sent),
            heard_ago: Duration::from_millis(self.now - self.heard),
            ..PathInfo::default()
        }
    }
}

/// When the watch took the peer for dead, at looks each quarter from `first` on; at most until `end`.
fn dead_at(leg: &mut Leg, first: u64, end: u64, mut each: impl FnMut(&mut Leg)) -> Option<u64> {
    let mut watch = Watch::NEW;
    for at in (first..end).step_by(usize::try_from(QUARTER_MS).unwrap()) {
        leg.run(at);
        if watch.look(Duration::from_millis(QUARTER_MS), LIMIT, Some(&leg.path())) {
            return Some(at);
        }
        each(leg);
    }
    None
}

#[test]
fn a_cut_that_stays_is_seen_within_the_limit_and_a_quarter() {
    for first in [1_000, 60_001, 62_500, 64_999] {
        let mut leg = Leg { cut: Some(60_000..u64::MAX), ..Leg::default() };
        leg.run(60_001.min(first));
        leg.now = 60_001;
        leg.send();
        let first = first.max(60_001);
        let at = dead_at(&mut leg, first, 200_000, |_| {}).expect("it is dead");
        assert!((80_000..=60_001 + 25_000).contains(&at), "{first}: {at}");
    }
}

#[test]
fn bytes_after_a_long_rest_are_no_sign_of_death() {
    for offset in 0..10 {
        let mut leg = Leg { now: 3_600_000, ..Leg::default() };
        leg.send();
        // The look comes while they are on their way, and nothing was heard for an hour.
        assert!(leg.path().heard_ago > LIMIT);
        assert_eq!(dead_at(&mut leg, 3_600_000 + offset * 21, 3_700_000, |_| {}), None);
    }
}

#[test]
fn a_rest_that_is_broken_just_before_each_look_is_no_sign_of_death() {
    let mut leg = Leg::default();
    // Each look sees bytes on their way and the last answer a quarter ago.
    let sends = |leg: &mut Leg| {
        leg.run(leg.now + QUARTER_MS - 1);
        leg.send();
    };
    assert_eq!(dead_at(&mut leg, 5_000, 1_000_000, sends), None);
}

#[test]
fn a_cut_of_five_or_ten_seconds_ends_nothing() {
    for length in [5_000, 10_000] {
        for offset in (0..QUARTER_MS).step_by(499) {
            let began = 50_000 + offset;
            let mut leg = Leg { cut: Some(began..began + length), now: began, ..Leg::default() };
            leg.send();
            assert_eq!(dead_at(&mut leg, 55_000, 300_000, |_| {}), None, "{length} ms from {began}");
            assert_eq!(leg.since, None, "it has arrived in the end");
        }
    }
}

#[test]
fn a_receiver_that_stands_still_lives() {
    // Probed less and less often, and in the end only every two minutes.
    let mut leg = Leg { window_closed: true, ..Leg::default() };
    leg.send();
    assert_eq!(dead_at(&mut leg, 5_000, 3_600_000, |_| {}), None);
    // What it had no room for is sent again and again.
    let mut leg = Leg { shrunk: true, ..Leg::default() };
    leg.send();
    assert_eq!(dead_at(&mut leg, 5_000, 3_600_000, |_| {}), None);
    assert!(leg.timeouts > UNANSWERED_MIN);
}

#[test]
fn a_receiver_that_stood_still_and_is_cut_off_is_seen_by_its_probes() {
    let mut leg = Leg { window_closed: true, cut: Some(10_000..u64::MAX), ..Leg::default() };
    leg.send();
    let at = dead_at(&mut leg, 5_000, 600_000, |_| {}).expect("it is dead");
    assert!(at > 30_000, "{at}");
}

#[test]
fn a_host_that_was_stopped_gives_its_peer_the_whole_limit_again() {
    let mut leg = Leg { now: 100_000, heard: 100_000, ..Leg::default() };
    leg.send();
    let mut watch = Watch::NEW;
    let mut look = |leg: &Leg| watch.look(Duration::from_millis(QUARTER_MS), LIMIT, Some(&leg.path()));
    leg.now = 100_100;
    assert!(!look(&leg));
    // The clock has gone on for an hour, and timers have run out, before the first packet that waited is looked at.
    (leg.now, leg.timeouts, leg.sent) = (3_700_000, 3, 3_700_000);
    assert!(leg.path().heard_ago > LIMIT);
    assert!(!look(&leg), "one look after an hour isn't four");
}

#[test]
fn a_connection_that_tells_nothing_is_left_alone() {
    let mut watch = Watch::NEW;
    assert!((0..100).all(|_| !watch.look(Duration::ZERO, LIMIT, None)));
}

#[test]
fn a_leg_that_falls_quiet_is_probed_within_the_limit_and_then_left_to_the_operators_keepalive() {
    let mut watch = Watch::NEW;
    let secs = Duration::from_secs;
    assert_eq!(watch.keepalive(secs(4), LIMIT), None);
    let Some(Keepalive::Watch(probing)) = watch.keepalive(secs(5), LIMIT) else { panic!("it isn't probed") };
    assert_eq!((probing.after, probing.every, probing.count), (secs(5), secs(2), 7));
    assert_eq!(watch.keepalive(secs(10), LIMIT), None, "it's set already");
    assert_eq!(watch.keepalive(secs(1), LIMIT), None, "bytes that flow are probe enough");
    assert_eq!(watch.keepalive(secs(80), LIMIT), Some(Keepalive::Own));
    assert_eq!(watch.keepalive(secs(3600), LIMIT), None);
    for limit in [2, 3, 7, 20, 600, 3600] {
        let Some(Keepalive::Watch(probing)) = keepalive(secs(limit), secs(limit), false) else { panic!("{limit}") };
        let took = probing.after + probing.every * probing.count;
        assert!(took <= secs(limit) || limit < 5, "{limit}: {took:?}");
        assert!((3..=10).contains(&probing.count) && probing.after.subsec_nanos() == 0, "{probing:?}");
    }
}
