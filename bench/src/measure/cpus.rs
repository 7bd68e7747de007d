//! What the CPUs did between two looks, whoever they did it for.

use std::time::Instant;

use anyhow::Result;

use super::cpu;

/// What they had done at one time.
pub(crate) struct Cpus {
    idle: Vec<f64>,
    others: f64,
    at: Instant,
}

impl Cpus {
    /// Looks now.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self { others: cpu::others_seconds()?, idle: cpu::idle_seconds()?, at: Instant::now() })
    }

    /// Seconds from an earlier look to this one.
    pub(crate) fn seconds_since(&self, before: &Self) -> f64 {
        (self.at - before.at).as_secs_f64()
    }

    /// The share of one CPU that was in use, from 0 to 1; no number where there's no such CPU.
    pub(crate) fn busy_since(&self, before: &Self, cpu: usize) -> f64 {
        let idle = self.idle.get(cpu).zip(before.idle.get(cpu)).map_or(f64::NAN, |(after, before)| after - before);
        (1.0 - idle / self.seconds_since(before)).clamp(0.0, 1.0)
    }

    /// CPU seconds a second of all CPUs together.
    pub(crate) fn all_busy_since(&self, before: &Self) -> f64 {
        (0..self.idle.len().min(before.idle.len())).map(|cpu| self.busy_since(before, cpu)).sum()
    }

    /// CPU seconds a second of programs that have nothing to do with the measurement.
    pub(crate) fn others_since(&self, before: &Self) -> f64 {
        (self.others - before.others) / self.seconds_since(before)
    }
}
