//! Checks of a leg's options, whichever leg it is.

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::LegOptions;
use midmile_gateway::WaitBy;

use super::check::check_size;
use super::listener::Checker;
use super::mistake::{At, Place};
use super::raw::{RawClient, RawPeerLeg, RawServer, RawTrunkLeg, RawTrunkServer};
use super::value::{OrOff, Period, Rate, Size};

/// `TCP_KEEPIDLE` takes at most this many seconds (tcp(7): `MAX_TCP_KEEPIDLE`).
const KEEPALIVE_SECS_MAX: u64 = 32_767;
/// Bytes that may leave at once towards whoever it is: ten segments of 1,448 (RFC 6928).
const PUBLIC_WINDOW_MAX: u64 = 14_480;
/// `TCP_USER_TIMEOUT` is an `int` of milliseconds.
const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 24 * 3600);

/// A leg's options as typed, whichever leg it is.
pub(super) struct RawLeg {
    congestion: Option<At<String>>,
    nodelay: Option<At<bool>>,
    recv_buffer: Option<At<Size>>,
    send_buffer: Option<At<Size>>,
    keepalive: Option<At<OrOff<Period>>>,
    user_timeout: Option<At<Period>>,
    unsent_max: Option<At<Size>>,
    pacing: Option<At<Rate>>,
    initial_window: Option<At<Size>>,
    fast_open: Option<At<bool>>,
    friends: Option<At<bool>>,
    /// Both ends are the operator's, and what lies between.
    own: bool,
}

macro_rules! leg_from {
    ($($raw:ident $own:expr, $friends:expr;)*) => {$(
        impl From<$raw> for RawLeg {
            fn from(raw: $raw) -> Self {
                let own: fn(&$raw) -> bool = $own;
                let own = own(&raw);
                let friends: fn(&$raw) -> Option<At<bool>> = $friends;
                let friends = friends(&raw);
                Self {
                    congestion: raw.congestion,
                    nodelay: raw.nodelay,
                    recv_buffer: raw.recv_buffer,
                    send_buffer: raw.send_buffer,
                    keepalive: raw.keepalive,
                    user_timeout: raw.user_timeout,
                    unsent_max: raw.unsent_max,
                    pacing: raw.pacing,
                    initial_window: raw.initial_window,
                    fast_open: raw.fast_open,
                    friends,
                    own,
                }
            }
        }
    )*};
}

// A trunk's legs are one's own by nature, and lead to other hosts.
leg_from!(
    RawClient | leg | leg.own.as_ref().is_some_and(|own| own.value), |leg| leg.friends.clone();
    RawServer | leg | leg.own.as_ref().is_some_and(|own| own.value), |leg| leg.friends.clone();
    RawTrunkServer | leg | leg.own.as_ref().is_some_and(|own| own.value), |leg| leg.friends.clone();
    RawPeerLeg | _ | true, |_| None;
    RawTrunkLeg | _ | true, |_| None;
);

impl RawLeg {
    /// The keys set that mean something to TCP only, with their lines.
    fn tcp_only(&self) -> Vec<(&'static str, usize)> {
        let lines = [
            ("congestion", self.congestion.as_ref().map(|at| at.line)),
            ("nodelay", self.nodelay.as_ref().map(|at| at.line)),
            ("keepalive", self.keepalive.as_ref().map(|at| at.line)),
            ("user_timeout", self.user_timeout.as_ref().map(|at| at.line)),
            ("unsent_max", self.unsent_max.as_ref().map(|at| at.line)),
            ("pacing", self.pacing.as_ref().map(|at| at.line)),
            ("initial_window", self.initial_window.as_ref().map(|at| at.line)),
            ("friends", self.friends.as_ref().map(|at| at.line)),
            ("fast_open", self.fast_open.as_ref().map(|at| at.line)),
        ];
        lines.into_iter().filter_map(|(key, line)| Some((key, line?))).collect()
    }
}

impl Checker<'_> {
    /// `unix` names the key that makes every leg here a Unix-domain socket.
    pub(super) fn leg(&mut self, leg: &str, raw: Option<RawLeg>, unix: Option<&str>) -> LegOptions {
        let default = LegOptions::default();
        let Some(raw) = raw else { return default };
        if let Some(unix) = unix {
            for (key, line) in raw.tcp_only() {
                let what = format!("contradicts {unix}: a Unix-domain socket has no TCP options; leave it out");
                self.add(&format!("{leg}.{key}"), line, what);
            }
        }
        let friend = self.friends(leg, raw.friends, raw.fast_open.as_ref());
        LegOptions {
            congestion: self.congestion(leg, raw.congestion),
            nodelay: raw.nodelay.map_or(default.nodelay, |nodelay| nodelay.value),
            recv_buffer: self.size(leg, "recv_buffer", raw.recv_buffer),
            send_buffer: self.size(leg, "send_buffer", raw.send_buffer),
            keepalive: self.keepalive(leg, raw.keepalive, default.keepalive),
            user_timeout: self.user_timeout(leg, raw.user_timeout),
            unsent_max: self.size(leg, "unsent_max", raw.unsent_max),
            pacing: raw.pacing.map(|pacing| pacing.value.0),
            initial_window: self.initial_window(leg, raw.initial_window, raw.own),
            reset_if_killed: default.reset_if_killed,
            ends_if_killed: default.ends_if_killed,
            delayed_acks: default.delayed_acks,
            friend,
            fast_open: raw.fast_open.map_or(default.fast_open, |fast_open| fast_open.value),
            shared: default.shared,
            transparent: default.transparent,
        }
    }

    /// Whether it asks for friends, and whether nothing that is asked for beside contradicts that.
    fn friends(&mut self, leg: &str, raw: Option<At<bool>>, fast_open: Option<&At<bool>>) -> bool {
        let Some(At { line, .. }) = raw.filter(|friends| friends.value) else { return false };
        if self.wait_by == WaitBy::IoUring {
            let what =
                "contradicts gateway.wait_by = \"io_uring\": legs have friends by epoll alone; leave one of them out";
            self.add(&format!("{leg}.friends"), line, what);
        }
        if leg == "server" && fast_open.is_some_and(|fast_open| fast_open.value) {
            let what = "contradicts fast_open: a connection whose first bytes went with its SYN has no friend; leave one of them out";
            self.add(&format!("{leg}.friends"), line, what);
        }
        true
    }

    fn congestion(&mut self, leg: &str, raw: Option<At<String>>) -> Option<Arc<str>> {
        let raw = raw?;
        if let Err(what) = self.host.check_congestion(&raw.value) {
            self.add(&format!("{leg}.congestion"), raw.line, what);
        }
        Some(raw.value.into())
    }

    fn size(&mut self, leg: &str, key: &str, raw: Option<At<Size>>) -> Option<u32> {
        let raw = raw?;
        check_size(&raw, &Place { key: format!("{}.{leg}.{key}", self.table), line: raw.line }, self.mistakes)
    }

    /// A wide window where others' traffic shares the path is a burst into their queues.
    fn initial_window(&mut self, leg: &str, raw: Option<At<Size>>, own: bool) -> Option<u32> {
        let raw = raw?;
        if raw.value.0 > PUBLIC_WINDOW_MAX && !own {
            let what = "more than ten segments (14480 bytes, RFC 6928) at once are for legs that are one's own from end to end; write own = \
                        true if this one is, or leave `initial_window` out";
            self.add(&format!("{leg}.initial_window"), raw.line, what);
        }
        self.size(leg, "initial_window", Some(raw))
    }

    fn keepalive(&mut self, leg: &str, raw: Option<At<OrOff<Period>>>, default: Option<Duration>) -> Option<Duration> {
        match raw {
            None => default,
            Some(At { value: OrOff::Off, .. }) => None,
            Some(At { value: OrOff::On(Period(period)), line }) => {
                if period.subsec_nanos() != 0 || !(1..=KEEPALIVE_SECS_MAX).contains(&period.as_secs()) {
                    let what = format!("it takes whole seconds; write 1s to {KEEPALIVE_SECS_MAX}s, or \"off\"");
                    self.add(&format!("{leg}.keepalive"), line, what);
                }
                Some(period)
            }
        }
    }

    fn user_timeout(&mut self, leg: &str, raw: Option<At<Period>>) -> Option<Duration> {
        let At { value: Period(period), line } = raw?;
        if period < Duration::from_millis(1) || period > USER_TIMEOUT_MAX {
            self.add(&format!("{leg}.user_timeout"), line, "out of range; write 1ms to 24days");
        }
        Some(period)
    }
}
