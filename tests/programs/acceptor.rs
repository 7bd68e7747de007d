//! A far gateway of our own: it shakes hands as one does, and answers hellos as a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use midmile_wire::trunk::{Key, Nonce, Session, auth, hello};

use super::gateways::KEYS;
use crate::process::own_loopback;

/// Where it listens, as the peer `b` of gateway `a`. `answer` gets each connection on which a hello has come, and how many came
/// before. It ends with the test program.
pub(crate) fn acceptor(answer: impl Fn(u64, TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (used, hellos) = std::sync::mpsc::channel();
    thread::spawn(move || (0..).zip(hellos).for_each(|(before, stream)| answer(before, stream)));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let used = used.clone();
            // A connection that nobody uses goes with its peer.
            thread::spawn(move || serve(stream).map(|stream| used.send(stream)));
        }
    });
    addr
}

/// Shakes hands and waits for a hello; `None` if none comes.
fn serve(mut stream: TcpStream) -> Option<TcpStream> {
    let key: Key = KEYS[0].parse().unwrap();
    let introduced = heard(&mut stream, |bytes| Some(auth::introduction(bytes).unwrap()?.1))?;
    let (proves, challenge) = introduced.challenge(&key, Nonce([9; Nonce::LEN]));
    stream.write_all(challenge.as_bytes()).ok()?;
    let (session, welcome): (Session, _) = heard(&mut stream, |bytes| {
        let (_, session, welcome, _) = proves.handle(bytes, 0).unwrap()?;
        Some((session, welcome))
    })?;
    stream.write_all(welcome.as_bytes()).ok()?;
    heard(&mut stream, |bytes| hello::decode(bytes, &session).unwrap())?;
    Some(stream)
}

/// Reads until `whole` has what it wants, and no byte more; `None` if the end comes first.
pub(crate) fn heard<T>(stream: &mut TcpStream, whole: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut bytes = Vec::new();
    loop {
        let mut next = [0];
        stream.read_exact(&mut next).ok()?;
        bytes.extend(next);
        if let Some(found) = whole(&bytes) {
            return Some(found);
        }
    }
}
