//! Friends by eBPF: programs in a cgroup of the bench's own, by plain TCP and with `midmile friends attach`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::{Measured, Program, Side, free_addr};
use crate::{Options, Row, Running, ratios};

const WAYS: [&str; 2] = ["TCP", "friends by eBPF"];

/// nginx waits for edges, and stays on TCP: what that costs.
const PROGRAMS: [Program; 4] =
    [Program::Redis { clients: 1 }, Program::Redis { clients: 50 }, Program::Nginx { kept: 20 }, Program::NginxVisits];

/// A cgroup of version 2, removed at the end: its processes have ended by then.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let mount = mount.context("there's no cgroup of version 2: mount -t cgroup2 none /sys/fs/cgroup")?;
        let path = Path::new(mount).join(format!("midmile-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("can't make {}; it needs root", path.display()))?;
        Ok(Self(path))
    }

    /// A command that runs in it.
    pub(crate) fn within<'a>(&self, program: &OsStr, arguments: impl Iterator<Item = &'a OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0).arg(program).args(arguments);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// `midmile friends attach`, until it's let go.
pub(crate) struct Attached(Running);

impl Attached {
    pub(crate) fn to(midmile: &Path, cgroup: &Cgroup) -> Result<Self> {
        let mut command = Command::new(midmile);
        command.args(["friends", "attach", "--cgroup"]).arg(&cgroup.0).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Running(command.spawn()?);
        let said = process.0.stdout.take().context("a pipe was asked for")?;
        let line = BufReader::new(said).lines().next().context("`midmile friends attach` ended")??;
        ensure!(line.starts_with("ready"), "`midmile friends attach` says {line}");
        Ok(Self(process))
    }

    /// In order, so that the programs leave the cgroup.
    pub(crate) fn end(mut self) -> Result<()> {
        let process = Pid::from_raw(self.0.0.id().cast_signed()).context("a process has a number")?;
        kill_process(process, Signal::TERM)?;
        let status = self.0.0.wait()?;
        ensure!(status.success(), "`midmile friends attach` ended with {status}");
        Ok(())
    }
}

/// Measures all programs and prints a table.
pub(crate) fn run(options: &Options, midmile: &Path, wanted: impl Fn(&Row) -> bool) -> Result<()> {
    let cgroup = Cgroup::new()?;
    ratios::run(options, (WAYS, &PROGRAMS), wanted, |way, program| {
        let attached = (way == 1).then(|| Attached::to(midmile, &cgroup)).transpose()?;
        let measured = measure(&cgroup, program, options.one_cpu);
        attached.map_or(Ok(()), Attached::end)?;
        measured.with_context(|| format!("{} by {}", program.name(), WAYS[way]))
    })
}

fn measure(cgroup: &Cgroup, program: Program, one_cpu: bool) -> Result<Measured> {
    let directory = std::env::temp_dir().join(format!("midmile-bench-friends-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let measured = free_addr().and_then(|addr| {
        program.measure(&directory, addr, addr, |words, side| {
            let cpu = if side == Side::Server && !one_cpu { "1" } else { "0" };
            let arguments = ["-c", cpu].into_iter().chain(words.iter().map(String::as_str));
            cgroup.within(OsStr::new("taskset"), arguments.map(OsStr::new))
        })
    });
    fs::remove_dir_all(&directory).ok();
    measured
}
