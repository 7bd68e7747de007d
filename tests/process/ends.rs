//! Connections that end by a reset.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::PATIENCE;

/// What counts as at once. No timeout in the tests' gateways is so short: this only tells "at once" from "when one is over".
const AT_ONCE: Duration = Duration::from_secs(4);

/// Makes the next close of it a reset.
pub(crate) fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// What arrives until a reset, which has to come.
pub(crate) fn until_reset(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).expect_err("a reset isn't an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {} bytes", got.len());
    got
}

/// A client that is reset without a byte, whenever that is; how long it took.
pub(crate) fn reset_client(addr: SocketAddr) -> Duration {
    let began = Instant::now();
    match TcpStream::connect(addr) {
        Ok(mut client) => {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(until_reset(&mut client), b"");
        }
        // It may even be there before the client sees its connection.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    began.elapsed()
}

/// As [`reset_client`], and without a wait for any timeout.
pub(crate) fn reset_at_once(addr: SocketAddr) {
    let took = reset_client(addr);
    assert!(took < AT_ONCE, "{took:?}");
}
