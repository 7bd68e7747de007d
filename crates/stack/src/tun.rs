//! A TUN device: the kernel of this host at the other end. For tests and trying out: a system call a packet makes it slow.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{ConnError, Time, Waker};
use midmile_kernel::neighbour::Neighbours;
use rustix::fs::OFlags;

use crate::link::{Figures, Hop, Link, Receive, Transmit};
use crate::sleep::{Clock, Sleep};
use crate::sys;

const DEVICE: &str = "/dev/net/tun";

/// Why there's no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel's device can't be opened.
    #[error("can't open {DEVICE}: {0}; load the module tun (modprobe tun), and run as root")]
    Open(#[source] io::Error),
    /// The device can't be made.
    #[error("can't make the TUN device {name}: {error}; run as root, or grant CAP_NET_ADMIN")]
    Make {
        /// Its name.
        name: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// Anything else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A TUN device, which is gone when it is dropped. Its addresses, and that it's up, are the caller's to see to.
#[derive(Debug)]
pub struct Tun {
    rx: TunRx,
    tx: TunTx,
    sleep: Sleep,
    clock: Clock,
    addresses: Vec<IpAddr>,
}

/// The half that receives.
#[derive(Debug)]
pub struct TunRx {
    file: Arc<File>,
    buffer: Box<[u8]>,
}

/// The half that sends.
#[derive(Debug)]
pub struct TunTx {
    file: Arc<File>,
    buffer: Box<[u8]>,
}

impl Tun {
    /// Makes the device `name` in the calling thread's network namespace. Connections are dialled
    /// from the first of `addresses` of their family.
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn open(name: &str, addresses: &[IpAddr]) -> Result<Self, TunError> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("the flag fits an int");
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(DEVICE);
        let file = opened.map_err(TunError::Open)?;
        sys::make_tun(file.as_fd(), name).map_err(|error| TunError::Make { name: name.to_owned(), error })?;
        let mtu = Neighbours::open()?.interface(name)?.mtu as usize;
        let file = Arc::new(file);
        let buffer = || vec![0; mtu].into_boxed_slice();
        Ok(Self {
            rx: TunRx { file: file.clone(), buffer: buffer() },
            tx: TunTx { file, buffer: buffer() },
            sleep: Sleep::new()?,
            clock: Clock::new(),
            addresses: addresses.to_vec(),
        })
    }
}

impl Receive for TunRx {
    fn next_frame(&mut self) -> Option<&[u8]> {
        loop {
            match (&*self.file).read(&mut self.buffer) {
                Ok(len) => return Some(&self.buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // None now, or the device is down.
                Err(_) => return None,
            }
        }
    }
}

impl Transmit for TunTx {
    fn has_room(&mut self) -> bool {
        true
    }

    /// A packet that the kernel doesn't take is lost, as on a wire.
    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let packet = &mut self.buffer[..len];
        let answer = fill(packet);
        (&*self.file).write_all(packet).ok();
        answer
    }

    fn flush(&mut self) {}
}

impl Link for Tun {
    type Rx<'a> = &'a mut TunRx;
    type Tx<'a> = &'a mut TunTx;

    fn figures(&self) -> Figures {
        Figures { mtu: self.tx.buffer.len(), address: None, verifies: true }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn halves(&mut self) -> (&mut TunRx, &mut TunTx) {
        (&mut self.rx, &mut self.tx)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.sleep.until(&*self.rx.file, timeout)
    }

    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()> {
        self.sleep.watch(waker)
    }

    fn next_hop(&mut self, to: IpAddr) -> Result<Hop, ConnError> {
        let source = self.addresses.iter().find(|address| address.is_ipv4() == to.is_ipv4());
        let source = source.copied().ok_or(ConnError::Unreachable)?;
        Ok(Hop { source, link: Some([0; 6]) })
    }
}
