//! midmile itself, on one core.

use super::{Peer, command, first_line, skips_nothing};

pub(crate) const MIDMILE: Peer = Peer {
    name: "midmile",
    version: |host| first_line(&host.midmile, "--version"),
    command: |wiring| {
        let (listen, to) = (wiring.listen.to_string(), wiring.to.to_string());
        let midmile = &wiring.host.midmile;
        Ok(Some(command![midmile, "relay", "--listen", listen, "--to", to, "--cores", "1"]))
    },
    skips: skips_nothing,
};
