//! The host: what a command needs of it, and what it offers the programs under test.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cpus::LOAD_CPU;
use crate::launch;
use crate::machine::Machine;

/// What the host offers.
pub(crate) struct Host {
    /// The program the bench is about.
    pub(crate) midmile: PathBuf,
    /// The bare splice loop.
    pub(crate) floor: PathBuf,
    /// Files a process may have open.
    pub(crate) open_files: u64,
}

impl Host {
    /// Raises the limit of open files, and looks for programs beside this one unless `midmile` says where that is.
    pub(crate) fn prepare(midmile: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            midmile: midmile.map_or_else(|| beside("midmile"), Ok)?,
            floor: beside("midmile-bench-floor")?,
            open_files: launch::raise_open_files()?,
        })
    }
}

/// The path of a program in this one's directory.
pub(crate) fn beside(program: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.parent().context("this program is in no directory")?.join(program))
}

/// Fails where `command` can't make network namespaces.
pub(crate) fn require_root(command: &str) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "{command} makes network namespaces: run it as root");
    Ok(())
}

/// Looks for the programs now that the lab will need, before minutes of measuring are lost for want of one.
pub(crate) fn require_programs(programs: &[&str]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
        ensure!(found, "{program} isn't installed: apt-get install iproute2 ethtool procps util-linux");
    }
    Ok(())
}

/// Fails where `command` has no CPU for each of two, such as "the proxy" and "the load".
pub(crate) fn require_cpus(command: &str, machine: &Machine, [one, other]: [&str; 2]) -> Result<()> {
    ensure!(machine.cores() > LOAD_CPU, "{command} needs two CPUs: one for {one}, one for {other}");
    Ok(())
}
