//! The handshake: that honest sides come through, and nobody else does.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// What dialers offer here, and acceptors would like to send: more than is taken.
const OFFER: Offer = Offer { follows: 70_000, takes: 300_000 };
const WANTED: u32 = 400_000;

fn other_key() -> Key {
    Key::from_bytes([8; 32])
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// All that is said and kept in a handshake.
struct Handshake {
    await_challenge: AwaitChallenge,
    await_proof: AwaitProof,
    await_welcome: AwaitWelcome,
    introduction: Message,
    challenge: Message,
    proof: Message,
    welcome: Message,
    dialer: Session,
    acceptor: Session,
}

/// A handshake between honest sides, with nonces of one byte each.
fn handshake(dialer_nonce: u8, acceptor_nonce: u8) -> Handshake {
    let names = (name("oregon"), name("mumbai-with-a-name-longer-than-30"));
    handshake_of(names, key(), [Nonce([dialer_nonce; 32]), Nonce([acceptor_nonce; 32])])
}

fn handshake_of((from, to): (Name, Name), key: Key, nonces: [Nonce; 2]) -> Handshake {
    let (await_challenge, introduction) = begin(from, to, nonces[0]);
    let (taken, introduced) = super::introduction(introduction.as_bytes()).unwrap().unwrap();
    assert_eq!(taken, introduction.as_bytes().len());
    assert_eq!((introduced.dialer(), introduced.acceptor()), (from, to));
    let (await_proof, challenge) = introduced.challenge(&key, nonces[1]);
    let (taken, proof, await_welcome) = await_challenge.handle(challenge.as_bytes(), &key, OFFER).unwrap().unwrap();
    assert_eq!(taken, challenge.as_bytes().len());
    let (taken, acceptor, welcome, padding) = await_proof.handle(proof.as_bytes(), WANTED).unwrap().unwrap();
    assert_eq!(padding, Padding { sends: OFFER.takes, receives: OFFER.follows });
    assert_eq!(taken, proof.as_bytes().len());
    let (taken, dialer, padding) = await_welcome.handle(welcome.as_bytes()).unwrap().unwrap();
    assert_eq!(padding, Padding { sends: OFFER.follows, receives: OFFER.takes });
    assert_eq!(taken, welcome.as_bytes().len());
    Handshake { await_challenge, await_proof, await_welcome, introduction, challenge, proof, welcome, dialer, acceptor }
}

/// Whether what `from` sends is taken by `to`.
fn understands(from: &Session, to: &Session) -> bool {
    from.sign(b"hello") == to.expect(b"hello")
}

/// Whether the receiver of a message accepts bytes in its place; `Ok(false)` is "more".
type Receive<'a> = Box<dyn Fn(&[u8]) -> Result<bool, Reject> + 'a>;

/// Each message, and its receiver.
fn receivers(handshake: &Handshake) -> [(Message, Receive<'_>); 4] {
    [
        (handshake.introduction, Box::new(|bytes| introduction(bytes).map(|introduced| introduced.is_some()))),
        (
            handshake.challenge,
            Box::new(|bytes| handshake.await_challenge.handle(bytes, &key(), OFFER).map(|it| it.is_some())),
        ),
        (handshake.proof, Box::new(|bytes| handshake.await_proof.handle(bytes, WANTED).map(|it| it.is_some()))),
        (handshake.welcome, Box::new(|bytes| handshake.await_welcome.handle(bytes).map(|it| it.is_some()))),
    ]
}

#[test]
fn both_sides_come_to_the_same_session() {
    let Handshake { dialer, acceptor, await_welcome, .. } = handshake(1, 2);
    assert!(understands(&dialer, &acceptor) && understands(&acceptor, &dialer));
    assert!(understands(&await_welcome.session(), &acceptor));
    // What a side sent isn't what it takes.
    assert!(!understands(&dialer, &dialer) && !understands(&acceptor, &acceptor));
}

#[test]
fn another_nonce_key_or_name_is_another_session() {
    let names = (name("a"), name("b"));
    let nonces = [Nonce([1; 32]), Nonce([2; 32])];
    let one = handshake_of(names, key(), nonces);
    assert!(understands(&one.dialer, &handshake_of(names, key(), nonces).acceptor), "nothing but what is given counts");
    for other in [
        handshake_of(names, key(), [Nonce([3; 32]), nonces[1]]),
        handshake_of(names, key(), [nonces[0], Nonce([3; 32])]),
        handshake_of(names, other_key(), nonces),
        handshake_of((names.0, name("c")), key(), nonces),
        handshake_of((name("c"), names.1), key(), nonces),
        handshake_of((names.1, names.0), key(), nonces),
    ] {
        assert!(!understands(&one.dialer, &other.acceptor) && !understands(&one.acceptor, &other.dialer));
    }
}

#[test]
fn the_plain_key_makes_a_handshake_too() {
    let handshake = handshake_of((name("a"), name("b")), Key::PLAIN, [Nonce([1; 32]), Nonce([2; 32])]);
    assert!(understands(&handshake.dialer, &handshake.acceptor));
}

#[test]
fn a_part_of_a_message_says_more() {
    let handshake = handshake(1, 2);
    for (message, receive) in receivers(&handshake) {
        let bytes = message.as_bytes();
        for end in 0..bytes.len() {
            assert_eq!(receive(&bytes[..end]), Ok(false), "{end} bytes of {}", bytes.len());
        }
        assert_eq!(receive(&[bytes, b"and more"].concat()), Ok(true));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let honest = handshake(1, 2);
    let [(introduction_sent, _), signed @ ..] = receivers(&honest);
    for (message, receive) in signed {
        for bit in 0..message.as_bytes().len() * 8 {
            let mut bytes = message.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(receive(&bytes).is_err(), "bit {bit} of {}", bytes.len());
        }
    }
    // Nothing is proved by an introduction: one that was changed is refused at once, waits for what doesn't come, or is
    // answered by a challenge that the dialer refuses.
    let len = introduction_sent.as_bytes().len();
    let mut answered = 0;
    for bit in 0..len * 8 {
        let mut bytes = introduction_sent.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Some((_, introduced))) = introduction(&bytes) {
            let (_, challenge) = introduced.challenge(&key(), Nonce([2; 32]));
            let answer = honest.await_challenge.handle(challenge.as_bytes(), &key(), OFFER);
            assert_eq!(answer.unwrap_err(), Reject::WrongKey, "bit {bit} of {len}");
            answered += 1;
        }
    }
    assert!(answered >= 8 * Nonce::LEN, "the nonce may be any");
}

#[test]
fn another_key_is_refused_by_either_side() {
    let (dialer, introduction_sent) = begin(name("a"), name("b"), Nonce([1; 32]));
    let (_, introduced) = introduction(introduction_sent.as_bytes()).unwrap().unwrap();
    let (await_proof, challenge) = introduced.challenge(&key(), Nonce([2; 32]));
    assert_eq!(dialer.handle(challenge.as_bytes(), &other_key(), OFFER).unwrap_err(), Reject::WrongKey);
    // A dialer that doesn't care whether the acceptor has the key can't make a proof either.
    let (_, forged) = introduced.challenge(&other_key(), Nonce([2; 32]));
    let (_, proof, _) = dialer.handle(forged.as_bytes(), &other_key(), OFFER).unwrap().unwrap();
    assert_eq!(await_proof.handle(proof.as_bytes(), WANTED).unwrap_err(), Reject::WrongKey);
    assert_eq!(await_proof.handle(&[0; 40], WANTED).unwrap_err(), Reject::WrongKey);
}

#[test]
fn names_are_proved() {
    let nonce = Nonce([1; 32]);
    let (dialer, _) = begin(name("a"), name("b"), nonce);
    // What others with the same key and nonce said, as when somebody in between changes the names.
    for (from, to) in [("b", "a"), ("a", "c"), ("c", "b"), ("ab", "b"), ("a", "bb")] {
        let (_, said) = begin(name(from), name(to), nonce);
        let (_, introduced) = introduction(said.as_bytes()).unwrap().unwrap();
        let (await_proof, challenge) = introduced.challenge(&key(), Nonce([2; 32]));
        assert_eq!(dialer.handle(challenge.as_bytes(), &key(), OFFER).unwrap_err(), Reject::WrongKey, "{from} {to}");
        let honest = handshake_of((name("a"), name("b")), key(), [nonce, Nonce([2; 32])]);
        assert_eq!(await_proof.handle(honest.proof.as_bytes(), WANTED).unwrap_err(), Reject::WrongKey, "{from} {to}");
    }
}

#[test]
fn a_replay_is_refused() {
    let recorded = handshake(1, 2);
    let (other_dialer, other_acceptor) = (handshake(3, 2), handshake(1, 4));
    let refused = Err(Reject::WrongKey);
    let by_dialer = other_dialer.await_challenge.handle(recorded.challenge.as_bytes(), &key(), OFFER);
    assert_eq!(by_dialer.map(|it| it.is_some()), refused);
    for fresh in [&other_dialer, &other_acceptor] {
        assert_eq!(fresh.await_proof.handle(recorded.proof.as_bytes(), WANTED).map(|it| it.is_some()), refused);
        assert_eq!(fresh.await_welcome.handle(recorded.welcome.as_bytes()).map(|it| it.is_some()), refused);
    }
}

#[test]
fn what_comes_back_to_its_sender_is_refused() {
    let handshake = handshake(1, 2);
    let [introduction_sent, challenge, proof, welcome] =
        [&handshake.introduction, &handshake.challenge, &handshake.proof, &handshake.welcome].map(Message::as_bytes);
    let mac = &challenge[challenge.len() - 32..];
    let refused = Err(Reject::WrongKey);
    for answer in [introduction_sent, &[proof, proof, proof].concat(), &[&challenge[..41], proof].concat()] {
        let got = handshake.await_challenge.handle(answer, &key(), OFFER).map(|it| it.is_some());
        assert!(got == refused || got == Err(Reject::NotTrunk), "{got:?}");
    }
    // What is shorter than the message that is awaited has bytes behind it.
    let longer = |bytes: &[u8]| [bytes, &[0; 40]].concat();
    for answer in [challenge, mac, welcome, introduction_sent].map(longer) {
        assert_eq!(handshake.await_proof.handle(&answer, WANTED).map(|it| it.is_some()), refused);
    }
    for answer in [proof, mac, challenge, introduction_sent].map(longer) {
        assert_eq!(handshake.await_welcome.handle(&answer).map(|it| it.is_some()), refused);
    }
}

#[test]
fn no_more_padding_is_agreed_on_than_both_want() {
    let names = (name("a"), name("b"));
    let (dialer, introduction_sent) = begin(names.0, names.1, Nonce([1; 32]));
    let (_, introduced) = introduction(introduction_sent.as_bytes()).unwrap().unwrap();
    let (acceptor, challenge) = introduced.challenge(&key(), Nonce([2; 32]));
    let cases = [((0, 0), 5000, (0, 0)), ((7, 0), 5000, (7, 0)), ((0, 9), 5000, (0, 9)), ((7, 5000), 9, (7, 9))];
    for ((follows, takes), wanted, (from_dialer, from_acceptor)) in cases {
        let offer = Offer { follows, takes };
        let (_, proof, dialer) = dialer.handle(challenge.as_bytes(), &key(), offer).unwrap().unwrap();
        let (_, _, welcome, accepted) = acceptor.handle(proof.as_bytes(), wanted).unwrap().unwrap();
        let (_, _, dialled) = dialer.handle(welcome.as_bytes()).unwrap().unwrap();
        assert_eq!(dialled, Padding { sends: from_dialer, receives: from_acceptor });
        assert_eq!(accepted, Padding { sends: from_acceptor, receives: from_dialer });
    }
}

#[test]
fn more_padding_than_may_come_is_refused_though_it_is_signed() {
    let honest = handshake(1, 2);
    let count = (OFFER.takes + 1).to_be_bytes();
    let mac = honest.await_welcome.transcript.then(&count).mac(&key(), Purpose::Welcome);
    let welcome = [&count[..], mac.as_bytes()].concat();
    assert_eq!(honest.await_welcome.handle(&welcome).unwrap_err(), Reject::PaddingTooLong);
    for at in [0, 4] {
        let mut offered = OFFER.to_bytes();
        offered[at] = 0xff;
        let mac = honest.await_proof.transcript.then(&offered).mac(&key(), Purpose::Proof);
        let proof = [&offered[..], mac.as_bytes()].concat();
        assert_eq!(honest.await_proof.handle(&proof, WANTED).unwrap_err(), Reject::PaddingTooLong);
    }
}

#[test]
fn strangers_are_refused_at_their_first_wrong_byte() {
    for stranger in [&b"G"[..], b"\x16\x03\x01", b"PROXY", b"\r\n\r\n\0\r\nQUIT\n", b"\xd3N", b"\xd3MIDMILD"] {
        assert_eq!(introduction(stranger).unwrap_err(), Reject::NotTrunk);
        assert_eq!(handshake(1, 2).await_challenge.handle(stranger, &key(), OFFER).unwrap_err(), Reject::NotTrunk);
    }
    for version in [0, 2, 255] {
        let head = [&MAGIC[..], &[version]].concat();
        assert_eq!(introduction(&head).unwrap_err(), Reject::Version);
        assert_eq!(handshake(1, 2).await_challenge.handle(&head, &key(), OFFER).unwrap_err(), Reject::Version);
    }
    for names in [&b"\0"[..], b"\x41", b"\xff", b"\x02A", b"\x02a\0", b"\x01a\0", b"\x01a\x41", b"\x01a\x02b/"] {
        let bytes = [&MAGIC[..], &[VERSION], names].concat();
        assert_eq!(introduction(&bytes).unwrap_err(), Reject::NameInvalid, "{names:?}");
    }
}

#[test]
fn states_and_messages_are_small() {
    let longest = name(&"z".repeat(Name::LEN_MAX));
    assert_eq!(begin(longest, longest, Nonce([0; 32])).1.as_bytes().len(), Message::LEN_MAX);
    for (size, size_max) in [
        (size_of::<AwaitChallenge>(), 32),
        (size_of::<AwaitWelcome>(), 72),
        (size_of::<Introduction>(), 162),
        (size_of::<AwaitProof>(), 64),
        (size_of::<Session>(), 64),
        (size_of::<Message>(), 184),
    ] {
        assert!(size <= size_max, "{size} bytes, {size_max} wanted");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let Handshake { await_challenge, await_proof, await_welcome, introduction, dialer, .. } = handshake(1, 2);
    let printed = format!("{await_challenge:?} {await_proof:?} {await_welcome:?} {introduction:?} {dialer:?}");
    assert_eq!(printed, "AwaitChallenge(..) AwaitProof(..) AwaitWelcome(..) Message(..) Session(..)");
}

#[test]
fn each_reject_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Reject::ALL.iter().map(|reject| reject.name()).collect();
    assert_eq!(names.len(), Reject::ALL.len());
}

/// How far a stream of noise gets before it is noise.
const STARTS: &[&[u8]] =
    &[b"", b"\xd3MIDMILE", b"\xd3MIDMILE\x01", b"\xd3MIDMILE\x01\x01a", b"\xd3MIDMILE\x01\x01a\x40"];

fn any_name() -> impl Strategy<Value = Name> {
    "[a-z0-9.-]{1,64}".prop_map(|text| name(&text))
}

proptest! {
    #[test]
    fn any_two_honest_sides_come_through(
        (from, to, secret, nonces) in (any_name(), any_name(), any::<[u8; 32]>(), any::<[[u8; 32]; 2]>())
    ) {
        let handshake = handshake_of((from, to), Key::from_bytes(secret), nonces.map(Nonce));
        prop_assert!(understands(&handshake.dialer, &handshake.acceptor));
        prop_assert!(understands(&handshake.acceptor, &handshake.dialer));
    }

    #[test]
    fn noise_is_decided_within_the_bound(start in prop::sample::select(STARTS), noise in vec(any::<u8>(), 0..200)) {
        let stream = [start, &noise].concat();
        let handshake = handshake(1, 2);
        for (place, (_, receive)) in receivers(&handshake).into_iter().enumerate() {
            let mut settled = None;
            for end in 0..=stream.len() {
                let answer = receive(&stream[..end]);
                if let Some(settled) = settled {
                    prop_assert_eq!(answer, settled);
                } else if answer != Ok(false) {
                    prop_assert!(place == 0 || answer.is_err(), "noise was believed");
                    settled = Some(answer);
                }
                prop_assert!(settled.is_some() || end < Message::LEN_MAX);
            }
        }
    }
}
