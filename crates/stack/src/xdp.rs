//! AF_XDP: frames of a device's receive queue, in memory shared with the kernel (Documentation/networking/af_xdp.rst; Linux 5.9).
//!
//! rustix has the socket and its options; the rings and the frames are in `sys`. The crate `xdp` (0.8) was the other choice: it sends 32
//! frames of a batch and drops the rest when a veth device's queue is full, and knows no two halves.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use midmile_engine::{ConnError, Time, Waker};
use midmile_kernel::neighbour::{Interface, Neighbour, Neighbours};
use midmile_kernel::{Redirect, Unavailable, XdpMode};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::config::StackConfig;
use crate::link::{ETHERNET_BYTES, Figures, Hop, Link};
use crate::sleep::{Clock, Sleep};
use crate::sys::{self, Rings};

pub use crate::sys::{RxHalf, TxHalf};

/// Bytes that the kernel keeps for itself in front of a packet (`XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;
/// The longest packet that fits a frame.
const MTU_MAX: usize = sys::FRAME_BYTES - HEADROOM - ETHERNET_BYTES;
/// Most frames of one direction: 4 GiB of them.
const FRAMES_MAX: u32 = 1 << 20;
/// How soon a device without room is tried again: nothing wakes a sender in copy mode.
const RETRY_EVERY: Duration = Duration::from_micros(50);
/// How often it's looked whether the device is still there: the kernel notes it on the socket when one is removed, and wakes nobody.
const DEVICE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Polls with frames waiting after which wakers are looked for all the same.
const LOOK_EVERY: u32 = 32;

/// How a queue is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpConfig {
    /// Frames of 4 KiB for packets that come: how many may wait while the program is busy. A power of two.
    pub rx_frames: u32,
    /// Frames of 4 KiB for packets that leave. A power of two.
    pub tx_frames: u32,
    /// Whether the device may read and write frames itself, where it can; otherwise the kernel copies.
    pub zero_copy: bool,
    /// Whether checksums of packets that come are verified; `None`: unless the device is a veth, which hands over unfinished ones. Other
    /// virtual devices in generic mode may do so as well.
    pub verifies: Option<bool>,
}

impl Default for XdpConfig {
    fn default() -> Self {
        Self { rx_frames: 4096, tx_frames: 2048, zero_copy: true, verifies: None }
    }
}

/// Why a device can't be used. Nothing is left attached to it.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The program can't be had there.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Its frames aren't Ethernet's.
    #[error(
        "{0} isn't an Ethernet device, and the stack's program reads Ethernet frames; choose one that is, or a veth pair"
    )]
    NotEthernet(String),
    /// It has no such queue.
    #[error("{device} has {queues} receive queues, numbered from 0, and {queue} isn't one of them")]
    NoQueue {
        /// The device.
        device: String,
        /// Queues that it has.
        queues: u32,
        /// The queue that was asked for.
        queue: u32,
    },
    /// Numbers of frames that can't be.
    #[error("rx_frames and tx_frames are powers of two from 64 to 2^20, not {0}")]
    Frames(u32),
    /// An address that the device doesn't have.
    #[error("{device} doesn't have the address {address}; `ip address` lists those that it has")]
    NotItsAddress {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// The socket can't be had.
    #[error("no AF_XDP socket on {device}, queue {queue}: {error}; {mend}")]
    Socket {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        error: io::Error,
        /// What to do about it.
        mend: &'static str,
    },
    /// The system refuses something else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A device whose packets to some ports are ours. Clones are the same device; it's as it was once all of them and all its queues are
/// dropped, or with the process however it ends.
#[derive(Clone, Debug)]
pub struct XdpDevice {
    redirect: Arc<Mutex<Redirect>>,
    interface: Interface,
    name: String,
}

/// A receive queue of a device.
#[derive(Debug)]
pub struct Xdp {
    // Dropped in this order: the program goes before the socket that it leads to.
    device: XdpDevice,
    rings: Rings,
    sleep: Sleep,
    clock: Clock,
    neighbours: Neighbours,
    figures: Figures,
    polls: u32,
    /// When to look for the device next.
    look_at: Time,
}

impl XdpDevice {
    /// Attaches to a device of the calling thread's network namespace: natively where its driver can, else generically, or as `wanted`.
    /// No packet is taken yet.
    ///
    /// # Errors
    /// See [`XdpError`].
    pub fn attach(name: &str, wanted: Option<XdpMode>) -> Result<Self, XdpError> {
        let interface = Neighbours::open()?.interface(name).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NODEV) => XdpError::Unavailable(Unavailable::NoDevice { device: name.to_owned() }),
            _ => XdpError::System(error),
        })?;
        if interface.link.is_none() {
            return Err(XdpError::NotEthernet(name.to_owned()));
        }
        let redirect = Redirect::attach(name, wanted)?;
        Ok(Self { redirect: Arc::new(Mutex::new(redirect)), interface, name: name.to_owned() })
    }

    /// The device's addresses, link-local ones left out: [`StackConfig::addresses`] may be these.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let global = |ip: &&IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.interface.addresses.iter().filter(global).copied().collect()
    }

    /// How many receive queues it has.
    #[must_use]
    pub const fn queues(&self) -> u32 {
        self.interface.queues
    }

    /// Where the program runs.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.redirect().mode()
    }

    /// Packets taken from the kernel so far.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn taken(&self) -> io::Result<u64> {
        self.redirect().taken()
    }

    /// Opens a queue, and takes packets to the addresses and ports of `stack` from the kernel: on a queue that nobody has opened they
    /// stay the kernel's.
    ///
    /// # Errors
    /// See [`XdpError`].
    pub fn open(&self, queue: u32, config: &XdpConfig, stack: &StackConfig) -> Result<Xdp, XdpError> {
        let queues = self.interface.queues;
        if queue >= queues {
            return Err(XdpError::NoQueue { device: self.name.clone(), queues, queue });
        }
        for frames in [config.rx_frames, config.tx_frames] {
            if !frames.is_power_of_two() || !(64..=FRAMES_MAX).contains(&frames) {
                return Err(XdpError::Frames(frames));
            }
        }
        let missing = stack.addresses.iter().find(|address| !self.interface.addresses.contains(address));
        if let Some(address) = missing {
            return Err(XdpError::NotItsAddress { device: self.name.clone(), address: *address });
        }
        let rings = self.rings(queue, config)?;
        let figures = Figures {
            mtu: (self.interface.mtu as usize).min(MTU_MAX),
            address: self.interface.link,
            verifies: config.verifies.unwrap_or(!self.interface.veth),
        };
        let (sleep, neighbours) = (Sleep::new()?, Neighbours::open()?);
        let mut redirect = self.redirect();
        redirect.give(queue, rings.as_fd())?;
        for address in &stack.addresses {
            redirect.add_address(*address)?;
        }
        let mut ports = stack.listen_ports.clone();
        ports.push(stack.dial_ports.clone());
        redirect.set_ports(&ports, &stack.datagram_ports)?;
        drop(redirect);
        let (device, clock) = (self.clone(), Clock::new());
        Ok(Xdp { device, rings, sleep, look_at: clock.now(), clock, neighbours, figures, polls: 0 })
    }

    fn redirect(&self) -> std::sync::MutexGuard<'_, Redirect> {
        self.redirect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket that shares its frames with the device where that can be, else one that copies.
    fn rings(&self, queue: u32, config: &XdpConfig) -> Result<Rings, XdpError> {
        let open =
            |zero_copy| sys::open_rings(self.interface.index, queue, config.rx_frames, config.tx_frames, zero_copy);
        let shared = config.zero_copy && self.mode() == XdpMode::Native;
        let opened = match shared.then(|| open(true)) {
            Some(Ok(rings)) => Ok(rings),
            _ => open(false),
        };
        opened.map_err(|error| {
            let mend = match Errno::from_io_error(&error) {
                Some(Errno::PERM | Errno::ACCESS) => "it needs CAP_NET_RAW: run as root, or grant it",
                Some(Errno::BUSY) => "another socket has the queue; stop the program that does",
                Some(Errno::NOBUFS | Errno::NOMEM) => {
                    "too little memory may be locked: raise `ulimit -l`, or take fewer frames"
                }
                Some(Errno::MFILE | Errno::NFILE) => "too few descriptors: raise `ulimit -n`",
                _ => "look whether the kernel has CONFIG_XDP_SOCKETS",
            };
            XdpError::Socket { device: self.name.clone(), queue, error, mend }
        })
    }
}

impl Xdp {
    /// Whether the device reads and writes frames itself; otherwise the kernel copies.
    #[must_use]
    pub const fn is_zero_copy(&self) -> bool {
        self.rings.zero_copy
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &XdpDevice {
        &self.device
    }
}

impl Xdp {
    /// Looks, now and then, whether the device is still there.
    ///
    /// # Errors
    /// It's gone.
    fn look(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        if now < self.look_at {
            return Ok(());
        }
        self.look_at = now.after(DEVICE_LOOK_EVERY);
        sockopt::socket_error(&self.rings)?.map_err(|errno| {
            let name = &self.device.name;
            io::Error::new(
                io::Error::from(errno).kind(),
                format!("{name} was removed ({errno}); start again once it's back"),
            )
        })
    }
}

impl Link for Xdp {
    type Rx<'a> = &'a mut RxHalf;
    type Tx<'a> = &'a mut TxHalf;

    fn figures(&self) -> Figures {
        self.figures
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn halves(&mut self) -> (&mut RxHalf, &mut TxHalf) {
        (&mut self.rings.rx, &mut self.rings.tx)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.look()?;
        let stalled = self.rings.tx.is_stalled();
        let patience = if stalled { RETRY_EVERY } else { DEVICE_LOOK_EVERY };
        let timeout = Some(timeout.map_or(patience, |wait| wait.min(patience)));
        if self.rings.rx.has_frame() && !self.rings.rx.needs_wakeup() {
            self.polls = self.polls.wrapping_add(1);
            if !self.polls.is_multiple_of(LOOK_EVERY) {
                return Ok(false);
            }
        }
        let timeout = if self.rings.rx.has_frame() { Some(Duration::ZERO) } else { timeout };
        let woken = self.sleep.until(&self.rings, timeout)?;
        if stalled {
            use crate::link::Transmit;
            self.rings.tx.flush();
        }
        Ok(woken)
    }

    fn is_stalled(&mut self) -> bool {
        self.rings.tx.has_pending()
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.sleep.watch(waker)
    }

    /// As the kernel would send: by its routes and neighbours. Answers to a dial come by the one queue that there is: on a device with
    /// several, they would be another's.
    fn next_hop(&mut self, to: IpAddr) -> Result<Hop, ConnError> {
        if self.device.interface.queues > 1 {
            return Err(ConnError::Denied);
        }
        let failed = |error: io::Error| Errno::from_io_error(&error).map_or(ConnError::Unreachable, ConnError::from);
        let way = self.neighbours.way(to).map_err(failed)?.ok_or(ConnError::Unreachable)?;
        if way.device != self.device.interface.index {
            return Err(ConnError::Unreachable);
        }
        let addresses = &self.device.interface.addresses;
        let first = || addresses.iter().find(|address| address.is_ipv4() == to.is_ipv4()).copied();
        let source = way.source.or_else(first).ok_or(ConnError::Unreachable)?;
        match self.neighbours.neighbour(way.device, way.next).map_err(failed)? {
            Neighbour::Known(link) => Ok(Hop { source, link: Some(link) }),
            Neighbour::Asked => Ok(Hop { source, link: None }),
            Neighbour::Silent | Neighbour::Unknown => {
                self.neighbours.resolve(way.device, way.next).map_err(failed)?;
                Ok(Hop { source, link: None })
            }
        }
    }
}
