//! What both sides keep of a handshake.

use std::fmt;

use super::Key;
use super::mac::{self, Mac, Purpose, Transcript};

/// The keys of one authenticated connection, as one side of it holds them: for hellos that it sends and that it
/// receives.
///
/// They depend on everything that was said in the handshake, so a hello of one connection is worth nothing on another,
/// and one that comes back to its sender is refused. A connection carries one hello.
#[derive(Clone, Copy)]
pub struct Session {
    sends: [u8; mac::LEN],
    receives: [u8; mac::LEN],
}

impl Session {
    /// The dialer's session.
    pub(super) fn of_dialer(key: &Key, transcript: Transcript) -> Self {
        let secret = transcript.mac(key, Purpose::Session);
        Self {
            sends: Purpose::HelloOfDialer.derive(secret.as_bytes()),
            receives: Purpose::HelloOfAcceptor.derive(secret.as_bytes()),
        }
    }

    /// The acceptor's session: the dialer's, seen from the other side.
    pub(super) fn of_acceptor(key: &Key, transcript: Transcript) -> Self {
        let dialer = Self::of_dialer(key, transcript);
        Self { sends: dialer.receives, receives: dialer.sends }
    }

    /// The MAC of a hello that is sent.
    pub(super) fn sign(&self, bytes: &[u8]) -> Mac {
        Mac::of(&self.sends, bytes)
    }

    /// The MAC that a hello has to have when it is received.
    pub(super) fn expect(&self, bytes: &[u8]) -> Mac {
        Mac::of(&self.receives, bytes)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}
