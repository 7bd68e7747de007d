//! Synchronous sockets: TCP that calls you.
//!
//! A program implements [`Handler`]; the engine accepts, dials, reads and tells it, in the thread that saw the event, one thing
//! after another to completion. There's one [`Core`] a CPU, and cores share nothing while bytes move: no lock, no queue
//! between threads, no future. The idea is Tempesta's "synchronous sockets" (2013); here it runs in user space on stock kernels.
//!
//! ```text
//!        Handler (the program)         on_accept  on_connect  on_data  on_peer_close  on_error  on_timer  on_datagram …
//!            │ downcalls    ▲ upcalls
//!            ▼              │
//!   Cx ── connections, timers, pools ── Core (the loop)          one a CPU
//!            │              ▲
//!            ▼              │ readiness
//!        Backend: kernel (epoll, splice), uring (io_uring), or sim (seeded, virtual clock)
//! ```
//!
//! What it isn't: an async runtime (nothing here blocks on something else), a protocol library (see `midmile-wire`), or a TCP
//! (the kernel's serves).
//!
//! # The contract
//! - **Order of upcalls, re-entry, time**: see [`Handler`]. Downcalls never call back.
//! - **Bytes** are lent for one upcall. What the program leaves over is kept in front of what comes next; what it forwards
//!   ([`Cx::forward`]) never reaches the program at all. What isn't read stays in the kernel, and its window is the
//!   back-pressure.
//! - **Memory** is bounded by [`Config`] and reserved when the core is made: nothing is allocated per event.
//! - **Turns**: a connection moves at most [`Config::turn_bytes`], then the others run; bulk directions together at most
//!   [`Config::loop_bytes`], then events are looked for again.
//! - **Datagrams** have a contract of their own: [`datagram`].
//! - **Handles** ([`ConnId`]) outlive what they name without harm.
//!
//! # Modules
//! [`Handler`] and [`Cx`] are the two halves of the interface. `forward` moves bytes leg to leg, `offer` hands them to the
//! program; `conn`, `slab`, `timer` and `pool` hold the state. [`backend`] is the seam, [`kernel`], [`uring`] and [`sim`]
//! stand beneath it; unsafe code lives in `sys` alone. [`probe`] says what this host allows.

#![deny(unsafe_code)]

mod addr;
mod allowance;
pub mod backend;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod conn;
mod core;
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

pub use crate::addr::{Addr, UNIX_NAME_LEN_MAX, UnixAddr};
pub use crate::allowance::Allowance;
pub use crate::backend::Backend;
pub use crate::config::Config;
pub use crate::core::{Core, WAKE};
pub use crate::cx::{Cx, Gauges, MeterId};
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
