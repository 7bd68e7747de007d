//! The look at DNS messages against arbitrary bytes. It may not panic, and:
//! - a question is a part of the message, and the same as itself;
//! - what is to be changed in place stands where the keepalive option does;
//! - the records of what is well formed can be followed to the last;
//! - a refusal is an answer to the same question under the same id, whatever was asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use midmile_wire::dns::{Message, RCODE_SERVFAIL, Refusal};

fuzz_target!(|data: &[u8]| {
    let Some(message) = Message::new(data) else { return };
    if let Some(question) = message.question() {
        assert!(question.is_same(question) && data[12..].starts_with(question.bytes));
    }
    if let Some(at) = message.additional().and_then(|additional| additional.keepalive_at) {
        assert!(at + 2 <= data.len() && data[at - 4..at] == [0, 11, 0, 2]);
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
