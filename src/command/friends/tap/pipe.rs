//! What programs say that `midmile friends run` started: they write it to a pipe in their runtime directory, while their boards say that
//! somebody watches.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use midmile_friends::{Figure, Record, Told};
use midmile_kernel::{Tapped, TappedWhat};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, mknodat, open};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::time::{ClockId, clock_gettime};

use super::super::boards::{Board, Use};
use super::Source;
use crate::exit::Failure;
use crate::friends::directory::failed;

/// The pipe, in the runtime directory.
const FILE: &str = "tap";
/// What waits in the pipe at most; less where the system allows less (`/proc/sys/fs/pipe-max-size`).
const ROOM: usize = 1 << 20;
/// How long programs go on after a renewal.
const LEASE: Duration = Duration::from_secs(5);
/// Bytes that are taken from the pipe at once.
const TAKEN: usize = 64 * 1024;

/// The pipe, and who writes to it.
pub(super) struct Pipe {
    file: OwnedFd,
    path: PathBuf,
    directory: Metadata,
    ports: Vec<u16>,
    /// What came, up to `filled`.
    bytes: Vec<u8>,
    filled: usize,
    /// By board: what it counted as untold before, and at the last look.
    untold: BTreeMap<(u64, u64), (u64, u64)>,
    begun: bool,
}

impl Pipe {
    /// Has the programs of a runtime directory tell what they send.
    pub(super) fn begin(directory: &Path, ports: &[u16]) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        let refused = |error: io::Error| failed("tap by", &path, &error);
        let found = fs::metadata(directory).map_err(refused)?;
        let file = make(&path).map_err(refused)?;
        let mut pipe = Self {
            file,
            path: path.clone(),
            directory: found,
            ports: ports.to_vec(),
            bytes: vec![0; TAKEN],
            filled: 0,
            untold: BTreeMap::new(),
            begun: false,
        };
        // What somebody before us left there.
        while pipe.fill().map_err(refused)? > 0 {
            pipe.filled = 0;
        }
        pipe.renew().map_err(refused)?;
        pipe.begun = true;
        Ok(pipe)
    }

    /// Says until when, in seconds of the monotonic clock, to all programs of the directory.
    fn say(&mut self, until: u32) -> io::Result<()> {
        for board in Board::of(&self.directory, Use::Tell)? {
            // One that can't be told doesn't tell.
            board.tap(until).ok();
            let now = board.head.figure(Figure::Untold);
            // One that comes later has counted nothing before.
            let before = if self.begun { 0 } else { now };
            self.untold.entry(board.file()).or_insert((before, now)).1 = now;
        }
        Ok(())
    }

    /// Takes more from the pipe; how many bytes.
    fn fill(&mut self) -> io::Result<usize> {
        match rustix::io::read(&self.file, &mut self.bytes[self.filled..]) {
            Ok(count) => {
                self.filled += count;
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn is_wanted(&self, record: &Record<'_>) -> bool {
        let ports = [record.name.own.port(), record.name.peer.port()];
        self.ports.is_empty() || ports.iter().any(|port| self.ports.contains(port))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Where this fails the next one finds it, and uses it.
        fs::remove_file(&self.path).ok();
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Source for Pipe {
    fn drain(&mut self, mut tell: impl FnMut(Tapped<'_>)) -> io::Result<usize> {
        self.fill()?;
        let (mut at, mut taken) = (0, 0);
        while let Some((record, length)) = Record::read(&self.bytes[at..self.filled]).map_err(io::Error::other)? {
            if self.is_wanted(&record) {
                tell(tapped(&record));
            }
            at += length;
            taken += 1;
        }
        self.bytes.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(taken)
    }

    fn lost(&self) -> io::Result<u64> {
        Ok(self.untold.values().map(|(before, now)| now.saturating_sub(*before)).sum())
    }

    fn renew(&mut self) -> io::Result<bool> {
        let now = u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0);
        self.say(u32::try_from(now + LEASE.as_secs()).unwrap_or(u32::MAX))?;
        Ok(true)
    }

    fn stop(&mut self) -> io::Result<()> {
        self.say(0)
    }
}

/// Makes the pipe, or uses one that a tap that was killed has left. It's open for writing too: so it never ends.
fn make(path: &Path) -> io::Result<OwnedFd> {
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let file = open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Fifo {
        return Err(io::Error::other("it's there and isn't a pipe"));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another tap reads from it"))?;
    // A smaller one does too, and loses more.
    fcntl_setpipe_size(&file, ROOM).ok();
    Ok(file)
}

fn tapped<'a>(record: &Record<'a>) -> Tapped<'a> {
    let address = |end: SocketAddrV6| SocketAddr::new(end.ip().to_canonical(), end.port());
    let what = match record.what {
        Told::Bytes { bytes, message, ring } => TappedWhat::Bytes { bytes, message, has_skipped: ring },
        Told::Over => TappedWhat::Ended,
    };
    let place = u32::try_from(record.place & u64::from(u32::MAX)).expect("it was cut to 32 bits");
    Tapped {
        at: record.at,
        namespace: record.name.namespace,
        from: address(record.name.own),
        to: address(record.name.peer),
        place,
        what,
    }
}
