//! A near gateway of our own: it shakes hands as gateway `a` does, and says no hello.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use midmile_wire::trunk::{Key, Nonce, Offer, Padding, auth};

use super::acceptor::heard;
use super::gateways::KEYS;
use crate::process::PATIENCE;

/// A connection to gateway `b` that has proved that it's `a`'s, and the padding agreed on.
pub(crate) fn proved(b: SocketAddr, offer: Offer) -> (TcpStream, Padding) {
    let mut stream = TcpStream::connect(b).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let key: Key = KEYS[0].parse().unwrap();
    let (challenged, introduction) = auth::begin("a".parse().unwrap(), "b".parse().unwrap(), Nonce([7; Nonce::LEN]));
    stream.write_all(introduction.as_bytes()).unwrap();
    let challenge = heard(&mut stream, |bytes| {
        challenged.handle(bytes, &key, offer).unwrap().map(|(_, proof, proved)| (proof, proved))
    });
    let (proof, proved) = challenge.expect("a challenge");
    stream.write_all(proof.as_bytes()).unwrap();
    let padding = heard(&mut stream, |bytes| proved.handle(bytes).unwrap().map(|(_, _, padding)| padding));
    (stream, padding.expect("a welcome"))
}
