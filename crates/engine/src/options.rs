//! What an operator may set on a leg's socket.

use std::sync::Arc;
use std::time::Duration;

/// Socket options of one leg. `None` leaves the system's value.
///
/// On a listener they are set once and inherited by each accepted connection (Linux copies `TCP_NODELAY`, keepalive, buffer
/// sizes and congestion control from the listening socket), so an accepted leg costs no system call for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegOptions {
    /// `TCP_CONGESTION`: the name of a congestion control that the kernel offers (`net.ipv4.tcp_available_congestion_control`).
    pub congestion: Option<Arc<str>>,
    /// `TCP_NODELAY`: no waiting for an acknowledgement before a small segment is sent (RFC 896 switched off).
    pub nodelay: bool,
    /// `SO_RCVBUF` in bytes, set before the connection is made so that the window scale follows it. Switches off the kernel's
    /// own sizing. The kernel doubles the figure for its bookkeeping, and caps it at `net.core.rmem_max` unless the process has
    /// `CAP_NET_ADMIN` (`SO_RCVBUFFORCE`).
    pub recv_buffer: Option<u32>,
    /// `SO_SNDBUF` in bytes; as `recv_buffer`, capped at `net.core.wmem_max`.
    pub send_buffer: Option<u32>,
    /// Keepalive: idle time before the first probe (`TCP_KEEPIDLE`); probes then come every `keepalive / 3`, and 3 unanswered
    /// ones end the connection. Whole seconds, at least 1. `None`: no keepalive.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` (RFC 5482): how long sent data may stay unacknowledged before the connection is given up.
    pub user_timeout: Option<Duration>,
    /// `TCP_NOTSENT_LOWAT` in bytes: how many bytes may wait unsent in the kernel before the leg stops being writable. It bounds
    /// the memory that a slow receiver can hold.
    pub unsent_max: Option<u32>,
    /// `SO_MAX_PACING_RATE` in bytes a second: the most that the leg sends, spread evenly by the kernel (Linux 4.13 for TCP without
    /// a pacing queueing discipline). A burst then never fills a queue on the path.
    pub pacing: Option<u64>,
    /// Bytes that may be sent before the first acknowledgement. No socket option: whoever loads the kernel's window program sets
    /// it there; the engine leaves it alone.
    pub initial_window: Option<u32>,
    /// Whether the peer of a dialled leg sees a reset, not an end, if this process dies. Accepted legs do, unless `ends_if_killed` says
    /// otherwise: their clients must not take half an answer for a whole one.
    pub reset_if_killed: bool,
    /// On a listener: whether clients see an end, not a reset, if this process dies. For protocols whose messages say how long they
    /// are: half an answer is never taken for a whole one there. It saves a system call at the end of each connection.
    pub ends_if_killed: bool,
    /// Whether acknowledgements wait for bytes to ride with from the first one on (`TCP_QUICKACK` off): for connections on which each
    /// side answers what it hears at once. It halves the packets of a handshake above TCP's. Where no answer follows, the kernel
    /// sends the acknowledgement by itself after 40 ms (RFC 9293, 3.8.6.3), and goes back to its own ways.
    pub delayed_acks: bool,
    /// Whether the leg asks to be a friend of its peer's socket: bytes of connections within this host then go by memory, where the peer asks for it
    /// too, and by TCP where it doesn't (`midmile_friends_sockets::own`, which has to have begun). The epoll backend heeds it.
    pub friend: bool,
    /// TCP Fast Open (RFC 7413): a listener takes data that comes with the SYN, a dialled leg sends its first bytes with it once it
    /// has a cookie and if they are there already. Such a dial counts as connected before anybody has answered, so a refusal is a
    /// reset of the connection. `net.ipv4.tcp_fastopen` has to allow it.
    pub fast_open: bool,
    /// On a listener: others of this user may listen there too, and get some of what comes (`SO_REUSEPORT`, Linux 3.9): for one
    /// listener a core. [`crate::kernel::listen`] makes such a group at once and steers by CPU; here the kernel's hash spreads.
    pub shared: bool,
    /// On a listener: connections to addresses that aren't this host's are accepted too, where the firewall hands them over
    /// (TPROXY); [`crate::Cx::incoming_addr`] then says where the client wanted to go. Needs `CAP_NET_ADMIN` or `CAP_NET_RAW`
    /// (`IP_TRANSPARENT`, Linux 2.6.28; `IPV6_TRANSPARENT`, 2.6.37). See Documentation/networking/tproxy.rst.
    pub transparent: bool,
}

/// When a quiet connection is asked whether its peer is there (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`), in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// After so long without anything from the peer.
    pub after: Duration,
    /// Between two probes.
    pub every: Duration,
    /// Unanswered ones that end the connection, 1 to 127.
    pub count: u32,
}

impl Default for LegOptions {
    fn default() -> Self {
        Self {
            congestion: None,
            nodelay: true,
            recv_buffer: None,
            send_buffer: None,
            keepalive: Some(Duration::from_mins(1)),
            user_timeout: None,
            unsent_max: None,
            pacing: None,
            initial_window: None,
            reset_if_killed: false,
            ends_if_killed: false,
            delayed_acks: false,
            friend: false,
            fast_open: false,
            shared: false,
            transparent: false,
        }
    }
}
