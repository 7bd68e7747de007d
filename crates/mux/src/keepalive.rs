//! How long a connection may idle (RFC 7828): the option is between two ends of one connection, so a client that asks is told our time,
//! whatever its backend says or doesn't.

use std::time::Duration;

use midmile_wire::dns::{Message, OPTION_TCP_KEEPALIVE};

use crate::request::Asked;

/// Bytes of the option with its timeout: code, length, timeout.
const OPTION_LEN: usize = 6;
/// Where in it the timeout is.
pub(crate) const TIMEOUT_AT: usize = 4;
/// The longest message (RFC 1035, 4.2.2).
const MESSAGE_LEN_MAX: usize = 65_535;

/// What of an answer is another for its client, besides the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// The timeout, whose two bytes are there.
    Timeout {
        at: usize,
    },
    /// The option is put behind the options of the OPT record, which are between these places.
    Option {
        begin: usize,
        end: usize,
    },
}

impl Change {
    /// What is changed of an answer of `len` bytes. A signed one stays as it is. Without EDNS, or where the option hasn't room or can't be put
    /// without moving other records, it's left out, as a server may (RFC 7828, 3.3.2).
    pub(crate) fn of(answer: Message<'_>, asked: Asked, len: usize) -> Self {
        let said = answer.additional().filter(|said| !said.signed).unwrap_or_default();
        match (said.keepalive_at, said.options) {
            (Some(at), _) => Self::Timeout { at },
            (None, Some((begin, end))) if asked.keepalive && !said.keepalive && len + OPTION_LEN <= MESSAGE_LEN_MAX => {
                Self::Option { begin, end }
            }
            _ => Self::None,
        }
    }
}

/// The option that says so long, to a tenth of a second (RFC 7828, 3.1).
pub(crate) fn option(idle: Duration) -> [u8; OPTION_LEN] {
    let tenths = u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX);
    let ([code_0, code_1], [timeout_0, timeout_1]) = (OPTION_TCP_KEEPALIVE.to_be_bytes(), tenths.to_be_bytes());
    [code_0, code_1, 0, 2, timeout_0, timeout_1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 12] = [0, 1, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    /// What becomes of the answer to who asks, or doesn't.
    fn change(bytes: &[u8], keepalive: bool) -> Change {
        Change::of(Message::new(bytes).unwrap(), Asked { id: 1, keepalive }, bytes.len())
    }

    #[test]
    fn the_option_is_put_where_it_was_asked_for_and_has_room() {
        let answer = [&HEADER[..], &OPT].concat();
        assert_eq!(change(&answer, true), Change::Option { begin: 23, end: 23 });
        assert_eq!(change(&answer, false), Change::None);
        // Bytes behind the last record are handed on too, and count.
        let long = |len: usize| [&answer[..], &vec![0; len - answer.len()]].concat();
        assert_eq!(change(&long(65_529), true), Change::Option { begin: 23, end: 23 });
        assert_eq!(change(&long(65_530), true), Change::None);
    }

    #[test]
    fn one_that_is_there_is_changed_in_place_alone() {
        let with = |option: &[u8]| {
            let mut answer = [&HEADER[..], &OPT, option].concat();
            answer[22] = u8::try_from(option.len()).unwrap();
            answer
        };
        for asks in [true, false] {
            assert_eq!(change(&with(&[0, 11, 0, 2, 1, 214]), asks), Change::Timeout { at: 27 });
        }
        // Without a timeout: whatever it means, a second one would contradict it.
        assert_eq!(change(&with(&[0, 11, 0, 0]), true), Change::None);
        assert_eq!(change(&with(&[0, 10, 0, 1, 7]), true), Change::Option { begin: 23, end: 28 });
        assert_eq!(change(&with(&[0, 10, 0, 2, 7]), true), Change::None, "an option that doesn't fit");
    }

    #[test]
    fn what_is_signed_or_not_last_or_cut_stays_as_it_is() {
        let mut behind = [&HEADER[..], &OPT].concat();
        behind[11] = 2;
        for kind in [250, 24, 1] {
            let record = [0, 0, kind, 0, 255, 0, 0, 0, 0, 0, 2, 0, 0];
            assert_eq!(change(&[&behind[..], &record].concat(), true), Change::None, "type {kind} behind it");
        }
        let answer = [&HEADER[..], &OPT].concat();
        for len in 12..answer.len() {
            assert_eq!(change(&answer[..len], true), Change::None, "cut to {len}");
        }
        let mut none = HEADER;
        none[11] = 0;
        assert_eq!(change(&none, true), Change::None, "without EDNS");
    }

    #[test]
    fn times_are_tenths_of_a_second() {
        assert_eq!(option(Duration::from_millis(2_050)), [0, 11, 0, 2, 0, 20]);
        assert_eq!(option(Duration::from_hours(2))[TIMEOUT_AT..], [0xff, 0xff]);
    }
}
