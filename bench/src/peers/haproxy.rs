//! haproxy, one thread: as its manual advises (`splice-auto`), and with splice forced both ways through large pipes.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};

use super::{Peer, Wiring, command, first_line, skips_nothing};

pub(super) const HAPROXY: Peer = Peer {
    name: "haproxy",
    version: |_| first_line("haproxy", "-v"),
    command: |wiring| configured(wiring, "", "option splice-auto"),
    skips: skips_nothing,
};

pub(super) const HAPROXY_SPLICE: Peer = Peer {
    name: "haproxy-splice",
    version: |_| first_line("haproxy", "-v"),
    command: |wiring| {
        let global = "tune.pipesize 1048576\n  tune.maxaccept 500";
        configured(wiring, global, "option splice-request\n  option splice-response")
    },
    skips: skips_nothing,
};

fn configured(wiring: &Wiring<'_>, global: &str, defaults: &str) -> Result<Option<Vec<OsString>>> {
    let Wiring { listen, to, .. } = wiring;
    let path = wiring.dir.join("haproxy.cfg");
    // haproxy refuses to start where 2 × (maxconn + maxpipes) and some exceed the limit of open files.
    let maxconn = (wiring.host.open_files / 2).saturating_sub(800).min(30_000);
    let maxpipes = (wiring.host.open_files / 2).saturating_sub(maxconn + 100).min(10_000);
    let config = format!(
        "global
  nbthread 1
  maxconn {maxconn}
  maxpipes {maxpipes}
  {global}
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  {defaults}
listen relay
  bind {listen} backlog 4096
  server target {to}
"
    );
    fs::write(&path, config).context("write haproxy's configuration")?;
    Ok(Some(command!["haproxy", "-db", "-f", path]))
}
