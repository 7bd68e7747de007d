//! A service: what clients of a route are given, where their requests go, and what they may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use midmile_engine::{Addr, LegOptions};
use midmile_wire::frame::{Framing, LengthPrefix};

/// How an answer finds its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// By the id in a DNS message. It's rewritten to one of the upstream's on the way there and restored on the way back; answers may come
    /// in any order, and a request whose upstream is lost is sent again.
    Id,
    /// By its place: an upstream's answers come in the order of its requests. A client with requests outstanding stays on the same
    /// upstream, so that its answers keep their order. No request is ever sent twice.
    Order,
}

/// How a backend is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// By connections that are kept open.
    #[default]
    Tcp,
    /// Plain DNS queries by datagrams, all others, and those whose answer doesn't fit, by connections ([`Matching::Id`] only).
    Udp,
}

/// A backend: where requests may go.
#[derive(Debug)]
pub struct Place {
    /// Its name in metrics and status.
    pub name: Arc<str>,
    /// Its addresses, tried in turn; at least one.
    pub addrs: Vec<Addr>,
    /// How it's asked.
    pub transport: Transport,
    /// Whether health checks say that it works. Written by the control side at any time. While one healthy place can be reached,
    /// unhealthy ones get no new requests.
    pub healthy: AtomicBool,
}

impl Place {
    /// A place that is asked by connections, and healthy until somebody says otherwise.
    ///
    /// # Panics
    /// If there's no address.
    #[must_use]
    pub const fn new(name: Arc<str>, addrs: Vec<Addr>) -> Self {
        assert!(!addrs.is_empty(), "a backend has an address");
        Self { name, addrs, transport: Transport::Tcp, healthy: AtomicBool::new(true) }
    }

    /// The same, asked otherwise.
    ///
    /// # Panics
    /// If it's to be asked by datagrams, and an address is of a Unix-domain socket.
    #[must_use]
    pub fn asked_by(self, transport: Transport) -> Self {
        let inet = transport == Transport::Tcp || self.addrs.iter().all(|addr| addr.inet().is_some());
        assert!(inet, "datagrams go to IP addresses");
        Self { transport, ..self }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }
}

/// What the clients of a service may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The longest request or answer, in bytes with whatever frames it; 65,537 by default, which is DNS's longest. No more than the
    /// engine's `read_bytes`.
    pub message_max: u32,
    /// Requests of one client that may be outstanding, 1 to 65,535; 256 by default. With so many it isn't read.
    pub outstanding_per_client: u16,
    /// Clients of one address, on all cores; an IPv6 address counts by its first 64 bits. 0, the default: any number (RFC 9210, 4.4).
    pub clients_per_address: u32,
    /// How long after a message's first byte its last may come; 10 s by default.
    pub message_timeout: Duration,
    /// How long a client may be without a whole message and with no answer outstanding (RFC 7766, 6.2.3), and how long it may take
    /// none of the bytes that it's owed; 10 s by default.
    pub idle_timeout: Duration,
    /// How long after a request its answer may come; 4 s by default: those who ask, and programs
    /// that measure, mostly wait for 5 s. Then it's answered SERVFAIL (DNS; sooner where no backend is reached for long), or its client ends.
    pub answer_timeout: Duration,
    /// How long an upstream has for a request before that is sent to another backend as well ([`Matching::Id`]), and how long a dial has;
    /// 2 s by default. A datagram is sent once more after a quarter of it.
    pub attempt_timeout: Duration,
    /// Connections kept warm to each backend by each core, 1 to 1,000; 2 by default.
    pub upstreams_per_backend: u16,
    /// Requests on one upstream, 1 to 65,535; 4,096 by default. Of datagrams, a place has as many out as its connections may have
    /// together, and no more than 32,768.
    pub outstanding_per_upstream: u16,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            message_max: u32::try_from(LengthPrefix::DNS.len_max).expect("65,537"),
            outstanding_per_client: 256,
            clients_per_address: 0,
            message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(4),
            attempt_timeout: Duration::from_secs(2),
            upstreams_per_backend: 2,
            outstanding_per_upstream: 4096,
        }
    }
}

impl Bounds {
    /// How long a datagram's answer has before the same is sent once more.
    pub(crate) fn datagram_wait(&self) -> Duration {
        self.attempt_timeout / 4
    }

    /// How many datagrams may be out to a place.
    pub(crate) fn datagrams_max(&self) -> u16 {
        self.outstanding_per_upstream.saturating_mul(self.upstreams_per_backend)
    }
}

/// What the clients of a route are given. Immutable; a reload replaces it as a whole ([`crate::Mux::swap`]).
#[derive(Debug)]
pub struct Service {
    /// The route's name.
    pub name: Arc<str>,
    /// How clients' messages are told apart. Backends' are told apart alike, but for RESP, whose two sides differ.
    pub framing: Framing,
    /// How answers find their requests; [`Matching::Id`] needs [`Framing::Dns`].
    pub matching: Matching,
    /// Where requests may go, in the operator's order.
    pub backends: Vec<Arc<Place>>,
    /// The options of upstreams.
    pub server: LegOptions,
    /// What its clients may cost.
    pub bounds: Bounds,
}

impl Service {
    /// Whether any of its places is asked by datagrams.
    pub(crate) fn has_datagrams(&self) -> bool {
        self.backends.iter().any(|place| place.transport == Transport::Udp)
    }
}

/// A service of a [`crate::Mux`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceId(pub(crate) u32);
