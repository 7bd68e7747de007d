//! Gateways: `midmile gateway`, or what stands in for it, as child processes in their hosts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt::Interrupt;
use crate::netns::Host;

/// How long a gateway may take until it accepts.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of a gateway's log that are kept to be shown when it fails.
const LOG_MAX: usize = 64 << 10;
/// How long one look for the ready line takes, between two looks for an interrupt.
const LOOK: Duration = Duration::from_millis(50);
/// TCP sockets over IPv4 of the reader's namespace.
const SOCKETS: &str = "/proc/thread-self/net/tcp";
/// A listener's state there.
const LISTEN: &str = "0A";

/// A running gateway; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    host: String,
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts one with a configuration. That goes through a pipe: no file is left behind, whatever happens.
    pub(crate) fn start(host: &Host, program: &Path, config: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["gateway", "--config", "/dev/stdin"]).env("MIDMILE_LOG", "info");
        Self::spawn(host, command, Some(config))
    }

    /// Starts any program that relays.
    pub(crate) fn spawn(host: &Host, mut command: Command, input: Option<&str>) -> Result<Self> {
        command
            .env_remove("NOTIFY_SOCKET")
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the lab, which ends its gateways itself.
            .process_group(0);
        let mut child = host.spawn(command)?;
        // Closed when it is written.
        let stdin = child.stdin.take().zip(input);
        let written = stdin.map_or(Ok(()), |(mut stdin, input)| stdin.write_all(input.as_bytes()));
        let (said, lines) = channel();
        let stdout = child.stdout.take().expect("it was asked for");
        let mut stderr = child.stderr.take().expect("it was asked for");
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let readers = vec![
            thread::spawn(move || hear(stdout, |line| said.send(line).is_ok())),
            thread::spawn(move || keep(&mut stderr, &kept)),
        ];
        let gateway = Self { host: host.name().to_owned(), child, lines, log, readers };
        written.with_context(|| format!("the gateway in host {} read no configuration", gateway.host))?;
        Ok(gateway)
    }

    /// Waits until it accepts.
    pub(crate) fn wait_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            interrupt.check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) if line.starts_with("ready") => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(
                        Instant::now() < deadline,
                        "the gateway in host {} isn't ready after {READY_WITHIN:?}",
                        self.host
                    );
                }
                Err(RecvTimeoutError::Disconnected) => return self.ended(),
            }
        }
    }

    /// Waits until something in the host listens on a port: of programs that don't say when they accept.
    pub(crate) fn wait_listening(&mut self, host: &Host, port: u16, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !listens(host, port)? {
            if self.child.try_wait().context("can't wait for a gateway")?.is_some() {
                return self.ended();
            }
            ensure!(Instant::now() < deadline, "nothing listens in host {} after {READY_WITHIN:?}", self.host);
            interrupt.pause(LOOK)?;
        }
        Ok(())
    }

    /// What to say of a gateway that has ended by itself.
    fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().context("can't wait for a gateway")?;
        for reader in self.readers.drain(..) {
            // It has nothing more to read, and a panic of it would only shorten the message.
            drop(reader.join());
        }
        bail!("the gateway in host {} ended: {status}\n{}", self.host, self.log().trim_end())
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a socket of the host's listens on a port, by its table (proc_pid_net(5)).
fn listens(host: &Host, port: u16) -> Result<bool> {
    let table = host.run(|| fs::read_to_string(SOCKETS))?.with_context(|| format!("can't read {SOCKETS}"))?;
    let local = format!(":{port:04X}");
    Ok(table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some(LISTEN)
    }))
}

fn hear(stdout: ChildStdout, mut heard: impl FnMut(String) -> bool) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if !heard(line) {
            return;
        }
    }
}

/// Keeps the end of what is said.
fn keep(stderr: &mut impl Read, kept: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if kept.len() > LOG_MAX {
            let cut = kept.ceil_char_boundary(kept.len() - LOG_MAX);
            kept.drain(..cut);
        }
    }
}
