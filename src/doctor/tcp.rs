//! What the kernel's TCP is set to.

use super::system::System;
use super::{Finding, State};

/// Seconds that a closed connection holds its port: `TCP_TIMEWAIT_LEN` is fixed in the kernel.
const TIME_WAIT_SECS: u64 = 60;

pub(super) fn congestion(system: &System) -> Finding {
    let feature = "congestion";
    let read = |name: &str| system.text(&format!("/proc/sys/net/ipv4/tcp_{name}"));
    let Some(available) = read("available_congestion_control") else {
        let effect = "the system's congestion control is used, and `congestion` isn't checked";
        return Finding::new(feature, State::Unknown, "the kernel doesn't list any", effect);
    };
    let default = read("congestion_control").unwrap_or_else(|| "not known".to_owned());
    let mut found = format!("{available}; default {default}");
    let allowed = read("allowed_congestion_control").filter(|_| !system.may_choose_any_congestion());
    if let Some(allowed) = allowed.filter(|allowed| *allowed != available) {
        found.push_str(&format!("; allowed without CAP_NET_ADMIN: {allowed}"));
    }
    let effect = if default.starts_with("bbr") {
        "the default paces even the first window, which delays short answers on long paths: set `congestion` for each leg \
         where that matters"
    } else {
        "legs use the default unless `congestion` says otherwise"
    };
    Finding::new(feature, State::InUse, found, effect)
}

pub(super) fn ports(system: &System) -> Finding {
    let feature = "outgoing ports";
    let range = system.numbers::<u64>("/proc/sys/net/ipv4/ip_local_port_range");
    let Some(&[low, high]) = range.as_deref() else {
        return Finding::new(
            feature,
            State::Unknown,
            "ip_local_port_range is not readable",
            "the kernel chooses local ports",
        );
    };
    let ports = (high + 1).saturating_sub(low);
    let reuse: Option<u64> = system.number("/proc/sys/net/ipv4/tcp_tw_reuse");
    let shown = reuse.map_or_else(|| "not known".to_owned(), |reuse| reuse.to_string());
    let found = format!("{low} to {high}, tcp_tw_reuse {shown}");
    let slow = ports / TIME_WAIT_SECS;
    // With reuse a port is free again after a second, as timestamps tell old segments from new (RFC 6191).
    let rate = match reuse {
        Some(1) => format!("{ports} new ones a second"),
        Some(2) => format!("{ports} new ones a second on loopback and {slow} elsewhere, if midmile closes first"),
        _ => format!("{slow} new ones a second, if midmile closes first"),
    };
    let effect = format!(
        "{ports} connections to one backend address at once, and {rate}; more addresses or tcp_tw_reuse=1 raise it"
    );
    Finding::new(feature, State::InUse, found, effect)
}

/// The kernel's own multiplexor of messages. Asking for a socket of it would load its module, so it's only looked for.
pub(super) fn kcm(system: &System) -> Finding {
    let feature = "KCM sockets";
    let effect = "midmile's multiplexor is its own, in user space, and needs none";
    let Some(protocols) = system.text("/proc/net/protocols") else {
        return Finding::new(feature, State::Unknown, "the kernel's protocols aren't readable", effect);
    };
    let is_there = protocols.lines().any(|line| line.split_whitespace().next() == Some("KCM"));
    let (state, found) = if is_there {
        (State::Unused, "AF_KCM is there")
    } else {
        (State::Absent, "AF_KCM isn't there, or its module isn't loaded")
    };
    Finding::new(feature, state, found, effect)
}

/// What programs find that `midmile friends run` starts from here: they inherit filters of system calls, and Yama says whether one process
/// may borrow another's descriptor. `lends`: the kernel has barriers for other processes, so that a lock can be lent.
pub(super) fn ring_friends(system: &System, lends: bool) -> Finding {
    let feature = "ring friends";
    let locks =
        if lends { "" } else { "; no membarrier(2), so each call locks: streams of small writes are a third slower" };
    let Some(status) = system.text("/proc/self/status") else {
        let effect = "connections within this host may go by TCP";
        return Finding::new(feature, State::Unknown, "/proc/self/status isn't readable", effect);
    };
    if status.lines().filter_map(|line| line.strip_prefix("Seccomp:")).any(|mode| mode.trim() != "0") {
        let effect = "what `midmile friends run` starts here stays with TCP; `midmile friends attach`, from outside, doesn't mind filters";
        return Finding::new(feature, State::Absent, "a filter looks at programs' system calls here (seccomp)", effect);
    }
    let (found, effect) = match system.number::<u8>("/proc/sys/kernel/yama/ptrace_scope") {
        Some(scope @ 1..) => (
            format!("memory can be shared, sockets can't be borrowed (kernel.yama.ptrace_scope {scope}){locks}"),
            "`midmile friends run` has programs go by memory; one that gives a connection away with unread bytes resets it",
        ),
        _ => (
            format!("processes of a user can share memory and borrow sockets{locks}"),
            "`midmile friends run` has programs go by memory",
        ),
    };
    Finding::new(feature, State::Unused, found, effect)
}

pub(super) fn ipv6(system: &System) -> Finding {
    let disabled = system.number::<u8>("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let addresses = system.text("/proc/net/if_inet6").map(|text| text.lines().count());
    match (disabled, addresses) {
        (Some(0) | None, Some(count)) if count > 0 => {
            Finding::new("IPv6", State::InUse, format!("{count} addresses"), "listeners and backends may be IPv6")
        }
        _ => Finding::new("IPv6", State::Absent, "no address, or switched off", "IPv4 and Unix-domain sockets only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::limits::{cgroup_cpu, cgroup_memory};

    /// What `examine` finds below a root that has `files`.
    fn below(name: &str, files: &[(&str, &str)], examine: impl Fn(&System) -> Finding) -> Finding {
        let id = std::process::id();
        let root = std::env::temp_dir().join(format!("midmile-doctor-{name}-{id}"));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let finding = examine(&System::at(&root));
        std::fs::remove_dir_all(root).unwrap();
        finding
    }

    #[test]
    fn ports_become_rates() {
        let range = ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        let cases = [("0", "470 new ones a second, if"), ("1", "28232 new ones a second;"), ("2", "and 470 elsewhere")];
        for (reuse, said) in cases {
            let files = [range, ("proc/sys/net/ipv4/tcp_tw_reuse", reuse)];
            let finding = below(&format!("ports{reuse}"), &files, ports);
            assert!(finding.effect.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn a_bbr_default_is_pointed_out() {
        let list = ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic bbr");
        let of = |default| {
            let files = [list, ("proc/sys/net/ipv4/tcp_congestion_control", default)];
            below(default, &files, congestion).effect
        };
        assert!(of("bbr").contains("delays short answers"));
        assert!(!of("cubic").contains("delays"));
    }

    #[test]
    fn a_filter_keeps_programs_with_tcp_and_yama_does_not() {
        let yama = |scope| ("proc/sys/kernel/yama/ptrace_scope", scope);
        let status = |mode| ("proc/self/status", mode);
        let free = status("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n");
        let filtered = status("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        let lends = |system: &System| ring_friends(system, true);
        assert_eq!(below("rings1", &[filtered, yama("0")], lends).state, State::Absent);
        let plain = [below("rings2", &[free], lends), below("rings3", &[free, yama("0\n")], lends)];
        let strict = below("rings4", &[free, yama("1\n")], |system| ring_friends(system, false));
        assert!(plain.iter().chain([&strict]).all(|finding| finding.state == State::Unused), "{plain:?}");
        assert!(plain[0].found == plain[1].found && !plain[0].found.contains("membarrier"), "{plain:?}");
        assert!(["ptrace_scope 1", "membarrier"].iter().all(|said| strict.found.contains(said)), "{strict:?}");
        assert_eq!(below("rings5", &[yama("0")], lends).state, State::Unknown);
    }

    #[test]
    fn a_cgroup_of_either_version_is_found() {
        let v2 = [
            ("proc/self/cgroup", "0::/a"),
            ("sys/fs/cgroup/a/memory.max", "1048576"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000"),
        ];
        let v1 = [
            ("proc/self/cgroup", "4:memory:/b\n1:cpu,cpuacct:/"),
            ("sys/fs/cgroup/memory/b/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ];
        assert_eq!(below("v2m", &v2, cgroup_memory).found, "at most 1.0 MiB");
        assert_eq!(below("v2c", &v2, cgroup_cpu).found, "time for 1.50 CPUs");
        assert_eq!(below("v1m", &v1, cgroup_memory).found, "no limit");
        assert_eq!(below("v1c", &v1, cgroup_cpu).found, "no limit");
    }
}
