//! A visit as a picture: time runs to the right, each host is a line, each packet that matters leads from one line to another.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::emulator::Sighting;
use crate::report::TracedVisit;
use crate::scenario::Scenario;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 110.0;
const TOP: f64 = 24.0;
const ROW: f64 = 46.0;

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// Opens it.
    Syn,
    /// Accepts it.
    SynAck,
    /// The first bytes towards the server: a request or a hello.
    Hello,
    /// The first bytes towards the client.
    FirstData,
    /// The last ones.
    LastData,
}

/// A packet on its way between two hosts. Times count from the visit's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrow {
    pub(crate) mark: Mark,
    /// Places of the hosts.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) left: Duration,
    pub(crate) arrived: Duration,
}

impl Mark {
    const fn style(self) -> (&'static str, &'static str) {
        match self {
            Self::Syn => ("SYN", "#8250df"),
            Self::SynAck => ("SYN-ACK", "#bf8fff"),
            Self::Hello => ("request or hello", "#0969da"),
            Self::FirstData => ("first data", "#1a7f37"),
            Self::LastData => ("last data", "#cf222e"),
        }
    }

    pub(crate) const ALL: [Self; 5] = [Self::Syn, Self::SynAck, Self::Hello, Self::FirstData, Self::LastData];
}

/// The packets that matter: of each link, those of the connection that carried most.
pub(crate) fn arrows(trace: &TracedVisit, hosts: usize) -> Vec<Arrow> {
    let mut connections: BTreeMap<(usize, SocketAddr, SocketAddr), Vec<&Sighting>> = BTreeMap::new();
    for sighting in &trace.sightings {
        let tcp = &sighting.tcp;
        let (near, far) =
            if sighting.to_server { (tcp.source, tcp.destination) } else { (tcp.destination, tcp.source) };
        connections.entry((sighting.link, near, far)).or_default().push(sighting);
    }
    let mut heaviest: BTreeMap<usize, Vec<&Sighting>> = BTreeMap::new();
    let carried = |seen: &[&Sighting]| seen.iter().map(|sighting| sighting.tcp.payload).sum::<usize>();
    for ((link, ..), seen) in connections {
        let best = heaviest.entry(link).or_default();
        if carried(&seen) > carried(best) {
            *best = seen;
        }
    }
    let mut arrows = Vec::new();
    for (link, seen) in heaviest {
        // The direct link comes after those of the row.
        let ends = if link + 1 < hosts { (link, link + 1) } else { (0, hosts - 1) };
        arrows.extend(marked(&seen).into_iter().map(|(mark, sighting)| arrow(mark, sighting, ends, trace.visit.began)));
    }
    arrows
}

/// The packets of one connection that have a name.
fn marked<'a>(seen: &[&'a Sighting]) -> Vec<(Mark, &'a Sighting)> {
    let data = |to_server: bool| seen.iter().filter(move |one| one.to_server == to_server && one.tcp.payload > 0);
    let syn = |ack: bool| seen.iter().find(|one| one.tcp.syn && one.tcp.ack == ack);
    let found = [
        (Mark::Syn, syn(false)),
        (Mark::SynAck, syn(true)),
        (Mark::Hello, data(true).next()),
        (Mark::FirstData, data(false).next()),
        (Mark::LastData, data(false).next_back()),
    ];
    found.into_iter().filter_map(|(mark, one)| Some((mark, *one?))).collect()
}

fn arrow(mark: Mark, sighting: &Sighting, ends: (usize, usize), began: Instant) -> Arrow {
    let (from, to) = if sighting.to_server { ends } else { (ends.1, ends.0) };
    let since = |moment: Instant| moment.saturating_duration_since(began);
    Arrow { mark, from, to, left: since(sighting.entered), arrived: since(sighting.arrived) }
}

/// The picture as SVG. `span` is the time that its whole width stands for, the same in all pictures that are to be compared.
pub(crate) fn draw(trace: &TracedVisit, scenario: &Scenario, span: Duration) -> String {
    let hosts = &scenario.hosts;
    let rows = f64::from(u32::try_from(hosts.len()).expect("a scenario has few hosts"));
    let height = TOP + ROW * rows;
    let mut svg = format!("<svg viewBox=\"0 0 {} {height}\" role=\"img\">", LEFT + WIDTH + 20.0);
    let x = |time: Duration| LEFT + WIDTH * (time.as_secs_f64() / span.as_secs_f64()).min(1.0);
    let y = |host: usize| TOP + ROW * (f64::from(u32::try_from(host).expect("a scenario has few hosts")) + 0.5);
    for step in 0..=8 {
        let time = span * step / 8;
        let (at, bottom) = (x(time), height - 4.0);
        put(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"18\" y2=\"{bottom:.1}\"/>"),
        );
        put(
            &mut svg,
            format_args!("<text class=\"tick\" x=\"{at:.1}\" y=\"12\">{:.0} ms</text>", time.as_secs_f64() * 1e3),
        );
    }
    for (place, host) in hosts.iter().enumerate() {
        let at = y(place);
        put(
            &mut svg,
            format_args!(
                "<line class=\"host\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                LEFT + WIDTH
            ),
        );
        put(&mut svg, format_args!("<text x=\"4\" y=\"{:.1}\">{host}</text>", at + 4.0));
    }
    for arrow in arrows(trace, hosts.len()) {
        let (name, colour) = arrow.mark.style();
        let (x1, y1, x2, y2) = (x(arrow.left), y(arrow.from), x(arrow.arrived), y(arrow.to));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        put(
            &mut svg,
            format_args!(
                "<g stroke=\"{colour}\" fill=\"{colour}\"><line class=\"packet\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
            ),
        );
        put(
            &mut svg,
            format_args!(
                "<circle cx=\"{x2:.1}\" cy=\"{y2:.1}\" r=\"3\"/><title>{name}: {:.1} to {:.1} ms</title></g>",
                ms(arrow.left),
                ms(arrow.arrived)
            ),
        );
    }
    svg + "</svg>"
}

/// What the colours mean, as HTML.
pub(crate) fn legend() -> String {
    let entry = |mark: Mark| {
        let (name, colour) = mark.style();
        format!("<span style=\"color:{colour}\">●</span> {name}")
    };
    Mark::ALL.map(entry).join(" &nbsp; ")
}

fn put(svg: &mut String, more: std::fmt::Arguments<'_>) {
    write!(svg, "{more}").expect("a string takes any text");
}

#[cfg(test)]
mod tests;
