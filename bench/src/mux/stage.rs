//! A stage: the name server, one proxy before it, and the clients of one measurement.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};

use super::backend;
use super::peers::{Peer, Wiring};
use super::rows::Kind;
use crate::cpus::PROXY_CPU;
use crate::host::Host;
use crate::lab::{Lab, PROXY_ADDR, SERVER};
use crate::launch::{Launch, LoadProcess, Process};
use crate::measure::network;
use crate::ports;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Before a window opens.
    pub(crate) warm_up: Duration,
    /// One window of measurement.
    pub(crate) window: Duration,
}

/// Name server and proxy, running.
pub(crate) struct Stage<'a> {
    lab: &'a Lab,
    /// How long things take.
    pub(crate) timing: Timing,
    server: Process,
    server_at: SocketAddrV4,
    /// The proxy, if there is one.
    pub(crate) proxy: Option<Process>,
    connect_to: SocketAddrV4,
}

impl<'a> Stage<'a> {
    /// Starts both and waits until one question was answered through both.
    pub(crate) fn open(lab: &'a Lab, peer: &Peer, host: &Host, kind: Kind, timing: Timing) -> Result<Self> {
        let server_at = SocketAddrV4::new(*SERVER.ip(), ports::PROXIES.next());
        let mut server = match kind {
            Kind::Laggard => backend::start_slow(lab, server_at)?,
            _ => backend::start(lab, server_at, host.open_files)?,
        };
        server.ready_by(&probe(lab, server_at)?)?;
        let listen = SocketAddrV4::new(PROXY_ADDR, ports::PROXIES.next());
        let wiring = Wiring { listen, to: server_at, dir: &lab.dir, host, patience: kind.patience() };
        let (proxy, connect_to) = match peer.command(&wiring)? {
            None => (None, server_at),
            Some(command) => {
                let log = lab.dir.join(format!("{}.log", peer.name));
                let launch = Launch { name: peer.name, netns: &lab.proxy, cpu: PROXY_CPU, log, command };
                let mut proxy = launch.spawn().with_context(|| format!("start {}", peer.name))?;
                proxy.ready_by(&probe(lab, listen)?)?;
                (Some(proxy), listen)
            }
        };
        Ok(Self { lab, timing, server, server_at, proxy, connect_to })
    }

    /// Starts a client of a kind, with more arguments, and waits until it answers.
    pub(crate) fn client(&mut self, kind: &'static str, more: &[&str]) -> Result<LoadProcess> {
        let launch = Launch::load(kind, &self.lab.client, &self.lab.dir, self.connect_to, more)?;
        let mut client = launch.spawn_load()?;
        client.mark().and_then(|_| self.check_alive().map(|()| client))
    }

    /// Waits for the warm-up's time.
    pub(crate) fn warm_up(&self) {
        std::thread::sleep(self.timing.warm_up);
    }

    /// Fails if the server or the proxy has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.server.check_alive()?;
        self.proxy.as_mut().map_or(Ok(()), Process::check_alive)
    }

    /// Connections that the name server has.
    pub(crate) fn backend_connections(&self) -> Result<usize> {
        network::connections_at(self.server.group(), self.server_at.port())
    }

    /// TCP segments sent again, by anybody but the client.
    pub(crate) fn retransmitted_segments(&self) -> Result<u64> {
        let of_proxy = self.proxy.as_ref().map(|proxy| network::retransmitted_segments(proxy.group()));
        Ok(network::retransmitted_segments(self.server.group())? + of_proxy.transpose()?.unwrap_or(0))
    }
}

/// Succeeds once a question is answered there.
fn probe(lab: &Lab, at: SocketAddrV4) -> Result<Launch<'_>> {
    Launch::load("probe", &lab.client, &lab.dir, at, &["--dns"])
}
