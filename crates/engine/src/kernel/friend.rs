//! Sockets that ask to be their peers' friends: their calls go by `midmile_friends_sockets`, which uses memory where the peer asked too and
//! TCP where it didn't. All others are the kernel's alone, and cost one look at what kind they are.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use midmile_friends_sockets::end::Way;
use midmile_friends_sockets::own;
use midmile_friends_sockets::sys::Answer;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown};

use super::socket::{Kind, Socket};
use crate::backend::Tag;

fn answer(answer: Answer) -> Result<usize, Errno> {
    answer.map_err(|error| Errno::from_raw_os_error(error.0))
}

/// The socket was added to the epoll instance.
pub(super) fn watched(epoll: &OwnedFd, socket: &Socket, tag: Tag, flags: EventFlags) {
    if let Kind::Friend { dialled } = socket.kind {
        own::watched(epoll.as_raw_fd(), socket.fd.as_raw_fd(), flags.bits(), tag.0, dialled);
    }
}

/// The socket was taken out of it.
pub(super) fn unwatched(epoll: &OwnedFd, socket: &Socket) {
    if socket.is_friend() {
        own::unwatched(epoll.as_raw_fd(), socket.fd.as_raw_fd());
    }
}

/// recv(2), without flags or with `MSG_PEEK`.
pub(super) fn receive(socket: &Socket, into: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    if socket.is_friend() {
        return answer(own::receive(socket.fd.as_raw_fd(), into, flags.contains(RecvFlags::PEEK)));
    }
    net::recv(&socket.fd, into, flags).map(|(bytes, _)| bytes)
}

/// send(2), without a signal, perhaps with `MSG_MORE`.
pub(super) fn send(socket: &Socket, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
    if socket.is_friend() {
        return answer(own::send(socket.fd.as_raw_fd(), &[IoSlice::new(bytes)], flags.contains(SendFlags::MORE)));
    }
    net::send(&socket.fd, bytes, flags | SendFlags::NOSIGNAL)
}

/// sendmsg(2) of several buffers; `None`: the kernel's alone.
pub(super) fn send_parts(socket: &Socket, parts: &[IoSlice<'_>]) -> Option<Result<usize, Errno>> {
    socket.is_friend().then(|| answer(own::send(socket.fd.as_raw_fd(), parts, false)))
}

/// Finishes sending.
pub(super) fn shut(socket: &Socket) -> Result<(), Errno> {
    if socket.is_friend() {
        return own::shut(socket.fd.as_raw_fd()).map_err(|error| Errno::from_raw_os_error(error.0));
    }
    net::shutdown(&socket.fd, Shutdown::Write)
}

/// The socket is about to be closed, for an end or a reset.
pub(super) fn closing(socket: Socket, for_what: impl FnOnce(Socket) -> OwnedFd) {
    let friend = socket.is_friend();
    let fd = for_what(socket);
    if friend {
        own::closing(fd.as_raw_fd());
    }
}

/// An error that the kernel has told while doorbells were sent.
pub(super) fn error(socket: &Socket) -> Option<Errno> {
    if socket.is_friend() { own::error(socket.fd.as_raw_fd()).map(Errno::from_raw_os_error) } else { None }
}

/// Bytes that wait in memory for the peer to read them.
pub(super) fn unread(socket: &Socket) -> usize {
    if socket.is_friend() { own::unread(socket.fd.as_raw_fd()) } else { 0 }
}

/// Whether the kernel may move bytes from the one to the other by itself.
pub(super) fn may_splice(source: &Socket, sink: &Socket) -> bool {
    let plain = |socket: &Socket, way| !socket.is_friend() || own::is_plain(socket.fd.as_raw_fd(), way);
    plain(source, Way::In) && plain(sink, Way::Out)
}
