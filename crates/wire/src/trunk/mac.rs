//! BLAKE3 as the trunk uses it: keys for one purpose each, message authentication codes (MAC), and the transcript.
//!
//! Specification: "BLAKE3: one function, fast everywhere", 2021-06-07; the modes `hash`, `keyed_hash` and `derive_key`
//! are its section 2.3.

use super::Key;

/// Length in bytes of a hash, of a derived key and of a [`Mac`].
pub(super) const LEN: usize = 32;

/// What a derived key is for. A MAC that was made for one purpose is worth nothing for another, so no message can be
/// sent back as an answer to itself.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// The acceptor's MAC in the challenge.
    Challenge,
    /// The dialer's proof.
    Proof,
    /// The acceptor's welcome.
    Welcome,
    /// What both sides keep of a handshake.
    Session,
    /// Hellos that the dialer of the connection sends.
    HelloOfDialer,
    /// Hellos that the acceptor of the connection sends.
    HelloOfAcceptor,
}

impl Purpose {
    /// The context string of `derive_key`: a constant that no other program uses. A new version has new ones.
    const fn context(self) -> &'static str {
        match self {
            Self::Challenge => "midmile 2026-11-21 trunk v1 challenge",
            Self::Proof => "midmile 2026-11-21 trunk v1 proof",
            Self::Welcome => "midmile 2026-11-21 trunk v1 welcome",
            Self::Session => "midmile 2026-11-21 trunk v1 session",
            Self::HelloOfDialer => "midmile 2026-11-21 trunk v1 hello of the dialer",
            Self::HelloOfAcceptor => "midmile 2026-11-21 trunk v1 hello of the acceptor",
        }
    }

    /// The key for this purpose.
    pub(super) fn derive(self, secret: &[u8; LEN]) -> [u8; LEN] {
        blake3::derive_key(self.context(), secret)
    }
}

/// A message authentication code. Comparing two takes a time that doesn't depend on them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac(blake3::Hash);

impl Mac {
    /// The MAC of the bytes under a key that was derived for one purpose.
    pub(super) fn of(key: &[u8; LEN], bytes: &[u8]) -> Self {
        Self(blake3::keyed_hash(key, bytes))
    }

    /// The MAC that came.
    pub(super) const fn stated(bytes: [u8; LEN]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }

    pub(super) const fn as_bytes(&self) -> &[u8; LEN] {
        self.0.as_bytes()
    }
}

/// A hash of all that both sides have said so far, in order. What is proved is proved of all of it.
#[derive(Clone, Copy)]
pub(super) struct Transcript([u8; LEN]);

impl Transcript {
    /// The transcript that begins with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The transcript that goes on with these bytes.
    pub(super) fn then(self, bytes: &[u8]) -> Self {
        Self(*blake3::Hasher::new().update(&self.0).update(bytes).finalize().as_bytes())
    }

    /// The MAC that only who has the key can make of what was said.
    pub(super) fn mac(self, key: &Key, purpose: Purpose) -> Mac {
        Mac::of(&purpose.derive(key.as_bytes()), &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let purposes = [
            Purpose::Challenge,
            Purpose::Proof,
            Purpose::Welcome,
            Purpose::Session,
            Purpose::HelloOfDialer,
            Purpose::HelloOfAcceptor,
        ];
        let keys: std::collections::BTreeSet<_> = purposes.iter().map(|purpose| purpose.derive(&[7; LEN])).collect();
        assert_eq!(keys.len(), purposes.len());
    }
}
