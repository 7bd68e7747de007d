//! Checks of what a listener intercepts, and of servers that see their client's address.

use super::listener::Checker;
use super::mistake::At;
use super::raw::RawListener;
use super::value::{AcceptProxy, OneOrList, Target};
use crate::addr::Endpoint;

/// Whether connections go on to where they were going.
pub(super) fn is_original(raw: &RawListener) -> bool {
    raw.to.iter().flat_map(|to| &to.value.0).any(|to| to.value == Target::Original)
}

/// The targets that are backends.
pub(super) fn backends_of(to: Option<At<OneOrList<Target>>>) -> Option<At<OneOrList<Endpoint>>> {
    let At { value: OneOrList(list), line } = to?;
    let backends = list.into_iter().filter_map(|At { value, line }| match value {
        Target::Original => None,
        Target::Backend(value) => Some(At { value, line }),
    });
    Some(At { value: OneOrList(backends.collect()), line })
}

impl Checker<'_> {
    /// Keys that have to do with others' addresses, and what they ask of the other keys.
    pub(super) fn check_transparent(&mut self, raw: &RawListener) {
        let transparent = raw.transparent.as_ref().is_some_and(|at| at.value);
        if let (Some(listen), true) = (&raw.listen, transparent) {
            self.check_place(listen);
            self.check_intercept(raw, listen);
        }
        if let (Some(intercept), false) = (&raw.intercept, transparent) {
            let what = "nothing is handed over without it: set transparent = true, or leave `intercept` out";
            self.add("intercept", intercept.line, what);
        }
        if let (Some(to), true) = (&raw.to, is_original(raw)) {
            self.check_original(raw, to, transparent);
        }
        self.check_spoofing(raw);
    }

    /// The rules name the place, so it has to be known before anything listens.
    fn check_place(&mut self, listen: &At<Endpoint>) {
        let what = match &listen.value {
            Endpoint::Ip(addr) if addr.port() != 0 => return,
            Endpoint::Ip(_) => "contradicts transparent: the firewall's rules name the port; write one",
            Endpoint::Name(_) => "contradicts transparent: the firewall's rules name the address; write it, or 0.0.0.0",
            Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => {
                "contradicts transparent: the firewall hands over TCP connections; write host:port"
            }
        };
        self.add("listen", listen.line, what);
    }

    fn check_intercept(&mut self, raw: &RawListener, listen: &At<Endpoint>) {
        let Endpoint::Ip(own) = &listen.value else { return };
        let entries = raw.intercept.iter().flat_map(|list| &list.value.0);
        for At { value, line } in entries {
            let rule = &value.0;
            let (own_v4, own_all) = (own.is_ipv4(), own.ip().is_unspecified());
            let rule_v4 = rule.net.addr().is_ipv4();
            if rule_v4 != own_v4 && !(rule_v4 && own_all) {
                let family = if rule_v4 { "IPv4" } else { "IPv6" };
                let what = format!("{} is {family}, and {own} doesn't listen there; listen on [::] for both", rule.net);
                self.add("intercept", *line, what);
            } else if own_all && is_original(raw) && rule.ports.contains(&own.port()) {
                let what = format!(
                    "port {} is the listener's own, so what is intercepted can't be told from what is meant for it; listen on \
                     another port",
                    own.port()
                );
                self.add("intercept", *line, what);
            }
        }
    }

    fn check_original(&mut self, raw: &RawListener, to: &At<OneOrList<Target>>, transparent: bool) {
        if !transparent {
            let what = "\"original\" is known only of connections that the firewall hands over; set transparent = true";
            self.add("to", to.line, what);
        }
        if to.value.0.len() > 1 {
            self.add("to", to.line, "\"original\" stands alone; leave it or the others out");
        }
        let accepts = raw.accept_proxy.as_ref().filter(|accept| accept.value != AcceptProxy::Off);
        let contradicting = [
            ("accept_proxy", accepts.map(|at| at.line)),
            ("balance", raw.balance.as_ref().map(|at| at.line)),
            ("health", raw.health.as_ref().map(|at| at.line)),
            ("resolve_every", raw.resolve_every.as_ref().map(|at| at.line)),
        ];
        for (key, line) in contradicting {
            if let Some(line) = line {
                self.add(key, line, "contradicts to = \"original\": there are no backends; leave it out");
            }
        }
    }

    fn check_spoofing(&mut self, raw: &RawListener) {
        let spoofs = raw.server.as_ref().and_then(|leg| leg.value.spoof_client.as_ref()).filter(|at| at.value);
        let Some(spoofs) = spoofs else { return };
        let unix = |to: &At<Target>| matches!(&to.value, Target::Backend(endpoint) if endpoint.is_unix());
        if raw.listen.as_ref().is_some_and(|listen| listen.value.is_unix()) {
            let what = "contradicts listen: the clients of a Unix-domain socket have no address; leave it out";
            self.add("server.spoof_client", spoofs.line, what);
        } else if raw.to.iter().flat_map(|to| &to.value.0).any(unix) {
            let what = "contradicts to: a Unix-domain socket sees no address; leave it out, or set send_proxy";
            self.add("server.spoof_client", spoofs.line, what);
        }
    }
}
