//! Orders from the bench: a newline asks for the counters, end of file ends the process.

use std::io::{self, Write};

use anyhow::{Context, Result};

use super::counters::Counters;

/// What standard input said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Answer with one line of counters.
    Report,
    /// The bench is done with this process.
    Quit,
}

/// Reads one order; blocks where standard input isn't readable.
pub(super) fn take() -> Result<Order> {
    let mut byte = [0_u8; 1];
    match rustix::io::read(std::io::stdin(), &mut byte).context("read an order")? {
        0 => Ok(Order::Quit),
        _ => Ok(Order::Report),
    }
}

/// Answers [`Order::Report`].
pub(super) fn answer(counters: &Counters) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", counters.to_json())?;
    out.flush().context("answer the bench")
}
