//! Sizes and limits of one core.

use std::time::Duration;

/// Sizes and limits of one core. All memory that they bound is reserved when the core is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections at once.
    pub conns_max: u32,
    /// The core's one buffer, in bytes: the most that one read copies. A read that fills it turns its direction to bulk.
    pub read_bytes: usize,
    /// Blocks of `read_bytes` in which directions keep a rest that couldn't be handed on, and messages gather that haven't come whole. The
    /// last quarter (rounded down) is for connections that this program dialled and reads: however many strangers begin a message and never
    /// finish it, what we asked for still has room. With no block, bytes wait in the kernel, which then bounds a message as well.
    pub blocks: usize,
    /// Pipes for bulk directions.
    pub pipes_max: u32,
    /// Bytes asked of each pipe, and the most that one splice takes.
    pub pipe_bytes: u32,
    /// Bytes after which a direction lets others run.
    pub turn_bytes: usize,
    /// Bytes that bulk directions move before the core looks for events again.
    pub loop_bytes: usize,
    /// Connections accepted from one listener before others run.
    pub accept_batch: u32,
    /// How long a listener rests when there is no descriptor to accept with, or no memory to watch it again.
    pub accept_rest_ms: u64,
    /// How long after an event the core looks for more without sleeping: an answer that comes within this time costs no wake-up. The CPU
    /// is busy meanwhile. Zero: it sleeps at once.
    pub busy_poll: Duration,
    /// Whether a program that panics in an upcall loses that connection alone ([`ConnError::Panicked`](crate::ConnError::Panicked));
    /// otherwise the panic goes on through [`Core::turn`](crate::Core::turn), and the core is of no use afterwards: for tests, so that
    /// what they assert ends them.
    pub catch_panics: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Config {
    /// What [`Config::default`] gives, for constants.
    pub const DEFAULT: Self = Self {
        conns_max: 20_000,
        read_bytes: 64 * 1024,
        blocks: 64,
        pipes_max: 512,
        pipe_bytes: 1024 * 1024,
        turn_bytes: 1024 * 1024,
        loop_bytes: 2 * 1024 * 1024,
        accept_batch: 64,
        accept_rest_ms: 50,
        busy_poll: Duration::ZERO,
        catch_panics: true,
    };

    pub(crate) const fn accept_rest(&self) -> Duration {
        Duration::from_millis(self.accept_rest_ms)
    }

    /// Panics where limits contradict each other: these are our own mistakes, checked before anything is opened.
    pub(crate) const fn check(&self) {
        assert!(self.conns_max > 0 && self.read_bytes > 0 && self.turn_bytes > 0 && self.accept_batch > 0);
        assert!(self.pipe_bytes > 0 && self.loop_bytes > 0 && self.accept_rest_ms > 0);
    }
}
