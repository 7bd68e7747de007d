//! Questions of the load: for the address of one of a zone's hosts, and whether a message answers one (RFC 1035, 4).

use anyhow::{Result, ensure};

/// The zone that is asked.
pub(crate) const ORIGIN: &str = "bench.example.";
/// Its hosts: `host-000` and so on, each with an address. As many more, `slow-000` and so on, are known to the load's own name server,
/// which is slow to answer about them.
pub(crate) const HOSTS: usize = 1000;
/// Bytes of a question's message, and those with its length of two bytes (RFC 1035, 4.2.2).
pub(super) const QUERY_BYTES: usize = 2 + MESSAGE_BYTES;
const MESSAGE_BYTES: usize = 40;
/// Bytes of a header; the question follows it.
const HEADER_BYTES: usize = 12;
/// The largest answer that is expected; one address is far smaller.
pub(super) const ANSWER_BYTES_MAX: usize = 512;

const TEMPLATE: &[u8; QUERY_BYTES] = b"\0\x28\0\0\0\0\0\x01\0\0\0\0\0\0\x08host-000\x05bench\x07example\0\0\x01\0\x01";
/// Where a template's id and its host's number are.
const ID_AT: usize = 2;
const NAME_AT: usize = 2 + HEADER_BYTES + 1;
const NUMBER_AT: usize = NAME_AT + 5;
/// What a slow host's name begins with.
const SLOW: &[u8] = b"slow";
/// An answer's record: the question's name, A, IN, an hour, an address.
const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1];

/// A question for a host's address, its length before it; from [`HOSTS`] on the hosts are slow ones.
pub(super) fn query(id: u16, host: usize) -> [u8; QUERY_BYTES] {
    let mut query = *TEMPLATE;
    query[ID_AT..][..2].copy_from_slice(&id.to_be_bytes());
    if host >= HOSTS {
        query[NAME_AT..][..SLOW.len()].copy_from_slice(SLOW);
    }
    let mut rest = host % HOSTS;
    for digit in query[NUMBER_AT..][..3].iter_mut().rev() {
        *digit += u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    query
}

/// The length of the message at the front of `bytes`, without that of its length; `None` while the message isn't whole.
pub(super) fn whole(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    (bytes.len() >= 2 + length).then_some(length)
}

/// The id of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    message.first_chunk().copied().map(u16::from_be_bytes)
}

/// Whether a question, without its length, is about a slow host.
pub(super) fn is_slow(question: &[u8]) -> bool {
    question[NAME_AT - 2..].starts_with(SLOW)
}

/// An answer to a question of the load, which comes without its length; it has its own before it.
pub(super) fn answer(question: &[u8]) -> Result<Vec<u8>> {
    ensure!(question.len() == MESSAGE_BYTES, "a question of {} bytes", question.len());
    let length = u16::try_from(MESSAGE_BYTES + RECORD.len())?;
    let mut answer = [&length.to_be_bytes(), question, RECORD].concat();
    // QR and AA are set, and there's a record.
    (answer[4], answer[9]) = (0x84, 1);
    Ok(answer)
}

/// Checks an answer, without its length: it must be a good one to this question.
pub(super) fn check(answer: &[u8], id: u16, host: usize) -> Result<()> {
    let question = query(id, host);
    ensure!(answer.len() > MESSAGE_BYTES, "an answer of {} bytes", answer.len());
    ensure!(answer[..2] == question[ID_AT..][..2], "an answer under another id");
    ensure!(answer[HEADER_BYTES..MESSAGE_BYTES] == question[2 + HEADER_BYTES..], "an answer to another question");
    // QR is set, RCODE is 0, and there's a record.
    let good = answer[2] & 0x80 != 0 && answer[3] & 0x0F == 0 && answer[6..8] != [0, 0];
    ensure!(good, "no good answer: {:02x?}", &answer[..HEADER_BYTES]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_host() {
        let query = query(0x1234, 987);
        assert_eq!(whole(&query), Some(MESSAGE_BYTES));
        assert_eq!(id(&query[2..]), Some(0x1234));
        assert!(query.windows(8).any(|bytes| bytes == b"host-987"));
        assert_eq!(whole(&query[..QUERY_BYTES - 1]), None);
    }

    #[test]
    fn our_own_answer_is_a_good_one() {
        for (host, slow) in [(42, false), (HOSTS + 42, true)] {
            let question = query(7, host);
            let answer = answer(&question[2..]).unwrap();
            assert_eq!((is_slow(&question[2..]), whole(&answer)), (slow, Some(answer.len() - 2)));
            assert!(check(&answer[2..], 7, host).is_ok() && check(&answer[2..], 7, host + 1).is_err());
            assert!(check(&answer[2..], 7, (host + HOSTS) % (2 * HOSTS)).is_err());
        }
        assert!(answer(&[0; 12]).is_err());
    }

    #[test]
    fn only_a_good_answer_to_the_question_is_one() {
        let mut answer = query(7, 42)[2..].to_vec();
        answer.extend([0; 16]);
        assert!(check(&answer, 7, 42).is_err(), "that's a question");
        answer[2] = 0x84;
        answer[7] = 1;
        assert!(check(&answer, 7, 42).is_ok());
        assert!(check(&answer, 8, 42).is_err() && check(&answer, 7, 43).is_err());
        answer[3] = 2;
        assert!(check(&answer, 7, 42).is_err(), "that's SERVFAIL");
    }
}
