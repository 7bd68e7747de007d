//! Packets of chosen addresses and ports, handed to AF_XDP sockets instead of the kernel's own stack.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{Array, HashMap, MapData, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{self, Xdp};
use rustix::io::Errno;

use crate::address;
use crate::object::{Counters, Object, to_io};
use crate::unavailable::{Release, Unavailable, code_of};

/// Addresses whose packets are taken at most; the C source has the same.
pub const ADDRESSES_MAX: usize = 256;
/// Receive queues that may have a socket; the C source has the same.
pub const QUEUES_MAX: u32 = 256;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/obj/stack.o"));
const PROGRAM: &str = "midmile_stack";
const WHAT: &str = "redirecting packets";
/// The first kernel with links for XDP, which go with the process.
const SINCE: Release = Release { major: 5, minor: 9 };
/// Bits of a word, and words for the ports of one protocol.
const WORD: usize = 64;
const WORDS: usize = 65_536 / WORD;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the device's driver, before a packet has a buffer of the kernel's.
    Native,
    /// In the kernel's generic path, for drivers without XDP: slower, and everywhere.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Redirects packets of one device as long as it lives: dropped, or with the process however it ends, the device is as it was.
pub struct Redirect {
    /// Detaches when it's closed. It goes first.
    _link: FdLink,
    _object: Object,
    device: String,
    mode: XdpMode,
    ports: Array<MapData, u64>,
    addresses: HashMap<MapData, [u8; address::BYTES], u32>,
    sockets: XskMap<MapData>,
    counters: Counters<2>,
}

impl Redirect {
    /// Attaches the program to a device of the calling thread's network namespace, natively where the driver can and else generically,
    /// or as `wanted` (Linux 5.9). It takes nothing yet.
    ///
    /// # Errors
    /// Why not, and the mend. Nothing is left attached then.
    pub fn attach(device: &str, wanted: Option<XdpMode>) -> Result<Self, Unavailable> {
        let mut object = Object::load(OBJECT, WHAT, SINCE)?;
        let loaded = object.program::<Xdp>(PROGRAM).load();
        loaded.map_err(|error| object.unavailable(&error))?;
        let (link, mode) = link(&mut object, device, wanted)?;
        Ok(Self {
            _link: link,
            device: device.to_owned(),
            mode,
            ports: object.array("stack_ports"),
            addresses: object.table("stack_addresses"),
            sockets: object.sockets("stack_sockets"),
            counters: object.counters("stack_counters"),
            _object: object,
        })
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Where the program runs.
    #[must_use]
    pub const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Takes packets to these ports of TCP and of UDP, instead of those before.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn set_ports(&mut self, tcp: &[RangeInclusive<u16>], udp: &[RangeInclusive<u16>]) -> io::Result<()> {
        let words = words(tcp).into_iter().chain(words(udp));
        for (index, word) in (0..).zip(words) {
            self.ports.set(index, word, 0).map_err(|error| to_io(&error))?;
        }
        Ok(())
    }

    /// Takes packets to this address as well.
    ///
    /// # Errors
    /// `E2BIG` beyond [`ADDRESSES_MAX`].
    pub fn add_address(&mut self, to: IpAddr) -> io::Result<()> {
        self.addresses.insert(address::to_bytes(to), 1, 0).map_err(|error| to_io(&error))
    }

    /// Hands what comes by the receive queue `queue` to a socket bound to it. It ends when the socket is closed.
    ///
    /// # Errors
    /// When the socket isn't one of AF_XDP with a receive ring, or the queue is beyond [`QUEUES_MAX`].
    pub fn give(&mut self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| to_io(&error))
    }

    /// How many packets have been taken so far.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn taken(&self) -> io::Result<u64> {
        self.counters.read().map(|[taken, _]| taken)
    }

    /// How many packets would have been taken, but came by a receive queue without a socket: they went on to the kernel.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn astray(&self) -> io::Result<u64> {
        self.counters.read().map(|[_, astray]| astray)
    }
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, mode, .. } = self;
        f.debug_struct("Redirect").field("device", device).field("mode", mode).finish_non_exhaustive()
    }
}

/// Attaches, by a link alone: what else there is outlives the process.
fn link(object: &mut Object, device: &str, wanted: Option<XdpMode>) -> Result<(FdLink, XdpMode), Unavailable> {
    let modes: &[XdpMode] = match wanted {
        None => &[XdpMode::Native, XdpMode::Generic],
        Some(XdpMode::Native) => &[XdpMode::Native],
        Some(XdpMode::Generic) => &[XdpMode::Generic],
    };
    let mut refused = None;
    for &mode in modes {
        let program = object.program::<Xdp>(PROGRAM);
        let flags = match mode {
            XdpMode::Native => programs::XdpMode::Driver,
            XdpMode::Generic => programs::XdpMode::Skb,
        };
        let attached = program.attach(device, flags).and_then(|id| program.take_link(id));
        match attached.map(FdLink::try_from) {
            Ok(Ok(link)) => return Ok((link, mode)),
            // Dropped just now, and so detached.
            Ok(Err(_)) => return Err(object.unavailable(&io::Error::from(Errno::OPNOTSUPP))),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.expect("a mode was tried");
    Err(match code_of(&error) {
        Some(Errno::PERM | Errno::ACCESS) => object.unavailable(&error),
        code => no_xdp(device, code, &error),
    })
}

fn no_xdp(device: &str, code: Option<Errno>, error: &programs::ProgramError) -> Unavailable {
    let (error, mend) = match (code, error) {
        (_, programs::ProgramError::UnknownInterface { .. }) | (Some(Errno::NODEV), _) => {
            return Unavailable::NoDevice { device: device.to_owned() };
        }
        (Some(Errno::BUSY | Errno::EXIST), _) => (
            "another XDP program is there".to_owned(),
            "`ip link show` names it; stop the program that put it there, or `ip link set … xdp off`",
        ),
        (Some(code), _) => (
            io::Error::from(code).to_string(),
            "choose an Ethernet or veth device, with an MTU of at most 3,498 bytes and without LRO (ethtool -K … lro off)",
        ),
        (None, error) => (error.to_string(), "choose an Ethernet or veth device"),
    };
    Unavailable::NoXdp { device: device.to_owned(), error, mend }
}

fn words(ports: &[RangeInclusive<u16>]) -> Vec<u64> {
    let mut words = vec![0_u64; WORDS];
    for port in ports.iter().cloned().flatten().map(usize::from) {
        words[port / WORD] |= 1 << (port % WORD);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_bit() {
        let words = words(&[0..=0, 63..=64, 65_535..=65_535]);
        assert_eq!((words[0], words[1], words[WORDS - 1]), (1 | 1 << 63, 1, 1 << 63));
        assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 4);
    }
}
