//! Measures the links' own errors, for `docs/lab.md`: delay, rate, lateness, loss, and how fast a link without a rate is.
//!
//! ```sh
//! cargo run --release --package midmile-lab --example link_errors
//! ```
//! Needs what the lab needs, and a machine with nothing else to do.

use std::time::Duration;

use anyhow::{Context, Result};
use midmile_lab::direction::Counters;
use midmile_lab::scenario::Scenario;
use midmile_lab::server::Server;
use midmile_lab::steps::Step;
use midmile_lab::topology::{HostOptions, Topology};
use midmile_lab::visit::{self, Visit};

const HANDSHAKES: u32 = 200;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const BYTES: u64 = 100 << 20;

fn main() -> Result<()> {
    let link = Link::build("delay = \"10ms\"")?;
    let mut above = Duration::ZERO;
    for _ in 0..HANDSHAKES {
        above += link.visit(1000)?.connect.saturating_sub(ROUND_TRIP);
    }
    println!("a handshake over a round trip of 20 ms takes {:?} more, mean of {HANDSHAKES}", above / HANDSHAKES);

    let link = Link::build("delay = \"10ms\", rate = \"500Mbit\", queue = \"16MiB\"")?;
    let visit = link.visit(BYTES)?;
    let carried = link.close()?;
    let late = carried.late / u32::try_from(carried.deliveries).unwrap_or(u32::MAX).max(1);
    let took = visit.download.saturating_sub(visit.ttfb);
    println!("{BYTES} bytes at 500 Mbit/s: {took:?} from first to last, {} on the wire", carried.bytes);
    println!("deliveries were late by {late:?} on average, {:?} at most", carried.late_max);

    let link = Link::build("delay = \"1ms\", loss = 0.01")?;
    link.visit(BYTES)?;
    let carried = link.close()?;
    println!("{} of {} packets were lost with loss = 0.01", carried.losses, carried.packets);

    let visit = Link::build("delay = \"1ms\"")?.visit(10 * BYTES)?;
    println!("{} bytes without a rate: {:?}", 10 * BYTES, visit.download);
    Ok(())
}

/// A client and a server with one link between them.
struct Link {
    topology: Topology,
    _server: Server,
}

impl Link {
    fn build(direct: &str) -> Result<Self> {
        let text = format!(
            "title = \"errors\"\nhosts = [\"client\", \"gateway\", \"server\"]\ndirect = {{ {direct} }}\n\
             link = [{{ delay = \"1ms\" }}, {{ delay = \"1ms\" }}]\n\
             object = [{{ name = \"any\", bytes = \"1kB\", repetitions = 1 }}]\n"
        );
        let topology = Topology::build(&Scenario::parse("errors", &text)?, HostOptions::default())?;
        let server = Server::start(topology.server(), "reno")?;
        Ok(Self { topology, _server: server })
    }

    fn visit(&self, bytes: u64) -> Result<Visit> {
        visit::from(self.topology.client(), Step::EndToEnd.target(), bytes, "reno", false)
    }

    /// What the link has carried towards the client.
    fn close(self) -> Result<Counters> {
        Ok(self.topology.close()?.pop().context("the direct link comes last")?.to_client)
    }
}
