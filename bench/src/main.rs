//! midmile beside its peers: one command, one table.
//!
//! `midmile-bench relay` builds client – proxy – server out of network namespaces and drives the same load through
//! midmile, other proxies, plain routing (the limit) and a bare splice loop (the floor), interleaved in one run.
//!
//! ```text
//!  relay ──► lab (netns) ──► comparison: rows (bulk, rr, crr, idle, slow, fair) ──► report (table, targets), publication
//!    │                         │            │
//!    │                         │            └── window, measure: counters, perf, schedstat, memory
//!    │                         └── stage: one server, one proxy (peers), load clients
//!    └── host, choice, installed: what can be measured; workplace: the turn on this machine, and a janitor,
//!        a child that kills and deletes what is left, however this process ends
//! ```
//!
//! `midmile-bench trunk` puts two gateways with a pool between them beside one relay, in the same lab.
//!
//! `midmile-bench curve` puts servers on the engine beside others: rate over connections, in a lab of two namespaces.
//!
//! `midmile-bench mux` puts the multiplexor of DNS over TCP beside dnsdist, in the lab of `relay`.
//!
//! Load generators and the launcher that enters a namespace are hidden subcommands of this same binary.
#![forbid(unsafe_code)]

mod choice;
mod comparison;
mod cpus;
mod curve;
mod hog;
mod host;
mod installed;
mod janitor;
mod judgement;
mod lab;
mod launch;
mod load;
mod machine;
mod measure;
mod mux;
mod namespace;
mod peers;
mod ports;
mod publication;
mod quiet;
mod relay;
mod report;
mod rows;
mod stage;
mod table;
mod targets;
mod trunk;
mod turn;
mod window;
mod workplace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// midmile beside its peers.
#[derive(Debug, Parser)]
#[command(name = "midmile-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the relay beside its peers and print the table (needs root: it makes network namespaces).
    Relay(relay::Options),
    /// Measure two gateways with a trunk beside one relay and print the ratios (needs root).
    Trunk(trunk::Options),
    /// Measure servers on the engine beside others, from one connection to thousands (needs root).
    Curve(curve::Options),
    /// Measure DNS over TCP through the multiplexor, through dnsdist, and without a proxy (needs root).
    Mux(mux::Options),
    /// Take a CPU for a part of each while, for a bounded time.
    #[command(hide = true)]
    Hog(hog::Hog),
    /// Enter a network namespace, pin to a CPU, run a command.
    #[command(hide = true)]
    InNs(launch::InNs),
    /// One load generator or the server it talks to.
    #[command(hide = true, subcommand)]
    Load(load::Load),
    /// Wait for the parent's end, then remove what it made.
    #[command(hide = true)]
    Janitor,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the bench quotes the last line of its children.
            eprintln!("midmile-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Relay(options) => relay::run(&options),
        Command::Trunk(options) => trunk::run(&options),
        Command::Curve(options) => curve::run(&options),
        Command::Mux(options) => mux::run(&options),
        Command::Hog(hog) => hog::run(&hog),
        Command::InNs(args) => launch::enter_and_exec(&args),
        Command::Load(load) => load::run(&load),
        Command::Janitor => janitor::run(),
    }
}
