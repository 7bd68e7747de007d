//! Initial windows: which legs begin with a wide one, told to the program in the kernel.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use midmile_engine::Addr;
use midmile_gateway::{Listening, Plan, Route};
use midmile_kernel::{Side, Windows, probe};

/// Bytes that a segment carries over Ethernet, with timestamps (RFC 7323): what a window is counted in.
const SEGMENT_BYTES: u32 = 1448;

/// Whether it's we who accept there, the address, and the segments that may leave at once.
type Wanted = BTreeMap<(bool, SocketAddr), u32>;

/// The windows that are open.
pub(crate) struct OpenWindows {
    windows: Option<Windows>,
    set: Wanted,
}

impl OpenWindows {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { windows: None, set: Wanted::new() }
    }

    /// Opens what `plan` asks for, and nothing else. Where that can't be, legs begin with the system's window, and a line in the log
    /// says so. `listening` has the ports that the kernel chose.
    pub(crate) fn apply(&mut self, plan: &Plan, listening: &[Listening]) {
        let wanted = wanted(plan, listening);
        if self.windows.is_none() && !wanted.is_empty() {
            self.attach();
        }
        let Some(windows) = &mut self.windows else { return };
        for ((accepted, addr), _) in self.set.iter().filter(|(leg, _)| !wanted.contains_key(*leg)) {
            if let Err(error) = windows.clear(side(*accepted), *addr) {
                tracing::warn!(%error, %addr, "a window stays open");
            }
        }
        for ((accepted, addr), segments) in
            wanted.iter().filter(|(leg, segments)| self.set.get(*leg) != Some(*segments))
        {
            if let Err(error) = windows.set(side(*accepted), *addr, *segments) {
                tracing::warn!(%error, %addr, "a leg begins with the system's window");
            }
        }
        self.set = wanted;
    }

    fn attach(&mut self) {
        match Windows::attach() {
            Ok(windows) => self.windows = Some(windows),
            Err(error) => return tracing::warn!(%error, "no initial windows: legs begin with the system's"),
        }
        if probe::slow_start_after_idle().unwrap_or(false) {
            tracing::warn!(
                "net.ipv4.tcp_slow_start_after_idle is 1: windows close while a connection waits; write 0 (sysctl) to keep them open"
            );
        }
    }
}

const fn side(accepted: bool) -> Side {
    if accepted { Side::Accepted } else { Side::Dialled }
}

fn wanted(plan: &Plan, listening: &[Listening]) -> Wanted {
    let mut wanted = Wanted::new();
    for route in &plan.routes {
        if let Some(bytes) = route.client.initial_window {
            let found = listening.iter().find(|one| one.route.name == route.name).map(|one| &one.addr);
            wanted.extend(found.unwrap_or(&route.listen).inet().map(|addr| ((true, addr), segments(bytes))));
        }
        if let Some(bytes) = route.server.initial_window {
            wanted.extend(servers(route).into_iter().map(|addr| ((false, addr), segments(bytes))));
        }
    }
    for peer in &plan.peers {
        if let Some(bytes) = peer.leg.initial_window {
            wanted.extend(peer.addrs.iter().filter_map(Addr::inet).map(|addr| ((false, addr), segments(bytes))));
        }
    }
    // Port 0 is no leg's: the listener's own is known once it listens.
    wanted.retain(|(_, addr), _| addr.port() != 0);
    wanted
}

/// The addresses of servers that are known beforehand: of a network that a trunk allows they aren't.
fn servers(route: &Route) -> Vec<SocketAddr> {
    let backends = route.backends.backends().iter().flat_map(|backend| backend.addrs().iter().filter_map(Addr::inet));
    let permitted = route.gate.iter().flat_map(|gate| gate.permit.known_addrs());
    backends.chain(permitted).collect()
}

const fn segments(bytes: u32) -> u32 {
    bytes.div_ceil(SEGMENT_BYTES)
}
