//! Answers on their way: gathered for one upcall, sent as one, and kept for a peer that doesn't read them.

use std::time::Duration;

use midmile_engine::{Backend, ConnId, Cx};

/// How long a connection that is to end waits for its peer to end as well.
const LINGER: Duration = Duration::from_secs(2);

/// Answers gathered beyond so many bytes go out before the next request is looked at.
const GATHERED_MAX: usize = 64 * 1024;

/// The core's room for the answers of one upcall.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Answers are written behind what it holds.
    pub(crate) out: Vec<u8>,
}

/// What of a connection's answers hasn't gone yet. Memory is taken only while a peer doesn't read.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    bytes: Vec<u8>,
    gone: usize,
    /// Nothing more is answered: once all has gone, the connection ends.
    ending: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self { out: Vec::with_capacity(2 * GATHERED_MAX) }
    }
}

impl Answers {
    /// Whether so much has gathered that it should go first.
    pub(crate) const fn is_full(&self) -> bool {
        self.out.len() >= GATHERED_MAX
    }

    /// Sends what has gathered. Where the peer doesn't take it all, the rest is kept, the connection is paused, and the answer is false.
    pub(crate) fn send<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, rest: &mut Rest) -> bool {
        let sent = if self.out.is_empty() { 0 } else { cx.send(conn, &self.out) };
        let all = sent == self.out.len();
        if !all {
            rest.keep(&self.out[sent..]);
            cx.pause(conn);
        }
        self.out.clear();
        if self.out.capacity() > 4 * GATHERED_MAX {
            self.out.shrink_to(2 * GATHERED_MAX);
        }
        all
    }
}

impl Rest {
    /// There's room: sends on, and says whether all has gone.
    pub(crate) fn send_on<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId) -> bool {
        self.gone += cx.send(conn, &self.bytes[self.gone..]);
        let all = self.gone == self.bytes.len();
        if all {
            *self = Self { ending: self.ending, ..Self::default() };
        }
        all
    }

    /// Keeps what hasn't gone.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the connection once its answers have gone; `is_sent` says that nothing waits besides those kept here. What comes until then
    /// is to be dropped.
    pub(crate) fn end<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, is_sent: bool) {
        self.ending = true;
        if is_sent && self.bytes.is_empty() {
            finish(cx, conn);
        }
    }

    /// Whether the connection is to end: what comes is for nobody.
    pub(crate) const fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether answers wait for the peer to read.
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Says that nothing more comes, and gives the peer time to read it: closing at once would reset the connection where the peer has sent
/// more than was read, and answers on their way would be lost.
pub(crate) fn finish<B: Backend>(cx: &mut Cx<B>, conn: ConnId) {
    cx.shutdown(conn);
    cx.set_timer(conn, LINGER);
}
