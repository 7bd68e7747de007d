//! The configuration: raw as typed ([`raw`]), then checked ([`check`]) into [`Config`]. No socket is opened and no name resolved
//! on the way; [`crate::resolve`] then makes a plan of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use midmile_engine::LegOptions;
use midmile_gateway::{Balance, HealthCheck, PoolLimits, Rule, Timeouts, WaitBy};
use midmile_mux::{Bounds, SOCKETS_MAX};
use midmile_wire::frame::Framing;
use midmile_wire::proxy;
use midmile_wire::trunk::{Key, Name};

use crate::addr::Endpoint;
use crate::exit::Failure;
use crate::host::Host;

mod allowed;
mod check;
mod leg;
mod listener;
mod messages;
mod mistake;
mod raw;
mod reference;
mod transparent;
mod trunk;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use allowed::Allowed;
pub(crate) use messages::framing_of;
pub(crate) use reference::reference;
pub(crate) use value::{Level, Protocol, WindowBy, parse_period};

/// Drain deadline unless the operator says otherwise.
pub(crate) const DRAIN_DEFAULT: Duration = Duration::from_secs(30);
/// Pairs open at once unless the operator says otherwise, if the descriptors allow it.
pub(crate) const PAIRS_MAX_DEFAULT: u32 = 100_000;
/// Pipes unless the operator says otherwise, if the descriptors allow it.
pub(crate) const PIPES_MAX_DEFAULT: u32 = 1024;
/// Capacity of a pipe unless the operator says otherwise.
pub(crate) const PIPE_BYTES_DEFAULT: u32 = 1 << 20;
/// Longest that a loop may be asked to look for events without sleeping.
pub(crate) const BUSY_POLL_MAX: Duration = Duration::from_secs(1);
/// Longest that any duration may be: none is infinite.
pub(crate) const PERIOD_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A checked configuration. Names in it are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where the admin server listens, if it does: never a Unix-domain socket.
    pub(crate) admin: Option<Endpoint>,
    pub(crate) limits: Limits,
    /// How long pairs may go on after SIGTERM.
    pub(crate) drain: Duration,
    pub(crate) log_pairs: bool,
    /// The operator's level; `None`: the default.
    pub(crate) log_level: Option<Level>,
    /// This gateway's name towards its peers; there if it has any.
    pub(crate) gateway: Option<Name>,
    /// By what windows are opened.
    pub(crate) window_by: WindowBy,
    /// By what the loops wait, and how long they look before they sleep.
    pub(crate) wait_by: WaitBy,
    pub(crate) busy_poll: Duration,
    /// Where legs that ask for friends meet them; `None`: where `midmile friends run` does by default.
    pub(crate) friends_dir: Option<PathBuf>,
    /// Never empty where there's no trunk.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) trunks: Vec<Trunk>,
}

/// Limits as asked for; `None` leaves the choice to midmile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) cores: Option<u16>,
    pub(crate) pairs_max: Option<u32>,
    pub(crate) pipes_max: Option<u32>,
    pub(crate) pipe_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cores: None, pairs_max: None, pipes_max: None, pipe_bytes: PIPE_BYTES_DEFAULT }
    }
}

/// One listener and its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Unique in a configuration.
    pub(crate) name: Arc<str>,
    pub(crate) listen: Endpoint,
    /// 1 to 64, all different; none with `original`.
    pub(crate) to: Vec<Endpoint>,
    /// Each connection goes on to where its client wanted to go; then `listen` is an address and `client.transparent` set.
    pub(crate) original: bool,
    /// What is handed over by the firewall, where `client.transparent` is set.
    pub(crate) intercept: Vec<Rule>,
    /// Servers see their client's address.
    pub(crate) spoof_client: bool,
    /// The gateways to go through; empty: `to` is dialled from here.
    pub(crate) via: Vec<Name>,
    /// Whether the onward connection is begun at the client's SYN.
    pub(crate) early_dial: bool,
    pub(crate) balance: Balance,
    pub(crate) accept_proxy: Option<proxy::Accept>,
    pub(crate) send_proxy: Option<proxy::Version>,
    pub(crate) allow: Vec<IpNet>,
    pub(crate) pairs_max: Option<u32>,
    /// Only where `to` holds a name.
    pub(crate) resolve_every: Option<Duration>,
    pub(crate) client: LegOptions,
    pub(crate) server: LegOptions,
    pub(crate) timeouts: Timeouts,
    pub(crate) health: Option<HealthCheck>,
    /// Set where messages are carried, not bytes.
    pub(crate) messages: Option<Messages>,
}

/// How a listener carries messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Messages {
    /// How requests are told apart.
    pub(crate) framing: Framing,
    pub(crate) bounds: Bounds,
    /// The backends that are asked by datagrams; none but with DNS.
    pub(crate) udp: BTreeSet<Endpoint>,
}

/// Another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Unique in a configuration.
    pub(crate) name: Name,
    pub(crate) address: Option<Endpoint>,
    pub(crate) key: Key,
    /// Whether the key is everybody's.
    pub(crate) plain: bool,
    pub(crate) leg: LegOptions,
    pub(crate) pool: PoolLimits,
    pub(crate) dead_after: Option<Duration>,
}

/// Where peers come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trunk {
    /// Unique in a configuration, among the listeners' as well.
    pub(crate) name: Arc<str>,
    pub(crate) listen: Endpoint,
    pub(crate) peers: Vec<Name>,
    pub(crate) allow: Vec<Allowed>,
    pub(crate) onward: Vec<Name>,
    /// Servers see their client's address.
    pub(crate) spoof_client: bool,
    pub(crate) send_proxy: Option<proxy::Version>,
    pub(crate) pairs_max: Option<u32>,
    /// Only where `allow` holds a name.
    pub(crate) resolve_every: Option<Duration>,
    pub(crate) leg: LegOptions,
    pub(crate) dead_after: Option<Duration>,
    pub(crate) server: LegOptions,
    pub(crate) timeouts: Timeouts,
}

impl Config {
    /// Sockets for datagrams to backends that a core has, those included that go out of use while others take their place.
    pub(crate) fn sockets_max(&self) -> u64 {
        let backends = self.listeners.iter().filter_map(|listener| listener.messages.as_ref());
        backends.map(|messages| (messages.udp.len() * SOCKETS_MAX) as u64).sum()
    }
}

impl Listener {
    /// From `listen` to `to`, everything else by default.
    pub(crate) fn new(name: &str, listen: Endpoint, to: Vec<Endpoint>) -> Self {
        Self {
            name: name.into(),
            listen,
            to,
            original: false,
            intercept: Vec::new(),
            spoof_client: false,
            via: Vec::new(),
            early_dial: false,
            balance: Balance::default(),
            accept_proxy: None,
            send_proxy: None,
            allow: Vec::new(),
            pairs_max: None,
            resolve_every: None,
            client: LegOptions::default(),
            server: LegOptions::default(),
            timeouts: Timeouts::default(),
            health: None,
            messages: None,
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`Failure::Usage`] with one line for each mistake.
pub(crate) fn load(path: &Path, host: &Host) -> Result<Config, Failure> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("{file}: can't read it: {error}; give --config a readable file")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::usage(format!("{file}:{line}: not UTF-8; save the file as UTF-8"))
    })?;
    parse(&file, &text, host).map_err(Failure::Usage)
}

/// Reads and checks `text`; `file` is named in mistakes.
///
/// # Errors
/// One line for each mistake.
pub(crate) fn parse(file: &str, text: &str, host: &Host) -> Result<Config, Vec<String>> {
    let mut mistakes = mistake::Mistakes::new(file, text);
    let raw = raw::parse(text, &mut mistakes);
    let config = check::check(raw, host, &mut mistakes);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes.into_lines()),
    }
}
