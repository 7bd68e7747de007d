//! Patience: a measurement that others disturbed is made again, within a budget of time.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::cpu;
use crate::table::Outcome;

/// More than this share of one CPU disturbs.
pub(crate) const OTHERS_PERCENT_MAX: f64 = 10.0;
/// How long others are watched to call the machine quiet.
const WATCH: Duration = Duration::from_millis(300);

/// Time that may still be spent on waiting and measuring again.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Cell<Duration>,
}

impl Patience {
    /// Patience for a whole run.
    pub(crate) const fn new(budget: Duration) -> Self {
        Self { left: Cell::new(budget) }
    }

    /// Measures `what`, and again while others disturb and patience lasts.
    pub(crate) fn measure(&self, what: &impl Display, measure: impl Fn() -> Outcome) -> Outcome {
        loop {
            let began = Instant::now();
            let outcome = measure();
            match outcome.is_disturbed().then(|| self.again(began.elapsed())) {
                Some(Ok(true)) => eprintln!("{what}: disturbed, again"),
                Some(Err(error)) => return Outcome::Failed(format!("{error:#}")),
                Some(Ok(false)) | None => return outcome,
            }
        }
    }

    /// Whether a measurement that took `spent` and was disturbed is to be made again; pays for it and waits for quiet.
    fn again(&self, spent: Duration) -> Result<bool> {
        let left = self.left.get();
        if left.is_zero() {
            return Ok(false);
        }
        let began = Instant::now();
        while began.elapsed() + spent < left && others_percent()? > OTHERS_PERCENT_MAX {}
        self.left.set(left.saturating_sub(began.elapsed() + spent));
        Ok(true)
    }
}

fn others_percent() -> Result<f64> {
    let before = cpu::others_seconds()?;
    std::thread::sleep(WATCH);
    Ok((cpu::others_seconds()? - before) / WATCH.as_secs_f64() * 100.0)
}
