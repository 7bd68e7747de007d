//! Network devices.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::unavailable::Unavailable;

/// Devices that are watched at most.
pub const DEVICES_MAX: usize = 256;

/// A network device of the calling thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// By its name, such as `eth0`.
    Name(String),
    /// By its index.
    Index(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "#{index}"),
        }
    }
}

/// Which devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// All that are there now, up or not: one that comes up later is among them. At most [`DEVICES_MAX`].
    All,
    /// These.
    These(Vec<Device>),
}

impl Devices {
    /// The names.
    pub(crate) fn names(&self) -> Result<Vec<String>, Unavailable> {
        let names = match self {
            // Each thread may be in a namespace of its own.
            Self::All => listed(&std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default()),
            Self::These(devices) => devices.iter().map(name_of).collect::<Result<_, _>>()?,
        };
        match names.len() {
            0 => Err(Unavailable::NoDevice { device: "at all".to_owned() }),
            count if count > DEVICES_MAX => Err(Unavailable::TooManyDevices { count, max: DEVICES_MAX }),
            _ => Ok(names),
        }
    }
}

/// The names in `/proc/net/dev`: two lines of headings, then a line a device that begins with its name and a colon.
fn listed(table: &str) -> Vec<String> {
    table.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn name_of(device: &Device) -> Result<String, Unavailable> {
    let looked_up = || -> io::Result<String> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        match device {
            Device::Name(name) => netdevice::name_to_index(&socket, name).map(|_| name.clone()),
            Device::Index(index) => netdevice::index_to_name(&socket, *index),
        }
        .map_err(Errno::into)
    };
    looked_up().map_err(|_| Unavailable::NoDevice { device: device.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes    packets |bytes\n    lo: 1 2 3\nveth-a0:0 0 0\n";
        assert_eq!(listed(table), ["lo", "veth-a0"]);
    }

    #[test]
    fn the_loopback_device_is_found_by_name_and_index() {
        let by_name = Devices::These(vec![Device::Name("lo".to_owned())]).names().unwrap();
        let by_index = Devices::These(vec![Device::Index(1)]).names().unwrap();
        assert_eq!((by_name, by_index), (vec!["lo".to_owned()], vec!["lo".to_owned()]));
        assert!(Devices::All.names().unwrap().contains(&"lo".to_owned()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (device, named) in [(Device::Name("no-such".to_owned()), "no-such"), (Device::Index(999_999), "#999999")] {
            let error = Devices::These(vec![device]).names().unwrap_err();
            assert!(matches!(&error, Unavailable::NoDevice { device } if device == named), "{error}");
        }
        assert!(Devices::These(Vec::new()).names().is_err());
    }
}
