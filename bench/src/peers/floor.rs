//! The bare splice loop of this crate.

use super::{Peer, command, skips_nothing};

pub(super) const FLOOR: Peer = Peer {
    name: "floor",
    version: |host| host.floor.exists().then(|| "bare splice loop".to_owned()),
    command: |wiring| {
        let floor = &wiring.host.floor;
        Ok(Some(command![floor, wiring.listen.to_string(), wiring.to.to_string()]))
    },
    skips: skips_nothing,
};
