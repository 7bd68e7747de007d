//! Checks of the whole file: the tables that aren't a listener's, and the relations between listeners.

use std::time::Duration;

use midmile_gateway::WaitBy;
use midmile_wire::trunk::Name;

use super::listener::Checker;
use super::mistake::{At, Mistakes, Place};
use super::raw::{RawConfig, RawDrain, RawLimits, RawListener, RawLog, RawPeer, RawTrunk};
use super::transparent::check_early;
use super::value::{Level, List, Period, Size, WindowBy};
use super::{BUSY_POLL_MAX, Config, DRAIN_DEFAULT, Limits, Listener, PERIOD_MAX, PIPE_BYTES_DEFAULT, Peer, Trunk};
use crate::addr::Endpoint;
use crate::host::Host;

/// Fewest and most bytes that a buffer or pipe may be asked to have. Below a page the kernel rounds up anyhow.
pub(super) const SIZE_MIN: u64 = 4096;
pub(super) const SIZE_MAX: u64 = 1 << 30;

/// Makes the checked configuration; `None` after mistakes were noted, and mistakes may be noted beside a result.
pub(super) fn check(raw: RawConfig, host: &Host, mistakes: &mut Mistakes) -> Option<Config> {
    let admin = raw.admin.and_then(|admin| admin.value.listen).and_then(|listen| check_admin(listen, mistakes));
    let limits = check_limits(raw.limits.map(|limits| limits.value).unwrap_or_default(), host, mistakes);
    let drain = check_drain(raw.drain.map(|drain| drain.value).unwrap_or_default(), mistakes);
    let log = raw.log.map(|log| log.value).unwrap_or_default();
    check_log(&log, mistakes);
    let gateway = raw.gateway.map(|gateway| gateway.value).unwrap_or_default();
    let window_by = gateway.window_by.map_or_else(WindowBy::default, |by| by.value);
    let wait_by = gateway.wait_by.map_or_else(WaitBy::default, |by| by.value);
    let busy_poll = check_busy_poll(gateway.busy_poll, mistakes);
    let friends_dir = gateway.friends_dir.map(|dir| dir.value);
    let gateway = gateway.name;
    let list_line = raw.listener.as_ref().map_or(1, |list| list.line);
    let (listeners, peers, trunks) = (tables(raw.listener), tables(raw.peer), tables(raw.trunk));
    if listeners.is_empty() && trunks.is_empty() && mistakes.is_empty() {
        let place = Place { key: "listener".to_owned(), line: list_line };
        mistakes.add(&place, "there is none; add a [[listener]] table with `listen` and `to`");
    }
    check_gateway(gateway.as_ref(), &peers, &trunks, mistakes);
    check_names_and_places(&listeners, &trunks, mistakes);
    check_early(&listeners, mistakes);
    let mut checker = Checker { host, limits, wait_by, mistakes, table: "peer", line: 0, keyless: Vec::new() };
    let mut checked_peers: Vec<Peer> = Vec::new();
    for raw in peers {
        checker.line = raw.line;
        checked_peers.extend(checker.peer(raw.value));
    }
    checker.table = "listener";
    let mut checked_listeners: Vec<Listener> = Vec::new();
    for raw in listeners {
        checker.line = raw.line;
        checker.check_first_hop(raw.value.via.as_ref(), &checked_peers);
        checked_listeners.extend(checker.listener(raw.value));
        checker.check_upstreams(&checked_listeners);
    }
    checker.table = "trunk";
    let mut checked_trunks: Vec<Trunk> = Vec::new();
    for raw in trunks {
        checker.line = raw.line;
        checked_trunks.extend(checker.trunk(raw.value, &checked_peers));
    }
    let log_pairs = log.pairs.is_some_and(|pairs| pairs.value);
    Some(Config {
        admin,
        limits,
        drain,
        log_pairs,
        log_level: log.level.map(|level| level.value),
        gateway: gateway.map(|name| name.value),
        window_by,
        wait_by,
        busy_poll,
        friends_dir,
        listeners: checked_listeners,
        peers: checked_peers,
        trunks: checked_trunks,
    })
}

/// The tables of a list that may be left out.
fn tables<T>(raw: Option<At<List<T>>>) -> Vec<At<T>> {
    raw.map(|list| list.value.0).unwrap_or_default()
}

/// A gateway with peers has a name of its own, and so has each of them.
fn check_gateway(name: Option<&At<Name>>, peers: &[At<RawPeer>], trunks: &[At<RawTrunk>], mistakes: &mut Mistakes) {
    let first = peers.iter().map(|peer| peer.line).chain(trunks.iter().map(|trunk| trunk.line)).min();
    if let (None, Some(line)) = (name, first) {
        let place = Place { key: "gateway.name".to_owned(), line };
        mistakes
            .add(&place, "it is missing; add a [gateway] table with this gateway's `name`, by which its peers know it");
    }
    for (index, peer) in peers.iter().enumerate() {
        let Some(own) = &peer.value.name else { continue };
        let place = Place { key: "peer.name".to_owned(), line: own.line };
        if name.is_some_and(|name| name.value == own.value) {
            mistakes.add(&place, format!("\"{}\" is this gateway's own name; write the peer's", own.value));
        }
        let same =
            peers[..index].iter().filter_map(|other| other.value.name.as_ref()).find(|other| other.value == own.value);
        if let Some(other) = same {
            let what =
                format!("\"{}\" is the name of the peer on line {} too; give each its own", own.value, other.line);
            mistakes.add(&place, what);
        }
    }
}

fn check_admin(listen: At<Endpoint>, mistakes: &mut Mistakes) -> Option<Endpoint> {
    if listen.value.is_unix() {
        let place = Place { key: "admin.listen".to_owned(), line: listen.line };
        mistakes.add(&place, "the admin server speaks HTTP over TCP only; write host:port, such as 127.0.0.1:9400");
        return None;
    }
    Some(listen.value)
}

fn check_limits(raw: RawLimits, host: &Host, mistakes: &mut Mistakes) -> Limits {
    let at = |key: &str, line| Place { key: format!("limits.{key}"), line };
    let cores = raw.cores.and_then(|cores| match (cores.value.0, host.cpus) {
        (0, _) => {
            mistakes
                .add(&at("cores", cores.line), "0 loops serve nobody; write 1 or more, or leave it out for all CPUs");
            None
        }
        (asked, cpus) if asked > u32::from(cpus) => {
            let what = format!("{asked} loops and {cpus} CPUs that the process may use; write at most {cpus}");
            mistakes.add(&at("cores", cores.line), what);
            None
        }
        (asked, _) => u16::try_from(asked).ok(),
    });
    if let Some(pairs) = raw.pairs_max.as_ref().filter(|pairs| pairs.value.0 == 0) {
        mistakes.add(&at("pairs_max", pairs.line), "0 pairs serve nobody; write 1 or more");
    }
    let pipe_bytes = raw.pipe_size.and_then(|size| check_size(&size, &at("pipe_size", size.line), mistakes));
    Limits {
        cores,
        pairs_max: raw.pairs_max.map(|pairs| pairs.value.0),
        pipes_max: raw.pipes_max.map(|pipes| pipes.value.0),
        pipe_bytes: pipe_bytes.unwrap_or(PIPE_BYTES_DEFAULT),
    }
}

/// The bytes of a size within its range.
pub(super) fn check_size(size: &At<Size>, place: &Place, mistakes: &mut Mistakes) -> Option<u32> {
    let bytes = size.value.0;
    if (SIZE_MIN..=SIZE_MAX).contains(&bytes) {
        return u32::try_from(bytes).ok();
    }
    mistakes.add(place, format!("{bytes} bytes are out of range; write 4KiB to 1GiB"));
    None
}

/// A duration that is neither nothing nor without end.
pub(super) fn check_period(period: &At<Period>, place: &Place, mistakes: &mut Mistakes) -> Option<Duration> {
    let duration = period.value.0;
    if duration.is_zero() {
        mistakes.add(place, "no time at all; write more than 0s");
        return None;
    }
    if duration > PERIOD_MAX {
        mistakes.add(place, "longer than a year; write 365days or less");
        return None;
    }
    Some(duration)
}

fn check_drain(raw: RawDrain, mistakes: &mut Mistakes) -> Duration {
    let place = |line| Place { key: "drain.timeout".to_owned(), line };
    match raw.timeout {
        // Nothing is a sensible answer here: cut at once.
        Some(At { value: Period(Duration::ZERO), .. }) => Duration::ZERO,
        Some(period) => check_period(&period, &place(period.line), mistakes).unwrap_or(DRAIN_DEFAULT),
        None => DRAIN_DEFAULT,
    }
}

fn check_busy_poll(asked: Option<At<Period>>, mistakes: &mut Mistakes) -> Duration {
    let Some(At { value: Period(period), line }) = asked else { return Duration::ZERO };
    if period > BUSY_POLL_MAX {
        let place = Place { key: "gateway.busy_poll".to_owned(), line };
        mistakes.add(
            &place,
            format!(
                "{}: a loop that looks for so long keeps its CPU from all others; write 1s or less",
                humantime::format_duration(period)
            ),
        );
    }
    period
}

fn check_log(raw: &RawLog, mistakes: &mut Mistakes) {
    if let (Some(pairs), Some(level)) = (&raw.pairs, &raw.level)
        && pairs.value
        && level.value < Level::Info
    {
        let place = Place { key: "log.pairs".to_owned(), line: pairs.line };
        mistakes.add(
            &place,
            "contradicts log.level: pairs are logged at \"info\"; write level = \"info\" or pairs = false",
        );
    }
}

/// Something that listens: what it's called, the name given to it, and where it is.
struct Standing<'a> {
    table: &'static str,
    name: Option<&'a At<String>>,
    listen: Option<&'a At<Endpoint>>,
}

impl Standing<'_> {
    /// Its name, the written one or its address, and the line that it comes from.
    fn name(&self) -> Option<(String, usize)> {
        match (self.name, self.listen) {
            (Some(name), _) => Some((name.value.clone(), name.line)),
            (None, Some(listen)) => Some((listen.value.to_string(), listen.line)),
            (None, None) => None,
        }
    }
}

/// No two listeners or trunks may have the same name or the same address.
fn check_names_and_places(listeners: &[At<RawListener>], trunks: &[At<RawTrunk>], mistakes: &mut Mistakes) {
    let standing: Vec<Standing<'_>> = listeners
        .iter()
        .map(|at| Standing { table: "listener", name: at.value.name.as_ref(), listen: at.value.listen.as_ref() })
        .chain(trunks.iter().map(|at| Standing {
            table: "trunk",
            name: at.value.name.as_ref(),
            listen: at.value.listen.as_ref(),
        }))
        .collect();
    for (index, one) in standing.iter().enumerate() {
        let earlier = &standing[..index];
        if let Some(listen) = one.listen {
            let same = earlier.iter().filter_map(|other| Some((other, other.listen?)));
            if let Some((other, at)) = { same }.find(|(_, at)| at.value.collides(&listen.value)) {
                let place = Place { key: format!("{}.listen", one.table), line: listen.line };
                let what =
                    format!("{} is taken by the {} on line {}; choose another", listen.value, other.table, at.line);
                mistakes.add(&place, what);
                continue;
            }
        }
        let Some((name, line)) = one.name() else { continue };
        let same =
            earlier.iter().find_map(|other| other.name().filter(|(theirs, _)| *theirs == name).map(|at| (other, at.1)));
        if let Some((other, at)) = same {
            let place = Place { key: format!("{}.name", one.table), line };
            let what =
                format!("\"{name}\" is the name of the {} on line {at} too; give each its own `name`", other.table);
            mistakes.add(&place, what);
        }
    }
}
