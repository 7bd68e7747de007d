//! Warming: a window opened by traffic, where neither a program in the kernel nor a route opens it.
//!
//! A sender's window doubles each round trip only while at least half of it is in use (RFC 5681, 3.1; the kernel's
//! `tcp_is_cwnd_limited`). So each side whose window is closed sends padding behind the handshake, and the connection is ready when
//! all of it has been acknowledged. What is sent here is decided without sockets: the caller says the time, and how much waits.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use midmile_engine::Time;
use midmile_wire::trunk::{PADDING_MAX, Padding};

/// Windows that are sent to open one: one opens it if nothing is lost, and a congestion control that leaves slow start early
/// (HyStart) needs more.
const WINDOWS: u32 = 2;
/// How often a warming is looked at.
pub(crate) const STEP: Duration = Duration::from_millis(5);
/// Bytes that may wait unsent in the kernel: more than goes out in a step at 1 Gbit/s.
const AHEAD: usize = 1 << 20;
/// Bytes a step while live bytes flow: 13 Mbit/s. More than [`RATE_MIN`], so that the peer doesn't give up.
const AHEAD_LIVE: usize = 8 << 10;
/// Bytes a second that padding has to come at.
const RATE_MIN: u32 = 512 << 10;
/// Live bytes count from this share of the pace: an eighth.
const LIVE_SHARE: u64 = 8;
/// The pace where none is set, in bytes a second: 100 Mbit/s.
const PACE: u64 = 12_500_000;

/// How many bytes of padding a side's connections are warmed with; none unless the control side says so.
///
/// It's the control side that finds out by which way windows are opened, after the plan was made and perhaps anew at a reload.
#[derive(Debug, Default)]
pub struct Warmth(AtomicU32);

impl Warmth {
    /// Has connections warmed for a window of so many bytes.
    pub fn set(&self, window: u32) {
        self.0.store(window.saturating_mul(WINDOWS).min(PADDING_MAX), Relaxed);
    }

    /// Has no connection warmed.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Bytes of padding.
    pub(crate) fn padding(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// How long padding may take, beside what a handshake may.
pub(crate) fn patience(padding: Padding) -> Duration {
    Duration::from_secs(u64::from(padding.sends.max(padding.receives).div_ceil(RATE_MIN)))
}

/// Whether `moved` live bytes in `elapsed` are so many that padding would be in their way. `pace` is the leg's, in bytes a second.
pub(crate) fn is_live(moved: u64, elapsed: Duration, pace: Option<u64>) -> bool {
    let share = pace.unwrap_or(PACE) / LIVE_SHARE;
    u128::from(moved) * 1_000_000 > u128::from(share) * elapsed.as_micros()
}

/// What a look at a warming found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warmed {
    /// So much padding may be handed to the kernel now; another look is due after a [`STEP`].
    Send(usize),
    /// All has crossed, both ways.
    Ready,
    /// It took too long.
    Late,
}

/// A connection that is being warmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Warming {
    /// What hasn't been handed to the kernel, and what hasn't come.
    left: Padding,
    deadline: Time,
    /// When it was looked at last, and the live bytes that had flowed by then.
    looked: Time,
    moved: u64,
}

impl Warming {
    /// A warming that begins now, and may take `wait` beside the time that its padding may.
    pub(crate) fn new(padding: Padding, now: Time, wait: Duration, moved: u64) -> Self {
        Self { left: padding, deadline: now.after(wait + patience(padding)), looked: now, moved }
    }

    /// Throws away what of `bytes` bytes is padding; answers how many those are.
    pub(crate) fn take(&mut self, bytes: usize) -> usize {
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.left.receives);
        self.left.receives -= taken;
        taken as usize
    }

    /// Whether all of the other side's padding has come.
    pub(crate) const fn is_received(&self) -> bool {
        self.left.receives == 0
    }

    /// Whether all of ours has been handed to the kernel as well.
    pub(crate) const fn is_done(&self) -> bool {
        self.left.receives == 0 && self.left.sends == 0
    }

    /// How long it may be left alone.
    pub(crate) fn wait(&self, now: Time) -> Duration {
        if self.left.sends == 0 && self.left.receives > 0 { self.deadline.since(now).max(STEP) } else { STEP }
    }

    /// A look. `moved` is how many live bytes have flowed on this core ever; `unsent` and `unacknowledged` say what the kernel
    /// holds of this connection.
    pub(crate) fn look(
        &mut self,
        now: Time,
        moved: u64,
        pace: Option<u64>,
        (unsent, unacknowledged): (usize, usize),
    ) -> Warmed {
        if self.is_done() && unacknowledged == 0 {
            return Warmed::Ready;
        }
        if now >= self.deadline {
            return Warmed::Late;
        }
        let live = is_live(moved.saturating_sub(self.moved), now.since(self.looked), pace);
        (self.looked, self.moved) = (now, moved);
        let ahead = if live { AHEAD_LIVE } else { AHEAD };
        Warmed::Send(ahead.saturating_sub(unsent).min(self.left.sends as usize))
    }

    /// So much was handed to the kernel.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.left.sends = self.left.sends.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: Padding = Padding { sends: 3 << 20, receives: 5000 };
    const WAIT: Duration = Duration::from_secs(5);

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn padding_is_thrown_away_and_nothing_behind_it() {
        let mut warming = Warming::new(PAD, at(0), WAIT, 0);
        assert_eq!((warming.take(4000), warming.take(4000), warming.take(4000)), (4000, 1000, 0));
        assert!(warming.is_received());
    }

    #[test]
    fn padding_is_fed_as_it_leaves_and_hardly_while_live_bytes_flow() {
        let mut warming = Warming::new(PAD, at(0), WAIT, 100);
        assert_eq!(warming.look(at(0), 100, None, (0, 0)), Warmed::Send(AHEAD));
        warming.sent(AHEAD);
        assert_eq!(warming.look(at(5), 100, None, (AHEAD, AHEAD)), Warmed::Send(0));
        assert_eq!(warming.look(at(10), 100, None, (AHEAD / 2, AHEAD)), Warmed::Send(AHEAD / 2));
        // An eighth of 100 Mbit/s is 7,812 bytes in 5 ms.
        assert_eq!(warming.look(at(15), 7900, None, (0, 0)), Warmed::Send(AHEAD));
        assert_eq!(warming.look(at(20), 7900 + 7900, None, (0, 0)), Warmed::Send(AHEAD_LIVE));
        assert_eq!(warming.look(at(25), 7900 + 7900, None, (0, 0)), Warmed::Send(AHEAD));
    }

    #[test]
    fn it_is_ready_when_all_has_crossed_both_ways() {
        let mut warming = Warming::new(Padding { sends: 10, receives: 10 }, at(0), WAIT, 0);
        assert_eq!(warming.look(at(0), 0, None, (0, 0)), Warmed::Send(10));
        warming.sent(10);
        assert_eq!(warming.look(at(5), 0, None, (0, 10)), Warmed::Send(0));
        assert_eq!(warming.look(at(6), 0, None, (0, 0)), Warmed::Send(0));
        assert_eq!(warming.wait(at(6)), Duration::from_millis(5994), "only the peer's padding is awaited");
        assert_eq!(warming.take(10), 10);
        assert_eq!(warming.wait(at(6)), STEP, "acknowledgements make no event");
        assert_eq!(warming.look(at(7), 0, None, (0, 1)), Warmed::Send(0));
        assert_eq!(warming.look(at(8), 0, None, (0, 0)), Warmed::Ready);
    }

    #[test]
    fn it_may_take_as_long_as_its_bytes_do_and_not_longer() {
        let mut warming = Warming::new(PAD, at(0), WAIT, 0);
        // 5 s, and 6 for 3 MiB at half a MiB a second.
        assert_eq!(warming.look(at(10_999), 0, None, (AHEAD, AHEAD)), Warmed::Send(0));
        assert_eq!(warming.look(at(11_000), 0, None, (AHEAD, AHEAD)), Warmed::Late);
        assert_eq!(patience(Padding::default()), Duration::ZERO);
        assert_eq!(patience(Padding { sends: 0, receives: PADDING_MAX }), Duration::from_secs(32));
    }

    #[test]
    fn live_bytes_pass_faster_than_a_peer_gives_up() {
        let steps = u32::try_from(1000 / STEP.as_millis()).unwrap();
        assert!(u32::try_from(AHEAD_LIVE).unwrap() * steps > RATE_MIN);
        assert!(!is_live(0, Duration::ZERO, None) && is_live(1, Duration::ZERO, None));
        assert!(
            !is_live(1000, Duration::from_secs(1), Some(8000)) && is_live(1001, Duration::from_secs(1), Some(8000))
        );
    }

    #[test]
    fn a_side_warms_two_windows_within_the_bound() {
        let warmth = Warmth::default();
        assert_eq!(warmth.padding(), 0);
        warmth.set(1000);
        assert_eq!(warmth.padding(), 2000);
        warmth.set(u32::MAX);
        assert_eq!(warmth.padding(), PADDING_MAX);
        warmth.clear();
        assert_eq!(warmth.padding(), 0);
    }
}
