//! Why a client ended and why one was refused: each has one name, the same in metrics, log and status.

/// An enumeration whose variants have a name each and a place among all: reasons that are counted.
#[macro_export]
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics, log and status.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The place of its counter.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

named! {
    /// Why a client ended. Each client that was admitted ends with exactly one.
    End {
        /// The client finished sending between two messages, and has been sent the answer to each.
        Finished => "finished",
        /// The client reset the connection.
        ClientReset => "client-reset",
        /// The client stopped answering (keepalive or `TCP_USER_TIMEOUT`), or the network reported it gone.
        ClientLost => "client-lost",
        /// No whole message within the idle timeout, and no answer outstanding.
        IdleTimeout => "idle-timeout",
        /// A message wasn't whole within its timeout.
        MessageTimeout => "message-timeout",
        /// A message was longer than may be.
        MessageTooLong => "message-too-long",
        /// What came is no message, or the client finished in the midst of one.
        MessageBroken => "message-broken",
        /// The client didn't take its answers.
        AnswersUnread => "answers-unread",
        /// A request that can't be answered by ourselves found no backend within its time.
        NoBackend => "no-backend",
        /// A request that can't be answered by ourselves was left unanswered by its backend, or its backend went away.
        Unanswered => "unanswered",
        /// A fault of midmile's own, while it dealt with this client.
        Panicked => "panicked",
        /// Ended by a drain.
        Drained => "drained",
    }
}

named! {
    /// Why a client was refused.
    Refused {
        /// The core holds as many clients, or as many connections, as it may.
        ClientsMax => "clients-max",
        /// So many clients of its address are there already.
        ClientsPerAddress => "clients-per-address",
        /// The service takes no more clients: it drains or is retired.
        Draining => "draining",
    }
}
