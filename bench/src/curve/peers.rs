//! The servers under test. Each is a subcommand of `midmile-bench-server`.

use std::net::SocketAddrV4;

use super::rows::Kind;
use crate::choice::Named;
use crate::comparison::Compared;

/// Whose a server is, and what carries its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What ours are compared to.
    Theirs,
    /// Ours, on the kernel's TCP.
    Kernel,
    /// Ours, on a TCP in user space.
    Stack,
    /// Ours, on the kernel's TCP, and its CPU never at rest.
    Busy,
}

/// A server under test.
pub(crate) struct Peer {
    /// Its name in `--servers` and in the table.
    pub(crate) name: &'static str,
    /// What it is, for the report.
    pub(crate) what: &'static str,
    /// The crate whose version is reported.
    pub(crate) package: Option<&'static str>,
    /// Whose it is, and what carries its bytes.
    pub(crate) side: Side,
    /// Arguments, without where to listen.
    args: &'static [&'static str],
    /// Its colour in the plots.
    pub(crate) colour: (u8, u8, u8),
    /// What it takes part in.
    rows: fn(Kind) -> bool,
}

/// Every server, in the order of the table.
pub(crate) const PEERS: [&Peer; 8] = [
    &Peer {
        name: "tokio",
        what: "a task a connection, current_thread runtime",
        package: Some("tokio"),
        side: Side::Theirs,
        args: &["tokio"],
        colour: (214, 96, 77),
        rows: |_| true,
    },
    &Peer {
        name: "monoio",
        what: "a task a connection on io_uring",
        package: Some("monoio"),
        side: Side::Theirs,
        args: &["monoio"],
        colour: (230, 159, 0),
        rows: |_| true,
    },
    &Peer {
        name: "epoll",
        what: "a plain loop",
        package: None,
        side: Side::Theirs,
        args: &["epoll"],
        colour: (110, 110, 110),
        rows: |_| true,
    },
    &Peer {
        name: "io_uring",
        what: "a plain loop: multishot, provided buffers",
        package: Some("io-uring"),
        side: Side::Theirs,
        args: &["uring"],
        colour: (153, 112, 171),
        rows: |_| true,
    },
    &Peer {
        name: "midmile-epoll",
        what: "a handler on midmile-engine, backend epoll",
        package: Some("midmile-engine"),
        side: Side::Kernel,
        args: &["midmile", "--backend", "epoll"],
        colour: (86, 180, 233),
        rows: |_| true,
    },
    &Peer {
        name: "midmile-uring",
        what: "the same handler, backend io_uring",
        package: Some("midmile-engine"),
        side: Side::Kernel,
        args: &["midmile", "--backend", "uring"],
        colour: (0, 114, 178),
        rows: |_| true,
    },
    &Peer {
        name: "midmile-xdp",
        what: "the same handler, backend smoltcp above AF_XDP",
        package: Some("smoltcp"),
        side: Side::Stack,
        args: &["midmile", "--backend", "xdp"],
        colour: (0, 158, 115),
        rows: |_| true,
    },
    &Peer {
        name: "midmile-busy",
        what: "as midmile-epoll, looking for more for 200 µs before it sleeps",
        package: Some("midmile-engine"),
        side: Side::Busy,
        args: &["midmile", "--backend", "epoll", "--busy-poll-us", "200"],
        colour: (120, 180, 160),
        // Where there's always something to do, it's the same.
        rows: |kind| kind == Kind::Alone,
    },
];

/// Fewest and most frames that a device's queue is opened with.
const FRAMES_MIN: usize = 4096;
const FRAMES_MAX: usize = 65_536;

impl Named for Peer {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Compared<Kind> for Peer {
    fn has_place_in(&self, kind: Kind) -> bool {
        (self.rows)(kind)
    }
}

impl Peer {
    /// The arguments of `midmile-bench-server`.
    pub(crate) fn arguments(&self, listen: SocketAddrV4, device: &str, conns: usize) -> Vec<String> {
        let mut args: Vec<String> = self.args.iter().map(|&arg| arg.to_owned()).collect();
        args.extend(["--listen".to_owned(), listen.to_string()]);
        if self.side == Side::Stack {
            // Each connection may have a packet waiting while the hog is on; few frames stay in the caches.
            let frames = (2 * conns).next_power_of_two().clamp(FRAMES_MIN, FRAMES_MAX);
            args.extend(["--device", device, "--frames", &frames.to_string()].map(str::to_owned));
        }
        args
    }

    /// What it is, with its version.
    pub(crate) fn version(&self) -> String {
        match self.package.and_then(locked_version) {
            Some(version) => format!("{}, {} {version}", self.what, self.package.unwrap_or_default()),
            None => self.what.to_owned(),
        }
    }
}

/// The version of a package that this program was built with; the newest where there are several.
fn locked_version(package: &str) -> Option<&'static str> {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let wanted = format!("name = \"{package}\"");
    let entries = lock.split("[[package]]").filter(|entry| entry.lines().any(|line| line == wanted));
    entries
        .filter_map(|entry| entry.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')))
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(locked_version("tokio").is_some_and(|version| version.starts_with("1.")));
        assert_eq!(locked_version("no-such-package"), None);
    }
}
