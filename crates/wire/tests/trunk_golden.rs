//! The bytes of the trunk, version 1, as `trunk-v1.txt` has them: what gateways of other releases speak. The vectors may
//! be added to; a change of one needs a new version of the protocol. And what the page of the protocol says of it.

use std::collections::BTreeMap;

use midmile_wire::proxy::Header;
use midmile_wire::trunk::answer::{self, Answer, UnknownAnswer};
use midmile_wire::trunk::hello::{self, Hello, Path, TraceId};
use midmile_wire::trunk::{Key, Nonce, Offer, PADDING_MAX, Padding, Session, auth};

const VECTORS: &str = include_str!("trunk-v1.txt");

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The vectors by their names.
fn vectors() -> BTreeMap<&'static str, &'static str> {
    VECTORS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": ")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A handshake without padding.
const BARE: (Offer, u32) = (Offer { follows: 0, takes: 0 }, 0);
/// One in which the dialer sends 2 MiB and takes up to 16, and the acceptor sends 3.
const PADDED: (Offer, u32) = (Offer { follows: 2 << 20, takes: 16 << 20 }, 3 << 20);

/// The messages of one handshake, and both sides' sessions.
fn handshake((offer, wanted): (Offer, u32)) -> ([auth::Message; 4], Session, Session) {
    let key: Key = KEY.parse().expect("valid");
    let (dialer, introduction) =
        auth::begin("oregon".parse().expect("valid"), "mumbai".parse().expect("valid"), Nonce([0xaa; 32]));
    let (_, introduced) = auth::introduction(introduction.as_bytes()).expect("honest").expect("whole");
    let (acceptor, challenge) = introduced.challenge(&key, Nonce([0xbb; 32]));
    let (_, proof, dialer) = dialer.handle(challenge.as_bytes(), &key, offer).expect("honest").expect("whole");
    let (_, accepted, welcome, _) = acceptor.handle(proof.as_bytes(), wanted).expect("honest").expect("whole");
    let (_, dialled, padding) = dialer.handle(welcome.as_bytes()).expect("honest").expect("whole");
    assert_eq!(padding, Padding { sends: offer.follows, receives: wanted });
    ([introduction, challenge, proof, welcome], dialled, accepted)
}

/// Hellos of each kind of client, destination and path.
fn hellos() -> [(&'static str, Hello); 3] {
    let mut path = Path::EMPTY;
    for name in ["pune", "bangalore-1"] {
        path.push(name.parse().expect("valid")).expect("room for eight");
    }
    let ipv4 = Hello {
        client: Header::inet("198.51.100.7:40000".parse().expect("valid"), "192.0.2.1:443".parse().expect("valid")),
        destination: "10.3.0.2:80".parse().expect("valid"),
        path: Path::EMPTY,
        deadline_ms: 5000,
        trace: TraceId(*b"0123456789abcdef"),
    };
    let ipv6 = Hello {
        client: Header::inet(
            "[2001:db8::7]:40000".parse().expect("valid"),
            "[2001:db8::1]:443".parse().expect("valid"),
        ),
        destination: "[2001:db8:3::2]:80".parse().expect("valid"),
        ..ipv4
    };
    let local = Hello { client: Header::Local, destination: "db.internal:5432".parse().expect("valid"), path, ..ipv4 };
    [("hello ipv4", ipv4), ("hello ipv6", ipv6), ("hello local", local)]
}

#[test]
fn the_handshake_is_as_it_was() {
    let vectors = vectors();
    let bare = (BARE, ["introduction", "challenge", "proof", "welcome"]);
    for (padding, names) in [bare, (PADDED, ["introduction", "challenge", "proof padded", "welcome padded"])] {
        let (messages, _, _) = handshake(padding);
        for (name, message) in names.into_iter().zip(messages) {
            assert_eq!(vectors.get(name).copied(), Some(hex(message.as_bytes()).as_str()), "{name}");
        }
    }
}

#[test]
fn hellos_are_as_they_were() {
    let (_, dialer, acceptor) = handshake(BARE);
    let vectors = vectors();
    for (name, hello) in hellos() {
        let encoded = hello::encode(&hello, &dialer);
        assert_eq!(vectors.get(name).copied(), Some(hex(encoded.as_bytes()).as_str()), "{name}");
        assert_eq!(hello::decode(encoded.as_bytes(), &acceptor), Ok(Some((encoded.as_bytes().len(), hello))), "{name}");
    }
    let back = hello::encode(&hellos()[0].1, &acceptor);
    assert_eq!(vectors.get("hello of the acceptor").copied(), Some(hex(back.as_bytes()).as_str()));
    let (_, dialer, _) = handshake(PADDED);
    let padded = hello::encode(&hellos()[0].1, &dialer);
    assert_eq!(vectors.get("hello padded").copied(), Some(hex(padded.as_bytes()).as_str()));
}

#[test]
fn answers_are_as_they_were() {
    let vectors = vectors();
    let told = vectors.keys().filter_map(|name| name.strip_prefix("answer "));
    let mut known: Vec<_> = Answer::ALL.iter().map(|answer| answer.name()).collect();
    known.sort_unstable();
    assert_eq!(told.collect::<Vec<_>>(), known);
    for answer in Answer::ALL {
        let name = format!("answer {}", answer.name());
        assert_eq!(vectors.get(name.as_str()).copied(), Some(hex(&[answer.to_byte()]).as_str()), "{name}");
        assert_eq!(answer::decode(&[answer.to_byte(), 0xaa]), Ok(Some((1, *answer))), "{name}");
    }
}

#[test]
fn the_page_has_every_answer() {
    let page = include_str!("../../../docs/trunk-protocol.md");
    let (_, section) = page.split_once("\n## The answer\n").expect("a section of its own");
    let (section, _) = section.split_once("\n## ").expect("others behind it");
    let told: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(told.len(), Answer::ALL.len());
    for (row, answer) in told.into_iter().zip(Answer::ALL) {
        assert!(row.starts_with(&format!("| `{:02x}` | `{}` |", answer.to_byte(), answer.name())), "{row}");
    }
}

#[test]
fn the_page_has_every_reason() {
    let page = include_str!("../../../docs/trunk-protocol.md");
    let (_, reasons) = page.split_once("\n## Reasons\n").expect("the page ends with them");
    let told: Vec<&str> = reasons.lines().filter_map(|line| line.split('`').nth(1)).collect();
    let rejects = auth::Reject::ALL.iter().map(|reject| reject.name());
    let errors = hello::HelloError::ALL.iter().map(|error| error.name());
    assert_eq!(told, rejects.chain(errors).chain([UnknownAnswer::NAME]).collect::<Vec<_>>());
}

#[test]
fn the_page_has_the_bounds() {
    let page = include_str!("../../../docs/trunk-protocol.md");
    assert!(page.contains(&format!("45 to {} bytes long", auth::Message::LEN_MAX)));
    assert_eq!(PADDING_MAX, 16 << 20);
    assert!(page.contains("at most 16777216"));
    assert_eq!(hello::LEN_MAX, 1024);
    assert!(page.contains("of at most 1,024 bytes"));
}
