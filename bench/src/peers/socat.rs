//! socat: a process a connection.

use super::{Peer, command, first_line};
use crate::rows::Kind;

pub(super) const SOCAT: Peer = Peer {
    name: "socat",
    version: |_| first_line("socat", "-V").map(|_| version().unwrap_or_else(|| "unknown version".to_owned())),
    command: |wiring| {
        let (ip, port) = (wiring.listen.ip(), wiring.listen.port());
        let listen = format!("TCP4-LISTEN:{port},bind={ip},reuseaddr,fork,backlog=4096,nodelay");
        Ok(Some(command!["socat", "-b", "131072", listen, format!("TCP4:{},nodelay", wiring.to)]))
    },
    skips: |kind| match kind {
        Kind::Rr { conns: 1_000.. } | Kind::Idle { .. } => Some("forks a process a connection"),
        _ => None,
    },
};

/// socat's version is on the second line, after its authors.
fn version() -> Option<String> {
    let output = std::process::Command::new("socat").arg("-V").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().nth(1)?.split_whitespace().take(3);
    Some(words.collect::<Vec<_>>().join(" "))
}
