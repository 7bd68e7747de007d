//! The workplace: what a run has to itself while it measures.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cpus::{self, LOAD_CPU};
use crate::janitor::Janitor;
use crate::turn;

/// The turn on this machine, a directory, and a janitor who removes that and what else a run makes. Whatever is made here is dropped
/// before it.
pub(crate) struct Workplace {
    /// To be told of what is made, before it's made.
    pub(crate) janitor: Janitor,
    /// For logs and configuration files.
    pub(crate) dir: PathBuf,
    /// Held until the janitor is done.
    _turn: UnixListener,
}

impl Workplace {
    /// Waits until no other run measures.
    pub(crate) fn take() -> Result<Self> {
        let turn = turn::take()?;
        let mut janitor = Janitor::start()?;
        let dir = std::env::temp_dir().join(format!("midmile-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        janitor.owns_dir(&dir)?;
        Ok(Self { janitor, dir, _turn: turn })
    }

    /// The same; and what the bench itself does is done on the load's CPU.
    pub(crate) fn take_on_load_cpu() -> Result<Self> {
        let workplace = Self::take()?;
        cpus::pin(None, LOAD_CPU).context("pin the bench")?;
        Ok(workplace)
    }
}
