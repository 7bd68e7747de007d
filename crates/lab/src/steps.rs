//! The steps: from plain TCP to everything that midmile does, one thing more each time.

use std::fmt;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::server::PORT;
use crate::topology::{RECEIVE_BUFFER_MAX, Topology, address};

/// What the kernel begins with by itself.
const RECEIVE_BUFFER_MIN: u64 = 131_072;

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Nothing: one connection over the direct link.
    EndToEnd,
    /// The same with BBR on both sides.
    EndToEndBbr,
    /// haproxy in each gateway.
    Haproxy,
    /// nginx in each gateway.
    Nginx,
    /// A relay in each gateway.
    Split,
    /// They dial onward at the client's SYN.
    EarlyDial,
    /// The first has connections to the last in store.
    Pool,
    /// Those may send a path's worth at once, paced.
    Window,
    /// So may, a little, the legs to client and server.
    EdgeWindows,
    /// The client's request comes with its SYN, and goes to the server with the last gateway's.
    FastOpen,
}

impl Step {
    /// What midmile adds, one after another; they run unless the command line or the scenario says otherwise.
    pub const ALL: [Self; 7] =
        [Self::EndToEnd, Self::Split, Self::EarlyDial, Self::Pool, Self::Window, Self::EdgeWindows, Self::FastOpen];

    /// What midmile is compared with; they run when they are asked for.
    pub const COMPARED: [Self; 3] = [Self::EndToEndBbr, Self::Haproxy, Self::Nginx];

    /// Its name in tables, files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndToEnd => "end-to-end",
            Self::EndToEndBbr => "end-to-end-bbr",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Split => "split",
            Self::EarlyDial => "early-dial",
            Self::Pool => "pool",
            Self::Window => "window",
            Self::EdgeWindows => "edge-windows",
            Self::FastOpen => "fast-open",
        }
    }

    /// What is new in it.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::EndToEnd => "one connection over the direct link",
            Self::EndToEndBbr => "one connection over the direct link, with BBR",
            Self::Haproxy => "haproxy in each gateway: splice forced, Fast Open",
            Self::Nginx => "nginx in each gateway: Fast Open",
            Self::Split => "a relay in each gateway",
            Self::EarlyDial => "+ gateways dial onward at the client's SYN",
            Self::Pool => "+ authenticated connections between the gateways in store",
            Self::Window => "+ a path's worth may be sent on them at once, paced",
            Self::EdgeWindows => "+ larger first windows on the legs to client and server",
            Self::FastOpen => "+ the request comes with the SYN, at both ends",
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::COMPARED).find(|step| step.name() == name)
    }

    /// Whether a scenario has the hosts for it: a trunk has two ends.
    #[must_use]
    pub fn fits(self, scenario: &Scenario) -> bool {
        !self.trunk() || scenario.gateways() > 1
    }

    /// Where the client connects.
    #[must_use]
    pub fn target(self) -> SocketAddrV4 {
        let host = if self.direct() { Topology::direct_server() } else { address(0, 2) };
        SocketAddrV4::new(host, PORT)
    }

    /// Whether the client uses TCP Fast Open.
    #[must_use]
    pub fn fast_open(self) -> bool {
        matches!(self, Self::FastOpen | Self::Haproxy | Self::Nginx)
    }

    /// Segments that the server may send at first; `None` for the kernel's ten (RFC 6928).
    #[must_use]
    pub fn server_window(self, scenario: &Scenario) -> Option<u32> {
        (self >= Self::EdgeWindows).then_some(scenario.edge_window)
    }

    /// Bytes of the client's first receive buffer: as much must fit as comes at once.
    pub(crate) fn client_buffer(self, scenario: &Scenario) -> Option<u64> {
        (self >= Self::EdgeWindows)
            .then(|| scenario.edge_buffer().saturating_mul(2).clamp(RECEIVE_BUFFER_MIN, RECEIVE_BUFFER_MAX))
    }

    /// Whether nothing stands between client and server.
    pub(crate) fn direct(self) -> bool {
        matches!(self, Self::EndToEnd | Self::EndToEndBbr)
    }

    /// Whether gateways have connections in store.
    pub(crate) fn trunk(self) -> bool {
        self >= Self::Pool
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
