//! The janitor removes what a run made, however the run ended.
//!
//! It is a child in a process group of its own (Ctrl-C does not reach it) that reads one line for each thing to remove, and acts at end of file. The pipe
//! closes when the bench returns, fails, panics, is interrupted or is killed: one cleaning path for all of them, and no
//! signal handlers.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Where `ip netns` keeps its namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";
/// How long the janitor waits for killed processes to go.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// The bench's end of the pipe: dropping it makes the janitor act, and waits for it.
pub(crate) struct Janitor {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the janitor process.
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("janitor")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the janitor")?;
        let orders = child.stdin.take();
        Ok(Self { child, orders })
    }

    /// Will kill every process in the namespace `name` and delete it.
    pub(crate) fn owns_netns(&mut self, name: &str) -> Result<()> {
        self.order(&format!("netns {name}"))
    }

    /// Will remove the directory `path`.
    pub(crate) fn owns_dir(&mut self, path: &Path) -> Result<()> {
        self.order(&format!("dir {}", path.display()))
    }

    fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the janitor has been dismissed")?;
        writeln!(orders, "{line}").context("tell the janitor")
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.child.wait() {
            eprintln!("wait for the janitor: {error}");
        }
    }
}

/// The janitor process: collect orders until end of file, then carry them out.
pub(crate) fn run() -> Result<()> {
    let orders: Vec<String> = BufReader::new(io::stdin()).lines().collect::<io::Result<_>>()?;
    for order in &orders {
        let done = match order.split_once(' ') {
            Some(("netns", name)) => remove_netns(name),
            Some(("dir", path)) => fs::remove_dir_all(path).with_context(|| format!("remove {path}")),
            _ => Ok(()),
        };
        if let Err(error) = done {
            eprintln!("clean up: {error:#}");
        }
    }
    Ok(())
}

/// Kills the processes in a namespace that the bench made, then deletes it.
pub(crate) fn remove_netns(name: &str) -> Result<()> {
    let path = PathBuf::from(NETNS_DIR).join(name);
    let Ok(namespace) = fs::metadata(&path) else {
        return Ok(());
    };
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let inside = processes_in(namespace.ino())?;
        if inside.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in inside {
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("kill a process in the namespace"),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = Command::new("ip").args(["netns", "del", name]).status().context("run ip")?;
    anyhow::ensure!(status.success(), "ip netns del {name}: {status}");
    Ok(())
}

/// Processes whose network namespace has the inode `ino`; zombies have none and are left out.
fn processes_in(ino: u64) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process that ends while we look has no namespace any more.
        if fs::metadata(entry.path().join("ns/net")).is_ok_and(|meta| meta.ino() == ino) {
            found.push(pid);
        }
    }
    Ok(found)
}
