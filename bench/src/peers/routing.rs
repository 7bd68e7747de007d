//! No relay: the proxy's namespace forwards packets. The limit of what a relay can reach in bulk.

use super::{Peer, skips_nothing};

pub(super) const ROUTING: Peer =
    Peer { name: "routing", version: |_| Some("ip_forward".to_owned()), command: |_| Ok(None), skips: skips_nothing };
