//! Checks of a listener that carries messages: how they're told apart, what bounds they have, and which other keys make no sense
//! with them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use midmile_mux::Bounds;
use midmile_wire::frame::{Framing, LengthPrefix, Line, Order, Program, Resp, Side, VarintPrefix, Width};
use toml::de::DeValue;

use super::listener::Checker;
use super::mistake::{At, Mistakes, Place};
use super::raw::{RawFraming, RawLength, RawListener, RawMessages, RawVarint};
use super::value::{AcceptProxy, Count, Period, Protocol, SendProxy, Size, Value};
use super::{Listener, Messages};

/// The longest message unless the operator says otherwise.
const LEN_MAX_DEFAULT: usize = 64 * 1024;
/// Bytes that the longest message may have: each core has a buffer of that size, and a pool of blocks.
const LEN_MAX_RANGE: RangeInclusive<u64> = 16..=1024 * 1024;
/// Bytes in front of a length: no protocol has more of a header than this.
const OFFSET_MAX: u32 = 1024;
/// Connections that a core keeps to a backend at most.
const UPSTREAMS_MAX: u16 = 1000;
/// Connections that a core keeps to the backends of all listeners together at most. Its multiplexor has room for a few hundred more:
/// transfers of zones have theirs.
const UPSTREAMS_OF_ALL_MAX: u64 = 16_000;

/// Bytes of a program's file; no more of it is read, and no program that may be run has as many, in either form.
const PROGRAM_BYTES_MAX: u64 = 256 * 1024;

/// How messages are told apart, as written: a word, or a table.
#[derive(Clone, Debug)]
pub(super) enum Framed {
    Protocol(Protocol),
    Table(Box<RawFraming>),
}

impl Value for Framed {
    const KIND: &'static str = Protocol::KIND;
    const EXAMPLE: &'static str = Protocol::EXAMPLE;

    fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self> {
        match value.as_table() {
            Some(_) => RawFraming::read(value, place, mistakes).map(|table| Self::Table(Box::new(table))),
            None => Protocol::read(value, place, mistakes).map(Self::Protocol),
        }
    }
}

impl Checker<'_> {
    /// How a listener carries messages; `None` where it carries bytes, or after a mistake was noted.
    pub(super) fn messages(&mut self, raw: &RawListener) -> Option<Messages> {
        let bounds = raw.messages.as_ref();
        let Some(framed) = &raw.framing else {
            if let Some(bounds) = bounds {
                let what = "nothing is carried as messages without it: set framing, or leave `messages` out";
                self.add("messages", bounds.line, what);
            }
            return None;
        };
        self.check_beside_framing(raw);
        let framing = match &framed.value {
            Framed::Protocol(protocol) => framing_of(*protocol),
            Framed::Table(table) => self.framing(table, framed.line)?,
        };
        let message_max = u32::try_from(framing.len_max()).expect("it is in its range");
        let bounds = bounds.map(|at| at.value.clone()).unwrap_or_default();
        let bounds = Bounds { message_max, ..self.bounds(bounds) };
        Some(Messages { framing, bounds, udp: BTreeSet::new() })
    }

    /// What is asked of a connection that one client has for itself can't be asked of one that all share.
    fn check_beside_framing(&mut self, raw: &RawListener) {
        const SHARED: &str =
            "a connection to a backend carries the messages of many clients, so there is no one client to name";
        let accepts = raw.accept_proxy.as_ref().filter(|accept| accept.value != AcceptProxy::Off);
        let sends = raw.send_proxy.as_ref().filter(|send| send.value != SendProxy::Off);
        let spoofs = raw.server.as_ref().and_then(|leg| leg.value.spoof_client.as_ref()).filter(|spoofs| spoofs.value);
        let is_set = |flag: &Option<At<bool>>| flag.as_ref().filter(|flag| flag.value).map(|flag| flag.line);
        let contradicting = [
            (
                "via",
                raw.via.as_ref().filter(|via| !via.value.0.is_empty()).map(|at| at.line),
                "messages go to backends that are dialled from here",
            ),
            (
                "balance",
                raw.balance.as_ref().map(|at| at.line),
                "each request goes to the backend with the fewest unanswered ones",
            ),
            ("early_dial", is_set(&raw.early_dial), "connections to backends stand before a client comes"),
            ("transparent", is_set(&raw.transparent), "backends are the same for all clients"),
            ("accept_proxy", accepts.map(|at| at.line), "a PROXY header is no message"),
            ("send_proxy", sends.map(|at| at.line), SHARED),
            ("server.spoof_client", spoofs.map(|at| at.line), SHARED),
            (
                "timeouts",
                raw.timeouts.as_ref().map(|at| at.line),
                "[listener.messages] has the time limits of messages",
            ),
        ];
        for (key, line, why) in contradicting {
            if let Some(line) = line {
                self.add(key, line, format!("contradicts framing: {why}; leave it out"));
            }
        }
        let per_address = raw.messages.as_ref().and_then(|at| at.value.clients_per_address.as_ref());
        if let (Some(bound), true) = (per_address, raw.listen.as_ref().is_some_and(|listen| listen.value.is_unix())) {
            let what = "contradicts listen: the clients of a Unix-domain socket have no IP address; leave it out";
            self.add("messages.clients_per_address", bound.line, what);
        }
    }

    fn bounds(&mut self, raw: RawMessages) -> Bounds {
        let default = Bounds::default();
        let line = |at: &Option<At<Period>>| at.as_ref().map(|at| at.line);
        let lines = (line(&raw.attempt_timeout), line(&raw.answer_timeout));
        let mut period = |key: &str, raw, default| self.period(&format!("messages.{key}"), raw).unwrap_or(default);
        let message_timeout = period("message_timeout", raw.message_timeout, default.message_timeout);
        let idle_timeout = period("idle_timeout", raw.idle_timeout, default.idle_timeout);
        let answer_timeout = period("answer_timeout", raw.answer_timeout, default.answer_timeout);
        let attempt_timeout = period("attempt_timeout", raw.attempt_timeout, default.attempt_timeout);
        if attempt_timeout > answer_timeout {
            let (key, line) = match lines {
                (Some(line), _) => ("messages.attempt_timeout", line),
                (None, line) => ("messages.answer_timeout", line.unwrap_or(self.line)),
            };
            let shown = [attempt_timeout, answer_timeout].map(|period| humantime::format_duration(period).to_string());
            let what = format!(
                "messages.attempt_timeout = {} is longer than messages.answer_timeout = {}; shorten it or lengthen that",
                shown[0], shown[1]
            );
            self.add(key, line, what);
        }
        let some = 1..=u16::MAX;
        Bounds {
            message_timeout,
            idle_timeout,
            answer_timeout,
            attempt_timeout,
            outstanding_per_client: self
                .within("outstanding_per_client", raw.outstanding_per_client.as_ref(), some.clone())
                .unwrap_or(default.outstanding_per_client),
            clients_per_address: raw.clients_per_address.map_or(default.clients_per_address, |at| at.value.0),
            upstreams_per_backend: self
                .within("upstreams_per_backend", raw.upstreams_per_backend.as_ref(), 1..=UPSTREAMS_MAX)
                .unwrap_or(default.upstreams_per_backend),
            outstanding_per_upstream: self
                .within("outstanding_per_upstream", raw.outstanding_per_upstream.as_ref(), some)
                .unwrap_or(default.outstanding_per_upstream),
            ..default
        }
    }

    /// A number of `[listener.messages]` that has a range.
    fn within(&mut self, key: &str, raw: Option<&At<Count>>, range: RangeInclusive<u16>) -> Option<u16> {
        let At { value: Count(asked), line } = raw?;
        let found = u16::try_from(*asked).ok().filter(|asked| range.contains(asked));
        if found.is_none() {
            let what = format!("{asked} is out of range; write {} to {}", range.start(), range.end());
            self.add(&format!("messages.{key}"), *line, what);
        }
        found
    }

    /// All backends together get the connections that they're promised.
    pub(super) fn check_upstreams(&mut self, checked: &[Listener]) {
        let of = |listener: &Listener| {
            let each = listener.messages.as_ref().map_or(0, |messages| messages.bounds.upstreams_per_backend);
            u64::from(each) * listener.to.len() as u64
        };
        let (Some(last), total) = (checked.last(), checked.iter().map(of).sum::<u64>()) else { return };
        if of(last) > 0 && total > UPSTREAMS_OF_ALL_MAX {
            let what = format!(
                "the backends of all listeners with framing come to {total} connections a core, and it keeps {UPSTREAMS_OF_ALL_MAX}; \
                 lower it"
            );
            self.add("messages.upstreams_per_backend", self.line, what);
        }
    }

    /// The framing that a table stands for.
    fn framing(&mut self, table: &RawFraming, line: usize) -> Option<Framing> {
        let said = [
            ("program", table.program.as_ref().map(|at| at.line)),
            ("line", table.line.as_ref().map(|at| at.line)),
            ("resp", table.resp.as_ref().map(|at| at.line)),
            ("length", table.length.as_ref().map(|at| at.line)),
            ("varint", table.varint.as_ref().map(|at| at.line)),
        ];
        let mut said = said.into_iter().filter_map(|(key, line)| Some((key, line?)));
        let Some((first, _)) = said.next() else {
            // What was meant by a key that isn't known has been told.
            if self.mistakes.is_empty() {
                let what = "it is empty; write one of program, line, resp, length and varint, or \"dns\" in place of the table";
                self.add("framing", line, what);
            }
            return None;
        };
        for (key, line) in said {
            self.add(&format!("framing.{key}"), line, format!("contradicts framing.{first}; leave one of them out"));
        }
        if let (Some(max), None) = (&table.max, &table.program) {
            self.add("framing.max", max.line, format!("it goes with program; write framing.{first}.max"));
        }
        if let Some(file) = &table.program {
            let len_max = self.len_max("max", table.max.as_ref())?;
            return match read_program(&file.value, len_max) {
                Ok(program) => Some(Framing::Program(Arc::new(program))),
                Err(what) => {
                    self.add("framing.program", file.line, format!("{}: {what}", file.value.display()));
                    None
                }
            };
        }
        if let Some(raw) = &table.line {
            return Some(Framing::Line(Line { len_max: self.len_max("line.max", raw.value.max.as_ref())? }));
        }
        if let Some(raw) = &table.resp {
            let len_max = self.len_max("resp.max", raw.value.max.as_ref())?;
            return Some(Framing::Resp(Resp { len_max, side: Side::Commands }));
        }
        if let Some(raw) = &table.length {
            return self.length(&raw.value).map(Framing::Length);
        }
        table.varint.as_ref().and_then(|raw| self.varint(&raw.value)).map(Framing::Varint)
    }

    fn length(&mut self, raw: &RawLength) -> Option<LengthPrefix> {
        let width = match &raw.width {
            None => Width::Four,
            Some(width) => match width.value.0 {
                1 => Width::One,
                2 => Width::Two,
                3 => Width::Three,
                4 => Width::Four,
                8 => Width::Eight,
                other => {
                    self.add(
                        "framing.length.width",
                        width.line,
                        format!("no length has {other} bytes; write 1, 2, 3, 4 or 8"),
                    );
                    return None;
                }
            },
        };
        let prefix = LengthPrefix {
            offset: self.offset("length", raw.offset.as_ref())?,
            width,
            order: raw.endian.as_ref().map_or(Order::Big, |at| at.value),
            adjust: raw.adjust.as_ref().map_or(0, |at| at.value.0.into()),
            len_max: self.len_max("length.max", raw.max.as_ref())?,
        };
        let head = prefix.offset + width.bytes();
        self.check_head("length", raw.offset.as_ref(), raw.max.as_ref(), (head, prefix.len_max))?;
        // The shortest message says 0, or what takes it to the end of its own length; the longest says all that the width holds.
        let (adjust, len_max) = (i128::from(prefix.adjust), prefix.len_max as i128);
        let line = raw.adjust.as_ref().map_or(self.line, |at| at.line);
        let value_max = (1_i128 << (8 * width.bytes())) - 1;
        if head as i128 + adjust > len_max {
            let most = len_max - head as i128;
            let what = format!(
                "with {adjust} more no message fits into framing.length.max = {len_max} bytes; write {most} or less, or raise that"
            );
            self.add("framing.length.adjust", line, what);
            return None;
        }
        if value_max + adjust < 0 {
            let what = format!(
                "a length of {} bytes says {value_max} at most, so every message would end before it; write {} or more",
                width.bytes(),
                -value_max
            );
            self.add("framing.length.adjust", line, what);
            return None;
        }
        Some(prefix)
    }

    /// A message's length has to fit into the message.
    fn check_head(
        &mut self,
        kind: &str,
        offset: Option<&At<Count>>,
        max: Option<&At<Size>>,
        (head, len_max): (usize, usize),
    ) -> Option<()> {
        if head <= len_max {
            return Some(());
        }
        let line = offset.map(|at| at.line).or(max.map(|at| at.line)).unwrap_or(self.line);
        let what = format!(
            "the length ends after {head} bytes, and framing.{kind}.max = {len_max} bytes are a whole message; lower the offset, or \
             raise that"
        );
        self.add(&format!("framing.{kind}.offset"), line, what);
        None
    }

    fn varint(&mut self, raw: &RawVarint) -> Option<VarintPrefix> {
        let offset = self.offset("varint", raw.offset.as_ref())?;
        let len_max = self.len_max("varint.max", raw.max.as_ref())?;
        self.check_head("varint", raw.offset.as_ref(), raw.max.as_ref(), (offset + 1, len_max))?;
        Some(VarintPrefix { offset, len_max })
    }

    fn offset(&mut self, kind: &str, raw: Option<&At<Count>>) -> Option<usize> {
        let Some(At { value: Count(offset), line }) = raw else { return Some(0) };
        if *offset > OFFSET_MAX {
            self.add(
                &format!("framing.{kind}.offset"),
                *line,
                format!("{offset} is out of range; write 0 to {OFFSET_MAX}"),
            );
            return None;
        }
        usize::try_from(*offset).ok()
    }

    fn len_max(&mut self, key: &str, raw: Option<&At<Size>>) -> Option<usize> {
        let Some(At { value: Size(bytes), line }) = raw else { return Some(LEN_MAX_DEFAULT) };
        if !LEN_MAX_RANGE.contains(bytes) {
            self.add(&format!("framing.{key}"), *line, format!("{bytes} bytes are out of range; write 16B to 1MiB"));
            return None;
        }
        usize::try_from(*bytes).ok()
    }
}

/// The framing that a word stands for.
pub(crate) const fn framing_of(protocol: Protocol) -> Framing {
    match protocol {
        Protocol::Dns => Framing::Dns,
        Protocol::Line => Framing::Line(Line { len_max: LEN_MAX_DEFAULT }),
        Protocol::Resp => Framing::Resp(Resp { len_max: LEN_MAX_DEFAULT, side: Side::Commands }),
    }
}

/// Reads a framer's program, and checks that it can be run.
fn read_program(path: &Path, len_max: usize) -> Result<Program, String> {
    let file = File::open(path).map_err(|error| format!("can't read it: {error}; name a readable file"))?;
    let mut bytes = Vec::new();
    let read = file.take(PROGRAM_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| format!("can't read it: {error}; name a readable file"))?;
    Program::parse(&bytes, len_max).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
