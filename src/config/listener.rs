//! Checks of one listener.

use std::collections::BTreeSet;
use std::time::Duration;

use midmile_engine::LegOptions;
use midmile_gateway::{BACKENDS_MAX, HealthCheck, Timeouts, WaitBy};
use midmile_wire::proxy;
use midmile_wire::trunk::Name;
use midmile_wire::trunk::hello::Destination;

use super::check::check_period;
use super::messages::Framed;
use super::mistake::{At, Mistakes, Place};
use super::raw::{RawHealth, RawListener, RawTimeouts};
use super::transparent::{backends_of, is_original};
use super::value::{AcceptProxy, Count, OneOrList, OrOff, Period, Protocol, SendProxy, Target};
use super::{Limits, Listener, Messages};
use crate::addr::{Backend, Endpoint};
use crate::host::Host;

/// Names are labels in metrics and log: no longer than is readable there.
const NAME_LEN_MAX: usize = 64;
/// Peers that a pair goes through at most: a hello has room for as many behind the first.
const VIA_MAX: usize = 8;
/// Names aren't resolved again more often than this.
const RESOLVE_EVERY_MIN: Duration = Duration::from_secs(1);

/// Checks one table of a kind against the host and the process's limits.
pub(super) struct Checker<'a> {
    pub(super) host: &'a Host,
    pub(super) limits: Limits,
    pub(super) wait_by: WaitBy,
    pub(super) mistakes: &'a mut Mistakes,
    /// What the tables are called: `listener`, `peer` or `trunk`.
    pub(super) table: &'static str,
    /// The line of the table's header.
    pub(super) line: usize,
    /// Peers that are left out because their key won't do, which is told already.
    pub(super) keyless: Vec<Name>,
}

impl Checker<'_> {
    /// Checks one; `None` if it lacks what nothing can be done without.
    pub(super) fn listener(&mut self, raw: RawListener) -> Option<Listener> {
        let client_unix = raw.listen.as_ref().is_some_and(|listen| listen.value.is_unix());
        self.check_relations(&raw, client_unix);
        self.check_transparent(&raw);
        let messages = self.messages(&raw);
        let by_dns = raw.framing.as_ref().is_some_and(|at| matches!(at.value, Framed::Protocol(Protocol::Dns)));
        let original = is_original(&raw);
        let spoof_client =
            raw.server.as_ref().and_then(|leg| leg.value.spoof_client.as_ref()).is_some_and(|at| at.value);
        let transparent = raw.transparent.as_ref().is_some_and(|transparent| transparent.value);
        let (to, udp) = self.backends_and_udp(backends_of(raw.to), raw.listen.as_ref(), original, by_dns);
        let resolve_every = self.resolve_every(raw.resolve_every, &to);
        let server_unix = !to.is_empty() && to.iter().all(Endpoint::is_unix);
        let client = self.leg("client", raw.client.map(|leg| leg.value.into()), client_unix.then_some("listen"));
        let client = LegOptions { transparent, ..client };
        let server = self.leg("server", raw.server.map(|leg| leg.value.into()), server_unix.then_some("to"));
        let timeouts = self.timeouts(raw.timeouts.map(|timeouts| timeouts.value).unwrap_or_default());
        let health = raw.health.map(|health| self.health(health.value));
        let listen = raw.listen?;
        Some(Listener {
            name: raw.name.map_or_else(|| listen.value.to_string(), |name| name.value).into(),
            listen: listen.value,
            to,
            original,
            intercept: raw
                .intercept
                .map(|list| list.value.0.into_iter().map(|at| at.value.0).collect())
                .unwrap_or_default(),
            spoof_client,
            via: raw.via.map(|via| via.value.0.into_iter().map(|name| name.value).collect()).unwrap_or_default(),
            early_dial: raw.early_dial.is_some_and(|early| early.value),
            balance: raw.balance.map(|balance| balance.value).unwrap_or_default(),
            accept_proxy: raw.accept_proxy.and_then(|accept| accept_proxy(accept.value)),
            send_proxy: raw.send_proxy.and_then(|send| send_proxy(send.value)),
            allow: raw.allow.map(|list| list.value.0.into_iter().map(|net| net.value).collect()).unwrap_or_default(),
            pairs_max: raw.pairs_max.map(|pairs| pairs.value.0),
            resolve_every,
            client,
            server,
            timeouts,
            health,
            messages: messages.map(|messages| Messages { udp, ..messages }),
        })
    }

    pub(super) fn add(&mut self, key: &str, line: usize, what: impl std::fmt::Display) {
        self.mistakes.add(&Place { key: format!("{}.{key}", self.table), line }, what);
    }

    /// Says the same of each key that is there.
    pub(super) fn add_each<const N: usize>(&mut self, keys: [(&str, Option<usize>); N], what: &str) {
        for (key, line) in keys {
            if let Some(line) = line {
                self.add(key, line, what);
            }
        }
    }

    /// Keys that contradict each other.
    fn check_relations(&mut self, raw: &RawListener, client_unix: bool) {
        if let Some(name) = &raw.name {
            self.check_name(name);
        }
        if let (Some(allow), true) = (&raw.allow, client_unix) {
            let what = "contradicts listen: the clients of a Unix-domain socket have no IP address; leave `allow` out and set \
                        the mode of the socket's directory";
            self.add("allow", allow.line, what);
        }
        let accepts = raw.accept_proxy.as_ref().is_some_and(|accept| accept.value != AcceptProxy::Off);
        let header = raw.timeouts.as_ref().and_then(|timeouts| timeouts.value.header.as_ref());
        if let (Some(header), false) = (header, accepts) {
            let what =
                "contradicts accept_proxy = \"off\": no header is awaited; set accept_proxy or leave `header` out";
            self.add("timeouts.header", header.line, what);
        }
        self.check_early(raw, accepts, client_unix);
        self.check_via(raw);
        self.check_pairs_max(raw.pairs_max.as_ref());
    }

    pub(super) fn check_pairs_max(&mut self, pairs_max: Option<&At<Count>>) {
        match (pairs_max, self.limits.pairs_max) {
            (Some(pairs), _) if pairs.value.0 == 0 => {
                self.add("pairs_max", pairs.line, "0 pairs serve nobody; write 1 or more");
            }
            (Some(pairs), Some(limit)) if pairs.value.0 > limit => {
                let what = format!("{} is more than limits.pairs_max = {limit}; lower it or raise that", pairs.value.0);
                self.add("pairs_max", pairs.line, what);
            }
            _ => {}
        }
    }

    /// What is dialled early has to be known at the SYN.
    fn check_early(&mut self, raw: &RawListener, accepts_proxy: bool, unix: bool) {
        let Some(early) = raw.early_dial.as_ref().filter(|early| early.value) else { return };
        if unix {
            self.add("early_dial", early.line, "contradicts listen: a Unix-domain socket has no SYN; leave it out");
        } else if accepts_proxy {
            let what =
                "contradicts accept_proxy: who the client is isn't known before its header; leave one of them out";
            self.add("early_dial", early.line, what);
        }
    }

    /// What the last gateway of a trunk does can't be asked for here.
    fn check_via(&mut self, raw: &RawListener) {
        let Some(via) = raw.via.as_ref().filter(|via| !via.value.0.is_empty()) else { return };
        if via.value.0.len() > VIA_MAX {
            let what = format!("{} peers; write {VIA_MAX} at most", via.value.0.len());
            self.add("via", via.line, what);
        }
        let sends = raw.send_proxy.as_ref().filter(|send| send.value != SendProxy::Off);
        let theirs = [
            ("send_proxy", sends.map(|at| at.line)),
            ("health", raw.health.as_ref().map(|at| at.line)),
            ("server", raw.server.as_ref().map(|at| at.line)),
            ("resolve_every", raw.resolve_every.as_ref().map(|at| at.line)),
        ];
        self.add_each(
            theirs,
            "contradicts via: the last gateway dials the backend; set it at that gateway's [[trunk]]",
        );
        for to in raw.to.iter().flat_map(|to| &to.value.0) {
            let Target::Backend(backend) = &to.value else { continue };
            let why = match &backend.endpoint {
                endpoint if endpoint.port() == Some(0) => None,
                Endpoint::Ip(addr) => Destination::address(*addr).err().map(|error| error.to_string()),
                Endpoint::Name(name) => Destination::name(&name.host, name.port).err().map(|error| error.to_string()),
                Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => {
                    Some("a Unix-domain socket is found on its own host only".to_owned())
                }
            };
            if let Some(why) = why {
                self.add("to", to.line, format!("contradicts via: {why}; write what the last gateway can dial"));
            }
        }
    }

    pub(super) fn check_name(&mut self, name: &At<String>) {
        let len = name.value.len();
        if len == 0 || len > NAME_LEN_MAX || name.value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let what = format!("a name has 1 to {NAME_LEN_MAX} bytes without spaces, as it is a label; choose another");
            self.add("name", name.line, what);
        }
    }

    /// The backends, and those of them that are asked by datagrams.
    fn backends_and_udp(
        &mut self,
        raw: Option<At<OneOrList<Backend>>>,
        listen: Option<&At<Endpoint>>,
        original: bool,
        by_dns: bool,
    ) -> (Vec<Endpoint>, BTreeSet<Endpoint>) {
        for to in raw.iter().flat_map(|raw| &raw.value.0).filter(|to| to.value.udp && !by_dns) {
            let what =
                format!("{}: only DNS is asked over UDP; set framing = \"dns\", or leave \"udp:\" out", to.value);
            self.add("to", to.line, what);
        }
        let backends = self.backends(raw, listen, original);
        let udp = backends.iter().filter(|to| to.udp).map(|to| to.endpoint.clone()).collect();
        (backends.into_iter().map(|to| to.endpoint).collect(), udp)
    }

    fn backends(
        &mut self,
        raw: Option<At<OneOrList<Backend>>>,
        listen: Option<&At<Endpoint>>,
        original: bool,
    ) -> Vec<Backend> {
        let Some(At { value: OneOrList(list), line }) = raw else {
            return Vec::new();
        };
        if list.is_empty() && !original {
            self.add("to", line, "no backend; write at least one address");
        }
        if list.len() > BACKENDS_MAX {
            self.add("to", line, format!("{} backends; write at most {BACKENDS_MAX}", list.len()));
        }
        let mut seen = BTreeSet::new();
        for to in &list {
            let endpoint = &to.value.endpoint;
            if endpoint.port() == Some(0) {
                self.add("to", to.line, format!("{}: nobody listens on port 0; write the server's port", to.value));
            } else if !seen.insert(endpoint.clone()) {
                self.add("to", to.line, format!("{} is there twice; leave one out", to.value));
            } else if listen.is_some_and(|listen| listen.value.collides(endpoint)) {
                let what = format!(
                    "{} is this listener itself, so it would dial itself without end; write the server's",
                    to.value
                );
                self.add("to", to.line, what);
            }
        }
        list.into_iter().map(|to| to.value).collect()
    }

    pub(super) fn resolve_every(&mut self, raw: Option<At<OrOff<Period>>>, to: &[Endpoint]) -> Option<Duration> {
        let At { value: OrOff::On(period), line } = raw? else {
            return None;
        };
        if !to.is_empty() && !to.iter().any(|to| matches!(to, Endpoint::Name(_))) {
            self.add(
                "resolve_every",
                line,
                "contradicts to: there is no host name in it to resolve; leave `resolve_every` out",
            );
            return None;
        }
        if period.0 < RESOLVE_EVERY_MIN {
            self.add("resolve_every", line, "names are resolved once a second at most; write 1s or more");
            return None;
        }
        self.period("resolve_every", Some(At { value: period, line }))
    }

    pub(super) fn period(&mut self, key: &str, period: Option<At<Period>>) -> Option<Duration> {
        let period = period?;
        check_period(&period, &Place { key: format!("{}.{key}", self.table), line: period.line }, self.mistakes)
    }

    fn timeouts(&mut self, raw: RawTimeouts) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            dial: self.period("timeouts.dial", raw.dial).unwrap_or(default.dial),
            idle: self.period("timeouts.idle", raw.idle).unwrap_or(default.idle),
            half_closed: self.period("timeouts.half_closed", raw.half_closed).unwrap_or(default.half_closed),
            header: self.period("timeouts.header", raw.header).unwrap_or(default.header),
        }
    }

    fn health(&mut self, raw: RawHealth) -> HealthCheck {
        let default = HealthCheck::default();
        let lines = (raw.timeout.as_ref().map(|at| at.line), raw.every.as_ref().map(|at| at.line));
        let every = self.period("health.every", raw.every).unwrap_or(default.every);
        let timeout = self.period("health.timeout", raw.timeout).unwrap_or(default.timeout);
        if timeout > every {
            let (key, line) = match lines {
                (Some(line), _) => ("health.timeout", line),
                (None, line) => ("health.every", line.unwrap_or(self.line)),
            };
            let (timeout, every) = (humantime::format_duration(timeout), humantime::format_duration(every));
            let what = format!(
                "health.timeout = {timeout} is longer than health.every = {every}; shorten it or lengthen that"
            );
            self.add(key, line, what);
        }
        let rise = self.streak("health.rise", raw.rise).unwrap_or(default.rise);
        let fall = self.streak("health.fall", raw.fall).unwrap_or(default.fall);
        HealthCheck { every, timeout, rise, fall }
    }

    fn streak(&mut self, key: &str, raw: Option<At<Count>>) -> Option<u32> {
        let raw = raw?;
        if raw.value.0 == 0 {
            self.add(key, raw.line, "0 checks in a row never happen; write 1 or more");
        }
        Some(raw.value.0)
    }
}

const fn accept_proxy(accept: AcceptProxy) -> Option<proxy::Accept> {
    match accept {
        AcceptProxy::Off => None,
        AcceptProxy::V1 => Some(proxy::Accept { v1: true, v2: false }),
        AcceptProxy::V2 => Some(proxy::Accept { v1: false, v2: true }),
        AcceptProxy::Any => Some(proxy::Accept { v1: true, v2: true }),
    }
}

pub(super) const fn send_proxy(send: SendProxy) -> Option<proxy::Version> {
    match send {
        SendProxy::Off => None,
        SendProxy::V1 => Some(proxy::Version::V1),
        SendProxy::V2 => Some(proxy::Version::V2),
    }
}
