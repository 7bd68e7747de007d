//! The decoder of hellos against arbitrary bytes, as they are and with the right length and MAC. It may not panic, and
//! must keep its contract:
//! - without the MAC nothing is a hello;
//! - the answer at a prefix is kept by every longer one, and before [`LEN_MAX`] bytes have come it is decided;
//! - what was decoded says the same once it is encoded, to the last byte unless something was skipped;
//! - what is a hello is a PROXY protocol header with the same client.
//!
//! And the decoder of answers: its first byte decides, and one that is known is written as it came.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use midmile_wire::proxy::{self, Accept};
use midmile_wire::trunk::answer;
use midmile_wire::trunk::hello::{Encoded, Hello, HelloError, LEN_MAX, decode, encode, fuzz_sealed};
use midmile_wire::trunk::{Key, Nonce, Offer, Session, auth};

type Answer = Result<Option<(usize, Hello)>, HelloError>;

/// The dialer's session and the acceptor's.
static SESSIONS: LazyLock<(Session, Session)> = LazyLock::new(|| {
    let key = Key::from_bytes([7; 32]);
    let (dialer, message) = auth::begin("a".parse().expect("valid"), "b".parse().expect("valid"), Nonce([1; 32]));
    let (_, introduced) = auth::introduction(message.as_bytes()).expect("honest").expect("whole");
    let (acceptor, message) = introduced.challenge(&key, Nonce([2; 32]));
    let (_, message, dialer) =
        dialer.handle(message.as_bytes(), &key, Offer::default()).expect("honest").expect("whole");
    let (_, accepted, message, _) = acceptor.handle(message.as_bytes(), 0).expect("honest").expect("whole");
    let (_, dialled, _) = dialer.handle(message.as_bytes()).expect("honest").expect("whole");
    (dialled, accepted)
});

fuzz_target!(|data: &[u8]| {
    check_answer(data);
    let (dialer, acceptor) = &*SESSIONS;
    assert!(!matches!(check_splits(data, acceptor), Ok(Some(_))), "believed without the MAC");
    let Some(sealed) = fuzz_sealed(data, dialer) else { return };
    let answer = check_splits(sealed.as_bytes(), acceptor);
    assert_ne!(answer, Ok(None), "complete, and still undecided");
    if let Ok(Some((len, hello))) = answer {
        assert_eq!(len, sealed.as_bytes().len());
        check_hello(&hello, &sealed, dialer, acceptor);
    }
});

fn check_answer(data: &[u8]) {
    let said = answer::decode(data);
    assert_eq!(said, answer::decode(&data[..data.len().min(1)]), "decided by more than a byte");
    assert_eq!(said == Ok(None), data.is_empty());
    if let Ok(Some((taken, answer))) = said {
        assert_eq!((taken, answer.to_byte()), (1, data[0]));
    }
}

/// Feeds the stream byte by byte until the decoder decides; what it says then must hold for all longer prefixes.
fn check_splits(data: &[u8], session: &Session) -> Answer {
    let whole = decode(data, session);
    let Some(end) = (0..=data.len()).find(|&end| decode(&data[..end], session) != Ok(None)) else {
        assert!(data.len() < LEN_MAX, "still undecided after {} bytes", data.len());
        return whole;
    };
    let first = decode(&data[..end], session);
    if let Ok(Some((len, _))) = first {
        assert_eq!(len, end, "complete, but not at the last byte");
    }
    for longer in [end + 1, end.midpoint(data.len()), data.len()] {
        let answer = decode(&data[..longer.min(data.len())], session);
        assert_eq!(answer, first, "{end} bytes were enough to decide, {longer} decide otherwise");
    }
    whole
}

fn check_hello(hello: &Hello, sealed: &Encoded, dialer: &Session, acceptor: &Session) {
    let again = encode(hello, dialer);
    assert_eq!(decode(again.as_bytes(), acceptor), Ok(Some((again.as_bytes().len(), *hello))));
    // As long, so nothing was skipped: then there is one way alone to write it. An IPv4 address in the clothes of IPv6
    // makes a header that is shorter once it's written again.
    if again.as_bytes().len() == sealed.as_bytes().len() {
        assert_eq!(again.as_bytes(), sealed.as_bytes(), "two ways to write a hello");
    }
    let header = proxy::decode(sealed.as_bytes(), Accept::V2).expect("a header").expect("whole");
    assert_eq!((header.header, header.len), (hello.client, sealed.as_bytes().len()));
    assert!(hello.path.names().len() <= 8 && hello.destination.port() > 0);
}
