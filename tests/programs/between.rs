//! A relay of our own between two gateways, which hears what one says to the other.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::process::ends::reset;
use crate::process::own_loopback;

/// Hears what is said, and says whether it's passed on.
type Hear = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Passes connections on to `to`; where it listens. `first` hears what the first of them says, and whether that's passed on: if
/// it isn't, the connection is reset. It ends with the test program.
pub(crate) fn between(to: SocketAddr, first: impl FnMut(&[u8]) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(own_loopback()).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut first: Option<Hear> = Some(Box::new(first));
        for incoming in listener.incoming().map_while(Result::ok) {
            let onward = TcpStream::connect(to).unwrap();
            let (back, home) = (onward.try_clone().unwrap(), incoming.try_clone().unwrap());
            let hear = first.take().unwrap_or_else(|| Box::new(|_| true));
            let cut = Arc::<AtomicBool>::default();
            let was_cut = cut.clone();
            thread::spawn(move || pass_on(incoming, onward, hear, &cut));
            thread::spawn(move || pass_on(back, home, Box::new(|_| true), &was_cut));
        }
    });
    addr
}

/// Passes one direction on. `cut` says that the connection is to end by a reset, and by no end before it.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut hear: Hear, cut: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(len) = from.read(&mut bytes)
        && len > 0
    {
        if !hear(&bytes[..len]) {
            // The other direction ends by this, and lets go of its copies of the sockets.
            cut.store(true, Relaxed);
            to.shutdown(Shutdown::Both).ok();
            return reset(from);
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    if !cut.load(Relaxed) {
        // Either side may be gone: then there is nobody to tell.
        to.shutdown(Shutdown::Write).ok();
    }
}
