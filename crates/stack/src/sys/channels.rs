//! Counting a device's receive queues.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

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
    let name = super::device_name(name)?;
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
