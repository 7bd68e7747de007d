//! The client: one object fetched over one connection, and how long that took.

use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Host;
use crate::pattern::Pattern;
use crate::socket;

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// What one visit took. All times count from the moment before the connection was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When that was.
    pub began: Instant,
    /// Until the connection stood; nothing with Fast Open.
    pub connect: Duration,
    /// Until the first byte of the answer.
    pub ttfb: Duration,
    /// Until its last byte.
    pub download: Duration,
}

/// Fetches `bytes` bytes from the server at `to`, in a host, and waits for them. With `fast_open` the request goes out with the SYN,
/// once an earlier visit has brought the server's cookie.
///
/// # Errors
/// The connection failed, or a byte was missing or wrong.
pub fn from(host: &Host, to: SocketAddrV4, bytes: u64, congestion: &'static str, fast_open: bool) -> Result<Visit> {
    host.run(move || visit(to, bytes, congestion, fast_open, &Pattern::new()))?
}

/// Fetches `bytes` bytes, from the calling thread's host, and checks each of them.
pub(crate) fn visit(
    to: SocketAddrV4,
    bytes: u64,
    congestion: &str,
    fast_open: bool,
    pattern: &Pattern,
) -> Result<Visit> {
    let mut buffer = vec![0; BUFFER];
    let began = Instant::now();
    let mut stream = socket::connect(to, congestion, fast_open, PATIENCE)?;
    let connect = began.elapsed();
    stream.write_all(format!("{bytes}\n").as_bytes()).with_context(|| format!("can't send the request to {to}"))?;
    let mut ttfb = None;
    let mut received = 0;
    loop {
        let length =
            stream.read(&mut buffer).with_context(|| format!("{to} broke off after {received} of {bytes} bytes"))?;
        if length == 0 {
            break;
        }
        ttfb.get_or_insert_with(|| began.elapsed());
        ensure!(pattern.holds(received, &buffer[..length]), "{to} sent wrong bytes near byte {received} of {bytes}");
        received += u64::try_from(length).expect("a buffer is small");
        if received >= bytes {
            break;
        }
    }
    let download = began.elapsed();
    ensure!(received == bytes, "{to} sent {received} bytes, and {bytes} were asked for");
    let ttfb = ttfb.context("nothing was asked for")?;
    Ok(Visit { began, connect, ttfb, download })
}
