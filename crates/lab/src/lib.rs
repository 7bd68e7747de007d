//! A WAN on one machine: hosts, links, gateways and a client that measures what each step of midmile is worth.
//!
//! ```text
//!  scenario ──► topology ──► steps ──► report
//!  (TOML)       │ netns      │ gateway_config ─► process (midmile gateway, peers)      table, JSON, page (waterfall)
//!               │ netlink    │ server, visit ─► the times
//!               ├ emulator ──┴─ sightings of a traced visit
//!               │ └ direction: what a link does to packets, without I/O; packet: super-packets and how they are cut
//!               └ netem: the kernel's links in its place
//! ```
//! Nothing of the machine's own network is touched. Hosts are anonymous network namespaces, links are devices inside of them,
//! and both live by descriptors of this process: when it ends, be it by SIGKILL, they are gone. Children are bound to the threads
//! that start them, so they end with it too.
//!
//! What the lab isn't: a network simulator. Its hosts run the kernel's own TCP in real time, so a busy machine measures itself.
//! `docs/lab.md` has its errors, measured.
//!
//! Linux 4.11 or later, as root or where user namespaces are allowed ([`netns::acquire_privileges`]). The only unsafe code is in
//! `sys`.
#![deny(unsafe_code)]

pub mod direction;
pub mod emulator;
mod gateway_config;
pub mod interrupt;
mod key;
mod memory_file;
pub mod netem;
mod netlink;
pub mod netns;
mod packet;
mod page;
mod pattern;
mod peers;
mod process;
mod progress;
pub mod report;
pub mod run;
pub mod scenario;
mod seed;
pub mod server;
mod socket;
pub mod steps;
mod sys;
pub mod topology;
mod tun;
pub mod units;
pub mod visit;
mod waterfall;
pub mod windows;
