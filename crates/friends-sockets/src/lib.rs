//! Sockets whose ends may be friends: TCP connections within this host whose bytes go by memory that both ends share, where both ends
//! have it. What is decided about descriptors is here; how the two ends agree, in `midmile_friends`.
//!
//! ```text
//!   libc's names (midmile_friends_preload)      own   a program that calls this crate itself, for sockets of its choice
//!                 └──────────────┬───────────────┘
//!                 │ table     is the descriptor an end, of the pool?  no ──► libc
//!                 │ end       counted ──► libc, and count the bytes ──► befriend ──► meeting: offers, segments
//!                 ▼ friend
//!               send, receive, moves ──► link: midmile_friends, on the segment     lock, sleep, looks, gather, copying, leap
//!               ready      poll, select, epoll     bell: its doorbells by a pipe, or an eventfd
//!               options    fcntl, ioctl, socket options
//!               board, tap   what the operator wishes, what he is told
//!               lifecycle  close, dup, fork, exec, exit, descriptors that are given away     recall, family, process
//! ```
//!
//! The contract:
//! - A descriptor that isn't an end costs one look at a table.
//! - Whatever isn't understood makes a connection stay, or become again, plain TCP at a known place in its stream.
//! - No call allocates, and none but those of sleeping programs sleeps: all may come from signal handlers. A handler that uses the very
//!   connection in whose call it interrupted its thread is told EAGAIN, or EINTR where it would have slept. It may leave by siglongjmp(3): `leap`.
//! - What sleeps for the program is libc's own function wherever it sleeps for long; a cancelled thread unwinds through here, which is
//!   why the preload library is built to abort and not to unwind (`profile.preload`): such frames let others unwind. What it used is given back at its end: `leap`.
//! - Tables are the process's: one copy of this crate in a process has all its ends.
//! - The only unsafe code is in `sys`.
#![deny(unsafe_code)]

pub mod befriend;
pub mod bell;
mod board;
mod copying;
mod door;
pub mod end;
mod family;
mod far;
mod figures;
mod gather;
mod leap;
pub mod lifecycle;
mod link;
mod lock;
mod looks;
mod meeting;
pub mod moves;
pub mod options;
pub mod own;
mod path;
mod pool;
pub mod process;
pub mod ready;
mod recall;
pub mod receive;
pub mod send;
mod settings;
mod sleep;
pub mod sys;
pub mod table;
mod tap;
mod thread;
