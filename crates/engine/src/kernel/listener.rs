//! Listening sockets: one a core on the same address, each connection steered to the core whose CPU received it.
//!
//! IP listeners form a `SO_REUSEPORT` group (Linux 3.9) with a classic BPF program (Linux 4.5) that answers with the place of
//! the CPU in the group; where the program is refused, the kernel spreads connections by a hash. A Unix-domain listener is
//! one socket that all cores accept from, woken one at a time (`EPOLLEXCLUSIVE`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::{KEEPALIVE_PROBES, address, transparent};
use crate::addr::{Addr, UnixAddr};
use crate::error::ListenError;
use crate::options::{LegOptions, Probing};
use crate::sys::{self, Instruction};

/// Connections that may wait to be accepted, on each core; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Connections with data in their SYN that may wait for the handshake's end (RFC 7413, 5.1), on each listener.
const FAST_OPEN_QUEUE: i32 = 1024;
/// Pauses between looks at an address that is in use, in milliseconds: half a second in all.
const IN_USE_PAUSES: [u64; 6] = [5, 15, 30, 60, 120, 240];

/// A socket that accepts.
#[derive(Debug)]
pub struct Listener {
    fd: Arc<OwnedFd>,
    tcp: bool,
    /// Its connections end by a reset unless we close them.
    abrupt: bool,
    /// They ask to be their clients' friends.
    friend: bool,
    /// Removes the socket file when the last listener on it is gone.
    _file: Option<Arc<SocketFile>>,
}

impl Listener {
    /// The socket, which listeners on one Unix-domain address share.
    pub(crate) const fn shared(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether it's TCP, or else a Unix-domain socket.
    pub(crate) const fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// Whether its connections end by a reset unless we close them.
    pub(crate) const fn is_abrupt(&self) -> bool {
        self.abrupt
    }

    /// Whether its connections ask to be their clients' friends.
    pub(crate) const fn is_friend(&self) -> bool {
        self.friend
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Listens on `at`, with one listener for each of `cpus` (the CPU that the core runs on), and says where: port 0 is filled in.
/// `joining` says that our own listeners may stand there already (a reload); otherwise another group on the address is an error.
///
/// An address in use is looked at again for half a second, in which the thread sleeps: the kernel takes the rings (`io_uring(7)`)
/// of a process that was killed down after the process is reaped, and till then they hold its listeners.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(
    at: &Addr,
    options: &LegOptions,
    cpus: &[u32],
    joining: bool,
) -> Result<(Vec<Listener>, Addr), ListenError> {
    let attempt = || match at {
        Addr::Inet(_) => listen_inet(at, options, cpus, joining, BACKLOG),
        Addr::Unix(name) => listen_unix(at, name, options, cpus.len(), BACKLOG),
    };
    for pause in IN_USE_PAUSES {
        match attempt() {
            Err(ListenError::InUse) => std::thread::sleep(Duration::from_millis(pause)),
            answer => return answer,
        }
    }
    attempt()
}

/// Listens on `at` for one core, with at most `backlog` connections waiting.
pub(super) fn listen_alone(at: &Addr, options: &LegOptions, backlog: u32) -> Result<(Listener, Addr), ListenError> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let (listeners, at) = match at {
        // The steering program looks at the CPU only where there are several.
        Addr::Inet(_) => listen_inet(at, options, &[0], options.shared, backlog)?,
        Addr::Unix(name) => listen_unix(at, name, options, 1, backlog)?,
    };
    let listener = listeners.into_iter().next().expect("one was asked for");
    Ok((listener, at))
}

fn listen_inet(
    at: &Addr,
    options: &LegOptions,
    cpus: &[u32],
    joining: bool,
    backlog: i32,
) -> Result<(Vec<Listener>, Addr), ListenError> {
    if !joining {
        // A group lets any program of the same user join it: without this look, two of us would share the port unseen.
        let probe = open(at)?;
        address::bind(&probe, at)?;
        net::listen(&probe, 1)?;
    }
    let mut at = at.clone();
    let mut listeners = Vec::with_capacity(cpus.len());
    for _ in cpus {
        let fd = open(&at)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        set_buffers(&fd, options.recv_buffer, options.send_buffer)?;
        set_sending(&fd, options)?;
        if !options.ends_if_killed {
            set_abrupt(&fd)?;
        }
        if options.fast_open {
            set_tcp_int(&fd, libc::TCP_FASTOPEN, FAST_OPEN_QUEUE)?;
        }
        sockopt::set_tcp_nodelay(&fd, options.nodelay)?;
        set_liveness(&fd, options)?;
        if options.transparent {
            let v4 = matches!(&at, Addr::Inet(addr) if addr.is_ipv4());
            transparent::set(&fd, v4).map_err(|errno| match errno {
                Errno::PERM => ListenError::NotTransparent,
                errno => errno.into(),
            })?;
        }
        address::bind(&fd, &at)?;
        net::listen(&fd, backlog)?;
        at = address::from_any(Some(net::getsockname(&fd)?));
        listeners.push(Listener {
            fd: Arc::new(fd),
            tcp: true,
            abrupt: !options.ends_if_killed,
            friend: options.friend,
            _file: None,
        });
    }
    if let [first, _, ..] = &listeners[..] {
        // Refused only where BPF is locked down: connections are then spread by a hash.
        sys::attach_reuseport_program(first.as_fd(), &steering_program(cpus)).ok();
    }
    Ok((listeners, at))
}

fn open(at: &Addr) -> Result<OwnedFd, Errno> {
    let family = match at {
        Addr::Inet(addr) if addr.is_ipv4() => AddressFamily::INET,
        Addr::Inet(_) => AddressFamily::INET6,
        Addr::Unix(_) => AddressFamily::UNIX,
    };
    let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if family != AddressFamily::UNIX {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    Ok(fd)
}

/// A socket file that we made.
#[derive(Debug)]
struct SocketFile {
    path: Arc<Path>,
    /// Device and inode: another's file in its place isn't ours to remove.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If it's gone already, so much the better.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn listen_unix(
    at: &Addr,
    name: &UnixAddr,
    options: &LegOptions,
    count: usize,
    backlog: i32,
) -> Result<(Vec<Listener>, Addr), ListenError> {
    let fd = open(at)?;
    set_buffers(&fd, options.recv_buffer, options.send_buffer)?;
    match (address::bind(&fd, at), name) {
        (Err(Errno::ADDRINUSE), UnixAddr::Path(path)) => {
            remove_stale(at, path)?;
            address::bind(&fd, at)?;
        }
        (answer, _) => answer?,
    }
    let file = match name {
        UnixAddr::Path(path) => Some(Arc::new(SocketFile { path: path.clone(), identity: identity(path)? })),
        UnixAddr::Abstract(_) | UnixAddr::Unnamed => None,
    };
    net::listen(&fd, backlog)?;
    let fd = Arc::new(fd);
    let listeners = (0..count)
        .map(|_| Listener { fd: fd.clone(), tcp: false, abrupt: false, friend: false, _file: file.clone() })
        .collect();
    Ok((listeners, at.clone()))
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(at: &Addr, path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ListenError::FileInTheWay);
    }
    let probe = open(at)?;
    match address::connect(&probe, at) {
        Err(Errno::CONNREFUSED) => Ok(std::fs::remove_file(path)?),
        _ => Err(ListenError::InUse),
    }
}

/// Buffer sizes; before bind and connect, so that the window scale follows them (RFC 7323, 2.3).
pub(super) fn set_buffers(fd: &OwnedFd, recv: Option<u32>, send: Option<u32>) -> Result<(), Errno> {
    // Beyond the system's limits where we may, within them where not.
    if let Some(bytes) = recv
        && sockopt::set_socket_recv_buffer_size_force(fd, bytes as usize).is_err()
    {
        sockopt::set_socket_recv_buffer_size(fd, bytes as usize)?;
    }
    if let Some(bytes) = send
        && sockopt::set_socket_send_buffer_size_force(fd, bytes as usize).is_err()
    {
        sockopt::set_socket_send_buffer_size(fd, bytes as usize)?;
    }
    Ok(())
}

fn set_tcp_int(fd: &OwnedFd, name: libc::c_int, value: i32) -> Result<(), Errno> {
    sys::set_int(fd.as_fd(), libc::IPPROTO_TCP, name, value).map_err(|error| errno_of(&error))
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

/// Has the kernel send a reset when the socket is closed (RFC 9293, 3.10.5): a linger time of zero, socket(7).
pub(super) fn set_abrupt(fd: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_socket_linger(fd, Some(Duration::ZERO))
}

/// Lets the first bytes of a dialled leg travel with its SYN.
pub(super) fn set_fast_open(fd: &OwnedFd) -> Result<(), Errno> {
    set_tcp_int(fd, libc::TCP_FASTOPEN_CONNECT, 1)
}

/// What shapes the sending of a TCP connection.
pub(super) fn set_sending(fd: &OwnedFd, options: &LegOptions) -> Result<(), Errno> {
    if let Some(name) = &options.congestion {
        sockopt::set_tcp_congestion(fd, name)?;
    }
    if let Some(bytes) = options.unsent_max {
        set_tcp_int(fd, libc::TCP_NOTSENT_LOWAT, i32::try_from(bytes).unwrap_or(i32::MAX))?;
    }
    if let Some(rate) = options.pacing {
        sys::set_pacing(fd.as_fd(), rate).map_err(|error| errno_of(&error))?;
    }
    if options.delayed_acks {
        sockopt::set_tcp_quickack(fd, false)?;
    }
    Ok(())
}

/// What finds out that a TCP peer is gone.
pub(super) fn set_liveness(fd: &OwnedFd, options: &LegOptions) -> Result<(), Errno> {
    if let Some(idle) = options.keepalive {
        let interval = Duration::from_secs((idle.as_secs() / u64::from(KEEPALIVE_PROBES)).max(1));
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, idle.max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepintvl(fd, interval)?;
        sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
    }
    if let Some(limit) = options.user_timeout {
        sockopt::set_tcp_user_timeout(fd, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// When a quiet peer is probed. `TCP_KEEPIDLE` comes last: it begins to probe at once if it's been quiet for so long already.
pub(super) fn set_probing(fd: &OwnedFd, probing: Option<&Probing>) -> Result<(), Errno> {
    let Some(probing) = probing else { return sockopt::set_socket_keepalive(fd, false) };
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepintvl(fd, probing.every)?;
    sockopt::set_tcp_keepcnt(fd, probing.count)?;
    sockopt::set_tcp_keepidle(fd, probing.after)
}

/// `return place of this CPU in cpus, or CPU modulo their number`.
fn steering_program(cpus: &[u32]) -> Vec<Instruction> {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const RETURN_A: u16 = 0x16; // BPF_RET | BPF_A
    const CPU: u32 = 0xFFFF_F000 + 36; // SKF_AD_OFF + SKF_AD_CPU
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let mut program = vec![op(LOAD_WORD, 0, 0, CPU)];
    for (place, cpu) in (0..).zip(cpus) {
        program.push(op(JUMP_IF_EQUAL, 0, 1, *cpu));
        program.push(op(RETURN, 0, 0, place));
    }
    program.push(op(MODULO, 0, 0, u32::try_from(cpus.len()).unwrap_or(u32::MAX)));
    program.push(op(RETURN_A, 0, 0, 0));
    program
}

/// Tries the steering program on a group of its own, for [`crate::probe`].
pub(crate) fn try_steering() -> io::Result<()> {
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let fd = open(&at)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    address::bind(&fd, &at)?;
    sys::attach_reuseport_program(fd.as_fd(), &steering_program(&[0, 1]))
}
