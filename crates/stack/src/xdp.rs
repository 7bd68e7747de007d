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
/// How often it's looked whether the device is still there, and what its MTU is: the kernel notes it on the socket when one is removed,
/// and wakes nobody.
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
    /// Whether checksums of packets that come are verified; `None`: unless the device is a veth, or a virtio-net in generic mode, which
    /// hand over unfinished ones. Other virtual devices in generic mode may do so as well.
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
    /// Its driver gives it more queues while a program is attached, as virtio_net does where it may have as many more as there are CPUs.
    /// Packets come by these as well, but they can't be served: they don't send what a socket copies (Linux 7.2), and frames that they share
    /// stay with the driver when program and queues go, so that the kernel fails when the next program is attached.
    #[error(
        "{device} has {before} receive queues, but {during} with an XDP program, and those beyond can't be served: give it as many as it may \
         have (`ethtool -l {device}` tells, `ethtool -L {device} combined …`), or as a virtual device no more than there are CPUs"
    )]
    QueuesComeAndGo {
        /// The device.
        device: String,
        /// Queues without a program.
        before: u32,
        /// Queues with one.
        during: u32,
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
        let mut interface =
            Neighbours::open()?.interface(name).map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => XdpError::Unavailable(Unavailable::NoDevice { device: name.to_owned() }),
                _ => XdpError::System(error),
            })?;
        if interface.link.is_none() {
            return Err(XdpError::NotEthernet(name.to_owned()));
        }
        let most = interface.queues;
        let used = || io::Result::Ok(sys::receive_queues(name)?.unwrap_or(most));
        let before = used()?;
        let redirect = Redirect::attach(name, wanted)?;
        interface.queues = check_queues(name, before, used()?)?;
        Ok(Self { redirect: Arc::new(Mutex::new(redirect)), interface, name: name.to_owned() })
    }

    /// The device's addresses, link-local ones left out: [`StackConfig::addresses`] may be these.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let global = |ip: &&IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.interface.addresses.iter().filter(global).copied().collect()
    }

    /// How many receive queues it used when the program was attached. Packets may come by any of them, so each wants opening: on one
    /// that nobody has opened they are the kernel's, which resets their connections ([`XdpDevice::astray`]).
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

    /// Packets that would have been taken, but came by a queue that nobody has opened: the kernel had them.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn astray(&self) -> io::Result<u64> {
        self.redirect().astray()
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
            mtu: usable(self.interface.mtu),
            address: self.interface.link,
            verifies: config.verifies.unwrap_or_else(|| {
                has_whole_checksums(self.interface.veth, self.mode(), driver(&self.name).as_deref())
            }),
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
        let Interface { index, veth, .. } = self.interface;
        let open = |zero_copy| sys::open_rings(index, queue, config.rx_frames, config.tx_frames, zero_copy, veth);
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

/// How many queues there are to open, or that they can't all be served.
fn check_queues(device: &str, before: u32, during: u32) -> Result<u32, XdpError> {
    if during > before {
        return Err(XdpError::QueuesComeAndGo { device: device.to_owned(), before, during });
    }
    Ok(during)
}

/// The name of a device's driver, where sysfs(5) has the device.
fn driver(device: &str) -> Option<String> {
    let path = std::fs::read_link(format!("/sys/class/net/{device}/device/driver")).ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Whether what comes has checksums that somebody has finished. In native mode virtio_net has its host do so; in generic mode the host hands
/// over what its own sockets and other guests' sent as they left it.
fn has_whole_checksums(veth: bool, mode: XdpMode, driver: Option<&str>) -> bool {
    !veth && (mode == XdpMode::Native || driver != Some("virtio_net"))
}

impl Xdp {
    /// Whether the device reads and writes frames itself; otherwise the kernel copies.
    #[must_use]
    pub const fn is_zero_copy(&self) -> bool {
        self.rings.zero_copy
    }

    /// Whether TCP's checksums are left to the kernel, which on a veth leaves them to whoever takes the packet off this host (Linux 6.11, where
    /// it copies); otherwise they are made in software.
    #[must_use]
    pub const fn leaves_checksums(&self) -> bool {
        self.rings.tx.finishes()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &XdpDevice {
        &self.device
    }
}

impl Xdp {
    /// Looks, now and then, whether the device is still there, and how long its packets may be.
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
        })?;
        // It fails for a device that is being removed, which the next look finds.
        if let Ok(mtu) = self.neighbours.mtu(self.device.interface.index) {
            self.figures.mtu = usable(mtu);
        }
        Ok(())
    }
}

/// Of a device's MTU, what a frame has room for.
fn usable(mtu: u32) -> usize {
    (mtu as usize).min(MTU_MAX)
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
        self.rings.tx.is_leaving()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_verified_but_where_nobody_has_finished_them() {
        use XdpMode::{Generic, Native};
        let seen = [(true, Native, None), (true, Generic, None), (false, Generic, Some("virtio_net"))];
        assert!(seen.into_iter().all(|(veth, mode, driver)| !has_whole_checksums(veth, mode, driver)));
        let seen = [(false, Native, Some("virtio_net")), (false, Generic, Some("e1000e")), (false, Generic, None)];
        assert!(seen.into_iter().all(|(veth, mode, driver)| has_whole_checksums(veth, mode, driver)));
    }

    #[test]
    fn queues_that_go_with_the_program_are_refused() {
        let refused = check_queues("nic", 1, 3).unwrap_err().to_string();
        assert!(refused.contains("nic has 1 receive queues, but 3") && refused.contains("ethtool -L nic"), "{refused}");
        assert_eq!(check_queues("nic", 4, 4).unwrap(), 4);
        assert_eq!(check_queues("nic", 4, 2).unwrap(), 2, "a driver may take some for itself");
    }
}
