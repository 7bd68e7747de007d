//! The relay under test, with an admin server that says how it goes.

use std::net::SocketAddr;

use serde_json::Value;

use crate::process::{Running, midmile, status, until};

/// A running relay.
pub(crate) struct Relay {
    pub(crate) running: Running,
    /// The address of each listener and then of each trunk, as its `ready` line says.
    pub(crate) listen: Vec<String>,
    pub(crate) admin: SocketAddr,
}

impl Relay {
    /// One listener to `to`.
    pub(crate) fn to(to: impl ToString) -> Self {
        Self::with(to, &[])
    }

    /// One listener to `to`, and more arguments.
    pub(crate) fn with(to: impl ToString, more: &[&str]) -> Self {
        Self::between(&[("127.0.0.1:0", &to.to_string())], more)
    }

    /// Listeners and where they relay to.
    pub(crate) fn between(routes: &[(&str, &str)], more: &[&str]) -> Self {
        let routes_args = routes.iter().flat_map(|(listen, to)| ["--listen", listen, "--to", to]);
        let args: Vec<_> = ["relay", "--admin", "127.0.0.1:0"].into_iter().chain(routes_args).collect();
        Self::of(Running::spawn(midmile(&[&args, more].concat())), routes.len())
    }

    /// A multiplexor of messages of a framing, with one listener, to any of the backends.
    pub(crate) fn mux(framing: &str, backends: &[SocketAddr], more: &[&str]) -> Self {
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        Self::mux_to(framing, &backends, more)
    }

    /// The same, to backends as they're written.
    pub(crate) fn mux_to(framing: &str, backends: &[String], more: &[&str]) -> Self {
        let mut args = vec!["mux", "--framing", framing, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
        args.extend(backends.iter().flat_map(|backend| ["--to", backend]));
        Self::of(Running::spawn(midmile(&[&args, more].concat())), 1)
    }

    /// A gateway of a configuration file with one listener, and an admin server.
    pub(crate) fn of_file(file: &str) -> Self {
        Self::of(Running::start(&["gateway", "--config", file]), 1)
    }

    /// One that was started by other means.
    pub(crate) fn of(running: Running, listeners: usize) -> Self {
        let listen = (0..listeners).map(|_| {
            let line = running.line();
            let of_listener = line.strip_prefix("ready listen=").and_then(|rest| rest.split_once(" to="));
            let of_trunk = || line.strip_prefix("ready trunk=").and_then(|rest| rest.split_once(" peers="));
            let listen = of_listener.or_else(of_trunk);
            listen.map(|(listen, _)| listen.to_owned()).unwrap_or_else(|| panic!("not a ready line: {line}"))
        });
        let listen = listen.collect();
        let admin = running.admin();
        Self { running, listen, admin }
    }

    /// Where its first listener is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr_of(0)
    }

    pub(crate) fn addr_of(&self, index: usize) -> SocketAddr {
        self.listen[index].parse().unwrap()
    }

    /// Port of its first listener, as an argument.
    pub(crate) fn port(&self) -> String {
        self.addr().port().to_string()
    }

    /// A URL on its first listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen[0])
    }

    pub(crate) fn status(&self) -> Value {
        status(self.admin)
    }

    /// A number of the status document, such as `/totals/ends/finished`.
    pub(crate) fn count(&self, pointer: &str) -> u64 {
        number(&self.status(), pointer)
    }

    /// Pairs that ended for this reason.
    pub(crate) fn ends(&self, reason: &str) -> u64 {
        self.count(&format!("/totals/ends/{reason}"))
    }

    /// Waits until a number of the status document is `wanted`.
    pub(crate) fn counts(&self, pointer: &str, wanted: u64) {
        counts(|| self.status(), pointer, wanted);
    }

    /// Waits until a figure is at least that.
    pub(crate) fn reaches(&self, pointer: &str, wanted: u64) {
        until(&format!("{pointer} to reach {wanted} in {:#}", self.status()), || {
            (self.count(pointer) >= wanted).then_some(())
        });
    }

    /// Waits until nothing is open or leased any more, and asserts that each pair ended for one reason.
    pub(crate) fn settled(&self) -> Value {
        let status = until("the end of all pairs", || {
            let status = self.status();
            let left = number(&status, "/totals/pairs_open") + number(&status, "/pipes/leased");
            (left == 0).then_some(status)
        });
        let ends: u64 = status["totals"]["ends"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(number(&status, "/totals/pairs_opened"), ends, "each pair ends for one reason: {status:#}");
        status
    }

    /// As [`Relay::settled`], where each pair is to have finished in order.
    pub(crate) fn finished(&self) -> Value {
        let status = self.settled();
        let finished = number(&status, "/totals/ends/finished");
        assert_eq!(number(&status, "/totals/pairs_opened"), finished, "each pair finishes: {status:#}");
        status
    }

    /// File descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.running.pid())).unwrap().count()
    }

    /// Its resident memory (proc(5), `VmRSS`).
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Waits until a number of a status document, asked for again and again, is `wanted`.
pub(crate) fn counts(status: impl Fn() -> Value, pointer: &str, wanted: u64) {
    until(&format!("{pointer} to be {wanted} in {:#}", status()), || {
        (number(&status(), pointer) == wanted).then_some(())
    });
}

/// A number within a status document.
pub(crate) fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {pointer} in {status:#}"))
}
