//! midmile as two gateways with a trunk between them, each on one core. Both run in the proxy's namespace; the trunk is the loopback
//! device.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::cpus::{LOAD_CPU, PROXY_CPU};

use super::{Peer, Wiring, command, first_line, skips_nothing};

pub(crate) const TRUNK: Peer = Peer {
    name: "trunk",
    version: |host| first_line(&host.midmile, "--version"),
    command: gateways,
    skips: skips_nothing,
};

/// The same, the gateway near the server on the CPU that client and server are on: with both on one CPU the other would be idle half of
/// the time, which one relay leaves no time to be.
pub(crate) const TRUNK_APART: Peer = Peer { command: gateways_apart, ..TRUNK };

/// Both stand in the shell's process group, so their time is counted together and one signal ends them. The far gateway runs on the
/// CPU that is told.
const SCRIPT: &str = "taskset -c \"$3\" \"$0\" gateway --config \"$1\" & exec \"$0\" gateway --config \"$2\"";
/// Nobody but the two of a bench meets it.
const KEY: &str = "6d69646d696c652062656e63682c206e6f2073656372657420617420616c6c2e";
/// Connections kept in store.
const POOL_MIN: u32 = 512;
const POOL_MAX: u32 = 4096;

/// Where the gateway near the clients tells its figures, inside the proxy's namespace: below the ports that proxies get.
pub(crate) const ADMIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1999);

fn gateways(wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
    pair(wiring, PROXY_CPU)
}

fn gateways_apart(wiring: &Wiring<'_>) -> Result<Option<Vec<OsString>>> {
    pair(wiring, LOAD_CPU)
}

fn pair(wiring: &Wiring<'_>, far_cpu: usize) -> Result<Option<Vec<OsString>>> {
    let Wiring { listen, to, dir, host } = wiring;
    // Addresses differ, so the port is free on this one too.
    let trunk = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listen.port());
    let key = dir.join("trunk.key");
    fs::write(&key, KEY).context("write the trunk's key")?;
    fs::set_permissions(&key, Permissions::from_mode(0o600)).context("close the trunk's key to others")?;
    let key = key.display();
    let (near, far) = (dir.join("near.toml"), dir.join("far.toml"));
    let near_file = format!(
        "[limits]
cores = 1

[admin]
listen = \"{ADMIN}\"

[gateway]
name = \"near\"

[[listener]]
listen = \"{listen}\"
to = [\"{to}\"]
via = [\"far\"]

[[peer]]
name = \"far\"
address = \"{trunk}\"
key_file = \"{key}\"
pool_min = {POOL_MIN}
pool_max = {POOL_MAX}
"
    );
    let far_file = format!(
        "[limits]
cores = 1

[gateway]
name = \"far\"

[[peer]]
name = \"near\"
key_file = \"{key}\"

[[trunk]]
listen = \"{trunk}\"
peers = [\"near\"]
allow = [\"{to}\"]
"
    );
    fs::write(&near, near_file).and_then(|()| fs::write(&far, far_file)).context("write the gateways' files")?;
    let midmile = &host.midmile;
    Ok(Some(command!["sh", "-c", SCRIPT, midmile, far, near, far_cpu.to_string()]))
}
