//! Names to addresses, and a checked configuration to a plan.
//!
//! Resolving happens on the control path only: at start, on SIGHUP, and every `resolve_every` where a listener asks for it. What
//! didn't change is taken over from the plan before, object by object, so that health, open pairs and counters go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use midmile_engine::{Addr, LegOptions};
use midmile_gateway::{Backend, BackendSet, Balance, Gate, Limits, Named, Peer, Permit, Plan, Route, Via, Warmth};
use midmile_mux::{Matching, Place, Service, Transport};
use midmile_wire::frame::Framing;
use midmile_wire::trunk::hello::Destination;
use tokio::task::JoinSet;

use crate::addr::{self, Endpoint, HostPort};
use crate::config::{self, Allowed, Config, Listener, Messages, Trunk};

/// Longest that one name may take. The system's resolver gives up by itself after about as long.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Names and the addresses that they stand for: never none.
pub(crate) type Names = BTreeMap<HostPort, Vec<SocketAddr>>;

/// Every name in a configuration that this gateway resolves: what lies behind a trunk is the last gateway's to find.
pub(crate) fn names_of(config: &Config) -> BTreeSet<HostPort> {
    let listens = config.listeners.iter().map(|listener| &listener.listen);
    let listens = listens.chain(config.trunks.iter().map(|trunk| &trunk.listen));
    let peers = config.peers.iter().filter_map(|peer| peer.address.as_ref());
    let direct = config.listeners.iter().filter(|listener| listener.via.is_empty());
    let mut names = names_in(listens.chain(peers).chain(direct.flat_map(|listener| &listener.to)).chain(&config.admin));
    names.extend(config.trunks.iter().flat_map(names_allowed));
    names
}

/// The names that a trunk may dial.
pub(crate) fn names_allowed(trunk: &Trunk) -> BTreeSet<HostPort> {
    let names = trunk.allow.iter().filter_map(|allowed| match allowed {
        Allowed::Name(name) => Some(name.clone()),
        Allowed::Net(_) => None,
    });
    names.collect()
}

/// Every name among `endpoints`.
pub(crate) fn names_in<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> BTreeSet<HostPort> {
    let names = endpoints.filter_map(|endpoint| match endpoint {
        Endpoint::Name(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// Resolves `names`, all at once.
///
/// # Errors
/// One line, with every name that couldn't be resolved.
pub(crate) async fn resolve(names: BTreeSet<HostPort>) -> Result<Names, String> {
    let mut lookups = JoinSet::new();
    for name in names {
        lookups.spawn(async move {
            let found = lookup(&name).await;
            (name, found)
        });
    }
    let mut names = Names::new();
    let mut failed = Vec::new();
    for (name, found) in lookups.join_all().await {
        match found {
            Ok(addrs) => drop(names.insert(name, addrs)),
            Err(why) => failed.push(format!("can't resolve {name}: {why}")),
        }
    }
    if failed.is_empty() {
        return Ok(names);
    }
    failed.sort();
    Err(format!("{}; check the name and this host's DNS", failed.join(", ")))
}

async fn lookup(name: &HostPort) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((&*name.host, name.port))).await {
        Err(_) => Err(format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs())),
        Ok(Err(error)) => {
            let why = error.to_string();
            Err(why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned())
        }
        Ok(Ok(addrs)) => {
            let mut known = BTreeSet::new();
            let addrs: Vec<_> = addrs.filter(|addr| known.insert(*addr)).collect();
            if addrs.is_empty() { Err("it has no address".to_owned()) } else { Ok(addrs) }
        }
    }
}

/// Takes `found` over into `names`, and says whether any name has other addresses than before. Their order doesn't count: name
/// servers shuffle it.
pub(crate) fn update(names: &mut Names, found: Names) -> bool {
    let mut changed = false;
    for (name, addrs) in found {
        let as_set = |addrs: &[SocketAddr]| addrs.iter().copied().collect::<BTreeSet<_>>();
        if names.get(&name).is_none_or(|old| as_set(old) != as_set(&addrs)) {
            names.insert(name, addrs);
            changed = true;
        }
    }
    changed
}

/// Makes the plan. Routes and backends that are the same as in `before` are the same objects.
///
/// # Panics
/// If `names` lacks a name of `config`.
pub(crate) fn plan(config: &Config, names: &Names, limits: Limits, before: Option<&Plan>) -> Plan {
    let peers: Vec<Arc<Peer>> = config.peers.iter().map(|peer| Arc::new(peer_of(config, peer, names))).collect();
    let old = |name: &str| before.and_then(|plan| plan.routes.iter().find(|route| *route.name == *name));
    let keep = |new: Route| match old(&new.name) {
        Some(old) if same_route(old, &new) => Arc::clone(old),
        _ => Arc::new(new),
    };
    let listeners = config.listeners.iter().map(|listener| {
        let old = old(&listener.name);
        route(listener, names, limits, config.log_pairs, old)
    });
    let trunks = config.trunks.iter().map(|trunk| trunk_route(trunk, &peers, names, limits, config.log_pairs));
    Plan { routes: listeners.chain(trunks).map(keep).collect(), peers, limits }
}

fn peer_of(config: &Config, peer: &config::Peer, names: &Names) -> Peer {
    Peer {
        name: peer.name,
        own: config.gateway.expect("a gateway with peers has a name"),
        addrs: peer.address.as_ref().map(|address| addrs(address, names)).unwrap_or_default(),
        key: peer.key,
        leg: LegOptions { reset_if_killed: true, delayed_acks: true, ..peer.leg.clone() },
        pool: peer.pool,
        dead_after: peer.dead_after,
        warmth: Warmth::default(),
    }
}

fn trunk_route(trunk: &Trunk, peers: &[Arc<Peer>], names: &Names, limits: Limits, log_pairs: bool) -> Route {
    let mut rules = Vec::new();
    let mut named = Vec::new();
    for allowed in &trunk.allow {
        match allowed {
            Allowed::Net(rule) => rules.push(rule.clone()),
            Allowed::Name(name) => {
                let addrs = names.get(name).cloned().expect("every name of the configuration was resolved before");
                named.push(Named { host: name.host.to_ascii_lowercase().into(), port: name.port, addrs });
            }
        }
    }
    let may_come = |peer: &&Arc<Peer>| trunk.peers.contains(&peer.name);
    let gate = Gate {
        peers: peers.iter().filter(may_come).cloned().collect(),
        permit: Permit::new(rules, named),
        onward: trunk.onward.clone(),
        dead_after: trunk.dead_after,
        warmth: Warmth::default(),
    };
    Route {
        name: Arc::clone(&trunk.name),
        listen: addrs(&trunk.listen, names).swap_remove(0),
        client: LegOptions { delayed_acks: true, ..trunk.leg.clone() },
        server: trunk.server.clone(),
        backends: Arc::new(BackendSet::new(Vec::new(), Balance::default(), None)),
        mux: None,
        via: None,
        gate: Some(Arc::new(gate)),
        original: false,
        intercept: Vec::new(),
        spoof_client: trunk.spoof_client,
        early_dial: false,
        timeouts: trunk.timeouts,
        accept_proxy: None,
        send_proxy: trunk.send_proxy,
        allow: Vec::new(),
        pairs_max: trunk.pairs_max.unwrap_or(limits.pairs_max).min(limits.pairs_max),
        log_pairs,
    }
}

fn route(listener: &Listener, names: &Names, limits: Limits, log_pairs: bool, old: Option<&Arc<Route>>) -> Route {
    let via = listener.via.split_first().map(|(first, rest)| Via { first: *first, rest: rest.to_vec() });
    let backends = listener.to.iter().map(|to| {
        if via.is_some() {
            return behind_trunk(to, limits.cores, old);
        }
        let udp = listener.messages.as_ref().is_some_and(|messages| messages.udp.contains(to));
        let backend = addr::Backend { endpoint: to.clone(), udp };
        let (name, addrs) = (backend.to_string(), addrs(to, names));
        let known = old.and_then(|old| {
            let mut backends = old.backends.backends().iter();
            backends.find(|backend| **backend.name() == *name && backend.addrs() == addrs)
        });
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let place = || Place::new(name.into(), addrs).asked_by(transport);
        // Its name says how it's asked, so one that is known is asked alike.
        known.map_or_else(|| Arc::new(Backend::at(place(), limits.cores)), Arc::clone)
    });
    let backends: Vec<Arc<Backend>> = backends.collect();
    Route {
        name: Arc::clone(&listener.name),
        listen: addrs(&listener.listen, names).swap_remove(0),
        // A message says where it ends, so half of one is never taken for a whole one.
        client: LegOptions { ends_if_killed: listener.messages.is_some(), ..listener.client.clone() },
        server: listener.server.clone(),
        mux: listener.messages.as_ref().map(|messages| Arc::new(service(listener, messages, &backends))),
        backends: Arc::new(BackendSet::new(backends, listener.balance, listener.health)),
        via,
        gate: None,
        original: listener.original,
        intercept: listener.intercept.clone(),
        spoof_client: listener.spoof_client,
        early_dial: listener.early_dial,
        timeouts: listener.timeouts,
        accept_proxy: listener.accept_proxy,
        send_proxy: listener.send_proxy,
        allow: listener.allow.clone(),
        pairs_max: listener.pairs_max.unwrap_or(limits.pairs_max).min(limits.pairs_max),
        log_pairs,
    }
}

/// What the multiplexor gives the listener's clients.
fn service(listener: &Listener, messages: &Messages, backends: &[Arc<Backend>]) -> Service {
    Service {
        name: Arc::clone(&listener.name),
        framing: messages.framing.clone(),
        matching: if messages.framing == Framing::Dns { Matching::Id } else { Matching::Order },
        backends: backends.iter().map(|backend| Arc::clone(backend.place())).collect(),
        server: listener.server.clone(),
        bounds: messages.bounds,
    }
}

/// A backend that another gateway finds.
fn behind_trunk(to: &Endpoint, cores: u16, old: Option<&Arc<Route>>) -> Arc<Backend> {
    let destination = match to {
        Endpoint::Ip(addr) => Destination::address(*addr),
        Endpoint::Name(name) => Destination::name(&name.host, name.port),
        Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => unreachable!("no trunk leads to a Unix-domain socket"),
    };
    let destination = destination.expect("it was checked that it can be dialled");
    let known = old.and_then(|old| {
        let mut backends = old.backends.backends().iter();
        backends.find(|backend| backend.destination() == Some(&destination)).map(Arc::clone)
    });
    known.unwrap_or_else(|| Arc::new(Backend::behind_trunk(to.to_string(), destination, cores)))
}

/// The addresses of an endpoint; at least one.
fn addrs(endpoint: &Endpoint, names: &Names) -> Vec<Addr> {
    match endpoint {
        Endpoint::Ip(addr) => vec![Addr::Inet(*addr)],
        Endpoint::Name(name) => {
            let found = names.get(name).expect("every name of the configuration was resolved before");
            found.iter().copied().map(Addr::Inet).collect()
        }
        Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => endpoint.unix().map(Addr::Unix).into_iter().collect(),
    }
}

/// Whether two routes are the same in all that an operator can set. Taken apart field by field so that a new one isn't forgotten.
fn same_route(a: &Route, b: &Route) -> bool {
    let Route {
        name,
        listen,
        client,
        server,
        backends,
        mux,
        via,
        gate,
        original,
        intercept,
        spoof_client,
        early_dial,
        timeouts,
        accept_proxy,
        send_proxy,
        allow,
        pairs_max,
        log_pairs,
    } = a;
    *name == b.name
        && *listen == b.listen
        && *client == b.client
        && *server == b.server
        && same_backends(backends, &b.backends)
        && same_service(mux.as_deref(), b.mux.as_deref())
        && *via == b.via
        && same_gate(gate.as_deref(), b.gate.as_deref())
        && *original == b.original
        && *intercept == b.intercept
        && *spoof_client == b.spoof_client
        && *early_dial == b.early_dial
        && *timeouts == b.timeouts
        && *accept_proxy == b.accept_proxy
        && *send_proxy == b.send_proxy
        && *allow == b.allow
        && *pairs_max == b.pairs_max
        && *log_pairs == b.log_pairs
}

/// Whether two services of routes that are alike otherwise are the same: name, backends and options are the routes'.
fn same_service(a: Option<&Service>, b: Option<&Service>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
    a.framing == b.framing && a.bounds == b.bounds
}

fn same_gate(a: Option<&Gate>, b: Option<&Gate>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return a.is_none() && b.is_none() };
    let same_peer = |(a, b): (&Arc<Peer>, &Arc<Peer>)| a.name == b.name && a.own == b.own && a.key == b.key;
    let same_peers = a.peers.len() == b.peers.len() && a.peers.iter().zip(&b.peers).all(same_peer);
    same_peers && a.permit == b.permit && a.onward == b.onward
}

fn same_backends(a: &BackendSet, b: &BackendSet) -> bool {
    let (ours, theirs) = (a.backends(), b.backends());
    let same = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| Arc::ptr_eq(a, b));
    same && a.balance() == b.balance() && a.health() == b.health()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use midmile_gateway::WaitBy;

    const LIMITS: Limits = Limits {
        cores: 2,
        wait_by: WaitBy::Epoll,
        busy_poll: Duration::ZERO,
        pairs_max: 100,
        pooled_max: 0,
        upstreams_max: 0,
        message_max: 0,
        pipes_max: 10,
        pipe_bytes: 65_536,
    };

    fn config(to: &str, more: &str) -> Config {
        let text = format!("[[listener]]\nname = \"a\"\nlisten = \"127.0.0.1:80\"\nto = {to}\n{more}");
        crate::config::parse("f", &text, &Host { cpus: 2, congestion: None }).unwrap()
    }

    fn names(addrs: &[&str]) -> Names {
        let name = HostPort { host: "db".into(), port: 1 };
        [(name, addrs.iter().map(|addr| addr.parse().unwrap()).collect())].into()
    }

    #[test]
    fn a_plan_takes_over_what_did_not_change() {
        let (config_a, names_a) = (config("[\"db:1\", \"10.0.0.9:1\"]", ""), names(&["10.0.0.1:1", "10.0.0.2:1"]));
        let first = plan(&config_a, &names_a, LIMITS, None);
        let [db, other] = first.routes[0].backends.backends() else { panic!("two backends") };
        assert_eq!((&**db.name(), db.addrs().len()), ("db:1", 2));
        db.set_healthy(false);
        let same = plan(&config_a, &names_a, LIMITS, Some(&first));
        assert!(Arc::ptr_eq(&first.routes[0], &same.routes[0]));
        // The name stands for something else now: a new backend beside the old other.
        let moved = plan(&config_a, &names(&["10.0.0.3:1"]), LIMITS, Some(&first));
        assert!(!Arc::ptr_eq(&first.routes[0], &moved.routes[0]));
        assert!(moved.routes[0].backends.backends()[0].is_healthy());
        assert!(Arc::ptr_eq(other, &moved.routes[0].backends.backends()[1]));
        // Another timeout: a new route over the same backends, with their health.
        let slower = config("[\"db:1\", \"10.0.0.9:1\"]", "timeouts.idle = \"2h\"");
        let slower = plan(&slower, &names_a, LIMITS, Some(&first));
        assert!(!Arc::ptr_eq(&first.routes[0], &slower.routes[0]));
        assert!(Arc::ptr_eq(db, &slower.routes[0].backends.backends()[0]));
    }

    #[test]
    fn a_service_has_the_places_of_its_routes_backends() {
        let none = Names::new();
        let of = |more: &str, before: Option<&Plan>| {
            plan(&config("[\"10.0.0.1:1\", \"10.0.0.2:1\"]", more), &none, LIMITS, before)
        };
        let first = of("framing = \"dns\"", None);
        let route = &first.routes[0];
        let service = route.mux.as_ref().unwrap();
        assert_eq!((&*service.name, service.matching, service.backends.len()), ("a", Matching::Id, 2));
        let same_places = |route: &Route, service: &Service| {
            { route.backends.backends().iter().zip(&service.backends) }
                .all(|(backend, place)| Arc::ptr_eq(backend.place(), place))
        };
        assert!(same_places(route, service));
        assert!(Arc::ptr_eq(route, &of("framing = \"dns\"", Some(&first)).routes[0]));
        // Another bound: another service for the same places, with their health.
        let other = of("framing = \"dns\"\nmessages.idle_timeout = \"1m\"", Some(&first));
        let changed = other.routes[0].mux.as_ref().unwrap();
        assert_eq!(changed.bounds.idle_timeout, Duration::from_mins(1));
        assert!(same_places(route, changed));
        // Asked over UDP, it's another backend.
        let by_udp =
            plan(&config("[\"udp:10.0.0.1:1\", \"10.0.0.2:1\"]", "framing = \"dns\""), &none, LIMITS, Some(&first));
        let asked = &by_udp.routes[0].mux.as_ref().unwrap().backends;
        assert_eq!((&*asked[0].name, asked[0].transport), ("udp:10.0.0.1:1", Transport::Udp));
        assert!(Arc::ptr_eq(&asked[1], &service.backends[1]));
        let bytes = of("", Some(&first));
        assert!(bytes.routes[0].mux.is_none() && same_places(&bytes.routes[0], service));
        assert_eq!(of("framing = \"resp\"", Some(&bytes)).routes[0].mux.as_ref().unwrap().matching, Matching::Order);
    }

    #[test]
    fn shuffled_addresses_are_no_change() {
        let mut known = names(&["10.0.0.1:1", "10.0.0.2:1"]);
        let before = known.clone();
        assert!(!update(&mut known, names(&["10.0.0.2:1", "10.0.0.1:1"])));
        assert_eq!(known, before);
        assert!(update(&mut known, names(&["10.0.0.2:1"])));
        assert_eq!(known, names(&["10.0.0.2:1"]));
    }

    #[test]
    fn a_route_holds_no_more_pairs_than_the_process() {
        let pairs = |more: &str| plan(&config("\"10.0.0.1:1\"", more), &Names::new(), LIMITS, None).routes[0].pairs_max;
        assert_eq!((pairs(""), pairs("pairs_max = 7"), pairs("pairs_max = 700")), (100, 7, 100));
    }
}
