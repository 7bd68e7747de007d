//! The legs of a plan that are to begin with an open window, and what is known of each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use midmile_engine::{Addr, LegOptions};
use midmile_gateway::{Gate, Listening, Plan, Route, Warmth};

/// Legs that are to begin with an open window: those of a listener, of a route's servers, or to a peer.
#[derive(Debug)]
pub(super) struct Leg<'p> {
    /// Whether it's we who accept.
    pub(super) accepted: bool,
    /// The listener's own address, or the remote ones.
    pub(super) addrs: Vec<SocketAddr>,
    /// The remote hosts, where all that may come are known.
    pub(super) hosts: Option<Vec<IpAddr>>,
    /// Bytes that may leave at once.
    pub(super) bytes: u32,
    pub(super) congestion: Option<Arc<str>>,
    /// What has them warmed by padding, on a trunk.
    pub(super) warmth: Option<&'p Warmth>,
}

/// Those of a plan. `listening` has the ports that the kernel chose.
pub(super) fn of<'p>(plan: &'p Plan, listening: &[Listening]) -> Vec<Leg<'p>> {
    let mut legs = Vec::new();
    for route in &plan.routes {
        let found = listening.iter().find(|one| one.route.name == route.name).map(|one| &one.addr);
        let at: Vec<SocketAddr> = found.unwrap_or(&route.listen).inet().into_iter().collect();
        let gate = route.gate.as_deref();
        let accepted = leg(&route.client, at, gate.and_then(callers), gate.map(|gate| &gate.warmth));
        legs.extend(accepted.map(|leg| Leg { accepted: true, ..leg }));
        let servers = servers(route);
        let hosts = servers.iter().map(SocketAddr::ip).collect();
        legs.extend(leg(&route.server, servers, Some(hosts), None));
    }
    for peer in plan.peers.iter().filter(|peer| !peer.addrs.is_empty()) {
        let addrs: Vec<SocketAddr> = peer.addrs.iter().filter_map(Addr::inet).collect();
        let hosts = addrs.iter().map(SocketAddr::ip).collect();
        legs.extend(leg(&peer.leg, addrs, Some(hosts), Some(&peer.warmth)));
    }
    legs
}

/// Has no leg of a plan warmed: routes that a reload leaves as they were may have been.
pub(super) fn cool(plan: &Plan) {
    let gates = plan.routes.iter().filter_map(|route| route.gate.as_deref());
    gates.map(|gate| &gate.warmth).chain(plan.peers.iter().map(|peer| &peer.warmth)).for_each(Warmth::clear);
}

fn leg<'p>(
    options: &LegOptions,
    addrs: Vec<SocketAddr>,
    hosts: Option<Vec<IpAddr>>,
    warmth: Option<&'p Warmth>,
) -> Option<Leg<'p>> {
    let bytes = options.initial_window?;
    Some(Leg { accepted: false, addrs, hosts, bytes, congestion: options.congestion.clone(), warmth })
}

/// The hosts of all peers that may come in, if each has an address.
fn callers(gate: &Gate) -> Option<Vec<IpAddr>> {
    let known = gate.peers.iter().all(|peer| !peer.addrs.is_empty());
    let addrs = gate.peers.iter().flat_map(|peer| peer.addrs.iter().filter_map(Addr::inet));
    known.then(|| addrs.map(|addr| addr.ip()).collect())
}

/// The addresses of servers that are known beforehand: of a network that a trunk allows they aren't.
fn servers(route: &Route) -> Vec<SocketAddr> {
    let backends = route.backends.backends().iter().flat_map(|backend| backend.addrs().iter().filter_map(Addr::inet));
    let permitted = route.gate.iter().flat_map(|gate| gate.permit.known_addrs());
    backends.chain(permitted).collect()
}
