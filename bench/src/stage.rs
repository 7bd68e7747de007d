//! A stage: one server, one proxy, and the clients of one measurement.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::launch::{Launch, LoadProcess, Process};
use crate::netns::{LOAD_CPU, Lab, PROXY_ADDR, PROXY_CPU, SERVER};
use crate::peers::{Host, Peer, Wiring};

/// Proxies listen on ports below the ephemeral range, a new one each time: an old one may have sockets left.
const PORTS: std::ops::Range<u16> = 2000..10_000;

/// How long things take, and what this host can measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Before a window opens.
    pub(crate) warm_up: Duration,
    /// One window of measurement.
    pub(crate) window: Duration,
    /// How long the slow reader reads.
    pub(crate) slow: Duration,
    /// Whether `perf` counts cycles here.
    pub(crate) cycles: bool,
}

/// Server and proxy, running.
pub(crate) struct Stage<'a> {
    lab: &'a Lab,
    /// How long things take.
    pub(crate) timing: Timing,
    /// The load server.
    pub(crate) server: LoadProcess,
    /// The proxy, unless the kernel routes.
    pub(crate) proxy: Option<Process>,
    connect_to: SocketAddrV4,
}

impl<'a> Stage<'a> {
    /// Starts server and proxy and waits until one exchange through both succeeded.
    pub(crate) fn open(lab: &'a Lab, peer: &Peer, host: &Host, timing: Timing) -> Result<Self> {
        let server = load(lab, &lab.server, "server", vec!["server".into(), SERVER.to_string().into()])?;
        let listen = SocketAddrV4::new(PROXY_ADDR, next_port());
        let command = (peer.command)(&Wiring { listen, to: SERVER, dir: &lab.dir, host })?;
        let (mut proxy, connect_to) = match command {
            Some(command) => {
                let log = lab.dir.join(format!("{}.log", peer.name));
                let launch = Launch { name: peer.name, netns: &lab.proxy, cpu: PROXY_CPU, log, command };
                (Some(launch.spawn().with_context(|| format!("start {}", peer.name))?), listen)
            }
            None => (None, SERVER),
        };
        let probe = load_command(vec!["probe".into(), connect_to.to_string().into()])?;
        let log = lab.dir.join("probe.log");
        let ready = Launch { name: "probe", netns: &lab.client, cpu: LOAD_CPU, log, command: probe }.run();
        if let Some(proxy) = &mut proxy {
            proxy.check_alive()?;
        }
        ready.with_context(|| format!("{} isn't ready", peer.name))?;
        Ok(Self { lab, timing, server, proxy, connect_to })
    }

    /// Starts a client and waits until its connections stand.
    pub(crate) fn client(&mut self, kind: &str, conns: usize, more: &[&str]) -> Result<LoadProcess> {
        let mut args: Vec<OsString> = vec![kind.into(), self.connect_to.to_string().into()];
        args.extend(["--conns".into(), conns.to_string().into()]);
        args.extend(more.iter().map(OsString::from));
        let mut client = load(self.lab, &self.lab.client, kind, args)?;
        client.mark().and_then(|_| self.check_alive().map(|()| client))
    }

    /// Waits for the warm-up's time.
    pub(crate) fn warm_up(&self) {
        std::thread::sleep(self.timing.warm_up);
    }

    /// Fails if the proxy has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.proxy.as_mut().map_or(Ok(()), Process::check_alive)
    }
}

fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start)
}

fn load(lab: &Lab, netns: &str, name: &str, args: Vec<OsString>) -> Result<LoadProcess> {
    let log = lab.dir.join(format!("load-{name}.log"));
    Launch { name, netns, cpu: LOAD_CPU, log, command: load_command(args)? }.spawn_load()
}

fn load_command(args: Vec<OsString>) -> Result<Vec<OsString>> {
    let mut command = vec![std::env::current_exe()?.into_os_string(), "load".into()];
    command.extend(args);
    Ok(command)
}
