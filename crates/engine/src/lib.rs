//! Synchronous sockets: TCP that calls you.
//!
//! A program implements [`Handler`]; the engine accepts, dials, reads and tells it, in the thread that saw the event, one thing
//! after another to completion. There's one [`Core`] a CPU, and cores share nothing while bytes move: no lock, no queue
//! between threads, no future. The idea is Tempesta's "synchronous sockets" (2013); here it runs in user space on stock kernels.
//!
//! ```text
//!        Handler (the program)    on_accept  on_connect  on_data  on_message  on_peer_close  on_error  on_timer  on_datagram …
//!            │ downcalls    ▲ upcalls
//!            ▼              │
//!   Cx ── connections, timers, pools ── Core (the loop)          one a CPU
//!            │              ▲
//!            ▼              │ readiness
//!        Backend: kernel (epoll, splice)   uring (io_uring)   sim (seeded, virtual clock)   midmile-stack, or one of your own
//!                 └── the kernel's TCP and UDP ──┘            └─ no system at all           └─ a TCP and UDP in this process
//! ```
//!
//! A program that is generic over [`Backend`] runs on each of them. [`kernel::Kernel`] runs everywhere (Linux 4.5); [`uring::Uring`]
//! (Linux 6.1) saves system calls where many connections speak at once; [`sim::Sim`] is for tests. `midmile_stack::Stack`, of the crate
//! `midmile-stack`, is a TCP and UDP in user space above AF_XDP (or a TUN device): for small messages between ends that are one's own.
//!
//! What it isn't: an async runtime (nothing here blocks on something else), a protocol library (see `midmile-wire`), or a TCP
//! (the kernel's serves, or smoltcp in `midmile-stack`).
//!
//! An echo server, in the simulation; with [`kernel::Kernel`] in place of [`sim::Sim`] it's a real one:
//!
//! ```
//! use std::time::Duration;
//! use midmile_engine::sim::{Script, Sim};
//! use midmile_engine::{
//!     Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
//! };
//!
//! struct Echo;
//!
//! impl<B: Backend> Handler<B> for Echo {
//!     fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
//!         match cx.admit(incoming, 0, MeterId::NONE) {
//!             Ok(conn) => cx.read(conn),
//!             Err(incoming) => cx.refuse(incoming),
//!         }
//!     }
//!
//!     // What there's no room for is left over. Nothing is offered until there's room, and the peer's end isn't told before it.
//!     fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, bytes: &[u8]) -> usize {
//!         let sent = cx.send(conn, bytes);
//!         if sent < bytes.len() {
//!             cx.pause(conn);
//!         }
//!         sent
//!     }
//!
//!     // There's room again: what was left over is offered at once.
//!     fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
//!         cx.read(conn);
//!     }
//!
//!     fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
//!         cx.close(conn);
//!         cx.stop();
//!     }
//!
//!     fn on_error(&mut self, cx: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {
//!         cx.stop();
//!     }
//! }
//!
//! let mut core = Core::new(Sim::new(1, false), Config::default(), Echo);
//! let cx = core.parts().1;
//! let (_, at) = cx.listen_at(&Addr::Inet(([10, 0, 0, 1], 0).into()), &LegOptions::default(), 128)?;
//! let client = Script { sends: 5_000_000, ..Script::default() };
//! let client = cx.backend().client_to(&at, Duration::ZERO, client).expect("somebody listens");
//! core.run()?;
//! # let wait = core.parts().1.now().after(Duration::from_secs(60));
//! # while core.parts().1.now() < wait { core.turn()?; }
//! let client = core.parts().1.backend().remote(client);
//! assert_eq!(client.received(), client.sent());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The contract
//! - **Order of upcalls, re-entry, time**: see [`Handler`]. Downcalls never call back.
//! - **Bytes** are lent for one upcall. What the program leaves over is kept in front of what comes next; what it forwards
//!   ([`Cx::forward`]) never reaches the program at all. What isn't read stays in the kernel, and its window is the
//!   back-pressure.
//! - **Memory** is bounded by [`Config`] and reserved when the core is made: nothing is allocated per event.
//! - **Messages**: a program that says where one ends ([`Handler::frame`]) is told whole ones only ([`Cx::read_messages`]).
//! - **Panics** of a handler cost the connection that they're about, and nothing else; one that doesn't return is named by a [`Watchdog`].
//! - **Cores** stand alone, or have seats in a [`Mesh`]: then they wake each other, hand connections over, and share the bound on their
//!   number ([`Allowance`]).
//! - **Turns**: a connection moves at most [`Config::turn_bytes`], then the others run; bulk directions together at most
//!   [`Config::loop_bytes`], then events are looked for again.
//! - **Datagrams** have a contract of their own: [`datagram`].
//! - **Handles** ([`ConnId`], [`ListenerId`], [`DatagramId`]) outlive what they name without harm.
//! - **Ends**: the program ends what it has, each connection by [`Cx::close`] or [`Cx::reset`], also one whose peer has finished. A core that
//!   stops ([`Cx::stop`]) or is dropped closes nothing in order.
//!
//! # Modules
//! [`Handler`] and [`Cx`] are the two halves of the interface. `forward` moves bytes leg to leg, `offer` hands them to the
//! program, `upcall` is how it's called, `hand_off` moves connections between cores; `conn`, `slab`, `timer` and `pool` hold the state.
//! [`backend`] is the seam, [`kernel`], [`uring`] and [`sim`] stand beneath it; unsafe code lives in `sys` alone. [`probe`] says what
//! this host allows.

#![deny(unsafe_code)]

mod addr;
mod allowance;
pub mod backend;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod conn;
mod core;
mod counter;
mod cx;
pub mod datagram;
mod error;
mod forward;
mod hand_off;
mod handler;
pub mod kernel;
mod mesh;
mod meter;
mod offer;
mod options;
mod path;
mod pool;
pub mod probe;
pub mod sim;
mod slab;
mod sys;
mod time;
mod timer;
mod upcall;
pub mod uring;
mod waker;
mod watchdog;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use crate::addr::{Addr, UNIX_NAME_LEN_MAX, UnixAddr};
pub use crate::allowance::Allowance;
pub use crate::backend::Backend;
pub use crate::config::Config;
pub use crate::core::{Core, WAKE};
pub use crate::counter::Counter;
pub use crate::cx::{Cx, Gauges, LISTENERS_MAX, MeterId, ReleaseError};
pub use crate::datagram::{DatagramCounts, DatagramId, DatagramOptions, Flow, SendToError};
pub use crate::error::{ConnError, ListenError};
pub use crate::handler::{ConnId, Frame, Handler, Incoming, ListenerId};
pub use crate::mesh::{CoreId, HandOffError, MAIL_MAX, Mesh, Seat};
pub use crate::meter::Meter;
pub use crate::options::{LegOptions, Probing};
pub use crate::path::PathInfo;
pub use crate::slab::{Key, Slab};
pub use crate::time::Time;
pub use crate::timer::Wheel;
pub use crate::upcall::Upcall;
pub use crate::waker::Waker;
pub use crate::watchdog::{Pulse, Stall, Watchdog};
