//! What this host allows, and what midmile does with it or without it.
//!
//! Facts come from system calls that try the thing itself, and from files under `/proc` and `/sys`; a file that is missing is a
//! fact that isn't known, never a failure.

use std::fmt::Write as _;
use std::io;

use midmile_engine::probe;
use midmile_engine::uring::Unavailable as NoRing;
use midmile_kernel::probe as bpf_probe;
use rustix::thread::{MembarrierCommand, membarrier_query};
use serde::Serialize;

mod bpf;
mod limits;
mod system;
mod tcp;

use crate::intercept::can_tproxy;
use system::System;

/// What comes of a feature on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// There, and used.
    InUse,
    /// Not there, or too little of it: midmile goes another, slower way.
    Fallback,
    /// Not there, and nothing takes its place.
    Absent,
    /// There, and midmile doesn't use it.
    Unused,
    /// This host doesn't say.
    Unknown,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Fallback => "fallback",
            Self::Absent => "absent",
            Self::Unused => "unused",
            Self::Unknown => "unknown",
        }
    }
}

/// One feature.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    feature: &'static str,
    state: State,
    /// What this host has.
    found: String,
    /// What midmile does with that.
    effect: String,
}

impl Finding {
    fn new(feature: &'static str, state: State, found: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { feature, state, found: found.into(), effect: effect.into() }
    }
}

/// Examines this host.
pub(crate) fn examine() -> Vec<Finding> {
    let system = System::here();
    vec![
        kernel(),
        splice(probe::splice_sockets()),
        limits::pipes(&system, probe::pipe_bytes(limits::pipe_wanted())),
        limits::descriptors(&system),
        steering(probe::steering()),
        io_uring(probe::io_uring()),
        datagrams(probe::datagram_coalescing()),
        bpf::early_dial(bpf_probe::syn_watch()),
        bpf::windows(bpf_probe::windows(), bpf_probe::routes()),
        bpf::idle_windows(bpf_probe::slow_start_after_idle()),
        bpf::friends(bpf_probe::friends(), bpf_probe::friends_fionread()),
        tcp::ring_friends(&system, lends()),
        transparent(probe::transparent(), can_tproxy()),
        netem(midmile_lab::netem::probe().map_err(|error| {
            let missing =
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
            (if missing { State::Absent } else { State::Unknown }, format!("{error:#}"))
        })),
        tcp::congestion(&system),
        tcp::ports(&system),
        tcp::kcm(&system),
        limits::pair_memory(&system),
        tcp::ipv6(&system),
        limits::cpus(&system),
        limits::cgroup_cpu(&system),
        limits::cgroup_memory(&system),
    ]
}

/// The findings as a JSON document.
///
/// # Errors
/// None that are known: they are plain texts.
pub(crate) fn json(findings: &[Finding]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        version: &'static str,
        findings: &'a [Finding],
    }
    let mut text = serde_json::to_string_pretty(&Document { version: env!("CARGO_PKG_VERSION"), findings })?;
    text.push('\n');
    Ok(text)
}

/// The findings as a table: feature, state, what was found, and below it what midmile does.
pub(crate) fn table(findings: &[Finding]) -> String {
    let wide = findings.iter().map(|finding| finding.feature.len()).max().unwrap_or(0).max("FEATURE".len());
    let mut text = format!("{:wide$}  {:8}  WHAT THIS HOST HAS, AND WHAT MIDMILE DOES\n", "FEATURE", "STATE");
    for finding in findings {
        let line = writeln!(text, "{:wide$}  {:8}  {}", finding.feature, finding.state.word(), finding.found);
        let below = writeln!(text, "{:wide$}  {:8}  {}", "", "", finding.effect);
        line.and(below).expect("writing to a string never fails");
    }
    text
}

/// Whether the kernel has barriers that reach other processes (membarrier(2), Linux 4.16).
fn lends() -> bool {
    membarrier_query().contains_command(MembarrierCommand::GlobalExpedited)
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let found = format!("Linux {} on {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
    Finding::new("kernel", State::InUse, found, "the kernel's own TCP, by epoll; no module, no patch")
}

fn splice(probed: io::Result<()>) -> Finding {
    match probed {
        Ok(()) => {
            Finding::new("splice", State::InUse, "tried with a socket and a pipe: works", "bulk stays in the kernel")
        }
        Err(error) => {
            Finding::new("splice", State::Fallback, format!("tried: {error}"), "bulk is copied, at more CPU a byte")
        }
    }
}

fn steering(probed: io::Result<()>) -> Finding {
    match probed {
        Ok(()) => {
            let effect = "a connection is served on the CPU that received it";
            Finding::new("steering", State::InUse, "SO_REUSEPORT with a program that picks by CPU: works", effect)
        }
        Err(error) => {
            let effect = "the kernel spreads connections over the cores by a hash";
            Finding::new("steering", State::Fallback, format!("SO_REUSEPORT with a program: {error}"), effect)
        }
    }
}

fn datagrams(probed: io::Result<()>) -> Finding {
    let (feature, state) = ("datagrams in pieces", State::Unused);
    match probed {
        Ok(()) => {
            let effect = "the relay carries none; programs on the engine send and receive many as one";
            Finding::new(feature, state, "UDP_GRO and UDP_SEGMENT work", effect)
        }
        Err(error) => {
            let effect = "the relay carries none; programs on the engine send and receive them one by one";
            Finding::new(feature, State::Fallback, format!("tried: {error}"), effect)
        }
    }
}

fn io_uring(probed: Result<(), NoRing>) -> Finding {
    match probed {
        Ok(()) => Finding::new(
            "io_uring",
            State::Unused,
            "tried: receives into buffers of its own; works",
            "loops wait by epoll; `wait_by = \"io_uring\"` has them use it",
        ),
        Err(error) => Finding::new(
            "io_uring",
            State::Absent,
            format!("tried: {error}"),
            "nothing is lost by default: loops wait by epoll",
        ),
    }
}

fn transparent(socket: io::Result<()>, rules: Result<(), String>) -> Finding {
    let feature = "interception";
    let (found, effect) = match (socket, rules) {
        (Ok(()), Ok(())) => {
            let found = "IP_TRANSPARENT, nft and its tproxy expression: work";
            return Finding::new(
                feature,
                State::InUse,
                found,
                "`transparent` and `spoof_client` serve, and --apply sets their rules",
            );
        }
        (Ok(()), Err(error)) => {
            (format!("IP_TRANSPARENT works; {error}"), "rules have to be set by other means than --apply")
        }
        (Err(error), _) => {
            (format!("IP_TRANSPARENT: {error}"), "neither `transparent` nor `spoof_client`; they need CAP_NET_ADMIN")
        }
    };
    Finding::new(feature, State::Absent, found, effect)
}

/// The lab has links of its own: nothing is missing without it.
fn netem(probed: Result<(), (State, String)>) -> Finding {
    let feature = "netem";
    let effect =
        "midmile lab makes its links of TUN devices; --links netem makes them of the kernel's emulator, where it is";
    match probed {
        Ok(()) => Finding::new(feature, State::Unused, "works", effect),
        Err((state, error)) => Finding::new(feature, state, error, effect),
    }
}

#[cfg(test)]
mod tests {
    use midmile_kernel::{FriendsError, RouteError, Unavailable};

    use super::*;

    #[test]
    fn nothing_known_is_no_failure() {
        let nowhere = System::at("/nonexistent/root");
        let findings = [
            limits::pipes(&nowhere, Err(io::ErrorKind::Unsupported.into())),
            limits::descriptors(&nowhere),
            tcp::congestion(&nowhere),
            tcp::ports(&nowhere),
            tcp::kcm(&nowhere),
            limits::pair_memory(&nowhere),
            tcp::ipv6(&nowhere),
            limits::cpus(&nowhere),
            limits::cgroup_cpu(&nowhere),
            limits::cgroup_memory(&nowhere),
            splice(Err(io::ErrorKind::Unsupported.into())),
            steering(Err(io::ErrorKind::Unsupported.into())),
            io_uring(Err(NoRing::KernelTooOld)),
            datagrams(Err(io::ErrorKind::Unsupported.into())),
            transparent(Err(io::ErrorKind::PermissionDenied.into()), Err("no nft".to_owned())),
            netem(Err((State::Unknown, "no".to_owned()))),
            bpf::early_dial(Err(Unavailable::NoDevice { device: "lo".to_owned() })),
            bpf::windows(Err(Unavailable::NoCgroup { why: "none is mounted".to_owned() }), Err(RouteError::Privilege)),
            bpf::idle_windows(Err(io::ErrorKind::NotFound.into())),
            bpf::friends(Err(FriendsError::Perfmon), None),
        ];
        let unknown = findings.iter().filter(|finding| finding.state == State::Unknown).count();
        assert_eq!(unknown, 8, "{findings:#?}");
        assert!(table(&findings).lines().count() == 1 + 2 * findings.len());
        assert!(json(&findings).is_ok());
    }

    #[test]
    fn this_host_is_examined_whatever_it_is() {
        let findings = examine();
        assert!(
            findings.iter().all(|finding| !finding.found.is_empty() && !finding.effect.is_empty()),
            "{findings:#?}"
        );
    }
}
