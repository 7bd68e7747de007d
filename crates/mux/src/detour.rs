//! Which requests may go as datagrams, and why others, or some of those, go by a connection to the same backend.

use midmile_wire::dns::{self, Message};
use midmile_wire::named;

/// The longest datagram that is sent, and the most that's asked for: what crosses any way in one packet, by the DNS flag day of 2020. RFC
/// 9715 (3.2) recommends no more than 1,400.
pub(crate) const DATAGRAM_MAX: u16 = 1232;

named! {
    /// Why a request goes by a connection to a backend that is asked by datagrams.
    Detour {
        /// It's signed (TSIG, SIG(0)): nothing of it may be changed, also not how long an answer may be.
        Signed => "signed",
        /// A zone's transfer.
        Transfer => "transfer",
        /// It has more bytes than a datagram may have.
        TooLong => "too-long",
        /// It isn't a plain query: an update, a notification.
        NotQuery => "not-query",
        /// It has the keepalive option, which means a connection (RFC 7828, 3.2.1).
        Keepalive => "keepalive",
        /// The answer by a datagram was cut (TC).
        Truncated => "truncated",
        /// The backend wanted a cookie of its own in a datagram (RFC 7873, 5.2.3).
        BadCookie => "bad-cookie",
        /// The backend left datagrams unanswered for the attempt timeout, and there was no other.
        Unanswered => "unanswered",
        /// No datagram can be sent to the backend for now: it takes none, or left the last ones unanswered, or has as many as it may have.
        Unavailable => "unavailable",
    }
}

/// How a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By connections alone.
    Connection,
    /// As a datagram, to backends that are asked by those.
    Datagram,
    /// By a connection that's there for it alone: a zone's transfer.
    Own,
    /// By a connection that's there for it alone, because others were lost while it was out.
    Lone,
}

impl Detour {
    /// Where in a query its sender says how long a datagram may be that it takes; 0 if nowhere.
    ///
    /// # Errors
    /// Why it can't be sent as a datagram.
    pub(crate) fn unless_plain(query: Message<'_>, len: usize) -> Result<u16, Self> {
        if query.opcode() != dns::OPCODE_QUERY {
            return Err(Self::NotQuery);
        }
        let (Some(question), Some(said)) = (query.question(), query.additional()) else { return Err(Self::NotQuery) };
        if question.is_transfer() {
            Err(Self::Transfer)
        } else if said.signed {
            Err(Self::Signed)
        } else if said.keepalive {
            Err(Self::Keepalive)
        } else if len > usize::from(DATAGRAM_MAX) {
            Err(Self::TooLong)
        } else {
            Ok(said.udp_size_at.map_or(0, |at| u16::try_from(at).expect("it's within a datagram")))
        }
    }

    /// Why an answer that came by a datagram has to be had by a connection.
    pub(crate) fn of_answer(answer: Message<'_>) -> Option<Self> {
        // The lower bits are looked at first: the records are gone through only where they may matter.
        let wants_cookie = || {
            u16::from(answer.rcode()) == dns::RCODE_BADCOOKIE & 0x0f
                && answer.additional().is_some_and(|said| u16::from(said.rcode_high) == dns::RCODE_BADCOOKIE >> 4)
        };
        if answer.is_truncated() { Some(Self::Truncated) } else { wants_cookie().then_some(Self::BadCookie) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim_tests::query;

    const OPT: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    const TSIG: &[u8] = &[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 3, 1, 2, 3];
    const KEEPALIVE: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0];

    fn of(kind: u16, flags: u8, records: &[&[u8]]) -> Result<u16, Detour> {
        let mut bytes = query(1, "a", kind)[2..].to_vec();
        (bytes[2], bytes[11]) = (flags, u8::try_from(records.len()).unwrap());
        bytes.extend(records.concat());
        Detour::unless_plain(Message::new(&bytes).unwrap(), bytes.len())
    }

    #[test]
    fn plain_queries_go_as_datagrams_and_no_others_do() {
        assert_eq!(of(1, 1, &[]), Ok(0));
        assert_eq!(of(1, 1, &[&OPT]), Ok(22));
        assert_eq!(of(251, 1, &[]), Err(Detour::Transfer));
        assert_eq!(of(6, 5 << 3, &[]), Err(Detour::NotQuery));
        assert_eq!(of(1, 1, &[&OPT, TSIG]), Err(Detour::Signed));
        assert_eq!(of(1, 1, &[KEEPALIVE]), Err(Detour::Keepalive));
        let padding = [&OPT[..9], &[5, 0, 0, 12, 4, 252], &[0; 1276]].concat();
        assert_eq!(of(1, 1, &[&padding]), Err(Detour::TooLong));
    }

    #[test]
    fn answers_that_were_cut_or_want_a_cookie_are_asked_for_again() {
        let answer = |flags: [u8; 2], high: u8| {
            let mut bytes = query(1, "a", 1)[2..].to_vec();
            (bytes[2], bytes[3], bytes[11]) = (flags[0], flags[1], 1);
            bytes.extend([0, 0, 41, 4, 208, high, 0, 0, 0, 0, 0]);
            Detour::of_answer(Message::new(&bytes).unwrap())
        };
        assert_eq!(answer([0x81, 0x80], 0), None);
        assert_eq!(answer([0x83, 0x80], 0), Some(Detour::Truncated));
        assert_eq!(answer([0x81, 0x87], 1), Some(Detour::BadCookie));
        assert_eq!(answer([0x81, 0x87], 0), None);
    }
}
