//! Why a client ended and why one was refused: each has one name, the same in metrics, log and status.

use midmile_wire::named;

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
        /// What came is no message, by its framing.
        MessageBroken => "message-broken",
        /// The client finished in the midst of a message.
        MessageCut => "message-cut",
        /// A message of DNS without a byte.
        MessageEmpty => "message-empty",
        /// A message of DNS that is shorter than a header.
        MessageShort => "message-short",
        /// A message of DNS that is an answer.
        NotAQuery => "not-a-query",
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
