//! Congestion windows, opened before the first byte.
//!
//! A connection begins with ten segments (RFC 6928) and doubles them each round trip. On a path of one's own, whose bandwidth is
//! known, a leg may begin with as many as the path holds.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use aya::maps::{HashMap, MapData};
use aya::programs::{CgroupAttachMode, SockOps};
use rustix::io::Errno;

use crate::namespace::Cookie;
use crate::object::{Counters, Object, to_io};
use crate::unavailable::{Release, Unavailable};
use crate::{address, cgroup};

mod leg;

pub use leg::Side;

use leg::LegKey;

/// Legs that the program knows at most. `[::]` counts as two.
pub const LEGS_MAX: usize = 1024;
/// Segments that a window is opened to at most: 1.5 GB of 1,460-byte segments, more than any path holds.
pub const SEGMENTS_MAX: u32 = 1 << 20;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/obj/window.o"));
const PROGRAM: &str = "midmile_window";
const WHAT: &str = "opening windows";
/// The first kernel whose programs of this kind can tell network namespaces apart.
const SINCE: Release = Release { major: 5, minor: 15 };

/// Opens windows as long as it lives, of connections that begin meanwhile.
pub struct Windows {
    namespace: Cookie,
    segments: HashMap<MapData, LegKey, u32>,
    counters: Counters<2>,
    /// Holds the program and where it is attached.
    _object: Object,
}

/// What became of legs that are in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounters {
    /// Windows opened.
    pub opened: u64,
    /// Refused by the kernel, because data had been sent before.
    pub refused: u64,
}

/// Why a leg's window can't be set.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// No window, or one beyond what any path holds.
    #[error("a window of {segments} segments; 1 to {SEGMENTS_MAX} can be opened")]
    Segments {
        /// Segments asked for.
        segments: u32,
    },
    /// The map is full.
    #[error("the windows of {LEGS_MAX} legs are set, and no more can be; let listeners or peers share an address")]
    Full,
    /// The kernel refused.
    #[error("the window of a leg couldn't be set: {0}")]
    Kernel(#[source] io::Error),
}

impl Windows {
    /// Attaches the program to the process's cgroup, beside what others have attached there (Linux 5.15, cgroup version 2). No
    /// window is opened yet.
    ///
    /// It holds for the calling thread's network namespace, and for connections of all processes of the cgroup and of those below
    /// it: give midmile a cgroup of its own where others use the same addresses.
    ///
    /// # Errors
    /// Why not, and the mend.
    pub fn attach() -> Result<Self, Unavailable> {
        let cgroup = cgroup::open_own()?;
        let mut object = Object::load(OBJECT, WHAT, SINCE)?;
        let program: &mut SockOps = object.program(PROGRAM);
        let attached = program.load().and_then(|()| program.attach(cgroup, CgroupAttachMode::Single));
        attached.map_err(|error| object.unavailable(&error))?;
        Ok(Self {
            namespace: Cookie::here().map_err(|error| object.unavailable(&error))?,
            segments: object.table("window_segments"),
            counters: object.counters("window_counters"),
            _object: object,
        })
    }

    /// Lets connections begin with a window of `segments`, 1 to [`SEGMENTS_MAX`]: those that are dialled to `address`, or that a
    /// listener on `address` accepts. An address of `0.0.0.0` or `[::]` is a wildcard, and `[::]` stands for IPv4 as well.
    ///
    /// The kernel closes the window again while the connection is idle, unless `net.ipv4.tcp_slow_start_after_idle` is 0 (see
    /// [`crate::probe::slow_start_after_idle`]).
    ///
    /// # Errors
    /// If the window is out of range, or there are [`LEGS_MAX`] already.
    pub fn set(&mut self, side: Side, address: SocketAddr, segments: u32) -> Result<(), WindowError> {
        if !(1..=SEGMENTS_MAX).contains(&segments) {
            return Err(WindowError::Segments { segments });
        }
        address::meant_by(address).try_for_each(|address| {
            let set = self
                .segments
                .insert(leg::key(self.namespace, side, address), segments, 0)
                .map_err(|error| to_io(&error));
            set.map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::TOOBIG) => WindowError::Full,
                _ => WindowError::Kernel(error),
            })
        })
    }

    /// Lets connections begin with the system's window again. One that wasn't set is no error.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn clear(&mut self, side: Side, address: SocketAddr) -> Result<(), WindowError> {
        address::meant_by(address).try_for_each(|address| {
            let cleared = self.segments.remove(&leg::key(self.namespace, side, address)).map_err(|error| to_io(&error));
            cleared.or_else(|error| match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => Ok(()),
                _ => Err(WindowError::Kernel(error)),
            })
        })
    }

    /// What became of legs so far.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn counters(&self) -> io::Result<WindowCounters> {
        let [opened, refused] = self.counters.read()?;
        Ok(WindowCounters { opened, refused })
    }
}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows").finish_non_exhaustive()
    }
}
