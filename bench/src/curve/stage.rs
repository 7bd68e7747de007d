//! A stage: one server, the hog beside it, and the client of one measurement.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::link::{CLIENT, Link, SERVER_CPU};
use super::peers::Peer;
use super::rows::Kind;
use crate::launch::{Launch, LoadProcess, Process, this_program};
use crate::ports::Ports;

/// Where servers listen: below the first port that a client gets.
static PORTS: Ports = Ports::new(100..1000);
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
        let at = Link::server_at(PORTS.next());
        let mut command: Vec<OsString> = vec![program.into()];
        command.extend(peer.arguments(at, &link.device, kind.conns()).into_iter().map(OsString::from));
        let log = link.dir.join(format!("{}.log", peer.name));
        let launch = Launch { name: peer.name, netns: &link.server, cpu: SERVER_CPU, log, command };
        let mut server = launch.spawn().with_context(|| format!("start {}", peer.name))?;
        server.ready_by(&Launch::load("probe", &link.client, &link.dir, at, &["--framed"])?)?;
        let hog = (kind.saturated() && timing.hog_busy_us > 0).then(|| hog(link, timing)).transpose()?;
        Ok(Self { link, timing, server, _hog: hog, at })
    }

    /// Starts a client that asks on `conns` connections, only `once` on each if so.
    pub(crate) fn asker(&mut self, conns: usize, once: bool) -> Result<LoadProcess> {
        let (conns, source) = (conns.to_string(), CLIENT.to_string());
        let mut args = vec!["--conns", &conns, "--source", &source];
        args.extend(once.then_some("--once"));
        self.client("ask", &args)
    }

    /// Starts a client that makes `conns` short connections at a time.
    pub(crate) fn visitor(&mut self, conns: usize) -> Result<LoadProcess> {
        self.client("visit", &["--conns", &conns.to_string()])
    }

    fn client(&mut self, kind: &str, args: &[&str]) -> Result<LoadProcess> {
        let mut client = Launch::load(kind, &self.link.client, &self.link.dir, self.at, args)?.spawn_load()?;
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
    command.extend(this_program(&[
        "hog",
        "--busy-us",
        &busy,
        "--every-us",
        &every,
        "--seconds",
        &HOG_SECONDS.to_string(),
    ])?);
    let log = link.dir.join("hog.log");
    let mut hog = Launch { name: "hog", netns: &link.server, cpu: SERVER_CPU, log, command }.spawn()?;
    // One that can't have its priority ends at once.
    std::thread::sleep(Duration::from_millis(20));
    hog.check_alive()?;
    Ok(hog)
}
