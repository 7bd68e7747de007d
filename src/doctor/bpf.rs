//! What programs in the kernel can do here.

use std::io;

use midmile_kernel::{FriendsError, Hook, RouteError, Unavailable};

use super::{Finding, State};

pub(super) fn early_dial(probed: Result<Hook, Unavailable>) -> Finding {
    let feature = "early dial";
    match probed {
        Ok(hook) => {
            let found = match hook {
                Hook::Tcx => "a BPF program on a device, by a TCX link: works",
                Hook::Clsact => {
                    "a BPF program on a device, by a clsact filter: loads; a midmile that is killed leaves it behind"
                }
            };
            Finding::new(feature, State::InUse, found, "with `early_dial` the onward dial begins at the client's SYN")
        }
        Err(error) => {
            let effect =
                "the onward dial begins when the client's connection is accepted, one round trip after its SYN";
            Finding::new(feature, State::Fallback, error.to_string(), effect)
        }
    }
}

/// `program` and `routes` are whether windows can be opened by either.
pub(super) fn windows(program: Result<(), Unavailable>, routes: Result<(), RouteError>) -> Finding {
    let feature = "windows";
    let error = match program {
        Ok(()) => {
            let found = "by eBPF: a program on this process's cgroup works";
            return Finding::new(
                feature,
                State::InUse,
                found,
                "`initial_window` opens a leg's window before its first byte",
            );
        }
        Err(error) => error,
    };
    match routes {
        Ok(()) => {
            let found = format!("by routes, which may be changed here; not by eBPF: {error}");
            let effect = "`initial_window` opens windows to peers and servers by a route of each host's; other legs of trunks are warmed";
            Finding::new(feature, State::Fallback, found, effect)
        }
        Err(refused) => {
            let found = format!("by warming; not by eBPF: {error}; nor by routes: {refused}");
            let effect = "`initial_window` has trunk connections send padding before they are ready; other legs begin with ten segments";
            Finding::new(feature, State::Fallback, found, effect)
        }
    }
}

/// `probed` is whether windows close while idle.
pub(super) fn idle_windows(probed: io::Result<bool>) -> Finding {
    let feature = "idle windows";
    match probed {
        Ok(false) => {
            let effect = "a leg keeps its window while it is idle";
            Finding::new(feature, State::InUse, "tcp_slow_start_after_idle 0", effect)
        }
        Ok(true) => {
            let effect = "the window of an idle leg closes, that of a ready trunk connection too, unless a route has opened it: \
                          sysctl net.ipv4.tcp_slow_start_after_idle=0 keeps it, and so does congestion = \"bbr\" on trunk legs";
            Finding::new(feature, State::Fallback, "tcp_slow_start_after_idle 1", effect)
        }
        Err(error) => {
            let effect = "an idle leg's window may close";
            Finding::new(feature, State::Unknown, format!("tcp_slow_start_after_idle: {error}"), effect)
        }
    }
}

/// `fionread` is whether the kernel counts for `FIONREAD` what came past TCP, if it's known.
pub(super) fn friends(program: Result<(), FriendsError>, fionread: Option<bool>) -> Finding {
    let feature = "friends";
    if let Err(error) = program {
        return Finding::new(feature, State::Absent, error.to_string(), "connections within this host go by TCP");
    }
    let found = match fionread {
        Some(true) => "by eBPF: programs for sockets load",
        Some(false) => "by eBPF: programs for sockets load; FIONREAD is 0 for what skips TCP on this kernel",
        None => "by eBPF: programs for sockets load; whether FIONREAD counts what skips TCP isn't known",
    };
    Finding::new(feature, State::Unused, found, "`midmile friends attach` has connections of a cgroup skip TCP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn friends_are_there_for_whom_asks() {
        assert_eq!(friends(Ok(()), Some(true)).state, State::Unused);
        assert!(friends(Ok(()), Some(false)).found.contains("FIONREAD is 0"));
        let absent = friends(Err(FriendsError::Perfmon), Some(true));
        assert!(absent.state == State::Absent && absent.found.contains("CAP_PERFMON"), "{absent:?}");
    }

    #[test]
    fn each_hook_and_setting_is_told_apart() {
        assert!(early_dial(Ok(Hook::Tcx)).found.contains("TCX"));
        assert!(early_dial(Ok(Hook::Clsact)).found.contains("leaves it behind"));
        assert_eq!(idle_windows(Ok(false)).state, State::InUse);
        let closing = idle_windows(Ok(true));
        assert_eq!(closing.state, State::Fallback);
        assert!(closing.effect.contains("net.ipv4.tcp_slow_start_after_idle=0"), "{closing:?}");
    }

    #[test]
    fn what_is_missing_is_a_fallback_with_its_mend() {
        let error = || Unavailable::NoCgroup { why: "none is mounted".to_owned() };
        let routes = [Ok(()), Err(RouteError::Privilege)].map(|routes| windows(Err(error()), routes));
        assert!(routes[0].found.starts_with("by routes") && routes[1].found.starts_with("by warming"), "{routes:?}");
        assert!(routes[1].found.contains("CAP_NET_ADMIN"), "{routes:?}");
        for finding in routes.into_iter().chain([early_dial(Err(error()))]) {
            assert_eq!(finding.state, State::Fallback);
            assert!(
                finding.found.contains("none is mounted") && finding.found.contains("mount -t cgroup2"),
                "{finding:?}"
            );
        }
    }
}
