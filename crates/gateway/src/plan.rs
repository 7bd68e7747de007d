//! The checked configuration: what the relay does, with every relation between limits already verified.
//!
//! The binary reads what the operator typed into raw types, checks it, and makes a [`Plan`]. No socket is opened in between.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use midmile_engine::{Addr, LegOptions};
use midmile_mux::Service;
use midmile_wire::proxy;

use crate::backend::BackendSet;
use crate::trunk::{Gate, Peer, Rule, Via};

/// Everything that the cores need to serve: routes and limits. Replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The routes, one a listener.
    pub routes: Vec<Arc<Route>>,
    /// The gateways that trunks lead to.
    pub peers: Vec<Arc<Peer>>,
    /// Limits of the whole process.
    pub limits: Limits,
}

/// One listener and where its connections go.
#[derive(Debug)]
pub struct Route {
    /// The operator's name for it; unique in a plan; a label in metrics and log.
    pub name: Arc<str>,
    /// Where it listens. Port 0 lets the kernel choose.
    pub listen: Addr,
    /// Options of the client's legs.
    pub client: LegOptions,
    /// Options of the server's legs.
    pub server: LegOptions,
    /// Where connections go on to; empty where a gate lets peers in, whose hellos say where to.
    pub backends: Arc<BackendSet>,
    /// Set where messages are carried, not bytes: by this service, whose places are those of the backends.
    pub mux: Option<Arc<Service>>,
    /// The gateways to go through, if any: the last of them dials the backend.
    pub via: Option<Via>,
    /// Set where it's peers that come in, by trunk.
    pub gate: Option<Arc<Gate>>,
    /// Whether each connection goes on to where its client wanted to go, which the firewall handed over here (TPROXY; the
    /// clients' legs are transparent then). There are no backends.
    pub original: bool,
    /// The destinations that are intercepted, where that is known: SYNs to them are this route's.
    pub intercept: Vec<Rule>,
    /// Whether the server's legs come from their client's address.
    pub spoof_client: bool,
    /// Whether the onward connection is begun at the client's SYN, where that can be heard of.
    pub early_dial: bool,
    /// Time limits of each pair.
    pub timeouts: Timeouts,
    /// PROXY protocol expected from the client, if any: a connection without a header is refused.
    pub accept_proxy: Option<proxy::Accept>,
    /// PROXY protocol sent to the server before the client's first byte, if any.
    pub send_proxy: Option<proxy::Version>,
    /// Clients that are let in; empty means all. A Unix-domain client is always let in: the socket file's mode decides.
    pub allow: Vec<IpNet>,
    /// How many pairs this route may hold on all cores together; shared evenly between the cores.
    pub pairs_max: u32,
    /// Whether a line is logged when a pair ends.
    pub log_pairs: bool,
}

#[cfg(any(test, fuzzing))]
impl Route {
    /// For tests: from `listen` to `backends`, ten pairs, and nothing else.
    pub(crate) fn plain(name: &str, listen: Addr, backends: BackendSet) -> Self {
        Self {
            name: name.into(),
            listen,
            client: LegOptions::default(),
            server: LegOptions::default(),
            backends: Arc::new(backends),
            mux: None,
            via: None,
            gate: None,
            original: false,
            intercept: Vec::new(),
            spoof_client: false,
            early_dial: false,
            timeouts: Timeouts::default(),
            accept_proxy: None,
            send_proxy: None,
            allow: Vec::new(),
            pairs_max: 10,
            log_pairs: false,
        }
    }
}

impl Route {
    /// Whether a client at `ip` is let in.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&ip))
    }

    /// Whether a connection to `local` was handed over by the firewall: it isn't to this route's own address. A listener on
    /// every address takes any of them at its port for its own, so what is intercepted must have other ports.
    #[must_use]
    pub fn is_intercepted(&self, local: SocketAddr) -> bool {
        self.listen.inet().is_some_and(|own| {
            let (own_ip, ip) = (own.ip().to_canonical(), local.ip().to_canonical());
            own.port() != local.port() || !(own_ip.is_unspecified() || own_ip == ip)
        })
    }

    /// Whether a SYN to `destination` is intercepted for this route.
    #[must_use]
    pub fn intercepts(&self, destination: SocketAddr) -> bool {
        let ip = destination.ip().to_canonical();
        self.intercept.iter().any(|rule| rule.ports.contains(&destination.port()) && rule.net.contains(&ip))
    }
}

/// Time limits of a pair. None is ever infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the client's acceptance (or its PROXY header) to an established server leg, over all attempts.
    pub dial: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte, once one side has finished sending.
    pub half_closed: Duration,
    /// For the whole PROXY header to arrive; on a trunk listener, for the whole handshake.
    pub header: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(5),
            idle: Duration::from_mins(60),
            half_closed: Duration::from_mins(1),
            header: Duration::from_secs(5),
        }
    }
}

/// By what the loops wait for their sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitBy {
    /// epoll(7): any kernel; a system call for each transfer.
    #[default]
    Epoll,
    /// io_uring: one system call a turn for all small transfers. Linux 6.1 ([`midmile_engine::probe::io_uring`]).
    IoUring,
}

/// Limits of the whole process, and what else its loops have from the start; the cores share them evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By what the loops wait.
    pub wait_by: WaitBy,
    /// How long a loop looks for events before it sleeps; zero: it sleeps at once. A loop that looks takes its CPU whole.
    pub busy_poll: Duration,
    /// Loops, one a core, each on a thread of its own that is pinned to a CPU. At least 1.
    pub cores: u16,
    /// Pairs open at once.
    pub pairs_max: u32,
    /// Trunk connections that may wait ready, or be on the way there, to all peers together.
    pub pooled_max: u32,
    /// Connections to backends by which messages go, on all cores together; there's room for them besides the pairs.
    pub upstreams_max: u32,
    /// Bytes of the longest message that is carried; 0 where none are. Each core's buffer holds as many.
    pub message_max: u32,
    /// Pipes that bulk directions may hold at once. A direction that finds none is copied.
    pub pipes_max: u32,
    /// Capacity asked for each pipe, in bytes (`F_SETPIPE_SZ`); the kernel caps it for unprivileged users.
    pub pipe_bytes: u32,
}
