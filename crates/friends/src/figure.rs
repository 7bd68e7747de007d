//! What a process with friends counts.

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+) => {
        /// One of a process's figures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Figure {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Figure {
            /// All figures, in the order of their places.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word that a log and a status show.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

figures! {
    /// Segments offered to a peer.
    Offered = "offered";
    /// Segments of a peer taken up.
    Attached = "attached";
    /// Connections whose both ends shared a segment.
    Friends = "friends";
    /// Bytes sent by rings.
    RingOut = "ring_out_bytes";
    /// Bytes received by rings.
    RingIn = "ring_in_bytes";
    /// Bytes that friends sent by TCP.
    TcpOut = "tcp_out_bytes";
    /// Bytes that friends received by TCP.
    TcpIn = "tcp_in_bytes";
    /// Doorbells sent.
    Bells = "bells";
    /// Doorbells for epoll, by a pipe.
    PipeBells = "pipe_bells";
    /// Sleepers woken by a futex.
    Wakes = "wakes";
    /// Connections that stayed plain because bytes went by that the library hadn't seen.
    Unseen = "plain_unseen_bytes";
    /// Connections that stayed plain because they were with other hosts, as their addresses said at once.
    Far = "plain_far";
    /// Connections that stayed plain because of an option of theirs.
    Options = "plain_options";
    /// Times that a connection might have become a friend, and the operator has switched that off.
    Off = "plain_off";
    /// Times that a connection might have become a friend, and the process couldn't put up its board.
    Unposted = "plain_unposted";
    /// Offers taken back because nobody took them up, for long or while others needed their place.
    Expired = "offers_expired";
    /// Offers of peers that couldn't be opened, or weren't what was offered.
    Refused = "offers_refused";
    /// Connections reset because a peer wrote what can't be (friend-broken).
    Broken = "friend_broken";
    /// Bytes of rings that were sent once more, by TCP, because the socket was given away.
    Recalled = "recalled_bytes";
    /// Connections that were given away with bytes in the ring.
    LeftInRing = "left_in_ring";
    /// Registrations for readiness of sockets with bytes in the ring, for which no doorbell could be had.
    Unrung = "unrung";
    /// Sends that a tap wasn't told of whole: there was no room in its pipe.
    Untold = "tap_untold";
    /// Locks that were lent to one thread, and that another had back.
    LocksRecalled = "locks_recalled";
    /// Calls of a signal's handler that interrupted the library in the same connection.
    Reentered = "reentered";
    /// Locks that a thread had back from calls of its own that a signal's handler had left.
    LocksTakenBack = "locks_taken_back";
}
