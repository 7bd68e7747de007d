//! The preload library of `midmile friends run`: it stands in front of libc's socket calls, and carries the bytes of TCP connections
//! within this host by memory that both ends share, where both ends have it. A program can't tell but by the time it takes.
//!
//! ```text
//!   program ──► export   libc's names
//!                 ▼
//!               midmile_friends_sockets   is the descriptor an end?  no ──► libc's own
//! ```
//!
//! - The only unsafe code is in `export`, which does no more than take C's arguments.
#![deny(unsafe_code)]

// In this crate's own tests libc's functions stay libc's.
#[cfg(not(test))]
mod export;
