//! Where the two ends of a connection find each other: a small file in the runtime directory, named by the connection.
//!
//! Who offers writes it: the process and the descriptor of the segment, and its nonce. Who attaches opens the segment by
//! `/proc/PID/fd/FD`, as the kernel allows it to processes of the same user, and looks whether it is what was offered.

use std::net::SocketAddrV6;
use std::sync::atomic::{AtomicU32, Ordering};

use midmile_friends::{Name, Pipe};

use crate::path::{Path, in_proc};
use crate::sys::map::{self, Owned};
use crate::sys::{Errno, ask, call};

/// First word of the file.
const MAGIC: u64 = u64::from_be_bytes(*b"midmile1");
/// The file's length: eight words.
const LENGTH: usize = 64;

/// The name of the connection on a socket, if both its ends are on this host.
pub(crate) fn name_of(fd: i32) -> Option<Name> {
    let own = ask::address(fd, ask::End::Own)?;
    let peer = ask::address(fd, ask::End::Peer)?;
    let loopback = |end: SocketAddrV6| end.ip().to_canonical().is_loopback();
    // To an address of its own a host speaks from the same one; 127.0.0.0/8 counts as one. A socket may be connected to itself.
    let local = own.ip() == peer.ip() || loopback(own) && loopback(peer);
    if !local || own == peer { None } else { Some(Name { namespace: ask::namespace(fd)?, own, peer }) }
}

/// The path of a connection's offer: the same for both ends.
fn path_of(name: &Name) -> Path {
    let (low, high) = if name.own < name.peer { (name.own, name.peer) } else { (name.peer, name.own) };
    let mut path = Path::within();
    path.hex(u128::from(name.namespace));
    for end in [low, high] {
        path.push(b"-");
        path.hex(end.ip().to_bits());
        path.push(b".");
        path.hex(u128::from(end.port()));
    }
    path
}

/// What an end offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) process: i32,
    pub(crate) descriptor: i32,
    pub(crate) nonce: [u64; 2],
    /// Bytes of each ring.
    pub(crate) capacity: usize,
    /// When it was made, by the monotonic clock in nanoseconds.
    pub(crate) time: u64,
}

impl Offer {
    fn encode(&self) -> [u8; LENGTH] {
        let [first, second] = self.nonce;
        let pair = u64::from(self.process.cast_unsigned()) << 32 | u64::from(self.descriptor.cast_unsigned());
        let words = [MAGIC, pair, first, second, self.capacity as u64, self.time, 0, 0];
        let mut bytes = [0; LENGTH];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LENGTH {
            return None;
        }
        let word = |index: usize| bytes[8 * index..8 * index + 8].try_into().map(u64::from_ne_bytes).ok();
        if word(0)? != MAGIC {
            return None;
        }
        Some(Self {
            process: i32::try_from(word(1)? >> 32).ok()?,
            descriptor: i32::try_from(word(1)? & u64::from(u32::MAX)).ok()?,
            nonce: [word(2)?, word(3)?],
            capacity: usize::try_from(word(4)?).ok()?,
            time: word(5)?,
        })
    }
}

/// Whether the directory is ours alone; else nothing in it is to be trusted.
fn directory_is_ours() -> bool {
    directory().is_ok()
}

/// Which directory it is, by device and inode.
///
/// # Errors
/// What the file system says, or EACCES where it isn't ours alone.
pub(crate) fn directory() -> Result<[u64; 2], Errno> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = map::open(Path::directory().text(), flags, 0)?;
    let kind = map::kind(&directory)?;
    let ours = kind.owner == map::user() && kind.mode & 0o777 == 0o700;
    if ours { map::identity(&directory).map(|identity| identity.0) } else { Err(Errno(libc::EACCES)) }
}

/// Whether the operator has switched friends off here: a file says so, for processes that begin later.
pub(crate) fn is_off() -> bool {
    let mut path = Path::within();
    path.push(b"off");
    map::open(path.text(), libc::O_PATH | libc::O_NOFOLLOW, 0).is_ok()
}

/// The pipe of who watches, whose writing never sleeps and never raises a signal, since it's open for reading too.
///
/// # Errors
/// Nobody watches; or what the file system says, or EPERM where it's no pipe of ours.
pub(crate) fn tap() -> Result<Owned, Errno> {
    let mut path = Path::within();
    path.push(b"tap");
    let pipe = map::open(path.text(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW, 0)?;
    let kind = map::kind(&pipe)?;
    let ours = kind.mode & libc::S_IFMT == libc::S_IFIFO && kind.owner == map::user();
    if ours { Ok(pipe) } else { Err(Errno(libc::EPERM)) }
}

/// Publishes an offer.
///
/// # Errors
/// EEXIST: there's one already, of the peer, or of an earlier connection between the same ports. Else what the file system says.
pub(crate) fn publish(name: &Name, offer: &Offer) -> Result<(), Errno> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if !directory_is_ours() {
        return Err(Errno(libc::EACCES));
    }
    // Under a name of its own first: nobody sees a file that is half written.
    let mut draft = Path::within();
    draft.push(b".");
    draft.digits(u128::from(call::process().cast_unsigned()), 10);
    draft.push(b".");
    draft.digits(u128::from(COUNT.fetch_add(1, Ordering::Relaxed)), 10);
    let file = map::open(draft.text(), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)?;
    let written = match map::write(&file, &offer.encode()) {
        Ok(LENGTH) => map::link(draft.text(), path_of(name).text()),
        Ok(_) => Err(Errno(libc::ENOSPC)),
        Err(error) => Err(error),
    };
    map::unlink(draft.text()).ok();
    written
}

/// What was offered for a connection, if anything was.
pub(crate) fn look_up(name: &Name) -> Option<Offer> {
    let file = map::open(path_of(name).text(), libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0).ok()?;
    if !directory_is_ours() || !map::kind(&file).is_ok_and(|kind| kind.owner == map::user()) {
        return None;
    }
    let mut bytes = [0; LENGTH + 1];
    let length = map::read(&file, &mut bytes).ok()?;
    Offer::decode(&bytes[..length])
}

/// Takes an offer away.
pub(crate) fn remove(name: &Name) {
    map::unlink(path_of(name).text()).ok();
}

/// Opens the segment that was offered.
///
/// # Errors
/// What the kernel says, or EPERM where it isn't what was offered.
pub(crate) fn open(offer: &Offer, length: usize) -> Result<Owned, Errno> {
    // First without opening it: what stands there may be a device, and opening that does something.
    let seen = map::open(in_proc(Some(offer.process), offer.descriptor).text(), libc::O_PATH, 0)?;
    let kind = map::kind(&seen)?;
    if kind.mode & libc::S_IFMT != libc::S_IFREG || kind.size != length {
        return Err(Errno(libc::EPERM));
    }
    let file = map::open(in_proc(None, seen.number()).text(), libc::O_RDWR, 0)?;
    if map::is_sealed(&file, length) { Ok(file) } else { Err(Errno(libc::EPERM)) }
}

/// A pipe of this process's.
///
/// # Errors
/// What the kernel says.
pub(crate) fn pipe_of(file: &Owned) -> Result<Pipe, Errno> {
    let [_, inode] = map::identity(file)?.0;
    Ok(Pipe { process: call::process(), descriptor: file.number(), file: inode })
}

/// Opens a process's pipe anew, for reading and writing, so that it never hangs up and no write to it is a signal.
///
/// # Errors
/// What the kernel says, or EPERM where it's another file by now, or no pipe of this user's.
pub(crate) fn open_pipe(pipe: Pipe) -> Result<Owned, Errno> {
    let seen = map::open(in_proc(Some(pipe.process), pipe.descriptor).text(), libc::O_PATH, 0)?;
    let kind = map::kind(&seen)?;
    let is_ours = kind.mode & libc::S_IFMT == libc::S_IFIFO && kind.owner == map::user();
    if !is_ours || map::identity(&seen)?.0[1] != pipe.file {
        return Err(Errno(libc::EPERM));
    }
    let low = map::open(in_proc(None, seen.number()).text(), libc::O_RDWR | libc::O_NONBLOCK, 0)?;
    map::elsewhere(low.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_comes_back_as_it_was() {
        let offer = Offer { process: 4321, descriptor: 700, nonce: [7, u64::MAX], capacity: 1 << 18, time: 99 };
        assert_eq!(Offer::decode(&offer.encode()), Some(offer));
        assert_eq!(Offer::decode(&offer.encode()[1..]), None);
        let mut wrong = offer.encode();
        wrong[0] ^= 1;
        assert_eq!(Offer::decode(&wrong), None);
    }

    #[test]
    fn both_ends_name_the_connection_alike() {
        let own = SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 80, 0, 0);
        let peer = SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 65535, 0, 0);
        let (one, other) = (Name { namespace: 5, own, peer }, Name { namespace: 5, own: peer, peer: own });
        assert_eq!(path_of(&one).text(), path_of(&other).text());
        assert_eq!(path_of(&one).text().to_str(), Ok("/5-1.50-1.ffff"));
        assert_eq!(Name::from_words(other.to_words()), other);
    }
}
