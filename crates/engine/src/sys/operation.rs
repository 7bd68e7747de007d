//! Operations of a ring: their names, and what completes of them.

use std::os::fd::OwnedFd;

/// What an operation was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Receiving into buffers, until it's cancelled.
    Recv,
    /// A look for something to read.
    Readable,
    /// A look for room to write.
    Room,
    /// A look for the peer's end.
    Hangup,
    /// Sending one block.
    Send,
    /// Accepting, until it's cancelled.
    Accept,
    /// A look at a waker.
    Wake,
    /// A look at the sockets for datagrams.
    Datagrams,
    /// Something whose success nobody awaits.
    Nothing,
}

/// An operation's name: what it is for, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) what: What,
    pub(crate) of: u32,
}

impl Name {
    pub(super) const NOTHING: Self = Self { what: What::Nothing, of: 0 };

    pub(super) const fn to_bits(self) -> u64 {
        (self.what as u64) << 32 | self.of as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word are taken apart")]
    pub(super) const fn from_bits(bits: u64) -> Self {
        const ALL: [What; 9] = [
            What::Recv,
            What::Readable,
            What::Room,
            What::Hangup,
            What::Send,
            What::Accept,
            What::Wake,
            What::Datagrams,
            What::Nothing,
        ];
        Self { what: ALL[(bits >> 32) as usize % ALL.len()], of: bits as u32 }
    }
}

/// A completion.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) name: Name,
    /// What the system call would have returned; an error number, negated.
    pub(crate) result: i32,
    /// The operation goes on.
    pub(crate) more: bool,
    /// The first buffer that was received into, which is the engine's now.
    pub(crate) buffer: Option<u16>,
    /// How many there are: [`Ring::following`](super::ring::Ring::following) has the next.
    pub(crate) buffers: u16,
    /// A connection that was accepted.
    pub(crate) accepted: Option<OwnedFd>,
}
