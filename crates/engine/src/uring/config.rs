//! Sizes and limits of one ring.

use std::time::Duration;

use crate::sys::ring::Sizes;

/// Sizes and limits of one core's ring. All memory that they bound is reserved when the ring is made, and touched as it's used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringConfig {
    /// Connections at once, with those that are closed and still have something to send or under way, and those that were accepted
    /// and neither admitted nor refused. At most 96 bytes each. [`Config::conns_max`](crate::Config::conns_max) bounds a core's
    /// connections apart from this, and doesn't know of the closed ones: let this be larger. Where this one is met first, listeners
    /// rest ([`Handler::on_accept_exhausted`](crate::Handler::on_accept_exhausted)) and dials fail with
    /// [`ConnError::Exhausted`](crate::ConnError::Exhausted).
    pub sockets_max: u32,
    /// Operations that fit the submission queue, a power of two; more are handed over at once.
    pub submissions: u32,
    /// Completions that fit their queue, a power of two; more are kept by the kernel, at a cost.
    pub completions: u32,
    /// Buffers that the kernel receives into: a power of two, 32,768 at most. A connection for which there's none is read by system
    /// calls.
    pub recv_buffers: u16,
    /// Bytes of each, 256 to 32,768.
    pub recv_buffer_bytes: u16,
    /// Buffers that a connection's unread bytes may hold before its receive is cancelled, 2 at least; what one turn brings may exceed
    /// it: by 32 buffers, or with bundles by what the socket holds. Unread bytes fill buffers by half at least, so that a program that only peeks (all its blocks are in use) sees its whole
    /// buffer filled if this is worth twice as many bytes.
    pub recv_held_max: u16,
    /// Whether one receive may fill several buffers, on connections by which much comes and is read (Linux 6.10; used from 6.16 on,
    /// for earlier ones without the fixes of that time lose count of buffers filled in part).
    pub bundles: bool,
    /// Blocks in which small messages wait for the end of a turn. Without one, a message is sent by a system call.
    pub send_blocks: u16,
    /// Bytes of each, 256 to 32,768; larger messages are sent by a system call.
    pub send_block_bytes: u16,
    /// Accepted connections that wait for the program at a listener; what one turn brings may exceed it.
    pub accepted_max: usize,
    /// How long a closed connection may go on sending what its peer doesn't take: at most a block of it, as the kernel does it for
    /// what its socket holds. It's reset then.
    pub linger_max: Duration,
    /// How long waiting spins on the device's queue (NAPI busy-poll: Linux 6.9, and a device whose queues have a NAPI id). `None`:
    /// it sleeps at once. Where it can't be had, [`Gauges::napi`](super::Gauges::napi) says so.
    pub napi_busy_poll: Option<Duration>,
}

impl Default for UringConfig {
    fn default() -> Self {
        Self {
            sockets_max: 65_536,
            submissions: 1024,
            completions: 16_384,
            recv_buffers: 4096,
            recv_buffer_bytes: 2048,
            recv_held_max: 64,
            bundles: true,
            send_blocks: 1024,
            send_block_bytes: 4096,
            accepted_max: 256,
            linger_max: Duration::from_mins(1),
            napi_busy_poll: None,
        }
    }
}

impl UringConfig {
    /// Panics where a limit makes no sense: these are our own mistakes, checked before anything is opened.
    pub(super) fn check(&self) {
        assert!(self.sockets_max > 0 && self.accepted_max > 0 && self.recv_held_max > 1 && self.send_blocks > 0);
        assert!(self.submissions.is_power_of_two() && self.completions.is_power_of_two());
        assert!(self.recv_buffers.is_power_of_two() && self.completions >= self.submissions);
        for bytes in [self.recv_buffer_bytes, self.send_block_bytes] {
            assert!((256..=32_768).contains(&bytes), "{bytes} bytes of a buffer");
        }
    }

    pub(super) const fn sizes(&self) -> Sizes {
        Sizes {
            submissions: self.submissions,
            completions: self.completions,
            buffers: self.recv_buffers,
            buffer_bytes: self.recv_buffer_bytes,
            blocks: self.send_blocks,
            block_bytes: self.send_block_bytes,
        }
    }
}
