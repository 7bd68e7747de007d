//! Checks of what a listener intercepts, and of servers that see their client's address.

use super::listener::Checker;
use super::mistake::{At, Mistakes, Place};
use super::raw::RawListener;
use super::value::{AcceptProxy, OneOrList, Target};
use crate::addr::{Backend, Endpoint};

/// Whether connections go on to where they were going.
pub(super) fn is_original(raw: &RawListener) -> bool {
    raw.to.iter().flat_map(|to| &to.value.0).any(|to| to.value == Target::Original)
}

/// The targets that are backends.
pub(super) fn backends_of(to: Option<At<OneOrList<Target>>>) -> Option<At<OneOrList<Backend>>> {
    let At { value: OneOrList(list), line } = to?;
    let backends = list.into_iter().filter_map(|At { value, line }| match value {
        Target::Original => None,
        Target::Backend(value) => Some(At { value, line }),
    });
    Some(At { value: OneOrList(backends.collect()), line })
}

/// Where networks are intercepted and dialled for early, SYNs to any address are heard of: one that is forwarded can't be told
/// from one that is meant for a listener on every address.
pub(super) fn check_early(listeners: &[At<RawListener>], mistakes: &mut Mistakes) {
    let is_early = |at: &&At<RawListener>| at.value.early_dial.as_ref().is_some_and(|early| early.value);
    let takes_networks = |at: &At<RawListener>| {
        let entries = at.value.intercept.iter().flat_map(|list| &list.value.0);
        { entries }.any(|at| at.value.0.net.prefix_len() < at.value.0.net.max_prefix_len())
    };
    let Some(taking) = listeners.iter().filter(is_early).find(|at| takes_networks(at)) else { return };
    for at in listeners.iter().filter(is_early).filter(|at| !is_original(&at.value)) {
        let Some(At { value: Endpoint::Ip(addr), line }) = &at.value.listen else { continue };
        if addr.ip().is_unspecified() {
            let place = Place { key: "listener.listen".to_owned(), line: *line };
            let what = format!(
                "contradicts early_dial: the listener on line {} intercepts networks, so SYNs that are forwarded would be heard of \
                 here; write the address to listen on",
                taking.line
            );
            mistakes.add(&place, what);
        }
    }
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
        self.add_each(contradicting, "contradicts to = \"original\": there are no backends; leave it out");
    }

    fn check_spoofing(&mut self, raw: &RawListener) {
        let spoofs = raw.server.as_ref().and_then(|leg| leg.value.spoof_client.as_ref()).filter(|at| at.value);
        let Some(spoofs) = spoofs else { return };
        let unix = |to: &At<Target>| matches!(&to.value, Target::Backend(to) if to.endpoint.is_unix());
        if raw.listen.as_ref().is_some_and(|listen| listen.value.is_unix()) {
            let what = "contradicts listen: the clients of a Unix-domain socket have no address; leave it out";
            self.add("server.spoof_client", spoofs.line, what);
        } else if raw.to.iter().flat_map(|to| &to.value.0).any(unix) {
            let what = "contradicts to: a Unix-domain socket sees no address; leave it out, or set send_proxy";
            self.add("server.spoof_client", spoofs.line, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::host::Host;

    fn told(text: &str) -> Vec<String> {
        parse("f", text, &Host { cpus: 2, congestion: None }).err().unwrap_or_default()
    }

    fn listener(listen: &str, more: &str) -> String {
        format!("[[listener]]\nlisten = \"{listen}\"\n{more}\n")
    }

    #[test]
    fn what_is_intercepted_means_what_it_says() {
        let text = listener(
            "[::]:8443",
            "to = \"original\"\ntransparent = true\nintercept = [\"203.0.113.0/24:443\", \"[2001:db8::1]:1-9\"]\nserver.spoof_client = \
             true",
        );
        let config = parse("f", &text, &Host { cpus: 2, congestion: None }).unwrap();
        let listener = &config.listeners[0];
        assert!(listener.original && listener.spoof_client && listener.client.transparent && listener.to.is_empty());
        let shown: Vec<_> = listener.intercept.iter().map(|rule| format!("{} {:?}", rule.net, rule.ports)).collect();
        assert_eq!(shown, ["203.0.113.0/24 443..=443", "2001:db8::1/128 1..=9"]);
    }

    #[test]
    fn what_contradicts_interception_is_told_with_its_mend() {
        let cases = [
            (
                "10.0.0.1:80",
                "to = \"original\"",
                "to: \"original\" is known only of connections that the firewall hands over",
            ),
            (
                "10.0.0.1:80",
                "to = \"a:1\"\nintercept = [\"10.1.0.0/16:80\"]",
                "intercept: nothing is handed over without it",
            ),
            ("10.0.0.1:80", "to = [\"original\", \"a:1\"]\ntransparent = true", "to: \"original\" stands alone"),
            (
                "10.0.0.1:0",
                "to = \"original\"\ntransparent = true",
                "listen: contradicts transparent: the firewall's rules name the port",
            ),
            (
                "gw:80",
                "to = \"original\"\ntransparent = true",
                "listen: contradicts transparent: the firewall's rules name the address",
            ),
            (
                "unix:/a",
                "to = \"a:1\"\ntransparent = true",
                "listen: contradicts transparent: the firewall hands over TCP",
            ),
            (
                "10.0.0.1:80",
                "to = \"original\"\ntransparent = true\nintercept = [\"[2001:db8::/32]:80\"]",
                "intercept: 2001:db8::/32 is IPv6, and 10.0.0.1:80 doesn't listen there",
            ),
            (
                "0.0.0.0:80",
                "to = \"original\"\ntransparent = true\nintercept = [\"10.1.0.0/16:1-99\"]",
                "intercept: port 80 is the listener's own",
            ),
            (
                "10.0.0.1:80",
                "to = \"a:1\"\ntransparent = true\nintercept = [\"db:80\"]",
                "intercept: \"db:80\": packets have no names",
            ),
            (
                "10.0.0.1:80",
                "to = \"original\"\ntransparent = true\nhealth = {}",
                "health: contradicts to = \"original\"",
            ),
            ("10.0.0.1:80", "to = \"unix:/a\"\nserver.spoof_client = true", "server.spoof_client: contradicts to"),
            ("unix:/a", "to = \"a:1\"\nserver.spoof_client = true", "server.spoof_client: contradicts listen"),
        ];
        for (listen, more, wanted) in cases {
            let told = told(&listener(listen, more));
            assert!(told.len() == 1 && told[0].contains(&format!("listener.{wanted}")), "{listen} {more}: {told:?}");
        }
    }

    #[test]
    fn forwarded_syns_are_not_taken_for_those_of_a_listener_on_every_address() {
        let taking = listener(
            "0.0.0.0:8443",
            "to = \"original\"\ntransparent = true\nearly_dial = true\nintercept = [\"203.0.113.0/24:443\"]",
        );
        let other = |listen: &str| format!("{taking}{}", listener(listen, "to = \"a:1\"\nearly_dial = true"));
        let told_of_all = told(&other("0.0.0.0:80"));
        assert!(
            told_of_all.len() == 1 && told_of_all[0].contains("the listener on line 1 intercepts networks"),
            "{told_of_all:?}"
        );
        assert_eq!(told(&other("10.0.0.1:80")), Vec::<String>::new());
    }
}
