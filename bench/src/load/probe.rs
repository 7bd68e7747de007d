//! Probe: a proxy is ready once one exchange through it succeeds.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::speech::Speech;
use super::{idle, socket};

/// How long a proxy may take to start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Tries until an exchange succeeds: in `speech`, or else with a server of the relays' bench.
pub(super) fn run(to: SocketAddrV4, speech: Option<Speech>) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let exchanged = match speech {
            Some(speech) => speech.exchange(to),
            None => socket::connected(to).and_then(|fd| idle::exchange(&fd)),
        };
        match exchanged {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
