//! The relays under test: what each is called, how it's started, and what it can't do. One file a program.
//!
//! Each is tuned as its manual suggests for the job (one core, large pipes or buffers, no logs, long time-outs): the
//! comparison is with the peer at its best.

mod floor;
mod haproxy;
mod midmile;
mod nginx;
mod realm;
mod routing;
mod socat;
pub(crate) mod trunk;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::choice::Named;
use crate::comparison::Compared;
use crate::host::Host;
use crate::rows::{Kind, Row};

/// A relay under test.
pub(crate) struct Peer {
    /// Its name in `--proxies` and in the table.
    pub(crate) name: &'static str,
    /// Its version, or `None` where it isn't installed.
    pub(crate) version: fn(&Host) -> Option<String>,
    /// The command that relays, or `None` where the client connects to the server itself.
    pub(crate) command: fn(&Wiring<'_>) -> Result<Option<Vec<OsString>>>,
    /// Why it has no part in a row.
    pub(crate) skips: fn(&Kind) -> Option<&'static str>,
}

impl Named for Peer {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Compared<Row> for Peer {
    fn has_place_in(&self, _: Row) -> bool {
        true
    }
}

pub(crate) use midmile::MIDMILE;
pub(crate) use trunk::{TRUNK, TRUNK_APART};

/// Every peer, in the order of the table.
pub(crate) const PEERS: [&Peer; 9] = [
    &routing::ROUTING,
    &floor::FLOOR,
    &MIDMILE,
    &haproxy::HAPROXY,
    &haproxy::HAPROXY_SPLICE,
    &nginx::NGINX,
    &realm::REALM,
    &realm::REALM_PIPE,
    &socat::SOCAT,
];

/// What a relay is to do.
pub(crate) struct Wiring<'a> {
    /// Where it listens.
    pub(crate) listen: SocketAddrV4,
    /// Where it connects to.
    pub(crate) to: SocketAddrV4,
    /// A directory for its configuration.
    pub(crate) dir: &'a Path,
    /// Where it runs.
    pub(crate) host: &'a Host,
}

/// For a peer that takes part in every row.
const fn skips_nothing(_: &Kind) -> Option<&'static str> {
    None
}

/// The first line that a program says about itself; `None` where it can't be run.
pub(crate) fn first_line(program: impl AsRef<Path>, flag: &str) -> Option<String> {
    let output = Command::new(program.as_ref()).arg(flag).output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            eprintln!("{}: {error}", program.as_ref().display());
            return None;
        }
    };
    // Some programs print their version on standard error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().next().unwrap_or("unknown version").trim().to_owned())
}

/// Builds a command line out of words of different types.
macro_rules! command {
    ($($word:expr),+ $(,)?) => { vec![$(std::ffi::OsString::from($word)),+] };
}
use command;
