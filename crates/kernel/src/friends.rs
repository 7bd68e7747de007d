//! Friends by eBPF: connections within this host whose bytes skip TCP. `docs/friends.md` tells which, and what stays TCP's.
//!
//! The programs hold for a cgroup as long as [`Friends`] lives. What connections hold of them lives on until the last of those
//! closes, so nothing is cut when it is dropped: not even when the process is killed. [`Attachment::all`] finds what there is, by
//! whomever it was attached, without a file anywhere.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use aya::maps::{HashMap, MapData, SockHash};
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};
use rustix::fs::{FlockOperation, flock};

use crate::cgroup;
use crate::object::{Object, to_io};
use crate::unavailable::{Release, Unavailable, may_trace};

mod attachment;
mod control;
mod figures;
mod tap;

pub use attachment::{Attachment, Holder};
pub use figures::{Figures, Reason};
pub use tap::{TAP_PORTS_MAX, TAP_RING_BYTES, Tap, Tapped, TappedWhat};

use control::Control;

/// Ports that can be listed at most.
pub const PORTS_MAX: usize = 64;
/// Ends of connections that are friends at once, at most.
pub const ENDS_MAX: usize = 65_536;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/obj/friends.o"));
const FOLLOW: &str = "midmile_friends";
const SEND: &str = "midmile_friends_send";
const WHAT: &str = "friends";
/// How long who attaches to the same cgroup at the same time is waited for, and between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// The first kernel that charges what waits past TCP to the receiver's buffer. On others a writer would never be stopped, and
/// nothing would say so: they are refused.
const SINCE: Release = Release { major: 6, minor: 13 };

/// By `struct name` of `bpf/friends_maps.h`.
type Sockets = SockHash<MapData, [u8; 16]>;

/// Why friends can't be had for a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum FriendsError {
    /// The directory can't be opened.
    #[error("{}: {error}; write the directory of a cgroup", path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The directory is none of a cgroup of version 2.
    #[error("{} isn't a cgroup of version 2; {mend}", path.display())]
    NotCgroup {
        /// The directory.
        path: PathBuf,
        /// What to do about it.
        mend: String,
    },
    /// Somebody has them on for the same cgroup.
    #[error("friends are on for {} already, by process {pid}; midmile friends detach --cgroup PATH ends that", path.display())]
    Attached {
        /// The directory.
        path: PathBuf,
        /// Whose they are.
        pid: u32,
    },
    /// More ports than the program knows.
    #[error("{count} ports, and at most {PORTS_MAX} can be listed; leave them out to mean every port")]
    Ports {
        /// Ports asked for.
        count: usize,
    },
    /// Somebody watches them already.
    #[error("they are watched already, by process {pid}: one midmile friends tap at a time")]
    Tapped {
        /// Who.
        pid: u32,
    },
    /// More ports than a tap knows.
    #[error("{count} ports, and a tap takes at most {TAP_PORTS_MAX}; leave them out to mean every port")]
    TapPorts {
        /// Ports asked for.
        count: usize,
    },
    /// The process can't read what the kernel knows of sockets.
    #[error(
        "friends: CAP_PERFMON is missing, which reading the other end's socket takes beside CAP_BPF and CAP_NET_ADMIN: run as root \
         or grant all three"
    )]
    Perfmon,
    /// The kernel's objects can't be listed.
    #[error("what is attached can't be found: {0}; it needs CAP_SYS_ADMIN: run as root")]
    Unlisted(#[source] io::Error),
    /// The kernel refuses to read or write a map; that isn't known to happen.
    #[error("a map of friends: {0}")]
    Map(#[source] io::Error),
    /// The programs can't be had.
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
}

/// Has connections made friends as long as it lives.
pub struct Friends {
    attachment: Attachment,
    /// Holds the programs and where they are attached.
    _object: Object,
}

impl Friends {
    /// Attaches the programs to the cgroup at `path`, beside what others have attached there, for it and the cgroups below it (Linux
    /// 6.13). Connections that begin from now on may be friends, if both ends' sockets are of the cgroup and don't wait in their
    /// calls; `ports` are those of servers, and none means all.
    ///
    /// # Errors
    /// Why not, and the mend. Nothing is attached then.
    pub fn attach(path: &Path, ports: &[u16]) -> Result<Self, FriendsError> {
        if ports.len() > PORTS_MAX {
            return Err(FriendsError::Ports { count: ports.len() });
        }
        let (path, directory) = cgroup::open(path)?;
        let id = cgroup::id(&directory).map_err(|error| FriendsError::Cgroup { path: path.clone(), error })?;
        await_others(&directory);
        refuse_twice(id, &path)?;
        let Loaded { mut object, sockets, ids } = Loaded::load()?;
        list(&mut object, ports)?;
        let control = Control::of_this_process(id, &path, !ports.is_empty(), ids);
        let attachment =
            Attachment::begin(object.array("friends_control"), control, sockets, object.counters("friends_counters"))?;
        // Last: from here on the kernel calls.
        let follow: &mut SockOps = object.program(FOLLOW);
        follow.attach(&directory, CgroupAttachMode::Single).map_err(|error| object.unavailable(&error))?;
        Ok(Self { attachment, _object: object })
    }

    /// What is attached: how it does, and whether it's on.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// See [`Attachment::switch_off`]. To be called before it is dropped: what connections hold would go on past TCP.
    ///
    /// # Errors
    /// See there.
    pub fn switch_off(&mut self) -> Result<(), FriendsError> {
        self.attachment.switch_off()
    }
}

impl fmt::Debug for Friends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Friends").field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

/// Whether [`Friends::attach`] would do: loads both programs and attaches the one that needs no cgroup.
pub(crate) fn probe() -> Result<(), FriendsError> {
    Loaded::load().map(drop)
}

/// The programs, loaded; the one for sending attached to the map of sockets.
struct Loaded {
    object: Object,
    sockets: Sockets,
    /// See [`Control::maps`].
    ids: [u32; 4],
}

impl Loaded {
    fn load() -> Result<Self, FriendsError> {
        if Release::here().is_some_and(|here| here < SINCE) {
            let error = "what skips TCP isn't charged to the receiver's buffer there";
            return Err(Unavailable::too_old(WHAT, SINCE, error).into());
        }
        if !may_trace() {
            return Err(FriendsError::Perfmon);
        }
        let mut object = Object::load(OBJECT, WHAT, SINCE)?;
        let [sockets, counters, tap, tapped] =
            ["friends_sockets", "friends_counters", "friends_tap", "friends_tapped"].map(|name| object.map_id(name));
        let ids = [sockets?, counters?, tap?, tapped?];
        let sockets: Sockets = object.socket_table("friends_sockets");
        let send: &mut SkMsg = object.program(SEND);
        let ready = send.load().and_then(|()| send.attach(sockets.fd()));
        ready.map_err(|error| object.unavailable(&error))?;
        let follow: &mut SockOps = object.program(FOLLOW);
        follow.load().map_err(|error| object.unavailable(&error))?;
        Ok(Self { object, sockets, ids })
    }
}

fn list(object: &mut Object, ports: &[u16]) -> Result<(), FriendsError> {
    let mut listed: HashMap<MapData, u16, u8> = object.table("friends_ports");
    let mut set = ports.iter().map(|port| listed.insert(port, 1, 0));
    set.try_for_each(|set| set.map_err(|error| FriendsError::Map(to_io(&error))))
}

/// Who attaches to a cgroup at the same time waits till this is done, and finds it then: as long as the directory is open. Somebody who has it locked
/// for something else isn't waited for long.
fn await_others(directory: &File) {
    let deadline = Instant::now() + PATIENCE;
    while flock(directory, FlockOperation::NonBlockingLockExclusive).is_err() && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
}

/// Two for one cgroup would only be in each other's way: a socket can be in one map.
fn refuse_twice(cgroup: u64, path: &Path) -> Result<(), FriendsError> {
    let all = match Attachment::all() {
        // Who can't look for others may still attach.
        Err(FriendsError::Unlisted(_)) => Vec::new(),
        found => found?,
    };
    let on = all.iter().find(|found| found.cgroup() == cgroup && found.is_on().unwrap_or(false));
    match on.map(Attachment::holder) {
        Some(Holder::Running(pid)) => Err(FriendsError::Attached { path: path.to_owned(), pid }),
        Some(Holder::Gone(_)) | None => Ok(()),
    }
}
