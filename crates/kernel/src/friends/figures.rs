//! What the programs count.

use crate::object::Counters;

/// Counters that the program has: four figures, then the reasons.
const COUNTERS: usize = 4 + Reason::ALL.len();

pub(super) type Cells = Counters<COUNTERS>;

/// What has come of connections so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Ends of connections that were made friends; a connection has two.
    pub ends: u64,
    /// Messages that went past TCP. One call to send may make several.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often a direction turned from TCP to the bypass; the first time counts.
    pub turns: u64,
    /// How often each reason kept from it, in the order of [`Reason::ALL`]: connections, or stretches of a direction by TCP.
    pub reasons: Vec<(Reason, u64)>,
}

impl Figures {
    pub(super) fn of(cells: [u64; COUNTERS]) -> Self {
        let [ends, messages, bytes, turns, ref reasons @ ..] = cells;
        let reasons = Reason::ALL.into_iter().zip(reasons.iter().copied()).collect();
        Self { ends, messages, bytes, turns, reasons }
    }

    /// Adds those of another attachment.
    pub fn absorb(&mut self, other: &Self) {
        self.ends += other.ends;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.turns += other.turns;
        for ((_, count), (_, more)) in self.reasons.iter_mut().zip(&other.reasons) {
            *count += more;
        }
    }
}

/// Why a connection isn't made friends, or a direction goes by TCP for a while. In the order of `enum counter` in `bpf/friends.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not made friends: the programs were switched off.
    Off,
    /// Not made friends: the server's port isn't listed.
    PortNotListed,
    /// Not made friends: a socket is bound to a device.
    BoundToDevice,
    /// Not made friends: the end that dialled waits in its calls.
    DialledBlocking,
    /// Not made friends: the end that dialled waits for edges (`EPOLLET`).
    DialledEdges,
    /// Not made friends: it isn't known yet how the server waits for its connections. It is once it has answered one.
    ServerUnknown,
    /// Not made friends: the server waits in its calls.
    ServerBlocking,
    /// Not made friends: the server waits for edges.
    ServerEdges,
    /// Not made friends: there are [`super::ENDS_MAX`] already.
    TooMany,
    /// Not made friends: the kernel refused, as where another program has the socket.
    Refused,
    /// Friends no longer: an end was found to wait in its calls, or for edges, before a byte had skipped TCP.
    FoundWaiting,
    /// By TCP: the programs were switched off.
    SwitchedOff,
    /// By TCP: the other end isn't in an attached cgroup, or was itself refused.
    OtherEndAbsent,
    /// By TCP: nobody has accepted the other end yet.
    NotAccepted,
    /// By TCP: an end waits in its calls.
    EndBlocking,
    /// By TCP: an end waits for edges.
    EndEdges,
    /// By TCP until it's read: the other end's receive buffer is full.
    ReceiverFull,
    /// By TCP until it's read: 1,024 messages wait at the other end.
    ReceiverMessages,
    /// By TCP: `SO_RCVLOWAT` is set at the other end.
    LowWater,
    /// By TCP: an end asks for timestamps.
    Timestamps,
    /// By TCP: `TCP_INQ` is set at the other end.
    Inq,
    /// By TCP: `SO_PEEK_OFF` is set at the other end.
    PeekOffset,
    /// By TCP: the other end is ready for urgent data or signals (`SO_OOBINLINE`, `F_SETOWN`).
    Urgent,
    /// By TCP: `SO_ZEROCOPY` is set at the sender, or the other end's socket is mapped into memory.
    Zerocopy,
    /// By TCP: the kernel has a protocol above TCP at an end, such as TLS.
    Layered,
    /// By TCP: the other end is closing.
    ReceiverGone,
    /// By TCP, which refuses: the sender has shut its side down.
    SenderEnded,
    /// By TCP: `SO_MAX_PACING_RATE` is set at the sender.
    Paced,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Off,
        Self::PortNotListed,
        Self::BoundToDevice,
        Self::DialledBlocking,
        Self::DialledEdges,
        Self::ServerUnknown,
        Self::ServerBlocking,
        Self::ServerEdges,
        Self::TooMany,
        Self::Refused,
        Self::FoundWaiting,
        Self::SwitchedOff,
        Self::OtherEndAbsent,
        Self::NotAccepted,
        Self::EndBlocking,
        Self::EndEdges,
        Self::ReceiverFull,
        Self::ReceiverMessages,
        Self::LowWater,
        Self::Timestamps,
        Self::Inq,
        Self::PeekOffset,
        Self::Urgent,
        Self::Zerocopy,
        Self::Layered,
        Self::ReceiverGone,
        Self::SenderEnded,
        Self::Paced,
    ];

    /// Its name, as `midmile friends status` says it and `docs/friends.md` explains it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::PortNotListed => "port-not-listed",
            Self::BoundToDevice => "bound-to-device",
            Self::DialledBlocking => "dialled-blocking",
            Self::DialledEdges => "dialled-edges",
            Self::ServerUnknown => "server-unknown",
            Self::ServerBlocking => "server-blocking",
            Self::ServerEdges => "server-edges",
            Self::TooMany => "too-many",
            Self::Refused => "refused",
            Self::FoundWaiting => "found-waiting",
            Self::SwitchedOff => "switched-off",
            Self::OtherEndAbsent => "other-end-absent",
            Self::NotAccepted => "not-accepted",
            Self::EndBlocking => "end-blocking",
            Self::EndEdges => "end-edges",
            Self::ReceiverFull => "receiver-full",
            Self::ReceiverMessages => "receiver-messages",
            Self::LowWater => "low-water",
            Self::Timestamps => "timestamps",
            Self::Inq => "inq",
            Self::PeekOffset => "peek-offset",
            Self::Urgent => "urgent",
            Self::Zerocopy => "zerocopy",
            Self::Layered => "layered",
            Self::ReceiverGone => "receiver-gone",
            Self::SenderEnded => "sender-ended",
            Self::Paced => "paced",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Counters that are counted, of `bpf/friends.h`.
    const C: &str = include_str!("../../bpf/friends.h");

    #[test]
    fn each_reason_has_the_number_that_the_program_gives_it() {
        let numbers = C.split_once("enum counter {").unwrap().1.split_once("COUNTERS_MAX").unwrap().0;
        let names: Vec<_> = numbers.lines().filter_map(|line| line.trim().split_once(',')).collect();
        assert_eq!(names.len(), COUNTERS, "{names:?}");
        let place = |name: &str| names.iter().position(|(named, _)| *named == name).unwrap();
        for (reason, name) in [
            (Reason::Off, "NO_OFF"),
            (Reason::FoundWaiting, "NO_LONGER"),
            (Reason::SwitchedOff, "TCP_OFF"),
            (Reason::ReceiverFull, "TCP_FULL"),
            (Reason::Urgent, "TCP_URGENT"),
            (Reason::ReceiverGone, "TCP_GONE"),
            (Reason::SenderEnded, "TCP_ENDED"),
        ] {
            assert_eq!(Reason::ALL[place(name) - 4], reason);
        }
    }

    #[test]
    fn names_are_of_one_reason_each() {
        let names: BTreeSet<_> = Reason::ALL.map(Reason::name).into_iter().collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn figures_are_told_apart() {
        let mut cells = [0; COUNTERS];
        (0..).zip(&mut cells).for_each(|(number, cell)| *cell = number);
        let figures = Figures::of(cells);
        assert_eq!((figures.ends, figures.messages, figures.bytes, figures.turns), (0, 1, 2, 3));
        assert_eq!(figures.reasons[0], (Reason::Off, 4));
        let mut twice = figures.clone();
        twice.absorb(&figures);
        assert_eq!((twice.messages, twice.bytes, twice.turns, twice.reasons[1].1), (2, 4, 6, 10));
    }
}
