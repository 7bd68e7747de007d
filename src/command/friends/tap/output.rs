//! Where it's written to.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::exit::Failure;

/// Bytes that go at once to what may have to be waited for: a pipe that is ready takes so many (`PIPE_BUF`).
const PART: usize = 4096;
/// How long one write waits.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A file, or what stands at the standard output. What others said is nobody else's to read.
pub(super) enum Output {
    File(File),
    /// A pipe, a terminal: it may not take more.
    Stream(Stream),
}

/// What is written to in parts.
pub(super) enum Stream {
    Named(File),
    Standard(io::Stdout),
}

impl Output {
    /// Opens a file to be written, or the standard output where none is named, or `-` is.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) if path != Path::new("-") => named(path)
                .map_err(|error| Failure::Run(format!("can't write {}: {}", path.display(), explained(&error)))),
            _ => Ok(Self::Stream(Stream::Standard(io::stdout()))),
        }
    }

    /// Writes a part. EAGAIN: it takes nothing, for a moment.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stream = match self {
            Self::File(file) => return file.write(bytes),
            Self::Stream(stream) => stream,
        };
        match poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&PAUSE)) {
            Ok(0) | Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => match rustix::io::write(stream, &bytes[..bytes.len().min(PART)]) {
                Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
                answer => Ok(answer?),
            },
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Named(file) => file.as_fd(),
            Self::Standard(output) => output.as_fd(),
        }
    }
}

/// A file of this user's, empty, that no other tap writes to; or a device or pipe.
fn named(path: &Path) -> io::Result<Output> {
    // It's emptied when it's known to be ours to empty.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open's flags are of an int");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    let kind = found.file_type();
    if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
        return Ok(Output::Stream(Stream::Named(file)));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it's another user's"));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| io::Error::other("another tap writes to it"))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    Ok(Output::File(file))
}

/// An error of opening it, with its mend.
fn explained(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => "it's a symbolic link; name the file itself".to_owned(),
        Some(Errno::NXIO) => "it's a pipe that nobody reads; start its reader first".to_owned(),
        _ => error.to_string(),
    }
}
