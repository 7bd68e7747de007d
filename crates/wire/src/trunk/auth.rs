//! The handshake of a trunk connection: both sides prove that they have the key, their names, and that they are here now.
//!
//! A type for each place where a side can stand, and a message to go on from it:
//!
//! | dialer | message | acceptor |
//! | --- | --- | --- |
//! | [`begin`] | introduction → | [`introduction`] |
//! | [`AwaitChallenge::handle`] | ← challenge | [`Introduction::challenge`] |
//! | | proof → | [`AwaitProof::handle`] |
//! | [`AwaitWelcome::handle`] | ← welcome | |
//!
//! Between [`introduction`] and [`Introduction::challenge`] the acceptor finds the key of the peer that introduced
//! itself, and sees whether it was meant itself. A state isn't used up by bytes that aren't the whole message: feed it
//! all that has come so far, again and again. How long that may take is the caller's to say.

use std::fmt;

use super::mac::{self, Mac, Purpose, Transcript};
use super::padding::{COUNT_LEN, Offer, PADDING_MAX, Padding};
use super::{Key, Name, Nonce, Session, name};
use crate::proxy::agrees;
use crate::proxy::v2::take;

/// The version of the handshake and of what follows it: each side refuses another one.
pub const VERSION: u8 = 1;

/// The first bytes of each side. 0xd3 and "M" are neither text in UTF-8 nor the start of a protocol that we know of.
const MAGIC: [u8; 8] = *b"\xd3MIDMILE";

/// Length in bytes of magic and version.
const HEAD_LEN: usize = MAGIC.len() + 1;

/// Length in bytes of what the challenge's MAC is about: head and nonce.
const CHALLENGE_SIGNED_LEN: usize = HEAD_LEN + Nonce::LEN;

/// The dialer's first step: the introduction to send, and the state that waits for the answer.
///
/// `dialer` is our own name, `acceptor` that of the peer that we mean to reach.
pub fn begin(dialer: Name, acceptor: Name, nonce: Nonce) -> (AwaitChallenge, Message) {
    let mut message = Message::head();
    for name in [dialer, acceptor] {
        message.push(&[name.len()]);
        message.push(name.as_bytes());
    }
    message.push(&nonce.0);
    (AwaitChallenge { transcript: Transcript::of(message.as_bytes()) }, message)
}

/// The dialer, having introduced itself.
#[derive(Clone, Copy)]
pub struct AwaitChallenge {
    transcript: Transcript,
}

impl AwaitChallenge {
    /// The challenge: how many bytes it took, the proof to send, and the state that waits for the welcome. `offer` is what the
    /// proof says of padding: as many bytes have to follow it.
    ///
    /// The acceptor has proved itself by it. `Ok(None)` means that more bytes are needed.
    ///
    /// # Errors
    /// [`Reject`] says what is wrong with the acceptor. Close the connection and count [`Reject::name`].
    pub fn handle(
        &self,
        bytes: &[u8],
        key: &Key,
        offer: Offer,
    ) -> Result<Option<(usize, Message, AwaitWelcome)>, Reject> {
        if after_head(bytes)?.is_none() {
            return Ok(None);
        }
        let mut rest = bytes;
        let Some(signed) = take::<CHALLENGE_SIGNED_LEN>(&mut rest) else { return Ok(None) };
        let Some(stated) = take(&mut rest) else { return Ok(None) };

        let transcript = self.transcript.then(&signed);
        transcript.check(key, Purpose::Challenge, stated)?;
        let offered = offer.to_bytes();
        let transcript = transcript.then(&stated).then(&offered);
        let proof = transcript.mac(key, Purpose::Proof);
        let transcript = transcript.then(proof.as_bytes());
        let state = AwaitWelcome {
            key: *key,
            transcript,
            offer: Offer { follows: offer.follows.min(PADDING_MAX), takes: offer.takes.min(PADDING_MAX) },
        };
        Ok(Some((bytes.len() - rest.len(), Message::of(&offered, proof), state)))
    }
}

/// The dialer, having sent its proof.
#[derive(Clone, Copy)]
pub struct AwaitWelcome {
    key: Key,
    transcript: Transcript,
    /// What the proof said. Invariant: neither number is more than [`PADDING_MAX`].
    offer: Offer,
}

impl AwaitWelcome {
    /// The welcome: how many bytes it took, the session, and the padding of both sides. Once that has crossed, the connection is
    /// ready for the pool.
    ///
    /// `Ok(None)` means that more bytes are needed.
    ///
    /// # Errors
    /// [`Reject::WrongKey`], [`Reject::PaddingTooLong`]. Close the connection and count it.
    pub fn handle(&self, bytes: &[u8]) -> Result<Option<(usize, Session, Padding)>, Reject> {
        let mut rest = bytes;
        let Some(count) = take::<COUNT_LEN>(&mut rest) else { return Ok(None) };
        let Some(stated) = take(&mut rest) else { return Ok(None) };
        self.transcript.then(&count).check(&self.key, Purpose::Welcome, stated)?;
        let receives = u32::from_be_bytes(count);
        if receives > self.offer.takes {
            return Err(Reject::PaddingTooLong);
        }
        let padding = Padding { sends: self.offer.follows, receives };
        Ok(Some((bytes.len() - rest.len(), self.session(), padding)))
    }

    /// The session before the welcome has come, for a hello that goes out with the proof.
    ///
    /// For a client that waits while the pool is empty, whose proof offered to take no padding: it saves a round trip, and is as
    /// safe, since the acceptor has proved itself already. The welcome is still to be handled, before the bytes behind it.
    pub fn session(&self) -> Session {
        Session::of_dialer(&self.key, self.transcript)
    }
}

/// The dialer's introduction, as the acceptor reads it: how many bytes it took, and what it says.
///
/// Nothing of it is proved yet. `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// [`Reject`] says what is wrong with the dialer. Close the connection and count [`Reject::name`].
pub fn introduction(bytes: &[u8]) -> Result<Option<(usize, Introduction)>, Reject> {
    let Some(mut rest) = after_head(bytes)? else { return Ok(None) };
    let Some(dialer) = take_name(&mut rest)? else { return Ok(None) };
    let Some(acceptor) = take_name(&mut rest)? else { return Ok(None) };
    if take::<{ Nonce::LEN }>(&mut rest).is_none() {
        return Ok(None);
    }
    let (said, _) = bytes.split_at(bytes.len() - rest.len());
    Ok(Some((said.len(), Introduction { dialer, acceptor, transcript: Transcript::of(said) })))
}

/// Who says that it dials, and whom it means to reach.
#[derive(Clone, Copy)]
pub struct Introduction {
    dialer: Name,
    acceptor: Name,
    transcript: Transcript,
}

impl Introduction {
    /// The peer that the dialer claims to be: the caller looks its key up.
    pub const fn dialer(&self) -> Name {
        self.dialer
    }

    /// The peer that the dialer means to reach. If that isn't our name the caller closes the connection.
    pub const fn acceptor(&self) -> Name {
        self.acceptor
    }

    /// The acceptor's answer: the challenge to send, and the state that waits for the proof.
    pub fn challenge(&self, key: &Key, nonce: Nonce) -> (AwaitProof, Message) {
        let mut message = Message::head();
        message.push(&nonce.0);
        let transcript = self.transcript.then(message.as_bytes());
        let mac = transcript.mac(key, Purpose::Challenge);
        message.push(mac.as_bytes());
        (AwaitProof { key: *key, transcript: transcript.then(mac.as_bytes()) }, message)
    }
}

/// The acceptor, having sent its challenge.
#[derive(Clone, Copy)]
pub struct AwaitProof {
    key: Key,
    transcript: Transcript,
}

impl AwaitProof {
    /// The proof: how many bytes it took, the session, the welcome to send, and the padding of both sides. `wanted` is how many
    /// bytes of padding we would send: as many as the dialer takes of them have to follow the welcome.
    ///
    /// Bytes behind the proof are padding, and then the start of a hello. `Ok(None)` means that more bytes are needed.
    ///
    /// # Errors
    /// [`Reject::WrongKey`], [`Reject::PaddingTooLong`]. Close the connection and count it.
    pub fn handle(&self, bytes: &[u8], wanted: u32) -> Result<Option<(usize, Session, Message, Padding)>, Reject> {
        let mut rest = bytes;
        let Some(offered) = take::<{ 2 * COUNT_LEN }>(&mut rest) else { return Ok(None) };
        let Some(stated) = take(&mut rest) else { return Ok(None) };
        let transcript = self.transcript.then(&offered);
        transcript.check(&self.key, Purpose::Proof, stated)?;
        let offer = Offer::from_bytes(offered).ok_or(Reject::PaddingTooLong)?;
        let transcript = transcript.then(&stated);
        let padding = Padding { sends: wanted.min(offer.takes), receives: offer.follows };
        let count = padding.sends.to_be_bytes();
        let welcome = Message::of(&count, transcript.then(&count).mac(&self.key, Purpose::Welcome));
        let session = Session::of_acceptor(&self.key, transcript);
        Ok(Some((bytes.len() - rest.len(), session, welcome, padding)))
    }
}

/// What follows magic and version; `None` if they haven't come whole. Each byte is checked as it comes.
fn after_head(bytes: &[u8]) -> Result<Option<&[u8]>, Reject> {
    if !agrees(bytes, &MAGIC) {
        return Err(Reject::NotTrunk);
    }
    match bytes.get(MAGIC.len()..).and_then(<[u8]>::split_first) {
        None => Ok(None),
        Some((&VERSION, rest)) => Ok(Some(rest)),
        Some(_) => Err(Reject::Version),
    }
}

/// A name with its length in front; `None` if it hasn't come whole. Each byte is checked as it comes.
fn take_name(bytes: &mut &[u8]) -> Result<Option<Name>, Reject> {
    let Some((&len, rest)) = bytes.split_first() else { return Ok(None) };
    let len = usize::from(len);
    let (text, rest) = rest.split_at_checked(len).unwrap_or((rest, &[]));
    if !(1..=Name::LEN_MAX).contains(&len) || !text.iter().all(|&byte| name::is_allowed(byte)) {
        return Err(Reject::NameInvalid);
    }
    if text.len() < len {
        return Ok(None);
    }
    *bytes = rest;
    Name::from_bytes(text).ok_or(Reject::NameInvalid).map(Some)
}

impl Transcript {
    fn check(self, key: &Key, purpose: Purpose, stated: [u8; mac::LEN]) -> Result<(), Reject> {
        if self.mac(key, purpose) == Mac::stated(stated) { Ok(()) } else { Err(Reject::WrongKey) }
    }
}

/// A message to send, in one write.
#[derive(Clone, Copy)]
pub struct Message {
    bytes: [u8; Self::LEN_MAX],
    /// Invariant: `len <= LEN_MAX`.
    len: usize,
}

impl Message {
    /// Length in bytes of the longest message: an introduction with the longest names.
    ///
    /// The other side's message is never longer. A buffer of this length is always enough to decide on it.
    pub const LEN_MAX: usize = HEAD_LEN + 2 * (1 + Name::LEN_MAX) + Nonce::LEN;

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).expect("len is at most LEN_MAX")
    }

    /// A message that has magic and version.
    fn head() -> Self {
        let mut message = Self { bytes: [0; Self::LEN_MAX], len: 0 };
        message.push(&MAGIC);
        message.push(&[VERSION]);
        message
    }

    /// A message that is what is said, and its MAC.
    fn of(said: &[u8], mac: Mac) -> Self {
        let mut message = Self { bytes: [0; Self::LEN_MAX], len: 0 };
        message.push(said);
        message.push(mac.as_bytes());
        message
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end).expect("LEN_MAX is the longest message").copy_from_slice(bytes);
        self.len = end;
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A secret could be worked on by who has the state or reads the message from a log.
macro_rules! hidden {
    ($($name:ident),+) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+ };
}

hidden!(AwaitChallenge, AwaitWelcome, AwaitProof, Message);

impl fmt::Debug for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Introduction({} to {})", self.dialer, self.acceptor)
    }
}

/// Why the handshake can't go on. The caller closes the connection without an answer, and counts [`Reject::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// The other side speaks another protocol.
    #[error("not a trunk: the other side isn't a gateway, or the port isn't that of its trunk")]
    NotTrunk,
    /// The other side is a gateway of a version that isn't ours.
    #[error("another version of the trunk protocol; this side speaks version {VERSION}")]
    Version,
    /// The introduction has a name that none is allowed to have.
    #[error("the introduction has an invalid name")]
    NameInvalid,
    /// The MAC isn't what it has to be: another key, another name, or a message that was changed or sent before.
    #[error("wrong key: the two sides don't have the same one, or what they said was changed on the way")]
    WrongKey,
    /// The other side announces more padding than it may.
    #[error("more padding than a side may send")]
    PaddingTooLong,
}

impl Reject {
    /// All of them, in the order of their counters.
    pub const ALL: &'static [Self] =
        &[Self::NotTrunk, Self::Version, Self::NameInvalid, Self::WrongKey, Self::PaddingTooLong];

    /// The name in metrics and logs: kebab-case, and stable between releases.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTrunk => "not-trunk",
            Self::Version => "version",
            Self::NameInvalid => "name-invalid",
            Self::WrongKey => "wrong-key",
            Self::PaddingTooLong => "padding-too-long",
        }
    }
}

#[cfg(test)]
mod tests;
