//! A relay of our own between two gateways, which hears what one says to the other.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::own_loopback;
use crate::process::ends::reset;

/// Passes connections on to `to`; where it listens. `first` hears what the first of them says, and whether that's passed on: if
/// it isn't, the connection is reset. It ends with the test program.
pub(crate) fn between(to: SocketAddr, first: impl FnMut(&[u8]) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut first: Option<Box<dyn FnMut(&[u8]) -> bool + Send>> = Some(Box::new(first));
        for incoming in listener.incoming().map_while(Result::ok) {
            let onward = TcpStream::connect(to).unwrap();
            let (back, home) = (onward.try_clone().unwrap(), incoming.try_clone().unwrap());
            let hear = first.take().unwrap_or_else(|| Box::new(|_| true));
            thread::spawn(move || pass_on(incoming, onward, hear));
            thread::spawn(move || pass_on(back, home, |_| true));
        }
    });
    addr
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mut hear: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(len) = from.read(&mut bytes)
        && len > 0
    {
        if !hear(&bytes[..len]) {
            // The other direction ends by this, and then its copies of the sockets are the last: the reset goes out.
            to.shutdown(Shutdown::Both).ok();
            return reset(from);
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    // Either side may be gone: then there is nobody to tell.
    to.shutdown(Shutdown::Write).ok();
}
