//! What programs in the kernel can do here.

use std::io;

use midmile_kernel::{Hook, Unavailable};

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

pub(super) fn windows(probed: Result<(), Unavailable>) -> Finding {
    let feature = "windows";
    match probed {
        Ok(()) => {
            let found = "a BPF program on this process's cgroup: works";
            Finding::new(feature, State::InUse, found, "`initial_window` opens a leg's window before its first byte")
        }
        Err(error) => {
            let effect = "legs begin with the system's window, ten segments unless a route's initcwnd says otherwise";
            Finding::new(feature, State::Fallback, error.to_string(), effect)
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
            let effect = "the window of an idle leg closes, that of a ready trunk connection too: \
                          sysctl net.ipv4.tcp_slow_start_after_idle=0 keeps it";
            Finding::new(feature, State::Fallback, "tcp_slow_start_after_idle 1", effect)
        }
        Err(error) => {
            let effect = "an idle leg's window may close";
            Finding::new(feature, State::Unknown, format!("tcp_slow_start_after_idle: {error}"), effect)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for finding in [early_dial(Err(error())), windows(Err(error()))] {
            assert_eq!(finding.state, State::Fallback);
            assert!(
                finding.found.contains("none is mounted") && finding.found.contains("mount -t cgroup2"),
                "{finding:?}"
            );
        }
    }
}
