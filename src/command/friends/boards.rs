//! The boards of processes with ring friends, as `/proc` shows them.
//!
//! A board is a file in memory that the process holds open under a name of its own. It's read and written as a file and never mapped: so
//! what a process does to its board can't hurt who looks. What stands in it is believed to be figures and no more.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use midmile_friends::{BOARD_BYTES, ENTRY_BYTES, EntryTold, HEAD_BYTES, HeadTold, TAP_AT, WISH_AT, Wish};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// What a descriptor that is a board is called.
const NAME: &str = "/memfd:midmile-friends-board (deleted)";

/// A process's board.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) pid: u32,
    pub(super) head: HeadTold,
    /// The user who made it.
    owner: u32,
    identity: (u64, u64),
    file: File,
}

/// What is done with the boards that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Look,
    Tell,
}

impl Board {
    /// The boards of all processes that this one may look into, by process. Others, and processes that end meanwhile, are left out.
    pub(super) fn all(wanted: Use) -> io::Result<Vec<Self>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            for board in of_process(pid, wanted) {
                // A child that was forked past the library has its parent's open too.
                let own = board.head.process == pid;
                if own || !found.contains_key(&board.identity) {
                    found.insert(board.identity, board);
                }
            }
        }
        let mut boards: Vec<Self> = found.into_values().collect();
        boards.sort_by_key(|board| board.pid);
        Ok(boards)
    }

    /// Those of a runtime directory: of its owner's processes, whatever others say that theirs are of.
    pub(super) fn of(directory: &Metadata, wanted: Use) -> io::Result<Vec<Self>> {
        let mut boards = Self::all(wanted)?;
        let identity = [directory.dev(), directory.ino()];
        boards.retain(|board| board.owner == directory.uid() && board.head.directory == identity);
        Ok(boards)
    }

    /// Says what is wished.
    pub(super) fn tell(&self, wish: Wish) -> io::Result<()> {
        self.file.write_all_at(&(wish as u32).to_ne_bytes(), WISH_AT)
    }

    /// Says until when somebody watches, in seconds of the monotonic clock; 0: nobody does.
    pub(super) fn tap(&self, until: u32) -> io::Result<()> {
        self.file.write_all_at(&until.to_ne_bytes(), TAP_AT)
    }

    /// Which board it is: device and inode.
    pub(super) fn file(&self) -> (u64, u64) {
        self.identity
    }

    /// The entries that are in use. One that began or ended while it was read is left out.
    pub(super) fn entries(&self) -> io::Result<Vec<EntryTold>> {
        let read = || -> io::Result<Vec<Option<EntryTold>>> {
            let mut bytes = vec![0; self.head.entries * ENTRY_BYTES];
            self.file.read_exact_at(&mut bytes, HEAD_BYTES as u64)?;
            Ok(bytes.chunks_exact(ENTRY_BYTES).map(EntryTold::read).collect())
        };
        let (before, now) = (read()?, read()?);
        let still = |(before, now): (Option<EntryTold>, Option<EntryTold>)| {
            now.filter(|now| before.is_some_and(|before| before.serial == now.serial))
        };
        Ok(before.into_iter().zip(now).filter_map(still).collect())
    }
}

/// The boards that a process has open.
fn of_process(pid: u32, wanted: Use) -> Vec<Board> {
    let directory = PathBuf::from(format!("/proc/{pid}/fd"));
    let named = |path: &PathBuf| fs::read_link(path).is_ok_and(|target| target == Path::new(NAME));
    let descriptors = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    descriptors.filter(named).filter_map(|path| read(pid, &path, wanted).ok().flatten()).collect()
}

/// Opens what may be a board, and reads its head; `None` where it isn't one.
fn read(pid: u32, path: &Path, wanted: Use) -> io::Result<Option<Board>> {
    // First without opening it: by now the number may be a device's, and opening that does something.
    let seen = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&seen)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || usize::try_from(stat.st_size) != Ok(BOARD_BYTES) {
        return Ok(None);
    }
    let access = if wanted == Use::Tell { OFlags::RDWR } else { OFlags::RDONLY };
    // A lease on it, which is nothing that a board has, would have us wait for who has that (fcntl(2)).
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(format!("/proc/self/fd/{}", seen.as_raw_fd()), flags, Mode::empty())?);
    let mut bytes = vec![0; HEAD_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(HeadTold::read(&bytes).map(|head| Board {
        pid,
        head,
        owner: stat.st_uid,
        identity: (stat.st_dev, stat.st_ino),
        file,
    }))
}
