//! How each kind of value is read from TOML, and what is said when it can't be.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use midmile_gateway::{Balance, WaitBy};
use midmile_wire::frame::Order;
use midmile_wire::trunk::Name;
use toml::de::{DeArray, DeValue};

use super::mistake::{At, Mistakes, Place};
use crate::addr::{Backend, Endpoint};

/// A kind of value.
pub(super) trait Value: Sized {
    /// What the reference page calls it.
    const KIND: &'static str;
    /// What the reference page calls it where a list of them may stand as well.
    const KIND_OR_LIST: &'static str = "one or a list";
    /// One, as it is written in the file.
    const EXAMPLE: &'static str;

    /// Reads one; `None` after a mistake was noted.
    fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self>;
}

/// A value that stands alone, so that a mistake in it is one line.
pub(super) trait Scalar: Sized {
    const KIND: &'static str;
    const KIND_OR_LIST: &'static str = "one or a list";
    const EXAMPLE: &'static str;

    /// `None`: of another type. `Err`: of the type, and wrong.
    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>>;
}

impl<T: Scalar> Value for T {
    const KIND: &'static str = T::KIND;
    const KIND_OR_LIST: &'static str = T::KIND_OR_LIST;
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self> {
        match T::scalar(value) {
            Some(Ok(scalar)) => Some(scalar),
            Some(Err(what)) => {
                mistakes.add(place, what);
                None
            }
            None => {
                mistakes.add(place, wrong_type(value, T::KIND, T::EXAMPLE));
                None
            }
        }
    }
}

/// What is said of a value of another type than its key wants.
pub(super) fn wrong_type(value: &DeValue<'_>, kind: &str, example: &str) -> String {
    let found = value.type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("this is {article} {found} where {kind} belongs; write it like {example}")
}

impl Scalar for String {
    const KIND: &'static str = "text";
    const EXAMPLE: &'static str = "\"web\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| Ok(text.to_owned()))
    }
}

impl Scalar for bool {
    const KIND: &'static str = "`true` or `false`";
    const EXAMPLE: &'static str = "true";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_bool().map(Ok)
    }
}

/// A whole number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl Scalar for Count {
    const KIND: &'static str = "a number";
    const EXAMPLE: &'static str = "100";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let integer = value.as_integer()?;
        let count = u32::from_str_radix(integer.as_str(), integer.radix());
        Some(count.map(Self).map_err(|_| format!("{} is out of range; write 0 to {}", integer.as_str(), u32::MAX)))
    }
}

/// A whole number, which may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i32);

impl Scalar for Whole {
    const KIND: &'static str = "a number";
    const EXAMPLE: &'static str = "-4";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let integer = value.as_integer()?;
        let whole = i32::from_str_radix(integer.as_str(), integer.radix());
        Some(
            whole
                .map(Self)
                .map_err(|_| format!("{} is out of range; write {} to {}", integer.as_str(), i32::MIN, i32::MAX)),
        )
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

impl Scalar for Period {
    const KIND: &'static str = "a duration";
    const EXAMPLE: &'static str = "\"5s\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| parse_period(text).map(Self))
    }
}

/// Reads a duration such as `5s`, `1m 30s` or `250ms`.
pub(crate) fn parse_period(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        format!("\"{text}\" is not a duration; write a number with its unit (ms, s, m, h), such as 5s or 1m30s")
    })
}

/// Something that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrOff<T> {
    On(T),
    Off,
}

impl Scalar for OrOff<Period> {
    const KIND: &'static str = "a duration or `\"off\"`";
    const EXAMPLE: &'static str = "\"5s\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        match value.as_str() {
            Some("off") => Some(Ok(Self::Off)),
            _ => Period::scalar(value).map(|period| period.map(Self::On)),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl Scalar for Size {
    const KIND: &'static str = "a size";
    const EXAMPLE: &'static str = "\"64KiB\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| parse_size(text).map(Self))
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>();
    size.map(|size| size.as_u64()).map_err(|_| {
        format!("\"{text}\" is not a size; write a number with its unit (B, KiB, MiB, GiB), such as 64KiB or 1MiB")
    })
}

/// A number of bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u64);

/// Units of a rate, in bits a second; the longest name first.
const RATE_UNITS: [(&str, u64); 4] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Scalar for Rate {
    const KIND: &'static str = "a rate";
    const EXAMPLE: &'static str = "\"480Mbit\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| {
            parse_rate(text).map(Self).ok_or_else(|| {
                format!(
                    "\"{text}\" is not a rate; write bits a second with their unit (kbit, Mbit, Gbit), such as 480Mbit"
                )
            })
        })
    }
}

/// Bytes a second, at least one.
fn parse_rate(text: &str) -> Option<u64> {
    let (number, bits) = RATE_UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)))?;
    let rate = number.trim_end().parse::<u64>().ok()?.checked_mul(bits)? / 8;
    (rate > 0).then_some(rate)
}

impl Scalar for Name {
    const KIND: &'static str = "a gateway's name";
    const KIND_OR_LIST: &'static str = "a gateway's name or a list of them";
    const EXAMPLE: &'static str = "\"oregon\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        Some(text.parse().map_err(|error| format!("\"{text}\": {error}")))
    }
}

impl Scalar for PathBuf {
    const KIND: &'static str = "a path";
    const EXAMPLE: &'static str = "\"/etc/midmile/peer.key\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| Ok(Self::from(text)))
    }
}

impl Scalar for Endpoint {
    const KIND: &'static str = "an address";
    const KIND_OR_LIST: &'static str = "an address or a list of them";
    const EXAMPLE: &'static str = "\"127.0.0.1:80\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        Some(text.parse().map_err(|error| format!("\"{text}\": {error}")))
    }
}

/// Where connections go on to, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To where the client wanted to go.
    Original,
    Backend(Backend),
}

impl Scalar for Target {
    const KIND: &'static str = <Endpoint as Scalar>::KIND;
    const KIND_OR_LIST: &'static str = "an address or a list of them, or `\"original\"`";
    const EXAMPLE: &'static str = <Endpoint as Scalar>::EXAMPLE;

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        if text == "original" {
            return Some(Ok(Self::Original));
        }
        Some(text.parse().map(Self::Backend).map_err(|error| format!("\"{text}\": {error}")))
    }
}

impl Scalar for IpNet {
    const KIND: &'static str = "a network";
    const EXAMPLE: &'static str = "\"10.0.0.0/8\"";

    fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(parse_net)
    }
}

pub(super) fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a network; write address/bits, such as 10.0.0.0/8 or 2001:db8::/32"))?;
    if net.trunc() != net {
        let short = net.trunc();
        return Err(format!(
            "{net} has bits set beyond its prefix; write {short}, or {} for that host alone",
            net.addr()
        ));
    }
    Ok(net)
}

/// One of a few words.
trait Choice: Copy + 'static {
    const KIND: &'static str;
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! choice {
    ($type:ty, $kind:literal, $first:literal => $one:expr $(, $word:literal => $value:expr)*) => {
        impl Choice for $type {
            const KIND: &'static str = $kind;
            const WORDS: &'static [(&'static str, Self)] = &[($first, $one) $(, ($word, $value))*];
        }

        impl Scalar for $type {
            const KIND: &'static str = <Self as Choice>::KIND;
            const EXAMPLE: &'static str = concat!("\"", $first, "\"");

            fn scalar(value: &DeValue<'_>) -> Option<Result<Self, String>> {
                value.as_str().map(choose)
            }
        }
    };
}

fn choose<T: Choice>(text: &str) -> Result<T, String> {
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("\"{text}\" is not a choice here; write {}", words.join(" or "))
    })
}

/// PROXY protocol wanted from clients, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptProxy {
    Off,
    V1,
    V2,
    Any,
}

/// PROXY protocol sent to servers, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendProxy {
    Off,
    V1,
    V2,
}

/// Messages of a kind that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Dns,
    Line,
    Resp,
}

/// By what windows are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WindowBy {
    /// The first that can be had, a leg at a time.
    #[default]
    Auto,
    /// The program in the kernel, or nothing.
    Ebpf,
    /// Routes, or nothing.
    Route,
    /// Padding on trunks, or nothing.
    Traffic,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

choice!(Balance, "`\"round-robin\"` or `\"least-connections\"`",
    "round-robin" => Balance::RoundRobin, "least-connections" => Balance::LeastConnections);
choice!(AcceptProxy, "`\"off\"`, `\"v1\"`, `\"v2\"` or `\"any\"`",
    "off" => Self::Off, "v1" => Self::V1, "v2" => Self::V2, "any" => Self::Any);
choice!(SendProxy, "`\"off\"`, `\"v1\"` or `\"v2\"`", "off" => Self::Off, "v1" => Self::V1, "v2" => Self::V2);
choice!(Protocol, "`\"dns\"`, `\"line\"`, `\"resp\"` or a table", "dns" => Self::Dns, "line" => Self::Line, "resp" => Self::Resp);
choice!(Order, "`\"big\"` or `\"little\"`", "big" => Self::Big, "little" => Self::Little);
choice!(WindowBy, "`\"auto\"`, `\"ebpf\"`, `\"route\"` or `\"traffic\"`", "auto" => Self::Auto, "ebpf" => Self::Ebpf,
    "route" => Self::Route, "traffic" => Self::Traffic);
choice!(WaitBy, "`\"epoll\"` or `\"io_uring\"`", "epoll" => WaitBy::Epoll, "io_uring" => WaitBy::IoUring);
choice!(Level, "`\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"` or `\"trace\"`", "error" => Self::Error,
    "warn" => Self::Warn, "info" => Self::Info, "debug" => Self::Debug, "trace" => Self::Trace);

/// A list whose members each have a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<At<T>>);

/// A list, or its one member alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneOrList<T>(pub(super) Vec<At<T>>);

/// Reads every member; `None` if any of them couldn't be read, so that nobody takes the rest for all.
fn members<T: Value>(values: &DeArray<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Vec<At<T>>> {
    let mut list = Vec::new();
    for value in values.iter() {
        let line = mistakes.line(&value.span());
        let place = Place { key: place.key.clone(), line };
        list.push(T::read(value.get_ref(), &place, mistakes).map(|value| At { value, line }));
    }
    list.into_iter().collect()
}

impl<T: Value> Value for List<T> {
    const KIND: &'static str = "a list";
    const EXAMPLE: &'static str = "[…]";

    fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self> {
        let Some(values) = value.as_array() else {
            let table = T::EXAMPLE.starts_with('[');
            let example = if table { T::EXAMPLE.to_owned() } else { format!("[{}]", T::EXAMPLE) };
            mistakes.add(place, wrong_type(value, "a list", &example));
            return None;
        };
        members(values, place, mistakes).map(Self)
    }
}

impl<T: Value> Value for OneOrList<T> {
    const KIND: &'static str = T::KIND_OR_LIST;
    const EXAMPLE: &'static str = T::EXAMPLE;

    fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self> {
        if let Some(values) = value.as_array() {
            return members(values, place, mistakes).map(Self);
        }
        let line = place.line;
        T::read(value, place, mistakes).map(|value| Self(vec![At { value, line }]))
    }
}
