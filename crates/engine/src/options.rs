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
    /// own sizing. The kernel doubles the figure for its bookkeeping and caps it at `net.core.rmem_max`.
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
        }
    }
}
