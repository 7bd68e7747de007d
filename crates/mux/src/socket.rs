//! Messages over attached connections, for programs with threads of their own: what the kernel's KCM sockets do
//! (Documentation/networking/kcm.rst), and which connection a message came by.
//!
//! ```text
//!  connection ─┐  whole messages             ┌─ MessageSocket::recv_batch
//!  connection ─┼─► one loop, one thread ─────┼─ MessageSocket::recv_batch      whoever has time takes the next
//!  connection ─┘◄──── reserved until it's out ── MessageSocket::send_batch
//! ```
//!
//! - A message is delivered whole or not at all, and sent whole or not at all: a connection is reserved until the message is out.
//! - Nobody is woken for half a message. What begins and isn't whole within [`Settings::message_timeout`] ends its connection, as does a
//!   message longer than [`Settings::message_max`] and one that is none; [`Ended`] says which.
//! - A peer that doesn't take a message within [`Settings::send_timeout`] loses its connection, so no message and nobody who wants a
//!   connection back waits for ever.
//! - Receivers that don't keep up have no connection read: its window closes, and its peer waits.
//! - A message to anybody goes by the connection that has been free for the longest. Where a connection fails with a message half sent, it goes once
//!   by another one, if its sender says that it's idempotent; otherwise the sender is told ([`Received::Unsent`]). What the
//!   kernel has taken whole is out of our hands, as with any socket.
//!
//! ```
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//!
//! use midmile_mux::socket::{Batch, Multiplexor, Outgoing, Received, Settings};
//! use midmile_wire::frame::Framing;
//!
//! let mux = Multiplexor::start(Settings::new(Framing::Dns))?;
//! let (near, mut far) = UnixStream::pair()?;
//! let connection = mux.attach(near)?;
//! far.write_all(b"\0\x05hello")?;
//!
//! let socket = mux.socket();
//! let mut batch = Batch::default();
//! socket.recv_batch(&mut batch, 64, None)?;
//! for item in batch.items() {
//!     let Received::Message { via, bytes } = item else { continue };
//!     assert_eq!((*via, &bytes[..]), (connection, &b"\0\x05hello"[..]));
//!     let answer = Outgoing { bytes, via: Some(*via), idempotent: false, ticket: 0 };
//!     socket.send_batch(&[answer], None)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Multiplexor`] runs on one thread. Its queues are behind one lock, which that thread takes once a turn and a receiver or sender once a
//! batch. Needs Linux 4.5.

mod figures;
mod link;
mod pump;
mod queues;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::{Config, Core, Key, Waker};
use midmile_wire::frame::Framing;

pub use figures::Figures;
use pump::Pump;
use queues::{Order, Queues};

/// Bytes of the loop's buffer at least: what one read brings at most.
const READ_BYTES: usize = 64 * 1024;

/// What a multiplexor is given. Everything is bounded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How messages are told apart.
    pub framing: Framing,
    /// The longest message, in bytes, if that's less than the framing's own limit.
    pub message_max: usize,
    /// From a message's first byte to its last. Zero: for ever.
    pub message_timeout: Duration,
    /// From a message's turn on its connection until the kernel has taken its last byte. Zero: for ever. A peer whose own receivers don't
    /// keep up takes nothing meanwhile, so it's no shorter than they may stand still.
    pub send_timeout: Duration,
    /// Connections at once.
    pub conns_max: u32,
    /// Messages that wait for a receiver; with so many, or with [`Settings::queue_bytes`] of them, no connection is read.
    pub queue_messages: usize,
    /// Bytes of messages that wait for a receiver. One message may exceed it.
    pub queue_bytes: usize,
    /// Messages that wait to be sent; whoever has more waits.
    pub unsent_messages: usize,
}

impl Settings {
    /// For messages of this framing: up to a mebibyte each, 10 s for one to come, 30 s for one to go, 1,024 connections, 1,024 messages or 4 MiB each way.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            message_max: 1 << 20,
            message_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            conns_max: 1024,
            queue_messages: 1024,
            queue_bytes: 4 << 20,
            unsent_messages: 1024,
        }
    }

    fn len_max(&self) -> usize {
        self.message_max.min(self.framing.len_max())
    }
}

/// A connection of a multiplexor. Never another one's, also when that has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Via(pub(crate) Key);

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0.to_bits())
    }
}

/// What a receiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole message, and the connection that it came by.
    Message {
        /// That connection.
        via: Via,
        /// All of the message's bytes.
        bytes: Vec<u8>,
    },
    /// A connection has ended, and isn't attached any more. All its whole messages were told before.
    Ended {
        /// That connection.
        via: Via,
        /// Why.
        why: Ended,
    },
    /// A message can't be sent, and no byte of it, or not all of them, have gone.
    Unsent {
        /// [`Outgoing::ticket`].
        ticket: u64,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Its peer has finished sending, between two messages.
    Finished,
    /// Its peer has finished sending, in the midst of a message.
    Torn,
    /// It failed: a reset, or no answer.
    Failed,
    /// A message was longer than allowed (KCM: `EMSGSIZE`).
    TooLong,
    /// What came is no message (KCM: `EBADMSG`).
    Broken,
    /// A message wasn't whole in time (KCM: `ETIMEDOUT`).
    TimedOut,
    /// Its peer didn't take a message in time.
    Untaken,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// All of its bytes, as the framing wants them; they aren't looked at.
    pub bytes: &'a [u8],
    /// The connection, or `None` for the one that has been free for the longest.
    pub via: Option<Via>,
    /// Whether it may be sent again by another connection, if the first fails with some of it sent. Not for one that names its connection.
    pub idempotent: bool,
    /// The sender's own, told back if it can't be sent.
    pub ticket: u64,
}

/// The multiplexor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the multiplexor has ended")]
pub struct Closed;

/// A running multiplexor. Dropped, it ends: its connections are closed, what waits is lost.
#[derive(Debug)]
pub struct Multiplexor {
    queues: Arc<Queues>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// A way to receive and to send; clones are further ones, for other threads.
#[derive(Clone, Debug)]
pub struct MessageSocket(Arc<Queues>);

/// What a receiver takes at once. Used again, its messages' memory is as well.
#[derive(Debug, Default)]
pub struct Batch {
    items: Vec<Received>,
}

impl Batch {
    /// What was received, in order for each connection.
    #[must_use]
    pub fn items(&self) -> &[Received] {
        &self.items
    }
}

impl Multiplexor {
    /// Starts a multiplexor without connections, on a thread of its own.
    ///
    /// # Errors
    /// When there's no thread or descriptor left.
    ///
    /// # Panics
    /// When a bound in `settings` is zero.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (begun, has_begun) = sync_channel(1);
        let run = move || {
            // A loop belongs to the thread that it was made on. The starter waits for this word, so it's there to take it.
            let (queues, mut core) = match build(settings) {
                Ok(built) => built,
                Err(error) => return begun.send(Err(error)).map_err(io::Error::other),
            };
            begun.send(Ok(queues.clone())).map_err(io::Error::other)?;
            let answer = core.run();
            queues.close();
            answer
        };
        let thread = std::thread::Builder::new().name("midmile-mux".to_owned()).spawn(run)?;
        let queues = has_begun.recv().map_err(io::Error::other)??;
        Ok(Self { queues, thread: Some(thread) })
    }

    /// Takes a connected TCP or Unix-domain socket in. Its messages come from now on. It doesn't block any more.
    ///
    /// # Errors
    /// [`Closed`] by `BrokenPipe`; when it's no socket, or there's no room for it. It's closed then.
    pub fn attach(&self, socket: impl Into<OwnedFd>) -> io::Result<Via> {
        self.queues.ask(|answer| Order::Attach(socket.into(), answer))?
    }

    /// Gives a connection back, once no message is half sent on it (which takes [`Settings::send_timeout`] at most), with the bytes that were received and not told: of a message that
    /// hasn't come whole, or where receivers are full of whole ones. It blocks again.
    /// Messages that wait for it alone are told as unsent.
    ///
    /// # Errors
    /// [`Closed`] by `BrokenPipe`; `NotFound` if it has ended.
    pub fn detach(&self, via: Via) -> io::Result<(OwnedFd, Vec<u8>)> {
        self.queues.ask(|answer| Order::Detach(via, answer))?
    }

    /// A way to receive and to send.
    #[must_use]
    pub fn socket(&self) -> MessageSocket {
        MessageSocket(self.queues.clone())
    }

    /// What it has counted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.queues.figures()
    }
}

impl Drop for Multiplexor {
    fn drop(&mut self) {
        self.queues.close();
        if let Some(thread) = self.thread.take() {
            // What it ended with was told by `Closed`; a panic of ours is the test's to see.
            let ended = thread.join();
            debug_assert!(ended.is_ok(), "the multiplexor's thread panicked");
        }
    }
}

impl MessageSocket {
    /// Takes up to `most` messages and events, and says how many. Waits for the first one for at most `timeout` (`None`: for ever); 0 means that
    /// the time has run out.
    ///
    /// # Errors
    /// [`Closed`], once everything that had come was taken.
    pub fn recv_batch(&self, batch: &mut Batch, most: usize, timeout: Option<Duration>) -> Result<usize, Closed> {
        self.0.take(&mut batch.items, most, timeout)?;
        Ok(batch.items.len())
    }

    /// Has messages sent, in order for each connection, and says how many were taken: each whole, the first of them before the others.
    /// Waits for room for at most `timeout` (`None`: for ever). An empty message is taken, and nothing is sent for it.
    ///
    /// # Errors
    /// [`Closed`]; none of these is sent then.
    pub fn send_batch(&self, messages: &[Outgoing<'_>], timeout: Option<Duration>) -> Result<usize, Closed> {
        self.0.put(messages, timeout)
    }
}

/// The loop and its queues, not running yet.
fn build(settings: Settings) -> io::Result<(Arc<Queues>, Core<Kernel, Pump>)> {
    assert!(settings.len_max() > 0 && settings.conns_max > 0, "a bound is zero");
    assert!(settings.queue_messages > 0 && settings.queue_bytes > 0 && settings.unsent_messages > 0, "a bound is zero");
    let waker = Waker::new()?;
    let config = Config {
        conns_max: settings.conns_max,
        read_bytes: settings.len_max().max(READ_BYTES),
        pipes_max: 0,
        ..Config::default()
    };
    let queues = Arc::new(Queues::new(&settings, waker.clone()));
    let mut core = Core::new(Kernel::new()?, config, Pump::new(settings, queues.clone()));
    midmile_engine::Backend::watch_waker(core.parts().1.backend(), &waker)?;
    Ok((queues, core))
}
