//! Where a leg begins or ends: an IP endpoint or a Unix-domain socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// TCP over IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix-domain stream socket.
    Unix(UnixAddr),
}

/// The name of a Unix-domain socket (unix(7), "Address format").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixAddr {
    /// A socket file.
    Path(Arc<Path>),
    /// A name in the abstract namespace, without the leading zero byte.
    Abstract(Arc<[u8]>),
    /// No name: the usual thing for a client.
    Unnamed,
}

/// Longest path or abstract name: `sun_path` is 108 bytes, and one is the terminator or the leading zero.
pub const UNIX_NAME_LEN_MAX: usize = 107;

impl Addr {
    /// A Unix-domain socket file.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(UnixAddr::Path(path.into().into()))
    }

    /// The IP endpoint, unless this is a Unix-domain socket.
    #[must_use]
    pub const fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(name) => write!(f, "unix:{name}"),
        }
    }
}

impl fmt::Display for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            Self::Unnamed => f.write_str("(unnamed)"),
        }
    }
}
