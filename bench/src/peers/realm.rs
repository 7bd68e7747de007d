//! realm: Tokio and splice. Pinned to one CPU, its runtime starts one worker. As it comes, and with pipes of 1 MiB
//! (256 pages) in place of the kernel's 64 KiB, which is what it takes to reach the floor in bulk.

use super::{Peer, command, first_line, skips_nothing};

pub(super) const REALM: Peer = Peer {
    name: "realm",
    version: |_| first_line("realm", "--version"),
    command: |wiring| Ok(Some(command!["realm", "-l", wiring.listen.to_string(), "-r", wiring.to.to_string()])),
    skips: skips_nothing,
};

pub(super) const REALM_PIPE: Peer = Peer {
    name: "realm-pipe",
    version: |_| first_line("realm", "--version"),
    command: |wiring| {
        let (listen, to) = (wiring.listen.to_string(), wiring.to.to_string());
        Ok(Some(command!["realm", "--pipe-page", "256", "-l", listen, "-r", to]))
    },
    skips: skips_nothing,
};
