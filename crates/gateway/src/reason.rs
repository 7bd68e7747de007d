//! Why a pair ended and why a client was refused: each has one name, used in metrics, log and status alike.

use midmile_wire::named;

named! {
    /// Why a pair ended. Each pair ends with exactly one.
    End {
        /// Both sides finished sending, and every byte was handed on.
        Finished => "finished",
        /// The client reset the connection.
        ClientReset => "client-reset",
        /// The server reset the connection.
        ServerReset => "server-reset",
        /// The client stopped answering (keepalive or `TCP_USER_TIMEOUT`), or the network reported it gone.
        ClientLost => "client-lost",
        /// The server stopped answering (keepalive or `TCP_USER_TIMEOUT`), or the network reported it gone.
        ServerLost => "server-lost",
        /// No byte either way within the idle timeout.
        IdleTimeout => "idle-timeout",
        /// One side had finished sending, and no byte came from the other within the half-closed timeout.
        HalfClosedTimeout => "half-closed-timeout",
        /// The backend that was tried last refused the connection, as did or failed all before it.
        DialRefused => "dial-refused",
        /// No backend answered within the dial timeout.
        DialTimeout => "dial-timeout",
        /// The backend that was tried last couldn't be reached: no route, no such socket file, or not permitted.
        DialUnreachable => "dial-unreachable",
        /// This host had no local port, descriptor or memory left for the dial.
        DialExhausted => "dial-exhausted",
        /// No backend is healthy.
        NoBackend => "no-backend",
        /// The client went away before the server leg stood.
        ClientGone => "client-gone",
        /// The PROXY header was not one, or was damaged.
        HeaderInvalid => "header-invalid",
        /// The PROXY header wasn't whole within its timeout.
        HeaderTimeout => "header-timeout",
        /// The hello asked for a name that is on the list and has no address.
        NameUnresolved => "name-unresolved",
        /// No trunk connection could be had: the peer doesn't answer, refuses, or couldn't prove who it is.
        TrunkUnavailable => "trunk-unavailable",
        /// The gateway at the other end of the pair's trunk connection left what it was sent unanswered for too long.
        TrunkDead => "trunk-dead",
        /// The hello asked for a destination, or a peer, that isn't on this gateway's list.
        NotPermitted => "not-permitted",
        /// The trunk connection ended or failed before the next gateway had answered.
        TrunkLost => "trunk-lost",
        /// The next gateway's answer is none that is known.
        AnswerUnknown => "answer-unknown",
        /// Answered by the gateway that dialled: the server refused the connection.
        FarDialRefused => "far-dial-refused",
        /// Answered by the gateway that dialled: the server didn't answer in time.
        FarDialTimeout => "far-dial-timeout",
        /// Answered by the gateway that dialled: the server can't be reached from there.
        FarDialUnreachable => "far-dial-unreachable",
        /// Answered by the gateway that dialled: its host had no local port, descriptor or memory left.
        FarDialExhausted => "far-dial-exhausted",
        /// Answered by the gateway that was to dial: the name has no address there.
        FarNameUnresolved => "far-name-unresolved",
        /// Answered by a gateway further on: the destination, or the next gateway, isn't on its list.
        FarNotPermitted => "far-not-permitted",
        /// Answered by a gateway further on: it could have no trunk connection to the next.
        FarTrunkUnavailable => "far-trunk-unavailable",
        /// Answered by a gateway further on: its trunk connection ended before the next one had answered, or with an answer that is none.
        FarTrunkLost => "far-trunk-lost",
        /// Answered by a gateway further on: it holds as many pairs as it may.
        FarPairsMax => "far-pairs-max",
        /// Answered by a gateway further on: it ended before its dial was over.
        FarDrained => "far-drained",
        /// A client's message wasn't whole within its timeout.
        MessageTimeout => "message-timeout",
        /// A client's message was longer than may be.
        MessageTooLong => "message-too-long",
        /// What a client sent is no message, by its framing.
        MessageBroken => "message-broken",
        /// A client of messages finished in the midst of one.
        MessageCut => "message-cut",
        /// A client sent a message of DNS without a byte.
        MessageEmpty => "message-empty",
        /// A client sent a message of DNS that is shorter than a header.
        MessageShort => "message-short",
        /// A client sent an answer of DNS.
        NotAQuery => "not-a-query",
        /// A client of messages didn't take its answers.
        AnswersUnread => "answers-unread",
        /// A client's request was left unanswered, and its protocol has no way to say so.
        Unanswered => "unanswered",
        /// A drain closed it: all that a client of messages had asked was answered.
        Answered => "answered",
        /// Dialled early for a client whose handshake never finished.
        Unclaimed => "unclaimed",
        /// A fault of midmile's own, while it dealt with this pair.
        Panicked => "panicked",
        /// Cut when the drain's deadline came, or when a second signal did.
        Drained => "drained",
    }
}

named! {
    /// Why a client was refused before a pair was opened for it.
    Refusal {
        /// The process or the route holds as many pairs as it may.
        PairsMax => "pairs-max",
        /// The client's address is not on the route's list.
        NotAllowed => "not-allowed",
        /// It came to a listener that passes connections on to where they were going, and was going to that listener itself.
        NotIntercepted => "not-intercepted",
        /// A trunk connection whose peer sent something else than the handshake asks for.
        TrunkInvalid => "trunk-invalid",
        /// A trunk connection whose peer couldn't prove that it is one of those who may come.
        TrunkKey => "trunk-key",
        /// A trunk connection whose handshake wasn't whole within its timeout.
        TrunkTimeout => "trunk-timeout",
        /// A trunk connection whose padding didn't cross within its time.
        TrunkWarming => "trunk-warming",
        /// A trunk connection whose hello was damaged, or not of its session.
        HelloInvalid => "hello-invalid",
        /// So many clients of messages are there from its address already.
        ClientsPerAddress => "clients-per-address",
        /// It came to a listener of messages that takes no more.
        Draining => "draining",
        /// No descriptor or memory to accept or watch it with. Counts attempts: while a listener rests, its clients stay queued.
        Descriptors => "descriptors",
    }
}

named! {
    /// Why a trunk connection was lost before a pair had it.
    PoolLoss {
        /// The peer's trunk listener refused the connection, or couldn't be reached.
        Dial => "dial",
        /// The handshake wasn't whole within its timeout.
        Timeout => "timeout",
        /// The peer couldn't prove who it is, or didn't take us for who we are.
        Handshake => "handshake",
        /// The padding that opens its windows didn't cross within its time.
        Warming => "warming",
        /// It had waited ready, and its peer closed it or stopped answering.
        Died => "died",
        /// It had waited ready for as long as one may, or more waited than are needed.
        Retired => "retired",
    }
}
