//! Probe: a proxy is ready once one exchange through it succeeds.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::socket;
use super::speech::Speech;

/// How long a proxy may take to start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Tries until an exchange succeeds.
pub(super) fn run(to: SocketAddrV4, speech: Speech) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match socket::connected(to).and_then(|fd| speech.exchange(&fd)) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
