//! The ends of a link: TUN devices that hand super-packets over (Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::netns::Host;
use crate::packet::PREFIX;
use crate::sys;

/// Bytes of the largest packet, its prefix among them.
pub(crate) const PACKET_MAX: usize = PREFIX + 65_536;
const DEVICE: &str = "/dev/net/tun";

/// One end, in the namespace of its host; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device `name` in a host.
    pub(crate) fn open(host: &Host, name: &str) -> Result<Self> {
        let device = name.to_owned();
        host.run(move || open_here(&device))?.with_context(|| format!("in host {}", host.name()))
    }

    /// Reads a packet with its prefix; `None` when there is none now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match self.file.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("can't read from a TUN device"),
        }
    }

    /// Hands a packet to the host; answers whether the host took it. A device that is going down takes none.
    pub(crate) fn write(&mut self, packet: &[u8]) -> bool {
        self.file.write(packet).is_ok_and(|written| written == packet.len())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_here(name: &str) -> Result<Tun> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("the flag fits an int");
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(DEVICE).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => {
                "load the module tun (modprobe tun), or give the container the device (--device /dev/net/tun)"
            }
            io::ErrorKind::PermissionDenied => "run as root, or make the device readable and writable for this user",
            _ => "run as root on a kernel with CONFIG_TUN",
        };
        anyhow::anyhow!("can't open {DEVICE}: {error}; {mend}")
    })?;
    sys::attach_tun(file.as_fd(), name).with_context(|| {
        format!("can't make the TUN device {name}; run as root, or give the container CAP_NET_ADMIN")
    })?;
    sys::offload_tun(file.as_fd()).context("this kernel's TUN devices have no TCP offload")?;
    Ok(Tun { file })
}
