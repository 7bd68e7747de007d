//! A stage: one server, the hog beside it, and the client of one measurement.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::link::{CLIENT, Link, SERVER_CPU};
use super::peers::Peer;
use super::rows::Kind;
use crate::launch::{Launch, LoadProcess, Process};
use crate::netns::LOAD_CPU;

/// Servers listen on a new port each time: an old one may have sockets left. All below the first port that a client gets.
const PORTS: std::ops::Range<u16> = 100..1000;
/// A hog's end, whatever happens: longer than any one measurement.
const HOG_SECONDS: u64 = 300;

/// How long things take, and what this host can measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Before a window opens.
    pub(crate) warm_up: Duration,
    /// One window of measurement.
    pub(crate) window: Duration,
    /// Whether `perf` counts cycles here.
    pub(crate) cycles: bool,
    /// Microseconds that the hog takes.
    pub(crate) hog_busy_us: u64,
    /// Out of so many.
    pub(crate) hog_every_us: u64,
}

/// A server, running.
pub(crate) struct Stage<'a> {
    /// The lab.
    pub(crate) link: &'a Link,
    /// How long things take.
    pub(crate) timing: Timing,
    /// The server.
    pub(crate) server: Process,
    _hog: Option<Process>,
    at: SocketAddrV4,
}

impl<'a> Stage<'a> {
    /// Starts a server and waits until one exchange with it succeeded; then the hog, if the server is to be the limit.
    pub(crate) fn open(link: &'a Link, program: &Path, peer: &Peer, kind: Kind, timing: Timing) -> Result<Self> {
        let at = Link::server_at(next_port());
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(peer.arguments(at, &link.device, kind.conns()).into_iter().map(OsString::from));
        let log = link.dir.join(format!("{}.log", peer.name));
        let launch = Launch { name: peer.name, netns: &link.server, cpu: SERVER_CPU, log, command };
        let mut server = launch.spawn().with_context(|| format!("start {}", peer.name))?;
        let probe = bench(["load", "probe", &at.to_string(), "--framed"])?;
        let log = link.dir.join("probe.log");
        let ready = Launch { name: "probe", netns: &link.client, cpu: LOAD_CPU, log, command: probe }.run();
        server.check_alive()?;
        ready.with_context(|| format!("{} isn't ready", peer.name))?;
        let hog = (kind.saturated() && timing.hog_busy_us > 0).then(|| hog(link, timing)).transpose()?;
        Ok(Self { link, timing, server, _hog: hog, at })
    }

    /// Starts a client that asks on `conns` connections, only `once` on each if so.
    pub(crate) fn asker(&mut self, conns: usize, once: bool) -> Result<LoadProcess> {
        let (at, conns, source) = (self.at.to_string(), conns.to_string(), CLIENT.to_string());
        let mut command = bench(["load", "ask", &at, "--conns", &conns, "--source", &source])?;
        command.extend(once.then(|| "--once".into()));
        self.client("ask", command)
    }

    /// Starts a client that makes `conns` short connections at a time.
    pub(crate) fn visitor(&mut self, conns: usize) -> Result<LoadProcess> {
        let command = bench(["load", "visit", &self.at.to_string(), "--conns", &conns.to_string()])?;
        self.client("visit", command)
    }

    fn client(&mut self, name: &str, command: Vec<OsString>) -> Result<LoadProcess> {
        let log = self.link.dir.join(format!("load-{name}.log"));
        let mut client = Launch { name, netns: &self.link.client, cpu: LOAD_CPU, log, command }.spawn_load()?;
        client.mark().and_then(|_| self.check_alive().map(|()| client))
    }

    /// Waits for the warm-up's time.
    pub(crate) fn warm_up(&self) {
        std::thread::sleep(self.timing.warm_up);
    }

    /// Fails if the server has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.server.check_alive()
    }
}

/// Takes a part of the server's CPU, above everything else there. It's in the server's namespace, so the janitor ends it with that.
fn hog(link: &Link, timing: Timing) -> Result<Process> {
    let mut command: Vec<OsString> = ["chrt", "--fifo", "2"].map(OsString::from).into();
    let (busy, every) = (timing.hog_busy_us.to_string(), timing.hog_every_us.to_string());
    command.extend(bench(["hog", "--busy-us", &busy, "--every-us", &every, "--seconds", &HOG_SECONDS.to_string()])?);
    let log = link.dir.join("hog.log");
    let mut hog = Launch { name: "hog", netns: &link.server, cpu: SERVER_CPU, log, command }.spawn()?;
    // One that can't have its priority ends at once.
    std::thread::sleep(Duration::from_millis(20));
    hog.check_alive()?;
    Ok(hog)
}

fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start)
}

/// A command line of this same program.
fn bench<const N: usize>(args: [&str; N]) -> Result<Vec<OsString>> {
    let mut command = vec![std::env::current_exe()?.into_os_string()];
    command.extend(args.map(OsString::from));
    Ok(command)
}
