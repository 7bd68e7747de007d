//! Load: a server and the clients that talk to it through the proxy under test.
//!
//! Each is one single-threaded epoll loop. The first byte of a connection tells the server what it's for ([`Purpose`]),
//! so that a proxy needs one forwarding rule. The curve's clients ([`framed`]) talk to servers of their own. A newline on
//! standard input is answered with one line of [`Counters`] on standard output; end of file ends the process. All latencies
//! are measured by the client.

mod ask;
mod bulk;
mod client;
mod control;
mod counters;
mod dns;
mod framed;
mod idle;
mod latency;
mod nameserver;
mod poller;
mod probe;
pub(crate) mod query;
mod rr;
mod server;
mod socket;
mod speech;
mod tally;
mod trickle;
mod visit;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

pub(crate) use ask::CONNS_PER_SOURCE;
pub(crate) use counters::Counters;
use speech::Speech;

/// Size of a request and of its response.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// What a connection is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Bytes are counted and discarded as fast as they come.
    Sink,
    /// Each 64-byte message is answered with 64 bytes.
    Echo,
    /// Bytes are read at [`server::SLOW_BYTES_PER_SECOND`].
    Slow,
}

impl Purpose {
    /// The byte that opens a connection for this purpose.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Sink => b'b',
            Self::Echo => b'e',
            Self::Slow => b's',
        }
    }

    /// The purpose that `byte` announces.
    pub(crate) const fn of(byte: u8) -> Option<Self> {
        match byte {
            b'b' => Some(Self::Sink),
            b'e' => Some(Self::Echo),
            b's' => Some(Self::Slow),
            _ => None,
        }
    }
}

/// The hidden `load` subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Answers, counts or reads slowly, by the first byte of each connection.
    Server {
        /// Address to listen on.
        listen: SocketAddrV4,
    },
    /// Sends as fast as it can on each connection.
    Bulk {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
        /// What the server does with the bytes.
        #[arg(long, value_enum, default_value = "sink")]
        purpose: Purpose,
    },
    /// Sends a request on each connection, and the next when its response is there.
    Rr {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
    },
    /// Connects, asks, closes, again.
    Crr {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections at a time.
        #[arg(long)]
        conns: usize,
    },
    /// Opens connections, has each exchange one message, then leaves them alone.
    Idle {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
    },
    /// Connects until the first exchange succeeds.
    Probe {
        /// Address to connect to.
        to: SocketAddrV4,
        /// The exchange is a framed one.
        #[arg(long)]
        framed: bool,
        /// The exchange is of DNS.
        #[arg(long, conflicts_with = "framed")]
        dns: bool,
    },
    /// Sends a framed message on each connection, and the next when its answer is there.
    Ask {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
        /// First of the addresses to come from where one has too few ports.
        #[arg(long)]
        source: Option<Ipv4Addr>,
        /// Ask once on each connection, then leave it alone.
        #[arg(long)]
        once: bool,
    },
    /// Connects, asks by a framed message, closes, again.
    Visit {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections at a time.
        #[arg(long)]
        conns: usize,
        /// The question is of DNS.
        #[arg(long)]
        dns: bool,
    },
    /// Keeps questions of DNS outstanding on each connection.
    Dns {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
        /// Questions that wait for their answers, on each.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        outstanding: u16,
        /// Ask once on each connection, then leave it alone.
        #[arg(long)]
        once: bool,
        /// After so many answers ask about a slow host besides; that's in no latency.
        #[arg(long, conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..))]
        slow_every: Option<u64>,
    },
    /// Answers DNS, questions about slow hosts after a while.
    Nameserver {
        /// Address to listen on.
        listen: SocketAddrV4,
        /// How long those wait, in milliseconds.
        #[arg(long)]
        slow_ms: u64,
    },
    /// Sends a byte of an endless message on each connection every now and then.
    Trickle {
        /// Address to connect to.
        to: SocketAddrV4,
        /// Connections.
        #[arg(long)]
        conns: usize,
        /// Milliseconds within which they are opened, evenly.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        over_ms: u64,
        /// Milliseconds between two bytes of a connection.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        every_ms: u64,
    },
}

/// Runs one load process until its standard input ends.
pub(crate) fn run(load: &Load) -> Result<()> {
    match *load {
        Load::Server { listen } => server::run(listen),
        Load::Bulk { to, conns, purpose } => bulk::run(to, conns, purpose),
        Load::Rr { to, conns } => rr::run(to, conns),
        Load::Crr { to, conns } => visit::run(to, conns, Speech::Echo),
        Load::Idle { to, conns } => idle::run(to, conns),
        Load::Probe { to, framed, dns } => {
            let framed = if framed { Speech::Framed } else { Speech::Echo };
            probe::run(to, if dns { Speech::Dns } else { framed })
        }
        Load::Ask { to, conns, source, once } => ask::run(ask::Plan { to, conns, source, once }),
        Load::Visit { to, conns, dns } => visit::run(to, conns, if dns { Speech::Dns } else { Speech::Framed }),
        Load::Dns { to, conns, outstanding, once, slow_every } => {
            dns::run(dns::Plan { to, conns, outstanding, once, slow_every })
        }
        Load::Nameserver { listen, slow_ms } => nameserver::run(listen, Duration::from_millis(slow_ms)),
        Load::Trickle { to, conns, over_ms, every_ms } => {
            let (over, every) = (Duration::from_millis(over_ms), Duration::from_millis(every_ms));
            trickle::run(trickle::Plan { to, conns, over, every })
        }
    }
}
