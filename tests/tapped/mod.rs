//! The ends of taps, and captures as tshark sees them.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::process::Running;
use crate::programs::said;

/// Ends a tap; what it said at last.
pub(crate) fn end(mut tap: Running) -> String {
    tap.signal(Signal::INT);
    assert_eq!(tap.code(), Some(0), "{}", tap.log());
    tap.logged("missing:")
}

/// What tshark says of a capture, that it can check.
pub(crate) fn tshark(file: &str, args: &[&str]) -> String {
    let checks = ["-n", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-r", file];
    said(Command::new("tshark").args(checks).args(args).stderr(Stdio::null()))
}
