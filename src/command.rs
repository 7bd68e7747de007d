//! The subcommands, one file each.

use std::io::{self, Write};

use crate::exit::{Exit, Failure, Outcome};

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod friends;
pub(crate) mod gateway;
pub(crate) mod lab;
pub(crate) mod mux;
pub(crate) mod pages;
mod process;
pub(crate) mod relay;
pub(crate) mod status;

/// Writes a subcommand's result to standard output. A reader that went away has seen all that it wanted.
fn print(text: &[u8]) -> Outcome {
    reaches(text).map(|_| Exit::Done)
}

/// Writes to standard output; false if its reader has gone away.
fn reaches(text: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Run(format!("can't write to standard output: {error}"))),
    }
}
