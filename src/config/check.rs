//! Checks of the whole file: the tables that aren't a listener's, and the relations between listeners.

use std::time::Duration;

use super::listener::Checker;
use super::mistake::{At, Mistakes, Place};
use super::raw::{RawConfig, RawDrain, RawLimits, RawListener, RawLog};
use super::value::{Level, List, Period, Size};
use super::{Config, DRAIN_DEFAULT, Limits, Listener, PERIOD_MAX, PIPE_BYTES_DEFAULT};
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
    let raws = match raw.listener {
        Some(At { value: List(list), line }) => {
            if list.is_empty() {
                let place = Place { key: "listener".to_owned(), line };
                mistakes.add(&place, "there is none; add a [[listener]] table with `listen` and `to`");
            }
            list
        }
        None => Vec::new(),
    };
    check_names_and_places(&raws, mistakes);
    let mut listeners: Vec<Listener> = Vec::new();
    for raw in raws {
        let mut checker = Checker { host, limits, mistakes, line: raw.line };
        listeners.extend(checker.listener(raw.value));
    }
    if listeners.is_empty() {
        return None;
    }
    let log_pairs = log.pairs.is_some_and(|pairs| pairs.value);
    Some(Config { admin, limits, drain, log_pairs, log_level: log.level.map(|level| level.value), listeners })
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

/// No two listeners may have the same name or the same address.
fn check_names_and_places(raws: &[At<RawListener>], mistakes: &mut Mistakes) {
    for (index, raw) in raws.iter().enumerate() {
        let earlier = || raws[..index].iter().map(|raw| &raw.value);
        if let Some(listen) = &raw.value.listen {
            let place = Place { key: "listener.listen".to_owned(), line: listen.line };
            let same =
                earlier().filter_map(|other| other.listen.as_ref()).find(|other| other.value.collides(&listen.value));
            if let Some(other) = same {
                let what = format!("{} is taken by the listener on line {}; choose another", listen.value, other.line);
                mistakes.add(&place, what);
                continue;
            }
        }
        let Some((name, line)) = name_of(raw) else {
            continue;
        };
        if let Some(other) = raws[..index].iter().filter_map(name_of).find(|other| other.0 == name) {
            let place = Place { key: "listener.name".to_owned(), line };
            let what =
                format!("\"{name}\" is the name of the listener on line {} too; give each its own `name`", other.1);
            mistakes.add(&place, what);
        }
    }
}

/// A listener's name, the written one or its address, and the line that it comes from.
fn name_of(raw: &At<RawListener>) -> Option<(String, usize)> {
    let raw = &raw.value;
    match (&raw.name, &raw.listen) {
        (Some(name), _) => Some((name.value.clone(), name.line)),
        (None, Some(listen)) => Some((listen.value.to_string(), listen.line)),
        (None, None) => None,
    }
}
