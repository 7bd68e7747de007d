//! Connections to other hosts, known for such as they begin, so that they cost next to nothing.
//!
//! To an address of its own a host speaks from the same one ([`crate::meeting`]). So a connection whose ends have different addresses isn't within the host,
//! and nor is another with that peer. What was found of a peer holds for a while: addresses come to a host, and go. A peer that is
//! wrongly taken for another host's stays with TCP, and loses nothing but time.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys::{ask, call, map};

/// Peers that are remembered, at most.
const PEERS: usize = 1024;
/// How long, in seconds.
const HOLDS: u64 = 10;
/// A word of the table: a hash of the address, the second in which it was asked for, and whether it's another host's.
const FAR: u64 = 1;
const SECONDS: u64 = ((1 << 24) - 1) & !FAR;

static TABLE: [AtomicU64; PEERS] = [const { AtomicU64::new(0) }; PEERS];
/// Of the hash, so that a stranger can't choose an address that stands for another's; 0: nothing is remembered.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Begins, before the program's threads.
pub(crate) fn begin() {
    KEY.store(map::random().unwrap_or(0), Relaxed);
}

/// A hash for which a product of two words does: what two addresses have in common by chance costs time alone.
fn hash(peer: Ipv6Addr, key: u64) -> u64 {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
    let (high, low) = (half(peer.to_bits() >> 64), half(peer.to_bits()));
    let product = u128::from(high ^ key) * u128::from(low ^ key.rotate_left(32));
    half(product >> 64) ^ half(product)
}

/// Whether a connection that has just been begun or accepted is with another host. `peer`: its address, IPv4 as mapped IPv6; `None`: not known, and so
/// isn't this. `now`: the time, if it's at hand. Costs a system call, where this peer wasn't asked for of late.
#[inline]
pub(crate) fn is_far(fd: i32, peer: Option<Ipv6Addr>, now: Option<u64>) -> bool {
    let key = KEY.load(Relaxed);
    let Some(peer) = peer.filter(|_| key != 0) else { return false };
    let hash = hash(peer, key);
    let place = &TABLE[usize::try_from(hash % PEERS as u64).expect("less than there are places")];
    let known = place.load(Relaxed);
    let now = (now.unwrap_or_else(call::about_now) / 1_000_000_000) << 1;
    if (known ^ hash) & !(SECONDS | FAR) == 0 && (now.wrapping_sub(known & SECONDS) & SECONDS) >> 1 < HOLDS {
        return known & FAR != 0;
    }
    ask_of(fd, peer, (place, hash & !(SECONDS | FAR) | now & SECONDS))
}

/// Asks it of the socket, and notes what was found in the peer's place, beneath such a word.
#[inline(never)]
fn ask_of(fd: i32, peer: Ipv6Addr, (place, word): (&AtomicU64, u64)) -> bool {
    let near = |peer: IpAddr| peer.is_loopback() || peer.is_unspecified();
    if near(peer.to_canonical()) {
        return false;
    }
    let Some(own) = ask::address(fd, ask::End::Own) else { return false };
    let far = *own.ip() != peer;
    place.store(word | if far { FAR } else { 0 }, Relaxed);
    far
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_peer_is_asked_for_once_in_a_while() {
        begin();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fd = dialled.as_raw_fd();
        assert!(!is_far(fd, None, None) && !is_far(fd, Some("::1".parse().unwrap()), None));
        for near in ["::ffff:127.9.9.9", "::ffff:0.0.0.0", "::"] {
            assert!(!is_far(fd, Some(near.parse().unwrap()), None), "{near} is this host's");
        }
        let stranger = Some("::ffff:192.0.2.7".parse().unwrap());
        assert!(is_far(fd, stranger, None), "another than the socket's own");
        assert!(is_far(-1, stranger, None), "known: the socket isn't asked");
        assert!(!is_far(-1, Some("::ffff:192.0.2.8".parse().unwrap()), None), "another, and no socket to ask");
    }
}
