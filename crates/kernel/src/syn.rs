//! Clients' SYNs, announced before their handshake ends.
//!
//! A client's connection is accepted one round trip after its SYN came. A gateway that hears of the SYN dials onward in that
//! time.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::{ProgramError, SchedClassifier};
use rustix::io::Errno;

use crate::address;
use crate::device::Devices;
use crate::object::{Counters, Object, to_io};
use crate::unavailable::{Release, Unavailable, code_of};

mod config;
mod event;
mod hook;

pub use config::{Bound, SynConfig};
pub use event::SynEvent;
pub use hook::Hook;

use config::{ListenerKey, Words};

/// Listeners that the program knows at most. `[::]` counts as two.
pub const LISTENERS_MAX: usize = 1024;
/// Events that one [`SynWatch::drain`] takes at most.
pub const EVENTS_PER_DRAIN: usize = 256;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/obj/syn.o"));
const PROGRAM: &str = "midmile_syn";
const WHAT: &str = "announcing SYNs";
/// The first kernel whose programs have the atomic operation that buckets rest on.
const SINCE: Release = Release { major: 5, minor: 12 };

/// Announces SYNs as long as it lives.
pub struct SynWatch {
    /// Holds the program and where it is attached.
    object: Object,
    devices: Vec<String>,
    hook: Option<Hook>,
    words: Words,
    config: Array<MapData, Words>,
    listeners: HashMap<MapData, ListenerKey, u32>,
    known: HashSet<ListenerKey>,
    events: RingBuf<MapData>,
    counters: Counters<6>,
}

/// What became of SYNs for the listeners. SYNs that came while it was switched off aren't counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynCounters {
    /// Told to user space.
    pub announced: u64,
    /// Sent again, and told before.
    pub retransmitted: u64,
    /// Over the bound of their source's prefix.
    pub over_source: u64,
    /// Over the bound of all.
    pub over_all: u64,
    /// User space was too slow, and the ring full.
    pub ring_full: u64,
    /// The kernel found no room to remember them.
    pub table_full: u64,
}

/// Why listeners can't be announced; those before stay.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// Too many of them.
    #[error("{count} listeners for early dial, and at most {max} are announced; let one listen on a wildcard address")]
    TooMany {
        /// Listeners asked for.
        count: usize,
        /// Listeners that may be.
        max: usize,
    },
    /// The kernel refused.
    #[error("the listeners for early dial couldn't be set: {0}")]
    Kernel(#[from] io::Error),
}

impl SynWatch {
    /// Attaches the program to devices, switched on (Linux 5.12; from 6.6 on it detaches with the process, however that ends).
    ///
    /// # Errors
    /// Why not, and the mend. Nothing is left attached then.
    pub fn attach(devices: &Devices, config: &SynConfig) -> Result<Self, Unavailable> {
        let names = devices.names()?;
        let mut watch = Self::load(config)?;
        for name in names {
            match watch.attach_to(&name) {
                Ok(()) => watch.devices.push(name),
                // It went away since it was listed.
                Err(error) if *devices == Devices::All && code_of(&error) == Some(Errno::NODEV) => {}
                Err(error) => return Err(watch.object.unavailable(&error)),
            }
        }
        let on = watch.set_enabled(true);
        on.map_err(|error| watch.object.unavailable(&error))?;
        Ok(watch)
    }

    /// Whether [`Self::attach`] would do, and how; see [`crate::probe::syn_watch`].
    pub(crate) fn probe(config: &SynConfig) -> Result<Hook, Unavailable> {
        let mut watch = Self::load(config)?;
        watch.hook = Some(Hook::Tcx);
        match watch.attach_to("lo") {
            Ok(()) => Ok(Hook::Tcx),
            Err(error) if hook::is_unknown(&error) => Ok(Hook::Clsact),
            Err(error) => Err(watch.object.unavailable(&error)),
        }
    }

    /// Loads the program, switched off and attached nowhere.
    fn load(config: &SynConfig) -> Result<Self, Unavailable> {
        let mut object = Object::load(OBJECT, WHAT, SINCE)?;
        let loaded = object.program::<SchedClassifier>(PROGRAM).load();
        loaded.map_err(|error| object.unavailable(&error))?;
        let mut watch = Self {
            devices: Vec::new(),
            hook: config.hook,
            words: config.words(),
            config: object.array("syn_config"),
            listeners: object.table("syn_listeners"),
            known: HashSet::new(),
            events: object.ring("syn_events")?,
            counters: object.counters("syn_counters"),
            object,
        };
        watch.set_listeners(config.listeners.iter().copied())?;
        Ok(watch)
    }

    /// Attaches to one device, by the hook that the first one took.
    fn attach_to(&mut self, device: &str) -> Result<(), ProgramError> {
        let program = self.object.program(PROGRAM);
        self.hook = Some(hook::attach(program, device, self.hook)?);
        Ok(())
    }

    /// The devices that it is attached to.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// How it is attached; `None` while it is attached nowhere.
    pub fn hook(&self) -> Option<Hook> {
        self.hook
    }

    /// Switches announcing on or off. It should be off while a listener sends SYN cookies: its queue is full then, and few
    /// connections will come of many SYNs.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn set_enabled(&mut self, enabled: bool) -> io::Result<()> {
        self.words[config::ENABLED] = u64::from(enabled);
        self.config.set(0, self.words, 0).map_err(|error| to_io(&error))
    }

    /// Takes these listeners instead of those before. An address of `0.0.0.0` or `[::]` is a wildcard, and `[::]` stands for
    /// IPv4 as well.
    ///
    /// # Errors
    /// If there are more than [`LISTENERS_MAX`], or the kernel refuses.
    pub fn set_listeners(&mut self, listeners: impl IntoIterator<Item = SocketAddr>) -> Result<(), ListenersError> {
        let wanted: HashSet<_> = listeners.into_iter().flat_map(address::meant_by).map(config::listener_key).collect();
        if wanted.len() > LISTENERS_MAX {
            return Err(ListenersError::TooMany { count: wanted.len(), max: LISTENERS_MAX });
        }
        // Old ones go first: both together might not find room.
        for key in self.known.difference(&wanted).copied().collect::<Vec<_>>() {
            self.listeners.remove(&key).map_err(|error| to_io(&error))?;
            self.known.remove(&key);
        }
        for key in wanted {
            self.listeners.insert(key, 1, 0).map_err(|error| to_io(&error))?;
            self.known.insert(key);
        }
        Ok(())
    }

    /// Tells of SYNs that have come, at most [`EVENTS_PER_DRAIN`], and says of how many. If it was as many, more may wait. It
    /// never blocks: wait for [`AsFd::as_fd`] to become readable, level-triggered.
    pub fn drain(&mut self, mut on_syn: impl FnMut(SynEvent)) -> usize {
        for told in 0..EVENTS_PER_DRAIN {
            let Some(record) = self.events.next() else { return told };
            let record = record.as_array().expect("the program writes events of this size alone");
            on_syn(SynEvent::decode(record));
        }
        EVENTS_PER_DRAIN
    }

    /// What became of SYNs so far.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn counters(&self) -> io::Result<SynCounters> {
        let [announced, retransmitted, over_source, over_all, ring_full, table_full] = self.counters.read()?;
        Ok(SynCounters { announced, retransmitted, over_source, over_all, ring_full, table_full })
    }
}

impl fmt::Debug for SynWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, hook, .. } = self;
        f.debug_struct("SynWatch").field("devices", devices).field("hook", hook).finish_non_exhaustive()
    }
}

impl AsFd for SynWatch {
    /// Readable while events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
