//! A relay between the two processes, on a CPU that they don't have.

use std::io::{BufRead, BufReader};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::Running;

pub(crate) struct Relay {
    _running: Running,
    addr: SocketAddrV4,
}

impl Relay {
    /// Relays to `to`; its legs ask for friends in this directory, or stay plain.
    pub(crate) fn start(midmile: &Path, to: &str, friends: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(midmile).args(["relay", "--listen", "127.0.0.1:0", "--to", to]);
        if let Some(directory) = friends {
            command.args(["--friends", "--friends-dir"]).arg(directory);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Running(child.context("can't start the relay")?);
        let mut said = BufReader::new(running.0.stdout.take().context("a pipe was asked for")?).lines();
        let said = said.next().context("the relay ended")??;
        let addr = said.strip_prefix("ready listen=").and_then(|rest| rest.split(' ').next());
        let addr = addr.with_context(|| format!("the relay says {said}"))?.parse()?;
        Ok(Self { _running: running, addr })
    }

    pub(crate) const fn addr(&self) -> SocketAddrV4 {
        self.addr
    }
}
