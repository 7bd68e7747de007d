//! Why bytes go by TCP, and what a peer can have broken.

use thiserror::Error;

macro_rules! plain_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $word:literal, $lasting:literal;)+) => {
        /// Why a direction goes back to TCP. Some last: such a direction never takes the ring again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Plain {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        impl Plain {
            /// All reasons, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word that a status shows.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// Whether the direction stays with TCP for good.
            #[must_use]
            pub const fn lasting(self) -> bool {
                match self {
                    $(Self::$name => $lasting,)+
                }
            }
        }
    };
}

plain_reasons! {
    /// The ring is full and the writer won't wait.
    Full = 1, "full", false;
    /// `splice` or `sendfile` into the socket: the kernel moves the bytes.
    Splice = 2, "splice", false;
    /// Bytes are taken from the socket by the kernel: `splice` from it, or what else reads it there.
    Drawn = 3, "drawn", true;
    /// Urgent data.
    Urgent = 4, "urgent", true;
    /// `MSG_ZEROCOPY`, or zero-copy receiving.
    Zerocopy = 5, "zerocopy", true;
    /// A socket option that only the kernel can honour.
    Option = 6, "option", true;
    /// The process runs another program, which may lack the library.
    Exec = 7, "exec", true;
    /// The descriptor goes to another process.
    Passed = 8, "passed", true;
    /// The operator's wish.
    Off = 9, "off", true;
    /// The reader has closed or shut down its side: what it answers, the kernel knows.
    Left = 10, "left", true;
    /// More was received than was sent by the library: someone sends past it.
    Miscounted = 11, "miscounted", true;
    /// A thread or process was killed in the middle of something.
    Abandoned = 12, "abandoned", true;
    /// A call that the library doesn't understand.
    Unknown = 13, "unknown", true;
}

impl Plain {
    /// The reason with this code; what nobody wrote is [`Plain::Unknown`], because it came from shared memory.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        Self::ALL.iter().copied().find(|&reason| reason.code() == code).unwrap_or(Self::Unknown)
    }

    /// What stands for it in shared memory: never 0.
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }

    /// Its place among the counters.
    pub(crate) const fn index(self) -> usize {
        self as usize - 1
    }
}

/// Shared memory says what no end that keeps to the protocol could have said. The connection is to be reset, with this as the reason.
/// Nothing else is harmed: no position from shared memory leads outside the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// More bytes in the ring than it holds, or fewer than none.
    #[error("the ring's positions are impossible")]
    Positions,
    /// The word by which the ways are switched is impossible, or changed without end.
    #[error("the word that switches the ways is impossible")]
    Gate,
    /// A byte that was announced as a doorbell isn't one.
    #[error("a doorbell carries data")]
    Bell,
    /// A byte came by TCP in a stretch of the ring and nobody had announced it.
    #[error("a byte came by TCP that nobody announced")]
    Stray,
    /// A holder of the lock was killed between a system call and its count, and what went by TCP the kernel can't say.
    #[error("an end was killed where it can't be taken over")]
    Abandoned,
}

/// Why memory can't be taken for a segment. The rendezvous is to be given up; the connection stays with TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadSegment {
    /// The address isn't a multiple of 128.
    #[error("the memory isn't aligned")]
    Alignment,
    /// The capacity isn't a power of two from [`crate::CAPACITY_MIN`] to [`crate::CAPACITY_MAX`].
    #[error("the ring's capacity is impossible")]
    Capacity,
    /// The memory's length isn't what the capacity asks for.
    #[error("the segment's length and the ring's capacity disagree")]
    Length,
    /// The first bytes aren't a segment's.
    #[error("the memory holds no segment")]
    Magic,
    /// Another version of the layout.
    #[error("the segment has another version")]
    Version,
    /// The nonce isn't the one that was announced.
    #[error("the segment isn't the one that was announced")]
    Nonce,
}
