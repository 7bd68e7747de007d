//! What an operator says of a stack, and its limits.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Smallest buffer of a connection, in bytes: two segments of the smallest packets that each host takes (RFC 9293, 3.7.1).
pub const BUFFER_BYTES_MIN: usize = 1072;
/// Largest, in bytes. A larger window is no use without selective acknowledgements, which smoltcp doesn't heed.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Shortest silence before a connection rests: a sender may forget its congestion window after a retransmission timeout (RFC 5681, 4.1),
/// which is as long at least (RFC 6298, 2.4).
pub const REST_AFTER_MIN: Duration = Duration::from_secs(1);

/// What a stack is given, and its limits. All its tables are reserved when it's made; connections' sockets and buffers are made as they
/// are needed, and kept for the next ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackConfig {
    /// Addresses whose packets are the stack's. On AF_XDP they are addresses of the device, which the kernel has too; on TUN the
    /// stack's own.
    pub addresses: Vec<IpAddr>,
    /// Ports that may be listened on.
    pub listen_ports: Vec<RangeInclusive<u16>>,
    /// Ports that may be bound for datagrams.
    pub datagram_ports: Vec<RangeInclusive<u16>>,
    /// Ports that dials come from. None of them may be the kernel's: `net.ipv4.ip_local_reserved_ports` keeps it away from them.
    pub dial_ports: RangeInclusive<u16>,
    /// Connections at once, in any state but TIME-WAIT.
    pub flows_max: u32,
    /// Connections at once whose handshake isn't finished (SYN-RECEIVED). Beyond it the oldest is forgotten, so that a flood costs no
    /// more memory than this, and a client whose SYN comes through has until as many more have come.
    pub half_open_max: u32,
    /// Connections at once in TIME-WAIT: 56 bytes each. Beyond it the oldest is forgotten.
    pub waits_max: u32,
    /// Listeners at once.
    pub listeners_max: u32,
    /// Bytes of a connection's receive buffer, which bounds the window that its peer is offered; `recv_buffer` of its leg goes before.
    pub receive_bytes: usize,
    /// Bytes of a connection's send buffer; `send_buffer` of its leg goes before.
    pub send_bytes: usize,
    /// Sockets that are kept, with their buffers, when their connections have ended or rest. The memory of others is given back.
    pub spare_max: u32,
    /// How long a connection is silent before it rests, and takes no socket: [`REST_AFTER_MIN`] at least; [`Duration::MAX`]: for ever. The
    /// next message costs about the work of a handshake and the buffers' page faults, so it's better longer than most pauses between
    /// messages. 2 s unless said otherwise.
    pub rest_after: Duration,
    /// How long a connection is kept on whose peer acknowledges nothing, about as long as Linux does it; `user_timeout` of its leg goes
    /// before.
    pub patience: Duration,
    /// How long a connection that the program has closed is kept on without a sign of its peer.
    pub orphan_patience: Duration,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            listen_ports: Vec::new(),
            datagram_ports: Vec::new(),
            dial_ports: 61_000..=64_999,
            flows_max: 32_768,
            half_open_max: 1024,
            waits_max: 16_384,
            listeners_max: 64,
            receive_bytes: 16 * 1024,
            send_bytes: 16 * 1024,
            spare_max: 128,
            rest_after: Duration::from_secs(2),
            patience: Duration::from_mins(15),
            orphan_patience: Duration::from_secs(30),
        }
    }
}

/// Why a configuration can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No packet could be the stack's.
    #[error("a stack needs an address; name those of the device whose packets it should take")]
    NoAddress,
    /// An address that no host can have.
    #[error("{0} isn't an address that a host can have")]
    NotUnicast(IpAddr),
    /// A limit of zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A buffer that is too small or too large.
    #[error("a connection's buffers have {BUFFER_BYTES_MIN} to {BUFFER_BYTES_MAX} bytes, not {0}")]
    Buffer(usize),
    /// Connections would rest too soon.
    #[error("rest_after is {REST_AFTER_MIN:?} or longer, not {0:?}")]
    RestAfter(Duration),
    /// More half-open connections than connections.
    #[error("half_open_max can't be above flows_max")]
    HalfOpen,
}

impl StackConfig {
    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        if let Some(address) = self.addresses.iter().find(|address| address.is_unspecified() || address.is_multicast())
        {
            return Err(ConfigError::NotUnicast(*address));
        }
        let limits = [
            ("flows_max", self.flows_max),
            ("half_open_max", self.half_open_max),
            ("waits_max", self.waits_max),
            ("listeners_max", self.listeners_max),
        ];
        if let Some((name, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(ConfigError::Zero(name));
        }
        let buffers = [self.receive_bytes, self.send_bytes];
        if let Some(bytes) = buffers.into_iter().find(|bytes| !(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(bytes)) {
            return Err(ConfigError::Buffer(bytes));
        }
        if self.rest_after < REST_AFTER_MIN {
            return Err(ConfigError::RestAfter(self.rest_after));
        }
        if self.half_open_max > self.flows_max { Err(ConfigError::HalfOpen) } else { Ok(()) }
    }

    /// Whether a port may be listened on.
    pub(crate) fn may_listen(&self, port: u16) -> bool {
        self.listen_ports.iter().any(|ports| ports.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let good = StackConfig { addresses: vec![[10, 0, 0, 1].into()], ..StackConfig::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(StackConfig::default().check(), Err(ConfigError::NoAddress));
        let any = std::net::Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(StackConfig { addresses: vec![any], ..good.clone() }.check(), Err(ConfigError::NotUnicast(any)),);
        assert_eq!(StackConfig { waits_max: 0, ..good.clone() }.check(), Err(ConfigError::Zero("waits_max")));
        assert_eq!(StackConfig { send_bytes: 1, ..good.clone() }.check(), Err(ConfigError::Buffer(1)));
        let short = Duration::from_millis(999);
        assert_eq!(StackConfig { rest_after: short, ..good.clone() }.check(), Err(ConfigError::RestAfter(short)));
        assert_eq!(StackConfig { half_open_max: 9, flows_max: 8, ..good }.check(), Err(ConfigError::HalfOpen));
    }
}
