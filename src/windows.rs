//! Initial windows: which legs begin with a wide one, and by what it is opened.
//!
//! ```text
//!  legs with `initial_window` ──► the program in the kernel   (sock_ops: every leg)
//!                            └──► routes with initcwnd        (hosts whose addresses are known)
//!                            └──► padding on trunks           (anybody may send it)
//! ```
//! The first that can be had serves, and what it can't serve falls to the next; `gateway.window_by` names one alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use midmile_gateway::{Listening, Plan};
use midmile_kernel::{RouteError, Routes, Side, Windows, probe};

mod legs;

use crate::config::WindowBy;
use legs::Leg;

/// Bytes that a segment carries over Ethernet, with timestamps (RFC 7323): what a window is counted in.
const SEGMENT_BYTES: u32 = 1448;
/// The congestion control whose window an idle connection keeps, whatever the system's setting: the kernel's
/// `tcp_slow_start_after_idle_check` passes over those that set their window themselves.
const KEEPS_IDLE: &str = "bbr";

/// Whether it's we who accept there, the address, and the segments that may leave at once.
type Wanted = BTreeMap<(bool, SocketAddr), u32>;

/// What opens windows.
enum Way {
    /// Not looked for yet.
    Unknown,
    Program(Box<Windows>, Wanted),
    Routes(Routes),
    /// Neither.
    None,
}

/// How many legs have their windows opened by what; the log tells when that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    by_program: usize,
    by_route: usize,
    by_traffic: usize,
    closed: usize,
}

/// The windows that are open.
pub(crate) struct OpenWindows {
    way: Way,
    by: WindowBy,
    told: Tally,
}

impl OpenWindows {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            way: Way::Unknown,
            by: WindowBy::Auto,
            told: Tally { by_program: 0, by_route: 0, by_traffic: 0, closed: 0 },
        }
    }

    /// Opens what `plan` asks for, and nothing else. Where that can't be, legs begin with the system's window, and a line in the log
    /// says so. `listening` has the ports that the kernel chose.
    pub(crate) fn apply(&mut self, plan: &Plan, listening: &[Listening], by: WindowBy) {
        let legs = legs::of(plan, listening);
        if by != self.by {
            // What the one way has opened goes before the next opens anything.
            (self.way, self.by) = (Way::Unknown, by);
        }
        if matches!(self.way, Way::Unknown) && !legs.is_empty() {
            self.way = Way::find(by);
        }
        let mut tally = Tally::default();
        let left = match &mut self.way {
            Way::Program(windows, set) => {
                program(windows, set, &legs);
                tally.by_program = legs.len();
                Vec::new()
            }
            Way::Routes(routes) => routed(routes, &legs),
            Way::Unknown | Way::None => legs.iter().collect(),
        };
        tally.by_route = legs.len() - left.len() - tally.by_program;
        let may_pad = matches!(by, WindowBy::Auto | WindowBy::Traffic);
        legs::cool(plan);
        for leg in left {
            match leg.warmth.filter(|_| may_pad) {
                Some(warmth) => {
                    warmth.set(leg.bytes);
                    tally.by_traffic += 1;
                }
                None => tally.closed += 1,
            }
        }
        if tally != self.told {
            self.told = tally;
            tally.tell(&legs);
        }
    }
}

impl Way {
    /// The first way that can be had of those that are asked for.
    fn find(by: WindowBy) -> Self {
        if matches!(by, WindowBy::Auto | WindowBy::Ebpf) {
            match Windows::attach() {
                Ok(windows) => return Self::Program(Box::new(windows), Wanted::new()),
                Err(error) => tracing::warn!(%error, "windows aren't opened by eBPF"),
            }
        }
        if matches!(by, WindowBy::Auto | WindowBy::Route) {
            match Routes::open() {
                Ok(routes) => return Self::Routes(routes),
                Err(error) => tracing::warn!(%error, "windows aren't opened by routes"),
            }
        }
        Self::None
    }
}

impl Tally {
    fn tell(self, legs: &[Leg<'_>]) {
        let Self { by_program, by_route, by_traffic, closed } = self;
        tracing::info!(ebpf = by_program, routes = by_route, warming = by_traffic, closed, "initial windows of legs");
        if closed > 0 {
            tracing::warn!(
                legs = closed,
                "legs begin with the system's window: routes serve those whose hosts are known, and padding trunks alone"
            );
        }
        let closes = legs.iter().any(|leg| leg.congestion.as_deref() != Some(KEEPS_IDLE));
        // What a route says is where an idle connection's window stays.
        if by_program + by_traffic > 0 && closes && probe::slow_start_after_idle().unwrap_or(false) {
            tracing::warn!(
                "net.ipv4.tcp_slow_start_after_idle is 1: windows close while a connection waits; write 0 (sysctl), or set \
                 congestion = \"bbr\" on trunk legs, to keep them open"
            );
        }
    }
}

/// Has the program in the kernel know the legs, and no others.
fn program(windows: &mut Windows, set: &mut Wanted, legs: &[Leg<'_>]) {
    let pairs = legs.iter().flat_map(|leg| leg.addrs.iter().map(|addr| ((leg.accepted, *addr), segments(leg.bytes))));
    // Port 0 is no leg's: the listener's own is known once it listens.
    let wanted: Wanted = pairs.filter(|((_, addr), _)| addr.port() != 0).collect();
    for ((accepted, addr), _) in set.iter().filter(|(leg, _)| !wanted.contains_key(*leg)) {
        if let Err(error) = windows.clear(side(*accepted), *addr) {
            tracing::warn!(%error, %addr, "a window stays open");
        }
    }
    for ((accepted, addr), segments) in wanted.iter().filter(|(leg, segments)| set.get(*leg) != Some(*segments)) {
        if let Err(error) = windows.set(side(*accepted), *addr, *segments) {
            tracing::warn!(%error, %addr, "a leg begins with the system's window");
        }
    }
    *set = wanted;
}

/// Sets the routes of the legs whose hosts are known, and no others. Answers the legs that aren't served by them.
fn routed<'a, 'p>(routes: &mut Routes, legs: &'a [Leg<'p>]) -> Vec<&'a Leg<'p>> {
    let mut wanted: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for leg in legs {
        for host in leg.hosts.iter().flatten() {
            let most = wanted.entry(*host).or_default();
            *most = segments(leg.bytes).max(*most);
        }
    }
    let gone: Vec<IpAddr> = routes.hosts().filter(|host| !wanted.contains_key(host)).collect();
    for host in gone {
        if let Err(error) = routes.clear(host) {
            tracing::warn!(%error, %host, "a route stays");
        }
    }
    let mut refused: BTreeMap<IpAddr, RouteError> = BTreeMap::new();
    for (host, segments) in wanted {
        if let Err(error) = routes.set(host, segments) {
            tracing::warn!(%error, "a window isn't opened by a route");
            refused.insert(host, error);
        }
    }
    let served = |leg: &&Leg<'_>| {
        leg.hosts
            .as_ref()
            .is_some_and(|hosts| !hosts.is_empty() && hosts.iter().all(|host| !refused.contains_key(host)))
    };
    legs.iter().filter(|leg| !served(leg)).collect()
}

const fn side(accepted: bool) -> Side {
    if accepted { Side::Accepted } else { Side::Dialled }
}

const fn segments(bytes: u32) -> u32 {
    bytes.div_ceil(SEGMENT_BYTES)
}
