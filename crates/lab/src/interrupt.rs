//! Ctrl-C: the first ends the lab in order, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The longest wait between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// What a shell makes of a process that a SIGINT ended.
const EXIT_CODE: i32 = 130;

/// Whether the user wants to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes SIGINT and SIGTERM over.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order, so that the first signal finds the flag down.
            flag::register_conditional_shutdown(signal, EXIT_CODE, Arc::clone(&interrupt.asked))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.asked)))
                .context("can't handle signals")?;
        }
        Ok(interrupt)
    }

    /// Takes SIGINT over and does nothing with it: it is for the program that has the terminal.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn ignore() -> Result<()> {
        flag::register(SIGINT, Arc::default()).context("can't handle signals")?;
        Ok(())
    }

    /// # Errors
    /// The user wants to stop.
    pub fn check(&self) -> Result<()> {
        if self.asked.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits this long.
    ///
    /// # Errors
    /// The user wants to stop.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            thread::sleep(rest.min(LOOK));
        }
    }
}
