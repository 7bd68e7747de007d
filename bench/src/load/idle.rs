//! Idle: connections that have exchanged one message and then do nothing.

use std::net::SocketAddrV4;

use anyhow::{Context, Result};

use super::control::{self, Order};
use super::socket;
use super::speech::Speech;
use super::tally::Tally;

/// Opens the connections one after another; answers orders once all are open, and closes them at the end.
pub(super) fn run(to: SocketAddrV4, conns: usize) -> Result<()> {
    let mut tally = Tally::new();
    let mut open = Vec::with_capacity(conns);
    for _ in 0..conns {
        let fd = socket::connected(to)?;
        socket::reset_on_close(&fd)?;
        Speech::Echo.exchange(&fd).with_context(|| format!("connection {} of {conns}", open.len() + 1))?;
        tally.counters.requests += 1;
        open.push(fd);
    }
    while control::take()? == Order::Report {
        tally.report()?;
    }
    Ok(())
}
