//! Checks of this gateway's peers and of the trunks that they come in by.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use midmile_gateway::{DEAD_AFTER, PoolLimits, Timeouts};
use midmile_wire::trunk::{Key, Name};

use super::allowed::Allowed;
use super::listener::{Checker, send_proxy};
use super::mistake::At;
use super::raw::{RawPeer, RawTrunk, RawTrunkTimeouts};
use super::value::{Count, OneOrList, OrOff, Period};
use super::{Peer, Trunk};
use crate::addr::Endpoint;

/// Below two seconds a long way's own retransmissions take longer.
const DEAD_AFTER_RANGE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_hours(1);

/// A key's file is 64 digits and a line break; no more of it is read.
const KEY_FILE_BYTES_MAX: u64 = 128;

impl Checker<'_> {
    /// Checks one peer; `None` if it lacks what nothing can be done without.
    pub(super) fn peer(&mut self, raw: RawPeer) -> Option<Peer> {
        if let Some(address) = raw.address.as_ref().filter(|at| at.value.is_unix() || at.value.port() == Some(0)) {
            self.add("address", address.line, format!("{}: a trunk goes over TCP; write host:port", address.value));
        }
        let pool = self.pool(raw.pool_min.as_ref(), raw.pool_max.as_ref());
        let dead_after = self.dead_after(raw.leg.as_ref().and_then(|leg| leg.value.dead_after.clone()));
        let leg = self.leg("leg", raw.leg.map(|leg| leg.value.into()), None);
        let plain = raw.plain.filter(|plain| plain.value).map(|plain| plain.line);
        let key = match (raw.key_file, plain) {
            (Some(file), None) => self.key(&file),
            (None, Some(line)) => {
                if let Some(address) = raw.address.as_ref().filter(|address| !is_loopback(&address.value)) {
                    let what =
                        format!("contradicts address: {} isn't a loopback address; write key_file", address.value);
                    self.add("plain", line, what);
                }
                Some(Key::PLAIN)
            }
            (Some(_), Some(line)) => {
                self.add("plain", line, "contradicts key_file; leave one of them out");
                None
            }
            (None, None) => {
                let what = "it is missing; write the file with the key that both gateways hold (64 hexadecimal digits)";
                self.add("key_file", self.line, what);
                None
            }
        };
        let name = raw.name?.value;
        let Some(key) = key else {
            self.keyless.push(name);
            return None;
        };
        Some(Peer { name, address: raw.address.map(|at| at.value), key, plain: plain.is_some(), leg, pool, dead_after })
    }

    /// Checks how long the peer of a trunk's leg may be silent.
    fn dead_after(&mut self, raw: Option<At<OrOff<Period>>>) -> Option<Duration> {
        match raw {
            None => Some(DEAD_AFTER),
            Some(At { value: OrOff::Off, .. }) => None,
            Some(At { value: OrOff::On(Period(period)), line }) => {
                if !DEAD_AFTER_RANGE.contains(&period) {
                    self.add("leg.dead_after", line, "out of range; write 2s to 1h, or \"off\"");
                }
                Some(period)
            }
        }
    }

    fn pool(&mut self, min: Option<&At<Count>>, max: Option<&At<Count>>) -> PoolLimits {
        let default = PoolLimits::default();
        let pool = PoolLimits {
            min: min.map_or(default.min, |min| min.value.0),
            max: max.map_or(default.max, |max| max.value.0),
        };
        if pool.max == 0 || pool.max > POOL_MAX {
            self.add("pool_max", max.map_or(self.line, |max| max.line), format!("out of range; write 1 to {POOL_MAX}"));
        } else if pool.min > pool.max {
            let line = min.or(max).map_or(self.line, |at| at.line);
            self.add(
                "pool_min",
                line,
                format!("{} is more than pool_max = {}; lower it or raise that", pool.min, pool.max),
            );
        }
        pool
    }

    fn key(&mut self, file: &At<std::path::PathBuf>) -> Option<Key> {
        match read_key(&file.value) {
            Ok(key) => Some(key),
            Err(what) => {
                self.add("key_file", file.line, format!("{}: {what}", file.value.display()));
                None
            }
        }
    }

    /// Checks one trunk; `None` if it lacks what nothing can be done without.
    pub(super) fn trunk(&mut self, raw: RawTrunk, peers: &[Peer]) -> Option<Trunk> {
        if let Some(name) = &raw.name {
            self.check_name(name);
        }
        if let Some(listen) = raw.listen.as_ref().filter(|listen| listen.value.is_unix()) {
            self.add("listen", listen.line, "a trunk goes over TCP; write host:port");
        }
        self.check_pairs_max(raw.pairs_max.as_ref());
        let allowed: Vec<Allowed> =
            raw.allow.map(|list| list.value.0.into_iter().map(|at| at.value).collect()).unwrap_or_default();
        let names: Vec<Endpoint> = allowed
            .iter()
            .filter_map(|allowed| match allowed {
                Allowed::Name(name) => Some(Endpoint::Name(name.clone())),
                Allowed::Net(_) => None,
            })
            .collect();
        let resolve_every = self.resolve_every(raw.resolve_every, &names);
        let dead_after = self.dead_after(raw.leg.as_ref().and_then(|leg| leg.value.dead_after.clone()));
        let leg = self.leg("leg", raw.leg.map(|leg| leg.value.into()), None);
        let spoof_client =
            raw.server.as_ref().and_then(|leg| leg.value.spoof_client.as_ref()).is_some_and(|at| at.value);
        let server = self.leg("server", raw.server.map(|leg| leg.value.into()), None);
        let timeouts = self.trunk_timeouts(raw.timeouts.map(|timeouts| timeouts.value).unwrap_or_default());
        let onward = self.known("onward", raw.onward, peers, |peer| peer.address.is_some());
        let listen = raw.listen?;
        let loopback = is_loopback(&listen.value);
        let may_come = self.known("peers", raw.peers, peers, |peer| loopback || !peer.plain);
        Some(Trunk {
            name: raw.name.map_or_else(|| listen.value.to_string(), |name| name.value).into(),
            listen: listen.value,
            peers: may_come,
            allow: allowed,
            onward,
            spoof_client,
            send_proxy: raw.send_proxy.and_then(|send| send_proxy(send.value)),
            pairs_max: raw.pairs_max.map(|pairs| pairs.value.0),
            resolve_every,
            leg,
            dead_after,
            server,
            timeouts,
        })
    }

    /// Names that each stand for a peer which will do.
    fn known(
        &mut self,
        key: &str,
        raw: Option<At<OneOrList<Name>>>,
        peers: &[Peer],
        will_do: impl Fn(&Peer) -> bool,
    ) -> Vec<Name> {
        let names = raw.map(|raw| raw.value.0).unwrap_or_default();
        for name in &names {
            match peers.iter().find(|peer| peer.name == name.value) {
                None if self.keyless.contains(&name.value) => {}
                None => self.add(key, name.line, format!("no [[peer]] is called \"{}\"; add one", name.value)),
                Some(peer) if !will_do(peer) && peer.plain => {
                    let what =
                        format!("\"{}\" is plain, and this isn't a loopback address; give it a key_file", name.value);
                    self.add(key, name.line, what);
                }
                Some(peer) if !will_do(peer) => {
                    self.add(
                        key,
                        name.line,
                        format!("\"{}\" has no address to go to; write its `address`", name.value),
                    );
                }
                Some(_) => {}
            }
        }
        names.into_iter().map(|name| name.value).collect()
    }

    /// Checks that each peer that a listener goes through first is known here.
    pub(super) fn check_first_hop(&mut self, via: Option<&At<OneOrList<Name>>>, peers: &[Peer]) {
        let Some(first) = via.and_then(|via| via.value.0.first()) else { return };
        let first = At { value: OneOrList(vec![first.clone()]), line: first.line };
        self.known("via", Some(first), peers, |peer| peer.address.is_some());
    }

    fn trunk_timeouts(&mut self, raw: RawTrunkTimeouts) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            dial: self.period("timeouts.dial", raw.dial).unwrap_or(default.dial),
            idle: self.period("timeouts.idle", raw.idle).unwrap_or(default.idle),
            half_closed: self.period("timeouts.half_closed", raw.half_closed).unwrap_or(default.half_closed),
            header: self.period("timeouts.handshake", raw.handshake).unwrap_or(default.header),
        }
    }
}

/// Connections that a pool may hold at most.
const POOL_MAX: u32 = 65_536;

fn is_loopback(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Ip(addr) if addr.ip().to_canonical().is_loopback())
}

/// Reads a key, which nobody but its owner and a group may be able to read.
fn read_key(path: &Path) -> Result<Key, String> {
    let mut file = File::open(path).map_err(|error| format!("can't read it: {error}; name a readable file"))?;
    let mode = file.metadata().map_err(|error| format!("can't look at it: {error}"))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("anybody can read it (mode {:03o}); chmod 600 it", mode & 0o777));
    }
    let mut text = String::new();
    let read = file.by_ref().take(KEY_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("can't read it: {error}; write 64 hexadecimal digits into it"))?;
    text.trim().parse().map_err(|error| format!("{error}"))
}
