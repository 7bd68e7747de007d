//! Doorbells in a pipe of the reader's, in place of those by TCP.
//!
//! ```text
//!             watch_piped                rest_pipe
//!   by TCP ───────────────► by the pipe ──────────► nowhere: nobody looks
//!             unwatch_piped              ◄──────────
//!          ◄───────────────              resume_pipe
//! ```
//!
//! The writer announces a doorbell before it's written, so what is [`Reader::piped`] may still be on its way.

use super::Reader;
use super::unsure::PIPE;
use crate::attention::{ALWAYS, PIPED, WATCHED};
use crate::layout::Flow;
use crate::lock::Lock;
use crate::reason::Broken;
use crate::sync::{Ordering, fence};
use crate::writer::distance;

impl Reader<'_> {
    /// Readiness is looked at where the pipe is too, from now on, by edges or not: the writer keeps a doorbell there and not in the socket.
    /// False: nothing has changed, the ring holds something that a doorbell by TCP stands for.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn watch_piped(&self, edges: bool) -> Result<bool, Broken> {
        let word = &self.flow.signals.attention;
        // What the writer puts from here on, it rings for in the pipe.
        word.fetch_or(PIPED | if edges { ALWAYS } else { 0 }, Ordering::AcqRel);
        self.has_wished();
        let empty = self.view()?.ring == 0;
        word.fetch_and(if empty { !WATCHED } else { !PIPED }, Ordering::AcqRel);
        Ok(empty)
    }

    /// Edges are waited for where the pipe is, from now on.
    pub fn pipe_edges(&self) {
        self.flow.signals.attention.fetch_or(ALWAYS, Ordering::AcqRel);
    }

    /// Nobody looks at the pipe any more. Needs no lock.
    pub fn unwatch_piped(&self) {
        self.flow.signals.attention.fetch_and(!PIPED, Ordering::AcqRel);
    }

    /// Nobody looks at the pipe for a while, from now on: the writer doesn't ring there. Needs no lock. True: no doorbell stands there or is on its
    /// way, so the pipe is silent till [`Reader::resume_pipe`].
    pub fn rest_pipe(&self) -> bool {
        self.unwatch_piped();
        // Either a writer sees that nobody looks, or it's seen to have its lock; and what it announced before it gave that back is seen too. That holds of one
        // that borrows the lock too, and of a calm one: between its store, that it's inside, and its last look here comes a fence of `put`.
        fence(Ordering::SeqCst);
        !Lock::new(&self.flow.writer.lock).is_held() && self.piped() == 0
    }

    /// The pipe is looked at again. Needs no lock. True: there may be bytes in the ring that were rung for nowhere, so a doorbell was announced: the
    /// caller writes it to the pipe, or says [`Reader::pipe_missed`].
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn resume_pipe(&self) -> Result<bool, Broken> {
        // What the writer puts from here on, it rings for.
        self.flow.signals.attention.fetch_or(PIPED, Ordering::AcqRel);
        self.has_wished();
        let rings = self.available()? > 0;
        if rings {
            self.flow.switch.piped.fetch_add(1, Ordering::Release);
        }
        Ok(rings)
    }

    /// The doorbell that was announced couldn't be written to the pipe.
    pub fn pipe_missed(&self) {
        self.flow.switch.piped.fetch_sub(1, Ordering::Release);
    }

    /// Doorbells in the pipe, or on their way to it.
    #[must_use]
    pub fn piped(&self) -> u64 {
        let read = self.flow.signals.pipe_read.load(Ordering::Acquire);
        self.flow.switch.piped.load(Ordering::Acquire).saturating_sub(read)
    }

    /// Lets go of the doorbells in the pipe where the ring is empty, and looks again: at most so many may be taken from it, without waiting.
    /// Then [`Reader::pipe_taken`], even of none. 0: they stay, for bytes that have come.
    ///
    /// # Errors
    /// [`Broken::Positions`].
    pub fn let_go_piped(&self) -> Result<u64, Broken> {
        let Flow { put, signals, .. } = self.flow;
        let bells = self.piped();
        if bells == 0 {
            return Ok(0);
        }
        let until = signals.pipe_read.load(Ordering::Relaxed).wrapping_add(bells);
        signals.pipe_let_go.store(until, Ordering::Release);
        // Either the writer sees that none is left, or its bytes are seen here.
        fence(Ordering::SeqCst);
        if distance(put.head.load(Ordering::Acquire), self.tail(), self.ring.capacity())? != 0 {
            return Ok(0);
        }
        self.begins(PIPE);
        Ok(bells)
    }

    /// So many were taken from the pipe.
    pub fn pipe_taken(&self, count: u64) {
        self.flow.signals.pipe_read.fetch_add(count, Ordering::Release);
        self.ends(PIPE);
    }
}
