//! The proxies under test, each on one core and without a cache, and no proxy at all.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::rows::Kind;
use crate::choice::Named;
use crate::comparison::Compared;
use crate::host::Host;
use crate::peers::first_line;

/// A proxy under test.
pub(crate) struct Peer {
    /// Its name in `--proxies` and in the table.
    pub(crate) name: &'static str,
    /// Its version, or `None` where it isn't installed.
    pub(crate) version: fn(&Host) -> Option<String>,
    /// The command that multiplexes, or `None` where the client connects to the name server itself.
    command: fn(&Wiring<'_>) -> Result<Option<Vec<OsString>>>,
    /// Why it has no part in a row.
    pub(crate) skips: fn(Kind) -> Option<&'static str>,
}

/// What a proxy is to do.
pub(crate) struct Wiring<'a> {
    /// Where it listens.
    pub(crate) listen: SocketAddrV4,
    /// The name server.
    pub(crate) to: SocketAddrV4,
    /// A directory for its configuration.
    pub(crate) dir: &'a Path,
    /// Where it runs.
    pub(crate) host: &'a Host,
    /// How long a client may say nothing, or take for a message where it has a bound for that.
    pub(crate) patience: Duration,
}

/// No proxy: what the added latency is added to.
pub(crate) const DIRECT: &str = "direct";
/// What is held to the targets; the same with a loop that looks for a while before it sleeps; and against whom.
pub(crate) const SUBJECT: &str = "midmile";
pub(crate) const BUSY: &str = "midmile-busy";
pub(crate) const AGAINST: &str = "dnsdist";

/// Every peer, in the order of the table.
pub(crate) const PEERS: [&Peer; 5] = [
    &Peer {
        name: DIRECT,
        version: |_| first_line("knotd", "--version"),
        command: |_| Ok(None),
        skips: |kind| match kind {
            Kind::Idle { .. } | Kind::Slow { .. } => Some("no proxy"),
            _ => None,
        },
    },
    &Peer {
        name: SUBJECT,
        version: |host| first_line(&host.midmile, "--version"),
        command: |wiring| midmile(wiring, &[]),
        skips: |_| None,
    },
    &Peer {
        name: "midmile-uring",
        version: |host| first_line(&host.midmile, "--version"),
        command: |wiring| midmile(wiring, &["--wait-by", "io_uring"]),
        skips: |_| None,
    },
    &Peer {
        name: BUSY,
        version: |host| first_line(&host.midmile, "--version"),
        command: |wiring| midmile(wiring, &["--busy-poll", "200us"]),
        skips: |kind| (kind != Kind::Alone).then_some("busy-poll is for few messages"),
    },
    &Peer { name: AGAINST, version: |_| first_line("dnsdist", "--version"), command: dnsdist, skips: |_| None },
];

/// Questions of one client that dnsdist takes at once, and of all its clients on one connection to the server.
const IN_FLIGHT: u32 = 4096;

impl Named for Peer {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Compared<Kind> for Peer {
    fn has_place_in(&self, _: Kind) -> bool {
        true
    }
}

impl Peer {
    /// The command that multiplexes, if it's a program that does.
    pub(crate) fn command(&self, wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
        (self.command)(wiring)
    }
}

fn midmile(wiring: &Wiring<'_>, more: &[&str]) -> Result<Option<Vec<OsString>>> {
    let patience = format!("{}s", wiring.patience.as_secs());
    let (listen, to) = (wiring.listen.to_string(), wiring.to.to_string());
    let args = ["mux", "--framing", "dns", "--cores", "1", "--listen", &listen, "--to", &to];
    let timeouts = ["--idle-timeout", &patience, "--message-timeout", &patience];
    let mut command = vec![OsString::from(&wiring.host.midmile)];
    command.extend(args.iter().chain(&timeouts).chain(more).map(OsString::from));
    Ok(Some(command))
}

/// As its manual's chapters on tuning and on answers out of order say: one worker for one core, many questions in flight on each side, a
/// backlog for all, connections to the server kept; no checks of the server's health, no look for updates, no cache.
fn dnsdist(wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
    let Wiring { listen, to, dir, patience, .. } = wiring;
    let patience = patience.as_secs();
    let file = dir.join("dnsdist.conf");
    let configuration = format!(
        "setSecurityPollSuffix(\"\")
setACL(\"0.0.0.0/0\")
setMaxTCPClientThreads(1)
setMaxTCPQueuedConnections(0)
setTCPInternalPipeBufferSize(1048576)
setMaxCachedTCPConnectionsPerDownstream(100)
setTCPRecvTimeout({patience})
setTCPSendTimeout({patience})
setLocal(\"{listen}\", {{ maxInFlight = {IN_FLIGHT}, tcpListenQueueSize = 4096 }})
newServer({{ address = \"{to}\", tcpOnly = true, maxInFlight = {IN_FLIGHT} }})
getServer(0):setUp()
"
    );
    fs::write(&file, configuration).context("write dnsdist's configuration")?;
    let mut command: Vec<OsString> = ["dnsdist", "--supervised", "--disable-syslog", "-C"].map(OsString::from).into();
    command.push(file.into());
    Ok(Some(command))
}
