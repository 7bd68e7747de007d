//! The look at DNS messages against arbitrary bytes. It may not panic, and:
//! - a question is a part of the message, and the same as itself;
//! - what is to be changed in place stands where the keepalive option does;
//! - an option that is put behind the others is read there, and all else is as it was;
//! - the records of what is well formed can be followed to the last;
//! - a refusal is an answer to the same question under the same id, whatever was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use midmile_wire::dns::{Additional, Message, RCODE_SERVFAIL, Refusal};

/// The keepalive option, of two seconds.
const KEEPALIVE: [u8; 6] = [0, 11, 0, 2, 0, 20];

/// What is said of a message with an option more, behind those between two places.
fn with_option(data: &[u8], begin: usize, end: usize) -> Option<Additional> {
    let len = u16::try_from(end - begin + KEEPALIVE.len()).ok()?.to_be_bytes();
    let grown = [&data[..begin - 2], &len, &data[begin..end], &KEEPALIVE, &data[end..]].concat();
    Message::new(&grown)?.additional()
}

fuzz_target!(|data: &[u8]| {
    let Some(message) = Message::new(data) else { return };
    if let Some(question) = message.question() {
        assert!(question.is_same(question) && data[12..].starts_with(question.bytes));
    }
    if let Some(at) = message.additional().and_then(|additional| additional.keepalive_at) {
        assert!(at + 2 <= data.len() && data[at - 4..at] == [0, 11, 0, 2]);
    }
    if let Some(said) = message.additional()
        && let Some((begin, end)) = said.options.filter(|(begin, end)| end - begin < 65_530)
    {
        assert_eq!(data[begin - 2..begin], u16::try_from(end - begin).expect("two bytes say it").to_be_bytes());
        // The first option is heard where there are two.
        let keepalive_at = if said.keepalive { said.keepalive_at } else { Some(end + 4) };
        let options = Some((begin, end + KEEPALIVE.len()));
        assert_eq!(with_option(data, begin, end), Some(Additional { keepalive: true, keepalive_at, options, ..said }));
    }
    if message.well_formed().is_ok() {
        assert!(message.additional().is_some() && (message.questions() == 0 || message.question().is_some()));
    }
    let refusal = Refusal::of(message, RCODE_SERVFAIL);
    let answer = Message::new(refusal.message()).expect("a refusal has a header");
    assert_eq!((answer.id(), answer.opcode(), answer.rcode()), (message.id(), message.opcode(), RCODE_SERVFAIL));
    assert!(answer.is_response() && answer.question() == message.question() && answer.additional().is_some());
    assert_eq!(refusal.framed().len(), refusal.message().len() + 2);
});
