//! A stage: one server, one proxy, and the clients of one measurement.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cpus::PROXY_CPU;
use crate::host::Host;
use crate::lab::{Lab, PROXY_ADDR, SERVER};
use crate::launch::{Launch, LoadProcess, Process};
use crate::peers::{Peer, Wiring};
use crate::ports;

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
        let server = Launch::load("server", &lab.server, &lab.dir, SERVER, &[])?.spawn_load()?;
        let listen = SocketAddrV4::new(PROXY_ADDR, ports::PROXIES.next());
        let command = (peer.command)(&Wiring { listen, to: SERVER, dir: &lab.dir, host })?;
        let (mut proxy, connect_to) = match command {
            Some(command) => {
                let log = lab.dir.join(format!("{}.log", peer.name));
                let launch = Launch { name: peer.name, netns: &lab.proxy, cpu: PROXY_CPU, log, command };
                (Some(launch.spawn().with_context(|| format!("start {}", peer.name))?), listen)
            }
            None => (None, SERVER),
        };
        let probe = Launch::load("probe", &lab.client, &lab.dir, connect_to, &[])?;
        match &mut proxy {
            Some(proxy) => proxy.ready_by(&probe)?,
            None => probe.run().with_context(|| format!("{} isn't ready", peer.name))?,
        }
        Ok(Self { lab, timing, server, proxy, connect_to })
    }

    /// Starts a client and waits until its connections stand.
    pub(crate) fn client(&mut self, kind: &str, conns: usize, more: &[&str]) -> Result<LoadProcess> {
        let conns = conns.to_string();
        let args = [&["--conns", &conns], more].concat();
        let launch = Launch::load(kind, &self.lab.client, &self.lab.dir, self.connect_to, &args)?;
        let mut client = launch.spawn_load()?;
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
