//! One run at a time: two would share the same two CPUs and measure each other.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// A name in the kernel that only one process can hold, and that goes with it.
const NAME: &str = "midmile-bench.turn";

/// Waits until no other run holds the turn, then holds it until dropped.
pub(crate) fn take() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(NAME).context("name the turn")?;
    let mut said = false;
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(turn) => return Ok(turn),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("take the turn"),
        }
        if !said {
            eprintln!("another midmile-bench measures on this machine: waiting for its end");
            said = true;
        }
        thread::sleep(Duration::from_millis(500));
    }
}
