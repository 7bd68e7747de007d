//! Scenarios: the hosts of a path, the links between them, and what is fetched across.
//!
//! A scenario is a TOML file. Its hosts stand in a row: the client, the gateways, the server; there is a link between each two
//! neighbours, and a direct one from the client to the server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::direction::Shape;
use crate::steps::Step;
use crate::units::{Rate, Size, Time};

/// Client, server and gateways at most.
const HOSTS_MAX: usize = 8;
/// Objects at most.
const OBJECTS_MAX: usize = 16;
/// Visits of one object at most.
const REPETITIONS_MAX: u32 = 1000;
/// Segments of a first window at most: its buffers stay below what hosts may use.
const EDGE_WINDOW_MAX: u32 = 10_000;
/// Payload of a segment at an MTU of 1500 with timestamps.
pub(crate) const SEGMENT: u64 = 1448;
/// One full packet; a queue that holds less passes nothing.
const QUEUE_MIN: u64 = 1500;

/// The scenarios that come with the program: their names and their files.
const BUILT_IN: [(&str, &str); 8] = [
    ("pathway", include_str!("../scenarios/pathway.toml")),
    ("pathway-lossy", include_str!("../scenarios/pathway-lossy.toml")),
    ("satellite", include_str!("../scenarios/satellite.toml")),
    ("lossy-edge", include_str!("../scenarios/lossy-edge.toml")),
    ("transpacific", include_str!("../scenarios/transpacific.toml")),
    ("unequal", include_str!("../scenarios/unequal.toml")),
    ("same-region", include_str!("../scenarios/same-region.toml")),
    ("idle-pool", include_str!("../scenarios/idle-pool.toml")),
];

/// A scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name: a built-in one's, or the file's.
    pub name: String,
    /// What it is, in a line.
    pub title: String,
    /// The file as it was written.
    pub text: String,
    /// Decides what chance does to packets.
    pub seed: u64,
    /// Client, gateways, server.
    pub hosts: Vec<String>,
    /// Between neighbours, from the client on; one less than the hosts.
    pub links: Vec<Span>,
    /// From the client to the server.
    pub direct: Span,
    /// What is fetched.
    pub objects: Vec<Object>,
    /// What is tried, in order, unless the command line says otherwise.
    pub steps: Vec<Step>,
    /// Segments that edges may send before the first acknowledgement, on the step that opens them.
    pub edge_window: u32,
}

/// A link between two hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Towards the server.
    pub to_server: Shape,
    /// Towards the client.
    pub to_client: Shape,
}

/// Something that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is called in the table.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// How often it is fetched on each step.
    pub repetitions: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    title: String,
    #[serde(default = "default_seed")]
    seed: u64,
    hosts: Vec<String>,
    steps: Option<Vec<Step>>,
    #[serde(default = "default_edge_window")]
    edge_window: u32,
    link: Vec<RawSpan>,
    direct: RawSpan,
    object: Vec<RawObject>,
}

/// The keys of a link: both ways, and in `to_server` and `to_client` what differs one way.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpan {
    delay: Option<Time>,
    rate: Option<Rate>,
    queue: Option<Size>,
    loss: Option<f64>,
    jitter: Option<Time>,
    reorder: Option<f64>,
    overtake: Option<Time>,
    to_server: Option<RawShape>,
    to_client: Option<RawShape>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShape {
    delay: Option<Time>,
    rate: Option<Rate>,
    queue: Option<Size>,
    loss: Option<f64>,
    jitter: Option<Time>,
    reorder: Option<f64>,
    overtake: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawObject {
    name: String,
    bytes: Size,
    repetitions: u32,
}

const fn default_seed() -> u64 {
    1
}

/// 90 KiB in segments of 1,448 bytes.
const fn default_edge_window() -> u32 {
    64
}

impl Scenario {
    /// The built-in ones: name and title.
    #[must_use]
    pub fn list() -> Vec<(&'static str, String)> {
        let built = |(name, text): (&'static str, &str)| {
            (name, Self::parse(name, text).expect("a test reads every built-in scenario").title)
        };
        BUILT_IN.into_iter().map(built).collect()
    }

    /// Loads a built-in scenario by its name, or a file.
    ///
    /// # Errors
    /// There is none, or the file is wrong: said with its line.
    pub fn load(name: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built, _)| *built == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if path.extension().is_none() && !path.exists() {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("there is no scenario \"{name}\"; give a file that ends in .toml, or one of: {}", names.join(", "));
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("can't read the scenario {name}"))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&stem, &text).map_err(|error| anyhow::anyhow!("{name}: {error:#}"))
    }

    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// It isn't TOML, a key is unknown or missing, or the parts don't fit together.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let raw: RawScenario = toml::from_str(text).map_err(|error| told(&error, text))?;
        let links = raw.link.iter().map(RawSpan::checked).collect::<Result<Vec<_>>>()?;
        let scenario = Self {
            name: name.to_owned(),
            title: raw.title,
            text: text.to_owned(),
            seed: raw.seed,
            hosts: raw.hosts,
            links,
            direct: raw.direct.checked().context("[direct]")?,
            objects: raw.object.into_iter().map(RawObject::checked).collect::<Result<_>>()?,
            steps: raw.steps.unwrap_or_else(|| Step::ALL.to_vec()),
            edge_window: raw.edge_window,
        };
        scenario.check()?;
        Ok(scenario)
    }

    /// Gateways between client and server.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.hosts.len() - 2
    }

    /// From the server over all gateways to the client, packets without length.
    #[must_use]
    pub fn chain_to_client(&self) -> Duration {
        self.links.iter().map(|span| span.to_client.delay).sum()
    }

    /// Bytes that edges may send before the first acknowledgement, on the step that opens them.
    #[must_use]
    pub fn edge_bytes(&self) -> u64 {
        u64::from(self.edge_window) * SEGMENT
    }

    /// Bytes to hold what an edge sends while the first acknowledgement is on its way, and as much again.
    pub(crate) fn edge_buffer(&self) -> u64 {
        self.edge_bytes() * 2
    }

    /// From the client over all gateways to the server and back, packets without length.
    #[must_use]
    pub fn chain_round_trip(&self) -> Duration {
        self.links.iter().map(Span::round_trip).sum()
    }

    /// The least time in which an object can be there, measured from the client's SYN.
    ///
    /// With gateways: a handshake with the nearest one, then the request one way and the answer back over all links, then the
    /// object's bytes at the rate of the slowest link. Directly: the same with the direct link. The smaller of both counts. With
    /// Fast Open the handshake costs nothing (RFC 7413).
    #[must_use]
    pub fn limit(&self, bytes: u64, fast_open: bool) -> Duration {
        let transfer = |rates: &mut dyn Iterator<Item = Option<Rate>>| {
            rates.flatten().min().map_or(Duration::ZERO, |slowest| slowest.time_for(bytes))
        };
        let handshake = |span: &Span| if fast_open { Duration::ZERO } else { span.round_trip() };
        let chain = handshake(&self.links[0])
            + self.chain_round_trip()
            + transfer(&mut self.links.iter().map(|span| span.to_client.rate));
        let direct = handshake(&self.direct)
            + self.direct.round_trip()
            + transfer(&mut std::iter::once(self.direct.to_client.rate));
        chain.min(direct)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            (3..=HOSTS_MAX).contains(&self.hosts.len()),
            "hosts: {} hosts; name a client, 1 to {} gateways and a server",
            self.hosts.len(),
            HOSTS_MAX - 2
        );
        for (place, host) in self.hosts.iter().enumerate() {
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            ensure!(
                !host.is_empty() && host.len() <= 32 && host.bytes().all(good),
                "hosts: \"{host}\": write 1 to 32 of a-z, 0-9 and -"
            );
            ensure!(
                !self.hosts[..place].contains(host),
                "hosts: \"{host}\" stands there twice; give each host its own name"
            );
        }
        let (links, wanted) = (self.links.len(), self.hosts.len() - 1);
        ensure!(
            links == wanted,
            "{links} [[link]] for {} hosts; write {wanted}, one between each two neighbours",
            self.hosts.len()
        );
        ensure!((1..=OBJECTS_MAX).contains(&self.objects.len()), "write 1 to {OBJECTS_MAX} [[object]]");
        ensure!(!self.steps.is_empty(), "steps: none; leave the key out for all of them");
        ensure!(
            (1..=EDGE_WINDOW_MAX).contains(&self.edge_window),
            "edge_window: write 1 to {EDGE_WINDOW_MAX} segments"
        );
        Ok(())
    }
}

impl Span {
    /// There and back, packets without length.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.to_server.delay + self.to_client.delay
    }
}

impl RawSpan {
    fn checked(&self) -> Result<Span> {
        let both = RawShape {
            delay: self.delay,
            rate: self.rate,
            queue: self.queue,
            loss: self.loss,
            jitter: self.jitter,
            reorder: self.reorder,
            overtake: self.overtake,
        };
        let one = |way: Option<RawShape>| way.unwrap_or_default().or(both).checked();
        Ok(Span {
            to_server: one(self.to_server).context("to_server")?,
            to_client: one(self.to_client).context("to_client")?,
        })
    }
}

impl RawShape {
    fn or(self, other: Self) -> Self {
        Self {
            delay: self.delay.or(other.delay),
            rate: self.rate.or(other.rate),
            queue: self.queue.or(other.queue),
            loss: self.loss.or(other.loss),
            jitter: self.jitter.or(other.jitter),
            reorder: self.reorder.or(other.reorder),
            overtake: self.overtake.or(other.overtake),
        }
    }

    fn checked(self) -> Result<Shape> {
        let delay = self.delay.context("a link has no delay; write delay = \"10ms\", one way")?.0;
        let share = |key: &str, share: Option<f64>| {
            let share = share.unwrap_or(0.0);
            ensure!(
                (0.0..1.0).contains(&share),
                "{key} = {share}: write a share of the packets, from 0 to less than 1: 1 % is 0.01"
            );
            Ok(share)
        };
        let queue = self.queue.map(|queue| queue.0);
        ensure!(queue.is_none_or(|queue| queue >= QUEUE_MIN), "queue: less than a packet; write {QUEUE_MIN}B or more");
        ensure!(
            queue.is_none() || self.rate.is_some(),
            "queue without rate: nothing waits there; give the link a rate"
        );
        Ok(Shape {
            delay,
            rate: self.rate,
            queue,
            loss: share("loss", self.loss)?,
            jitter: self.jitter.unwrap_or_default().0,
            reorder: share("reorder", self.reorder)?,
            overtake: self.overtake.map_or(delay / 2, |time| time.0),
        })
    }
}

impl RawObject {
    fn checked(self) -> Result<Object> {
        let Self { name, bytes, repetitions } = self;
        ensure!(
            (1..=REPETITIONS_MAX).contains(&repetitions),
            "object \"{name}\": repetitions = {repetitions}; write 1 to {REPETITIONS_MAX}"
        );
        Ok(Object { name, bytes: bytes.0, repetitions })
    }
}

/// What the reader says, in one line and with the line of the file.
fn told(error: &toml::de::Error, text: &str) -> anyhow::Error {
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    match line {
        Some(line) => anyhow::anyhow!("line {line}: {what}"),
        None => anyhow::anyhow!("{what}"),
    }
}

#[cfg(test)]
mod tests;
