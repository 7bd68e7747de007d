//! What the kernel is asked of a network device by its name (`struct ifreq`): to be a TUN device, and how many receive queues it uses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `struct ifreq` of linux/if.h as `TUNSETIFF` reads it: a name, the flags, and the rest of the union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Makes an open `/dev/net/tun` the device `name` of the calling thread's network namespace: bare packets, one a call
/// (Documentation/networking/tuntap.rst).
pub(crate) fn make_tun(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("the flags fit their field");
    let mut request = InterfaceRequest { name: device_name(name)?, flags, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one ifreq; the pointer leads to a value of that size, which outlives the call.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `SIOCETHTOOL` of linux/sockios.h.
const ETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GET_CHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    /// The most that there may be, of each kind.
    most: [u32; 4],
    receive: u32,
    _send: u32,
    _other: u32,
    /// Queues that both receive and send.
    combined: u32,
}

/// Bytes of `struct ifreq` that neither the name nor a pointer takes.
const REST: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<*mut Channels>();

/// `struct ifreq` of linux/if.h as `SIOCETHTOOL` reads it: a name, a pointer, and the rest of the union.
#[repr(C)]
struct ChannelsRequest {
    name: [u8; libc::IFNAMSIZ],
    channels: *mut Channels,
    rest: [u8; REST],
}

const _: () = assert!(size_of::<Channels>() == 36);
const _: () = assert!(size_of::<ChannelsRequest>() == size_of::<libc::ifreq>());

/// How many receive queues the device `name` of the calling thread's network namespace uses now (ethtool(8), `--show-channels`); what
/// rtnetlink tells is how many it may use. `None` where its driver doesn't say.
pub(crate) fn receive_queues(name: &str) -> io::Result<Option<u32>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
    let name = device_name(name)?;
    let mut request = ChannelsRequest { name, channels: &raw mut channels, rest: [0; REST] };
    // SAFETY: SIOCETHTOOL reads one ifreq, and by its pointer reads and writes one ethtool_channels; both are of those sizes, and outlive
    // the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    let error = io::Error::last_os_error();
    match (answer, error.raw_os_error()) {
        (0, _) => Ok(channels.receive.checked_add(channels.combined).filter(|queues| *queues > 0)),
        (_, Some(libc::EOPNOTSUPP)) => Ok(None),
        _ => Err(error),
    }
}

/// A device's name as the kernel reads it: a C string.
fn device_name(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    let place = bytes[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    place.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?.copy_from_slice(name.as_bytes());
    Ok(bytes)
}
