//! The name servers behind the proxies: Knot, with a zone of a thousand hosts, and the load's own, which is slow where it's told to be.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpus::LOAD_CPU;
use crate::lab::Lab;
use crate::launch::{Launch, Process};
use crate::load::query::{HOSTS, ORIGIN};

/// How long the load's own waits with an answer about a slow host.
pub(crate) const SLOW_MS: u64 = 200;

/// Starts the load's own.
pub(crate) fn start_slow(lab: &Lab, at: SocketAddrV4) -> Result<Process> {
    Launch::load("nameserver", &lab.server, &lab.dir, at, &["--slow-ms", &SLOW_MS.to_string()])?.spawn()
}

/// Starts Knot. One worker: it has one CPU, and shares that with the load. No timeout of its own ends a connection.
pub(crate) fn start(lab: &Lab, at: SocketAddrV4, open_files: u64) -> Result<Process> {
    let dir = lab.dir.join("knot");
    fs::create_dir_all(&dir).context("make the name server's directory")?;
    fs::write(dir.join("zone"), zone()).context("write the zone")?;
    let file = dir.join("knot.conf");
    fs::write(&file, configuration(&dir, at, open_files)).context("write the name server's configuration")?;
    let command = vec!["knotd".into(), "-c".into(), file.into()];
    let log = lab.dir.join("knotd.log");
    Launch { name: "knotd", netns: &lab.server, cpu: LOAD_CPU, log, command }.spawn().context("start knotd")
}

fn configuration(dir: &Path, at: SocketAddrV4, open_files: u64) -> String {
    let (dir, ip, port, clients) = (dir.display(), at.ip(), at.port(), open_files.saturating_sub(500).min(60_000));
    format!(
        "server:
  rundir: {dir}
  listen: {ip}@{port}
  tcp-workers: 1
  udp-workers: 1
  background-workers: 1
  tcp-max-clients: {clients}
  tcp-idle-timeout: 3600
  tcp-io-timeout: 0
log:
  - target: stderr
    any: warning
database:
  storage: {dir}
control:
  listen: {dir}/knot.sock
zone:
  - domain: {ORIGIN}
    file: {dir}/zone
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
"
    )
}

fn zone() -> String {
    let mut zone =
        format!("$ORIGIN {ORIGIN}\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 604800 300\n@ NS ns\nns A 192.0.2.1\n");
    for host in 0..HOSTS {
        let line = writeln!(zone, "host-{host:03} A 198.51.{}.{}", host / 250, host % 250);
        line.expect("a String takes all that is written to it");
    }
    zone
}
