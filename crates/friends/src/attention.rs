//! How the reader is to be woken: one word, written by readers when they stop looking, looked at by the writer after each piece.
//!
//! - [`FUTEX`]: a thread sleeps on this very word. The writer clears it and wakes all; it's never cleared by a reader, since another may
//!   sleep by it. One left over costs one call.
//! - [`WATCHED`]: someone looks at the socket's readiness: a doorbell has to stand in the socket whenever the ring holds something.
//! - [`ALWAYS`]: someone waits for edges: a doorbell for each piece.
//! - [`PIPED`]: as [`WATCHED`], and the doorbell stands in the reader's pipe.
//! - the rest counts threads that sleep in the kernel until a byte comes by TCP; for the writer they are as [`WATCHED`]. One that was killed
//!   stays counted, which costs doorbells and nothing else.

/// A thread sleeps on the word.
pub(crate) const FUTEX: u32 = 1;
/// Readiness is looked at.
pub(crate) const WATCHED: u32 = 2;
/// Each piece has to be told.
pub(crate) const ALWAYS: u32 = 4;
/// Readiness is looked at where the reader's pipe is too.
pub(crate) const PIPED: u32 = 8;
/// One thread that sleeps until a byte comes by TCP.
pub(crate) const SLEEPER: u32 = 16;
