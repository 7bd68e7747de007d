//! The answer: what comes of a hello, in one byte.
//!
//! It is the first byte that the acceptor sends after its welcome. [`Answer::Stands`] says that the destination's connection
//! stands, and what follows are the server's bytes. Any other one says why there is none; the connection ends behind it.
//! A connection that ends or fails before its answer has none, and says nothing of the server.
//!
//! A gateway between others gives as its answer what the next one answered.

/// What comes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Answer {
    /// The destination's connection stands: all that follows is what the server says.
    Stands = 0,
    /// The destination refused the connection.
    DialRefused = 1,
    /// The destination didn't answer in time.
    DialTimeout = 2,
    /// The destination can't be reached: no route, or not permitted by the system.
    DialUnreachable = 3,
    /// The last gateway had no port, descriptor or memory left for the dial.
    DialExhausted = 4,
    /// The destination's name has no address.
    NameUnresolved = 5,
    /// The destination, or the next gateway, isn't on the gateway's list.
    NotPermitted = 6,
    /// A gateway on the path could have no trunk connection to the next.
    TrunkUnavailable = 7,
    /// A trunk connection further on ended without an answer, or with one that is none.
    TrunkLost = 8,
    /// The gateway holds as many pairs as it may. Nothing was dialled.
    PairsMax = 9,
    /// The gateway is ending, and cut its dial short.
    Drained = 10,
}

/// The byte isn't an answer: the peer is newer, or the byte was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("unknown answer {0} to a hello")]
pub struct UnknownAnswer(pub u8);

impl UnknownAnswer {
    /// The name in metrics and logs: kebab-case, and stable between releases.
    pub const NAME: &str = "answer-unknown";
}

impl Answer {
    /// All of them; each stands at the place of its byte.
    pub const ALL: &'static [Self] = &[
        Self::Stands,
        Self::DialRefused,
        Self::DialTimeout,
        Self::DialUnreachable,
        Self::DialExhausted,
        Self::NameUnresolved,
        Self::NotPermitted,
        Self::TrunkUnavailable,
        Self::TrunkLost,
        Self::PairsMax,
        Self::Drained,
    ];

    /// The name: kebab-case, and stable between releases. It's that of the reason under which the gateway counts it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stands => "stands",
            Self::DialRefused => "dial-refused",
            Self::DialTimeout => "dial-timeout",
            Self::DialUnreachable => "dial-unreachable",
            Self::DialExhausted => "dial-exhausted",
            Self::NameUnresolved => "name-unresolved",
            Self::NotPermitted => "not-permitted",
            Self::TrunkUnavailable => "trunk-unavailable",
            Self::TrunkLost => "trunk-lost",
            Self::PairsMax => "pairs-max",
            Self::Drained => "drained",
        }
    }

    /// The byte.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Whether nothing was delivered and another try may do better: the gateway itself had no room, or was about to go.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::PairsMax | Self::Drained)
    }
}

/// Takes the answer off the front of what the acceptor says behind its welcome, and says how many bytes it took.
///
/// # Errors
/// [`UnknownAnswer`]: close the connection and count it.
pub fn decode(bytes: &[u8]) -> Result<Option<(usize, Answer)>, UnknownAnswer> {
    let Some(byte) = bytes.first().copied() else { return Ok(None) };
    Answer::ALL.get(usize::from(byte)).map(|answer| Some((1, *answer))).ok_or(UnknownAnswer(byte))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_answer_comes_back_and_has_a_name_of_its_own() {
        for (byte, answer) in (0_u8..).zip(Answer::ALL) {
            assert_eq!(answer.to_byte(), byte);
            assert_eq!(decode(&[byte]), Ok(Some((1, *answer))));
        }
        let names: std::collections::BTreeSet<_> = Answer::ALL.iter().map(|answer| answer.name()).collect();
        assert_eq!(names.len(), Answer::ALL.len());
    }

    #[test]
    fn who_reached_its_server_or_was_refused_by_it_tries_no_more() {
        let passing: Vec<_> = Answer::ALL.iter().filter(|answer| answer.is_passing()).collect();
        assert_eq!(passing, [&Answer::PairsMax, &Answer::Drained]);
    }

    proptest! {
        #[test]
        fn one_byte_decides_whatever_follows(bytes in vec(any::<u8>(), 0..40)) {
            let answer = decode(&bytes);
            prop_assert_eq!(answer, decode(&bytes[..bytes.len().min(1)]));
            match answer {
                Ok(None) => prop_assert!(bytes.is_empty()),
                Ok(Some((taken, answer))) => prop_assert_eq!((taken, answer.to_byte()), (1, bytes[0])),
                Err(UnknownAnswer(byte)) => {
                    prop_assert!(byte == bytes[0] && usize::from(byte) >= Answer::ALL.len());
                }
            }
        }
    }
}
