//! The handshake of a trunk against arbitrary bytes in every place where a message may come, and between honest sides
//! whose messages may be tampered with. It may not panic, and must keep its contract:
//! - the answer at a prefix is kept by every longer one, and before [`Message::LEN_MAX`] bytes have come it is decided;
//! - who doesn't have the key gets no session, whatever it sends;
//! - honest sides come to the same session, also when their messages come in pieces; tampered ones don't.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use midmile_wire::proxy::Header;
use midmile_wire::trunk::auth::{self, AwaitChallenge, Message, Reject};
use midmile_wire::trunk::hello::{self, Hello, Path, TraceId};
use midmile_wire::trunk::{Key, Name, Nonce, Offer, PADDING_MAX, Session};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    key: [u8; 32],
    nonces: [[u8; 32]; 2],
    name_lens: [u8; 2],
    /// Padding that follows, that may come, and that the acceptor wants to send.
    padding: [u32; 3],
    /// Which message is tampered with, at which byte, and how.
    tamper: (u8, u8, u8),
    noise: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let key = Key::from_bytes(input.key);
    check_noise(&input, &key);
    let (dialer, acceptor) = shake_hands(&input, &key, None).expect("honest sides come through");
    check_sessions(&dialer, &acceptor);
    assert!(shake_hands(&input, &key, Some(input.tamper)).is_none_or(|_| !is_change(&input)), "tampered, and believed");
});

/// Each receiver alone, fed with noise.
fn check_noise(input: &Input<'_>, key: &Key) {
    let noise = input.noise;
    let (await_challenge, own) =
        auth::begin(name(input.name_lens[0]), name(input.name_lens[1]), Nonce(input.nonces[0]));
    check_splits(noise, |bytes| auth::introduction(bytes).map(|said| said.map(|(taken, _)| taken)));
    assert!(check_splits(noise, |bytes| taken_of_challenge(&await_challenge, bytes, key, offer(input))).is_none());
    if let Ok(Some((_, introduced))) = auth::introduction(noise) {
        let (await_proof, challenge) = introduced.challenge(key, Nonce(input.nonces[1]));
        assert!(
            check_splits(noise, |bytes| Ok(await_proof.handle(bytes, input.padding[2])?.map(|(taken, ..)| taken)))
                .is_none()
        );
        let answer = await_challenge.handle(challenge.as_bytes(), key, offer(input));
        assert_eq!(answer.is_ok(), noise.starts_with(own.as_bytes()), "an answer to another introduction");
    }
    let other = Key::from_bytes(input.key.map(|byte| !byte));
    let (_, honest) = auth::begin(name(1), name(2), Nonce(input.nonces[0]));
    let (_, introduced) = auth::introduction(honest.as_bytes()).expect("honest").expect("whole");
    let (_, challenge) = introduced.challenge(&other, Nonce(input.nonces[1]));
    assert!(await_challenge.handle(challenge.as_bytes(), key, offer(input)).is_err(), "without the key");
}

fn offer(input: &Input<'_>) -> Offer {
    Offer { follows: input.padding[0], takes: input.padding[1] }
}

fn taken_of_challenge(state: &AwaitChallenge, bytes: &[u8], key: &Key, offer: Offer) -> Result<Option<usize>, Reject> {
    Ok(state.handle(bytes, key, offer)?.map(|(taken, ..)| taken))
}

/// Feeds the stream byte by byte until it is decided; what is said then must hold for all longer prefixes. Answers how
/// many bytes were taken.
fn check_splits(data: &[u8], receive: impl Fn(&[u8]) -> Result<Option<usize>, Reject>) -> Option<usize> {
    let Some(end) = (0..=data.len()).find(|&end| receive(&data[..end]) != Ok(None)) else {
        assert!(data.len() < Message::LEN_MAX, "still undecided after {} bytes", data.len());
        return None;
    };
    let first = receive(&data[..end]);
    for longer in [end + 1, end.midpoint(data.len()), data.len()] {
        assert_eq!(receive(&data[..longer.min(data.len())]), first, "{end} bytes were enough to decide");
    }
    let taken = first.ok().flatten();
    assert!(taken.is_none_or(|taken| taken == end), "complete, but not at the last byte");
    taken
}

/// A handshake whose messages come byte by byte. `None` if a side refuses, or waits for more.
fn shake_hands(input: &Input<'_>, key: &Key, tamper: Option<(u8, u8, u8)>) -> Option<(Session, Session)> {
    let sent = |place: u8, message: &Message| {
        let mut bytes = message.as_bytes().to_vec();
        if let Some((_, at, change)) = tamper.filter(|&(tampered, ..)| tampered % 4 == place) {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= change;
        }
        bytes
    };
    let (dialer, message) = auth::begin(name(input.name_lens[0]), name(input.name_lens[1]), Nonce(input.nonces[0]));
    let (_, introduced) = drip(&sent(0, &message), auth::introduction)?;
    let (acceptor, message) = introduced.challenge(key, Nonce(input.nonces[1]));
    let (_, message, dialer) = drip(&sent(1, &message), |bytes| dialer.handle(bytes, key, offer(input)))?;
    let (_, accepted, message, told) = drip(&sent(2, &message), |bytes| acceptor.handle(bytes, input.padding[2]))?;
    let (_, dialled, agreed) = drip(&sent(3, &message), |bytes| dialer.handle(bytes))?;
    assert_eq!((agreed.sends, agreed.receives), (told.receives, told.sends), "each side sends what the other takes");
    assert!(agreed.sends.max(agreed.receives) <= PADDING_MAX, "padding is bounded");
    Some((dialled, accepted))
}

/// Whether tampering changes anything.
fn is_change(input: &Input<'_>) -> bool {
    input.tamper.2 != 0
}

fn drip<T>(bytes: &[u8], receive: impl Fn(&[u8]) -> Result<Option<T>, Reject>) -> Option<T> {
    (0..=bytes.len()).find_map(|end| receive(&bytes[..end]).transpose())?.ok()
}

/// What either side sends, the other takes, and it doesn't take its own.
fn check_sessions(dialer: &Session, acceptor: &Session) {
    let hello = Hello {
        client: Header::Local,
        destination: "a:1".parse().expect("valid"),
        path: Path::EMPTY,
        deadline_ms: 1,
        trace: TraceId([0; 16]),
    };
    for (from, to) in [(dialer, acceptor), (acceptor, dialer)] {
        let encoded = hello::encode(&hello, from);
        assert_eq!(hello::decode(encoded.as_bytes(), to), Ok(Some((encoded.as_bytes().len(), hello))));
        assert!(hello::decode(encoded.as_bytes(), from).is_err(), "its own came back");
    }
}

/// A name of 1 to 64 characters.
fn name(len: u8) -> Name {
    "a".repeat(1 + usize::from(len % 64)).parse().expect("valid")
}
