//! Attachments: one's own, and those that are found in the kernel.

use std::fmt;
use std::io;
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError, loaded_maps};
use rustix::io::Errno;

use super::control::{Control, Words};
use super::figures::{Cells, Figures};
use super::tap::Tap;
use super::{FriendsError, Sockets};
use crate::object::{Counters, to_io};
use crate::unavailable::code_of;

/// The map that says whose an attachment is; the kernel keeps fifteen characters of a name.
const CONTROL: &str = "friends_control";

/// Friends of a cgroup, as the kernel has them: on, or left over for as long as connections hold them.
pub struct Attachment {
    control: Control,
    words: Array<MapData, Words>,
    sockets: Sockets,
    counters: Cells,
}

/// The process that attached them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It runs.
    Running(u32),
    /// It's gone, and with it what makes new friends. Those that there are stay what they are.
    Gone(u32),
}

impl Attachment {
    /// Writes down a new one.
    pub(super) fn begin(
        mut words: Array<MapData, Words>,
        control: Control,
        sockets: Sockets,
        counters: Cells,
    ) -> Result<Self, FriendsError> {
        words.set(0, control.words(), 0).map_err(|error| FriendsError::Map(to_io(&error)))?;
        Ok(Self { control, words, sockets, counters })
    }

    /// All that the kernel has, in the order in which they were attached. Takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// If the kernel's maps can't be listed or read.
    pub fn all() -> Result<Vec<Self>, FriendsError> {
        let mut all = Vec::new();
        for map in loaded_maps() {
            let found = map.and_then(|map| match map.name_as_str() {
                Some(CONTROL) if map.value_size() == WORDS_BYTES => Self::found(map.id()),
                _ => Ok(None),
            });
            match found {
                Ok(found) => all.extend(found),
                // It went away meanwhile.
                Err(error) if code_of(&error) == Some(Errno::NOENT) => {}
                Err(error) => return Err(FriendsError::Unlisted(to_io(&error))),
            }
        }
        Ok(all)
    }

    /// The one whose map has this number; none if it is of something else.
    fn found(id: u32) -> Result<Option<Self>, MapError> {
        let words: Array<MapData, Words> = Array::try_from(Map::Array(MapData::from_id(id)?))?;
        let Some(control) = Control::from_words(&words.get(&0, 0)?) else { return Ok(None) };
        let [sockets, counters, ..] = control.maps;
        let sockets = Sockets::try_from(Map::SockHash(MapData::from_id(sockets)?))?;
        let counters = Counters::found(MapData::from_id(counters)?)?;
        Ok(Some(Self { control, words, sockets, counters }))
    }

    /// The cgroup's number.
    pub(super) fn cgroup(&self) -> u64 {
        self.control.cgroup
    }

    /// The cgroup's directory when it was attached; of a very long path the end.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.control.path
    }

    /// Whether it is of the cgroup at `path`.
    ///
    /// # Errors
    /// If that is none.
    pub fn is_of(&self, path: &Path) -> Result<bool, FriendsError> {
        let (path, directory) = crate::cgroup::open(path)?;
        let id = crate::cgroup::id(&directory).map_err(|error| FriendsError::Cgroup { path, error })?;
        Ok(id == self.control.cgroup)
    }

    /// Whose it is.
    #[must_use]
    pub fn holder(&self) -> Holder {
        if self.control.is_held() { Holder::Running(self.control.pid) } else { Holder::Gone(self.control.pid) }
    }

    /// Whether bytes may skip TCP.
    ///
    /// # Errors
    /// If the map can't be read, which isn't known to happen.
    pub fn is_on(&self) -> Result<bool, FriendsError> {
        let words = self.words.get(&0, 0).map_err(|error| FriendsError::Map(to_io(&error)))?;
        Ok(Control::from_words(&words).is_some_and(|control| !control.is_off))
    }

    /// From now on each byte goes by TCP, behind those that are on their way, and no connection is made friends. Nothing is cut, and
    /// what has skipped TCP waits for its reader as long as it takes.
    ///
    /// # Errors
    /// If the map can't be written, which isn't known to happen.
    pub fn switch_off(&mut self) -> Result<(), FriendsError> {
        self.control.is_off = true;
        self.words.set(0, self.control.words(), 0).map_err(|error| FriendsError::Map(to_io(&error)))
    }

    /// Watches what its friends say to each other, if `ports` is empty or has one of the ports of theirs. Takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// If somebody watches already, there are more ports than [`super::TAP_PORTS_MAX`], or the kernel refuses.
    pub fn tap(&self, ports: &[u16]) -> Result<Tap, FriendsError> {
        let [.., switch, ring] = self.control.maps;
        Tap::begin(switch, ring, ports)
    }

    /// Ends of connections that are friends now. Both ends of one count; those that close meanwhile may be missed or counted.
    #[must_use]
    pub fn ends(&self) -> usize {
        self.sockets.keys().map_while(Result::ok).take(super::ENDS_MAX).count()
    }

    /// What has come of connections so far.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn figures(&self) -> io::Result<Figures> {
        self.counters.read().map(Figures::of)
    }
}

/// Bytes of the map's value.
const WORDS_BYTES: u32 = 312;

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("control", &self.control).finish_non_exhaustive()
    }
}
