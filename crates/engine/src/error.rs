//! How a connection or a listener fails: the few kinds that change what a program does next.

use std::io;

use rustix::io::Errno;

/// Why a connection, or the attempt to make one, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnError {
    /// The peer reset it, or was gone when data came (`ECONNRESET`, `EPIPE`, `ECONNABORTED`). Nothing more can cross.
    #[error("connection reset by peer")]
    Reset,
    /// Nobody listens there (`ECONNREFUSED`). Another address may do.
    #[error("connection refused")]
    Refused,
    /// The peer stopped answering (`ETIMEDOUT`): keepalive, `TCP_USER_TIMEOUT`, or SYNs unanswered.
    #[error("the peer stopped answering")]
    TimedOut,
    /// There's no way there (`EHOSTUNREACH`, `ENETUNREACH`, a missing socket file). Another address may do.
    #[error("unreachable")]
    Unreachable,
    /// This host may not go there (`EACCES`, `EPERM`): a firewall rule or a file's mode.
    #[error("not permitted")]
    Denied,
    /// This host has no local port, descriptor or memory left (`EADDRNOTAVAIL`, `EADDRINUSE`, `EMFILE`, `ENFILE`, `ENOBUFS`,
    /// `ENOMEM`). Later may do.
    #[error("out of local ports, descriptors or memory")]
    Exhausted,
    /// The listener's queue is full for the moment (`EAGAIN` of a Unix-domain socket's connect; TCP waits by itself). Dial again
    /// soon.
    #[error("the listener's queue is full")]
    Busy,
    /// What came is no message, says the program's framer ([`crate::Handler::frame`]).
    #[error("what came is no message")]
    Broken,
    /// A message has more bytes than [`crate::Config::read_bytes`].
    #[error("a message is longer than the buffer")]
    TooLong,
    /// The program panicked in an upcall about it.
    #[error("the program panicked")]
    Panicked,
    /// Anything else, by its number.
    #[error("system error {0}")]
    Other(i32),
}

impl From<Errno> for ConnError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => Self::Reset,
            Errno::CONNREFUSED => Self::Refused,
            Errno::TIMEDOUT => Self::TimedOut,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NOENT | Errno::HOSTDOWN | Errno::NETDOWN => {
                Self::Unreachable
            }
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                Self::Exhausted
            }
            other => Self::Other(other.raw_os_error()),
        }
    }
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Someone listens there already. Choose another address, or stop the other program.
    #[error("the address is in use")]
    InUse,
    /// A file that isn't a socket is in the way.
    #[error("a file that isn't a socket is in the way")]
    FileInTheWay,
    /// This process may not take others' connections: it lacks `CAP_NET_ADMIN` (in the namespace's owner) for `IP_TRANSPARENT`.
    #[error("a transparent listener needs CAP_NET_ADMIN; run as root, or give it (setcap, AmbientCapabilities=)")]
    NotTransparent,
    /// Anything else.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for ListenError {
    fn from(errno: Errno) -> Self {
        if errno == Errno::ADDRINUSE { Self::InUse } else { Self::System(errno.into()) }
    }
}
