//! Peers that are the kernel's sockets, none of which ever blocks: for every backend whose peers the kernel can be.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::world::{Heard, Skip};
use crate::addr::{Addr, UnixAddr};
use crate::kernel::address;
use crate::sys;

/// Makes a socket of a family and a type: in another network namespace, if that's where peers are.
pub type Opener = Box<dyn Fn(AddressFamily, SocketType) -> io::Result<OwnedFd>>;

/// A place where peers are the kernel's sockets.
pub struct Sockets {
    home: Home,
    open: Opener,
    /// Kept for as long as the case runs: bound and not listening, listening with a full queue, or deaf.
    held: Vec<OwnedFd>,
    forbidden: Option<Forbidden>,
}

/// Where peers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// At an IP address.
    Inet(IpAddr),
    /// At abstract names of Unix-domain sockets.
    Unix,
}

impl Home {
    /// TCP by IPv4, on this host.
    pub const V4: Self = Self::Inet(IpAddr::V4(Ipv4Addr::LOCALHOST));
    /// TCP by IPv6, on this host.
    pub const V6: Self = Self::Inet(IpAddr::V6(Ipv6Addr::LOCALHOST));
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet(IpAddr::V4(_)) => "IPv4",
            Self::Inet(IpAddr::V6(_)) => "IPv6",
            Self::Unix => "Unix-domain sockets",
        })
    }
}

/// A peer.
#[derive(Debug)]
pub struct SocketPeer {
    fd: OwnedFd,
    refused: bool,
}

/// A listening peer.
#[derive(Debug)]
pub struct SocketDoor {
    fd: OwnedFd,
}

static NAMES: AtomicU32 = AtomicU32::new(0);

impl Sockets {
    /// Peers of this process at `home`.
    ///
    /// # Errors
    /// When this host has no such address.
    pub fn new(home: Home) -> Result<Self, Skip> {
        if let Home::Inet(ip) = home {
            std::net::TcpListener::bind((ip, 0)).map_err(|error| Skip(format!("{home} isn't tried: {error}")))?;
        }
        have_descriptors();
        Ok(Self::opened_by(home, Box::new(open)))
    }

    /// Peers at `home` whose sockets `open` makes: non-blocking, and closed on exec.
    #[must_use]
    pub fn opened_by(home: Home, open: Opener) -> Self {
        Self { home, open, held: Vec::new(), forbidden: None }
    }

    /// Where peers stand.
    #[must_use]
    pub const fn home(&self) -> Home {
        self.home
    }

    /// An address that nobody has, to bind to: any port, or a name of its own.
    #[must_use]
    pub fn free_addr(&self) -> Addr {
        match self.home {
            Home::Inet(ip) => Addr::Inet(SocketAddr::new(ip, 0)),
            Home::Unix => {
                let name = format!("midmile-conformance-{}-{}", std::process::id(), NAMES.fetch_add(1, Relaxed));
                Addr::Unix(UnixAddr::Abstract(name.into_bytes().into()))
            }
        }
    }

    pub(super) fn socket(&self, at: &Addr, kind: SocketType) -> OwnedFd {
        let family = match at {
            Addr::Inet(addr) if addr.is_ipv4() => AddressFamily::INET,
            Addr::Inet(_) => AddressFamily::INET6,
            Addr::Unix(_) => AddressFamily::UNIX,
        };
        (self.open)(family, kind).expect("peers have a socket")
    }

    pub(super) fn bound(&self, kind: SocketType) -> (OwnedFd, Addr) {
        let at = self.free_addr();
        let fd = self.socket(&at, kind);
        address::bind(&fd, &at).expect("peers have an address");
        let at = if at.inet().is_some() {
            address::from_any(Some(net::getsockname(&fd).expect("a bound socket has a name")))
        } else {
            at
        };
        (fd, at)
    }

    /// See [`World::connect`](super::World::connect).
    #[must_use]
    pub fn connect(&self, to: &Addr) -> SocketPeer {
        let fd = self.socket(to, SocketType::STREAM);
        let refused = match address::connect(&fd, to) {
            Ok(()) | Err(Errno::INPROGRESS) => false,
            Err(Errno::CONNREFUSED | Errno::CONNRESET) => true,
            Err(errno) => panic!("a peer can't connect to {to}: {errno}"),
        };
        SocketPeer { fd, refused }
    }

    /// See [`World::door`](super::World::door).
    #[must_use]
    pub fn door(&self) -> (SocketDoor, Addr) {
        let (fd, at) = self.bound(SocketType::STREAM);
        net::listen(&fd, 4096).expect("a bound socket listens");
        (SocketDoor { fd }, at)
    }

    /// See [`World::take`](super::World::take).
    #[must_use]
    pub fn take(door: &SocketDoor) -> Option<SocketPeer> {
        match net::accept_with(&door.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(fd) => Some(SocketPeer { fd, refused: false }),
            Err(Errno::AGAIN | Errno::CONNABORTED) => None,
            Err(errno) => panic!("a peer can't accept: {errno}"),
        }
    }

    /// See [`World::refusing`](super::World::refusing): somebody is bound there and doesn't listen.
    pub fn refusing(&mut self) -> Addr {
        let (fd, at) = self.bound(SocketType::STREAM);
        self.held.push(fd);
        at
    }

    /// See [`World::unreachable`](super::World::unreachable): no TCP goes to a multicast group, and a name that's missing is nowhere.
    ///
    /// # Panics
    /// Never: the addresses are well-formed.
    #[must_use]
    pub fn unreachable(&self) -> Addr {
        match self.home {
            Home::Inet(IpAddr::V4(_)) => Addr::Inet(([224, 0, 0, 1], 9).into()),
            Home::Inet(IpAddr::V6(_)) => Addr::Inet("[ff02::1]:9".parse().expect("well-formed")),
            Home::Unix => Addr::unix("/nonexistent/midmile-conformance"),
        }
    }

    /// See [`World::silent`](super::World::silent): a listener whose queue of one is full answers no SYN. A Unix-domain one says that
    /// it's full.
    pub fn full(&mut self) -> Addr {
        let (fd, at) = self.bound(SocketType::STREAM);
        net::listen(&fd, 0).expect("a bound socket listens");
        self.held.push(self.connect(&at).fd);
        self.held.push(fd);
        at
    }

    /// See [`World::send`](super::World::send).
    pub fn send(peer: &SocketPeer, bytes: &[u8]) -> Option<usize> {
        match net::send(&peer.fd, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => Some(sent),
            Err(Errno::AGAIN | Errno::INTR) if !peer.refused => Some(0),
            Err(_) => None,
        }
    }

    /// See [`World::recv`](super::World::recv).
    pub fn recv(peer: &SocketPeer, buf: &mut [u8]) -> Heard {
        if peer.refused {
            return Heard::Reset;
        }
        match net::recv(&peer.fd, buf, RecvFlags::empty()).map(|(bytes, _)| bytes) {
            Ok(0) => Heard::End,
            Ok(bytes) => Heard::Bytes(bytes),
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Err(_) => Heard::Reset,
        }
    }

    /// See [`World::finish`](super::World::finish).
    pub fn finish(peer: &SocketPeer) {
        // It fails only on a connection that has failed, and that shows at the next read.
        net::shutdown(&peer.fd, Shutdown::Write).ok();
    }

    /// See [`World::reset`](super::World::reset).
    ///
    /// # Panics
    /// When the kernel refuses the option.
    pub fn reset(peer: SocketPeer) {
        sockopt::set_socket_linger(&peer.fd, Some(Duration::ZERO)).expect("a socket takes SO_LINGER");
        drop(peer);
    }

    /// See [`World::vanish`](super::World::vanish): what comes for the peer's socket is dropped before TCP sees it.
    ///
    /// # Panics
    /// When the kernel refuses the filter.
    pub fn vanish(&mut self, peer: SocketPeer) {
        sys::deafen(peer.fd.as_fd()).expect("a socket takes a filter");
        self.held.push(peer.fd);
    }

    /// See [`World::denied`](super::World::denied): a Unix-domain listener whose file nobody may write to.
    pub fn forbidden(&mut self) -> Addr {
        self.forbidden = None;
        let name = format!("midmile-conformance-{}-{}", std::process::id(), NAMES.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        let at = Addr::unix(path.to_str().expect("directories for temporary files have plain names"));
        let fd = self.socket(&at, SocketType::STREAM);
        address::bind(&fd, &at).expect("nobody has the name");
        self.forbidden = Some(Forbidden::new(path));
        net::listen(&fd, 1).expect("a bound socket listens");
        self.held.push(fd);
        at
    }

    /// All descriptors that the process can still have.
    pub(super) fn all_descriptors() -> impl Iterator<Item = OwnedFd> {
        std::iter::from_fn(|| open(AddressFamily::UNIX, SocketType::STREAM).ok())
    }

    /// See [`World::addr_of`](super::World::addr_of).
    #[must_use]
    pub fn addr_of(peer: &SocketPeer) -> Option<Addr> {
        net::getsockname(peer.fd.as_fd()).ok().map(|name| address::from_any(Some(name)))
    }

    /// See [`World::caller_of`](super::World::caller_of).
    #[must_use]
    pub fn caller_of(peer: &SocketPeer) -> Option<Addr> {
        net::getpeername(peer.fd.as_fd()).ok().map(address::from_any)
    }
}

/// A file without rights, which bind this thread too: it goes without root's way around them. Gone, all is as it was.
struct Forbidden {
    path: PathBuf,
    before: CapabilitySets,
}

impl Forbidden {
    fn new(path: PathBuf) -> Self {
        let before = capabilities(None).expect("a thread may ask for its capabilities");
        let forbidden = Self { path, before };
        let effective = before.effective - CapabilitySet::DAC_OVERRIDE;
        set_capabilities(None, CapabilitySets { effective, ..before }).expect("a thread may do without a capability");
        fs::set_permissions(&forbidden.path, Permissions::from_mode(0o000)).expect("it's a file of ours");
        forbidden
    }
}

impl Drop for Forbidden {
    fn drop(&mut self) {
        // A test that fails says more than these would.
        set_capabilities(None, self.before).ok();
        fs::remove_file(&self.path).ok();
    }
}

fn open(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, kind, flags, None)?)
}

/// A crowd and its peers need more descriptors than a shell gives.
fn have_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < 4096) {
        let wanted = limit.maximum.map_or(4096, |hard| hard.min(4096));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
            .expect("up to the hard limit is allowed");
    }
}
