//! Gateways with trunks between them: each a process of its own, and a file of its own.

use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::relay::Relay;
use crate::process::{Running, Scratch, wait_by};

/// Two keys that are not each other.
pub(crate) const KEYS: [&str; 2] = [
    "8f1d3c5b7a9e02468f1d3c5b7a9e02468f1d3c5b7a9e02468f1d3c5b7a9e0246",
    "13579bdf02468ace13579bdf02468ace13579bdf02468ace13579bdf02468ace",
];

/// A file with a key that nobody else can read.
pub(crate) fn key_file(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A table `[[peer]]`, with `more` lines. Each peer has its key in the file `NAME.key`.
pub(crate) fn peer(key_file: &str, name: &str, address: Option<&str>, more: &str) -> String {
    let address = address.map_or_else(String::new, |address| format!("address = \"{address}\"\n"));
    format!("[[peer]]\nname = \"{name}\"\n{address}key_file = \"{key_file}\"\n{more}\n")
}

/// A table `[[trunk]]` on `listen` for `peers`, with `more` lines.
pub(crate) fn trunk(listen: &str, peers: &[&str], allow: &[&str], more: &str) -> String {
    format!("[[trunk]]\nlisten = \"{listen}\"\npeers = {peers:?}\nallow = {allow:?}\n{more}\n")
}

/// A table `[[listener]]` on IPv4 that goes to `to` by way of `via`, if there's any, with `more` lines.
pub(crate) fn listener(to: &str, via: &[&str], more: &str) -> String {
    listener_on("127.0.0.1:0", to, via, more)
}

/// As [`listener`], on `listen`.
pub(crate) fn listener_on(listen: &str, to: &str, via: &[&str], more: &str) -> String {
    let via = if via.is_empty() { String::new() } else { format!("via = {via:?}\n") };
    format!("[[listener]]\nname = \"{listen}-{to}\"\nlisten = \"{listen}\"\nto = \"{to}\"\n{via}{more}\n")
}

/// A gateway's file: its name, its `limits`, and tables.
pub(crate) fn file(scratch: &Scratch, name: &str, limits: &str, tables: &[String]) -> String {
    let mut text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[drain]\ntimeout = \"30s\"\n[limits]\n{limits}\n[gateway]\nname = \"{name}\"\n"
    );
    if let Some(way) = wait_by() {
        text.write_str(&format!("wait_by = \"{way}\"\n")).unwrap();
    }
    for table in tables {
        text.write_str(table).unwrap();
    }
    scratch.write(&format!("{name}.toml"), &text)
}

/// Starts a gateway of its file.
pub(crate) fn start(file: &str) -> Relay {
    let text = std::fs::read_to_string(file).unwrap();
    let ready = ["[[listener]]", "[[trunk]]"].map(|table| text.matches(table).count());
    Relay::of(Running::start(&["gateway", "--config", file]), ready.iter().sum())
}

/// What is special about two gateways: lines of their tables.
#[derive(Clone, Copy, Default)]
pub(crate) struct More<'a> {
    /// Of `[limits]` of both.
    pub(crate) limits: &'a str,
    /// Of a's listeners.
    pub(crate) listener: &'a str,
    /// Of a's peer.
    pub(crate) peer: &'a str,
    /// Of b's trunk.
    pub(crate) trunk: &'a str,
}

/// One core: all clients meet the same pool.
pub(crate) const ONE_CORE: More<'_> = More { limits: "cores = 1", listener: "", peer: "", trunk: "" };

/// Two gateways: clients come to a, and b dials for it.
pub(crate) struct Way {
    pub(crate) a: Relay,
    pub(crate) b: Relay,
    pub(crate) scratch: Scratch,
}

impl Way {
    /// One listener to `to`, which b may dial.
    pub(crate) fn to(name: &str, to: impl ToString, more: More) -> Self {
        let to = to.to_string();
        Self::between(name, &[&to], &[&to], more)
    }

    /// A listener for each of `to`, in this order, and what b may dial.
    pub(crate) fn between(name: &str, to: &[&str], allow: &[&str], more: More) -> Self {
        let listeners = to.iter().map(|to| listener(to, &["b"], more.listener));
        Self::of(name, &listeners.collect::<String>(), allow, more)
    }

    /// Listeners as they are written, and what b may dial.
    pub(crate) fn of(name: &str, listeners: &str, allow: &[&str], more: More) -> Self {
        let scratch = Scratch::new(name);
        let key = key_file(&scratch, "ab.key", KEYS[0]);
        let of_b = [peer(&key, "a", None, ""), trunk("127.0.0.1:0", &["a"], allow, more.trunk)];
        let b = start(&file(&scratch, "b", more.limits, &of_b));
        let of_a = [listeners.to_owned(), peer(&key, "b", Some(&b.listen[0]), more.peer)];
        let a = start(&file(&scratch, "a", more.limits, &of_a));
        Self { a, b, scratch }
    }

    /// Waits until so many trunk connections wait ready at a, or none. More may: a pool grows with those who come.
    pub(crate) fn ready(&self, wanted: u64) {
        if wanted == 0 { self.a.counts("/peers/0/ready", 0) } else { self.a.reaches("/peers/0/ready", wanted) }
    }

    /// A figure of a's pool.
    pub(crate) fn pool(&self, figure: &str) -> u64 {
        self.a.count(&format!("/peers/0/{figure}"))
    }

    /// Waits until nothing is open any more, where each pair is to have finished in order on both sides.
    pub(crate) fn finished(&self) {
        self.a.finished();
        self.b.finished();
    }

    /// Waits until nothing is open any more.
    pub(crate) fn settled(&self) {
        self.a.settled();
        self.b.settled();
    }
}
