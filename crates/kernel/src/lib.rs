//! Help of the kernel: what midmile does below its sockets, by BPF and by routes.
//!
//! Two programs for the gateway, each a help and none a need: where one can't be had, its loader says why and what to mend, and midmile goes
//! another way.
//!
//! ```text
//!   packet ──► device, tc ingress ──► midmile_syn ──► ring buffer ──► SynWatch::drain      a SYN, one round trip before accept
//!                    │
//!                    ▼
//!              the kernel's TCP ──► midmile_window (sock_ops of our cgroup): opens the window of the legs in a map
//!                    │                     ▲
//!                    ▼                     └── Windows::set
//!                 sockets
//! ```
//!
//! A third one, [`Redirect`], serves the stack of `midmile-stack`, which somebody has to ask for: it hands packets of chosen ports
//! to AF_XDP sockets. [`neighbour`] tells that stack by whom its packets leave.
//!
//! A fourth, [`Friends`], has connections within the host skip TCP, for a cgroup that somebody names (`midmile friends attach`).
//!
//! Where programs may not be loaded and routes may be changed, [`Routes`] opens windows for chosen hosts.
//!
//! What it isn't: a data path (but for friends no byte is moved here, and none is ever changed), or a policy (who is dialled, which leg may have a wide window
//! is the gateway's to say).
//!
//! The programs are C, in `bpf`; their objects are in `bpf/obj` and are compiled into this crate, so that building it needs no
//! clang. `docs/kernel.md` has the maps, the bounds and the kernel versions.
//!
//! # The contract
//! - **Lifetime**: [`SynWatch`], [`Windows`] and [`Friends`] hold their programs; dropped, or with the process however it ends, they are gone.
//!   The classic hook ([`Hook::Clsact`]) outlives a process that is killed, and friends stay what they are until they close.
//! - **Place**: the calling thread's network namespace is meant, and the process's cgroup. Attach and drop in the same namespace.
//! - **Trust**: an event says that somebody sent a SYN, not who: addresses can be forged. The bounds hold in the kernel, before
//!   user space is woken.
//!
//! # Modules
//! `syn`, `window`, `redirect` and `friends` are the programs' loaders; `route` has windows by routes; `device`, `cgroup` and `namespace` say where they are attached, `object` loads,
//! `unavailable` says what is missing; [`probe`] tries it all for `midmile doctor`. Unsafe code lives in `namespace` alone.

#![deny(unsafe_code)]

mod address;
mod cgroup;
mod device;
mod friends;
mod namespace;
pub mod neighbour;
mod netlink;
mod object;
pub mod probe;
mod redirect;
mod route;
mod syn;
mod unavailable;
mod window;

pub use crate::device::{DEVICES_MAX, Device, Devices};
pub use crate::friends::{
    Attachment, ENDS_MAX, Figures, Friends, FriendsError, Holder, PORTS_MAX, Reason, TAP_PORTS_MAX, TAP_RING_BYTES,
    Tap, Tapped, TappedWhat,
};
pub use crate::redirect::{ADDRESSES_MAX, QUEUES_MAX, Redirect, XdpMode};
pub use crate::route::{ROUTE_PROTOCOL, ROUTES_MAX, RouteError, Routes};
pub use crate::syn::{
    Bound, EVENTS_PER_DRAIN, Hook, LISTENERS_MAX, ListenersError, SynConfig, SynCounters, SynEvent, SynWatch,
};
pub use crate::unavailable::{Release, Unavailable};
pub use crate::window::{LEGS_MAX, SEGMENTS_MAX, Side, WindowCounters, WindowError, Windows};
