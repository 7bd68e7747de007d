//! The hog: takes most of a CPU, so that what runs beside it there is the limit although the load is made by one CPU alone.
//!
//! It runs at a real-time priority above everything else on that CPU, for a bounded time, and ends with its parent.

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

/// Options of the hidden `hog` subcommand.
#[derive(Debug, Args)]
pub(crate) struct Hog {
    /// Microseconds taken.
    #[arg(long)]
    busy_us: u64,
    /// Out of so many.
    #[arg(long)]
    every_us: u64,
    /// Seconds after which it ends.
    #[arg(long)]
    seconds: u64,
}

/// Spins and sleeps in turn.
pub(crate) fn run(hog: &Hog) -> Result<()> {
    ensure!(hog.busy_us < hog.every_us, "a hog leaves something over: --busy-us is below --every-us");
    let busy = Duration::from_micros(hog.busy_us);
    let rest = Duration::from_micros(hog.every_us - hog.busy_us);
    let end = Instant::now() + Duration::from_secs(hog.seconds);
    while Instant::now() < end {
        let began = Instant::now();
        while began.elapsed() < busy {
            spin_loop();
        }
        thread::sleep(rest);
    }
    Ok(())
}
