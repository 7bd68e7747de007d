//! What this kernel and these privileges allow. Each probe tries the thing itself and leaves nothing behind.

use std::io;

use crate::friends::{self, FriendsError};
use crate::route::{self, RouteError};
use crate::syn::{Hook, SynConfig, SynWatch};
use crate::unavailable::Unavailable;
use crate::window::Windows;

/// Where the kernel says whether windows close while idle, in the calling thread's network namespace.
const SLOW_START_AFTER_IDLE: &str = "/proc/sys/net/ipv4/tcp_slow_start_after_idle";

/// Announces SYNs: loads the program and attaches it, switched off, to the loopback device; answers how. Where that would leave a
/// queueing discipline behind ([`Hook::Clsact`]), it is loaded alone.
///
/// # Errors
/// Why not, and the mend: the onward dial begins when a connection is accepted.
pub fn syn_watch() -> Result<Hook, Unavailable> {
    SynWatch::probe(&SynConfig::default())
}

/// Opens windows: attaches the program to the process's cgroup, for no leg.
///
/// # Errors
/// Why not, and the mend: connections begin with the system's window.
pub fn windows() -> Result<(), Unavailable> {
    Windows::attach().map(drop)
}

/// Friends by eBPF: loads the programs, and attaches to no cgroup.
///
/// # Errors
/// Why not, and the mend: connections within the host go by TCP.
pub fn friends() -> Result<(), FriendsError> {
    friends::probe()
}

/// Whether the kernel counts what came past TCP where a program asks how much waits (`FIONREAD`). Read from the names of the
/// kernel's functions; `None` where they can't be read.
#[must_use]
pub fn friends_fionread() -> Option<bool> {
    let names = std::fs::read_to_string("/proc/kallsyms").ok().filter(|names| !names.is_empty())?;
    Some(names.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some("tcp_bpf_ioctl")))
}

/// Opens windows by routes: tries to remove one that isn't there.
///
/// # Errors
/// Why not, and the mend.
pub fn routes() -> Result<(), RouteError> {
    route::probe()
}

/// Whether the kernel closes the window of an idle connection (RFC 5681, section 4.1; the system's setting
/// `net.ipv4.tcp_slow_start_after_idle`).
///
/// # Errors
/// The system's, when the setting can't be read.
pub fn slow_start_after_idle() -> io::Result<bool> {
    let text = std::fs::read_to_string(SLOW_START_AFTER_IDLE)?;
    Ok(text.trim() != "0")
}
