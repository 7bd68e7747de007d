//! The server: a line with a number comes in, that many bytes go out, and the connection is closed.
//!
//! It speaks as much of HTTP/1.0 as a real client needs: `GET /43000` is answered with that many bytes behind a header.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Host;
use crate::pattern::Pattern;
use crate::socket;

/// Where it listens.
pub const PORT: u16 = 80;
/// Connections served at once; more are closed.
const CONNECTIONS_MAX: usize = 512;
/// Bytes that a request may have.
const REQUEST_MAX: u64 = 8192;
/// Bytes that may be asked for.
const ANSWER_MAX: u64 = 1 << 40;
/// How long a client may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running server of one host; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts it inside a host.
    ///
    /// # Errors
    /// The port can't be had.
    pub fn start(host: &Host, congestion: &'static str) -> Result<Self> {
        let listener = host.run(move || socket::listen(PORT, congestion))?.context("can't start the server")?;
        let accepting = listener.try_clone().context("can't copy a descriptor")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = host.start(move || accept(&accepting, &stopped))?;
        Ok(Self { stop, listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // A listener that is shut down wakes its accept with an error.
        let woken = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            // An error of accept was the wake-up.
            drop(thread.join());
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    let pattern = Arc::new(Pattern::new());
    let open = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else { continue };
        if open.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::SeqCst);
        let (pattern, counted) = (Arc::clone(&pattern), Arc::clone(&open));
        let spawned = thread::Builder::new().name("served".to_owned()).spawn(move || {
            // A client that went away is the client's affair: its side tells.
            drop(serve(stream, &pattern));
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn serve(mut stream: TcpStream, pattern: &Pattern) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some((bytes, http)) = read_request(&stream)? else { return stream.shutdown(Shutdown::Both) };
    if http {
        let header = format!("HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
        stream.write_all(header.as_bytes())?;
    }
    let mut sent = 0;
    while sent < bytes {
        let next = pattern.at(sent, bytes - sent);
        stream.write_all(next)?;
        sent += u64::try_from(next.len()).expect("a stretch is small");
    }
    stream.shutdown(Shutdown::Write)?;
    // The client closes when it has read all; until then the connection stays, so that nothing of it is cut.
    io::copy(&mut stream.take(REQUEST_MAX), &mut io::sink())?;
    Ok(())
}

/// How many bytes are asked for, and whether by HTTP. `None`: something else came.
fn read_request(stream: &TcpStream) -> io::Result<Option<(u64, bool)>> {
    let mut reader = BufReader::new(stream.take(REQUEST_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let request = line.strip_prefix("GET /").map(|rest| rest.split(' ').next().unwrap_or_default());
    let http = request.is_some();
    let bytes = request.unwrap_or_else(|| line.trim_end()).parse().ok().filter(|bytes| *bytes <= ANSWER_MAX);
    while http && !line.trim_end().is_empty() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
    }
    Ok(bytes.map(|bytes| (bytes, http)))
}
