//! How the cores are told of clients' SYNs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use midmile_engine::Waker;

use super::Listening;
use crate::plan::Route;
use crate::relay::Syn;
use crate::serving::DoorId;
use crate::trunk::Rule;

/// A way in whose clients are dialled for early.
#[derive(Debug)]
struct Place {
    at: SocketAddr,
    door: DoorId,
    route: Arc<Route>,
}

impl Place {
    /// The addresses that SYNs for it go to; of an intercepted network any address, which stands for all of them.
    fn heard_at(&self) -> Vec<SocketAddr> {
        let intercepted = self.route.intercept.iter().flat_map(|rule| {
            let ip = if is_alone(rule) { rule.net.addr() } else { unspecified(rule) };
            rule.ports.clone().map(move |port| SocketAddr::new(ip, port))
        });
        let own = (!self.route.original).then_some(self.at);
        own.into_iter().chain(intercepted).collect()
    }
}

/// Whether the rule is of one address.
fn is_alone(rule: &Rule) -> bool {
    rule.net.prefix_len() == rule.net.max_prefix_len()
}

fn unspecified(rule: &Rule) -> IpAddr {
    match rule.net.addr() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where clients are dialled for early, kept up to date by the fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Vec<Place>>>);

impl Places {
    /// Takes note of what listens now.
    pub(super) fn replace(&self, doors: &[(DoorId, Listening)]) {
        let early = doors.iter().filter(|(_, listening)| listening.route.early_dial);
        let places = early.filter_map(|(door, listening)| {
            Some(Place { at: listening.addr.inet()?, door: *door, route: listening.route.clone() })
        });
        *self.lock() = places.collect();
    }

    /// The way in of a connection to `listener`: the one on that very address, or the one that intercepts it, or else the one on
    /// every address.
    fn door(&self, listener: SocketAddr) -> Option<DoorId> {
        let places = self.lock();
        let exact = places.iter().find(|place| place.at == listener);
        let intercepting = || places.iter().find(|place| place.route.intercepts(listener));
        let wild = || {
            places.iter().find(|Place { at, .. }| {
                let same_family = at.is_ipv6() || listener.is_ipv4();
                at.port() == listener.port() && at.ip().is_unspecified() && same_family
            })
        };
        exact.or_else(intercepting).or_else(wild).map(|place| place.door)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the cores of clients' SYNs, so that they dial onward early.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// A core's CPU, and the way to it.
    cores: Vec<(u32, SyncSender<Syn>, Waker)>,
    places: Places,
}

impl Announcer {
    pub(super) const fn new(cores: Vec<(u32, SyncSender<Syn>, Waker)>, places: Places) -> Self {
        Self { cores, places }
    }

    /// The listeners whose clients are dialled for early.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.places.lock().iter().flat_map(Place::heard_at).collect()
    }

    /// Whether networks are intercepted for any of them: SYNs to addresses that aren't this host's are theirs then.
    #[must_use]
    pub fn intercepts_networks(&self) -> bool {
        self.places.lock().iter().any(|place| place.route.intercept.iter().any(|rule| !is_alone(rule)))
    }

    /// `client` has sent a SYN to `listener`, which came on `cpu`: the core that will accept it is told. False if nobody is to be
    /// told, or that core has too many to hear of already.
    pub fn announce(&self, client: SocketAddr, listener: SocketAddr, cpu: u32) -> bool {
        let Some(door) = self.places.door(listener) else { return false };
        // As the listeners are steered: by CPU, or else by its number.
        let by_cpu = self.cores.iter().find(|(of, ..)| *of == cpu);
        let by_number = || self.cores.get(cpu as usize % self.cores.len().max(1));
        let Some((_, syns, waker)) = by_cpu.or_else(by_number) else { return false };
        let told = syns.try_send(Syn { door, client, listener }).is_ok();
        if told {
            waker.wake();
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use midmile_engine::{Addr, LegOptions};

    use super::*;
    use crate::backend::{BackendSet, Balance};
    use crate::plan::Timeouts;

    fn door(number: u32, listen: &str, original: bool, intercept: &[(&str, u16)]) -> (DoorId, Listening) {
        let listen: SocketAddr = listen.parse().unwrap();
        let rule = |(net, port): &(&str, u16)| Rule { net: net.parse().unwrap(), ports: *port..=*port };
        let route = Route {
            name: "r".into(),
            listen: Addr::Inet(listen),
            client: LegOptions { transparent: original, ..LegOptions::default() },
            server: LegOptions::default(),
            backends: Arc::new(BackendSet::new(Vec::new(), Balance::default(), None)),
            mux: None,
            via: None,
            gate: None,
            original,
            intercept: intercept.iter().map(rule).collect(),
            spoof_client: false,
            early_dial: true,
            timeouts: Timeouts::default(),
            accept_proxy: None,
            send_proxy: None,
            allow: Vec::new(),
            pairs_max: 1,
            log_pairs: false,
        };
        (DoorId(number), Listening { route: Arc::new(route), addr: Addr::Inet(listen) })
    }

    fn announcer(doors: &[(DoorId, Listening)]) -> Announcer {
        let places = Places::default();
        places.replace(doors);
        Announcer::new(Vec::new(), places)
    }

    #[test]
    fn a_syn_is_for_the_listener_that_intercepts_it() {
        let doors = [
            door(1, "10.0.0.1:80", false, &[]),
            door(2, "[::]:8443", true, &[("203.0.113.0/24", 443), ("2001:db8::7/128", 25)]),
        ];
        let announcer = announcer(&doors);
        let of = |to: &str| announcer.places.door(to.parse().unwrap());
        assert_eq!(of("10.0.0.1:80"), Some(DoorId(1)));
        assert_eq!([of("203.0.113.9:443"), of("[2001:db8::7]:25")], [Some(DoorId(2)); 2]);
        assert_eq!([of("203.0.113.9:80"), of("198.51.100.1:443"), of("[2001:db8::8]:25")], [None; 3]);
    }

    #[test]
    fn a_network_is_heard_of_on_every_address_and_a_host_on_its_own() {
        let shown = |doors: &[_]| announcer(doors).listeners().iter().map(ToString::to_string).collect::<Vec<_>>();
        let of_hosts = [door(1, "0.0.0.0:8443", true, &[("203.0.113.9/32", 443)]), door(2, "10.0.0.1:80", false, &[])];
        assert_eq!(shown(&of_hosts), ["203.0.113.9:443", "10.0.0.1:80"]);
        assert!(!announcer(&of_hosts).intercepts_networks());
        let of_networks = [door(1, "[::]:8443", true, &[("203.0.113.0/24", 443), ("2001:db8::/32", 25)])];
        assert_eq!(shown(&of_networks), ["0.0.0.0:443", "[::]:25"]);
        assert!(announcer(&of_networks).intercepts_networks());
    }

    #[test]
    fn what_comes_to_the_listener_itself_is_not_intercepted() {
        let cases = [
            ("10.0.0.1:8443", "10.0.0.1:8443", false),
            ("10.0.0.1:8443", "203.0.113.9:8443", true),
            ("10.0.0.1:8443", "10.0.0.1:443", true),
            ("0.0.0.0:8443", "10.0.0.1:8443", false),
            ("[::]:8443", "[::ffff:10.0.0.1]:8443", false),
            ("[::]:8443", "[::ffff:203.0.113.9]:443", true),
        ];
        for (listen, local, intercepted) in cases {
            let (_, listening) = door(1, listen, true, &[]);
            assert_eq!(listening.route.is_intercepted(local.parse().unwrap()), intercepted, "{listen} {local}");
        }
    }
}
