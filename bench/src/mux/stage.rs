//! A stage: the name server, one proxy before it, and the clients of one measurement.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::backend;
use super::peers::{Peer, Wiring};
use super::rows::Kind;
use crate::launch::{Launch, LoadProcess, Process};
use crate::measure::network;
use crate::netns::{LOAD_CPU, Lab, PROXY_ADDR, PROXY_CPU, SERVER};
use crate::peers::Host;

/// Both listen on a new port each time, below the ephemeral range: an old one may have sockets left.
const PORTS: std::ops::Range<u16> = 2000..10_000;

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
        let server_at = SocketAddrV4::new(*SERVER.ip(), next_port());
        let mut server = backend::start(lab, server_at, host.open_files)?;
        let ready = probe(lab, server_at);
        server.check_alive()?;
        ready.context("knotd isn't ready")?;
        let listen = SocketAddrV4::new(PROXY_ADDR, next_port());
        let wiring = Wiring { listen, to: server_at, dir: &lab.dir, host, patience: kind.patience() };
        let (proxy, connect_to) = match peer.command(&wiring)? {
            None => (None, server_at),
            Some(command) => {
                let log = lab.dir.join(format!("{}.log", peer.name));
                let launch = Launch { name: peer.name, netns: &lab.proxy, cpu: PROXY_CPU, log, command };
                let mut proxy = launch.spawn().with_context(|| format!("start {}", peer.name))?;
                let ready = probe(lab, listen);
                proxy.check_alive()?;
                ready.with_context(|| format!("{} isn't ready", peer.name))?;
                (Some(proxy), listen)
            }
        };
        Ok(Self { lab, timing, server, server_at, proxy, connect_to })
    }

    /// Starts a client of a kind, with more arguments, and waits until it answers.
    pub(crate) fn client(&mut self, kind: &'static str, more: &[&str]) -> Result<LoadProcess> {
        let mut command = bench(["load", kind, &self.connect_to.to_string()])?;
        command.extend(more.iter().map(OsString::from));
        let log = self.lab.dir.join(format!("load-{kind}.log"));
        let netns = &self.lab.client;
        let mut client = Launch { name: kind, netns, cpu: LOAD_CPU, log, command }.spawn_load()?;
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

fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start)
}

/// Waits until a question is answered there.
fn probe(lab: &Lab, at: SocketAddrV4) -> Result<()> {
    let command = bench(["load", "probe", &at.to_string(), "--dns"])?;
    let log = lab.dir.join("probe.log");
    Launch { name: "probe", netns: &lab.client, cpu: LOAD_CPU, log, command }.run()
}

/// A command line of this same program.
fn bench<const N: usize>(args: [&str; N]) -> Result<Vec<OsString>> {
    let mut command = vec![std::env::current_exe()?.into_os_string()];
    command.extend(args.map(OsString::from));
    Ok(command)
}
