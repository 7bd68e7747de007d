//! `midmile`: a TCP relay and accelerator for Linux.
//!
//! This binary is the control side. It reads what the operator wrote, checks it, and hands a plan to the data path
//! (`midmile_gateway`), which runs on threads of its own; then it supervises, on one Tokio thread beside them.
//!
//! ```text
//! cli ──► command/relay, command/mux ┐
//!         command/gateway ──► config ┴─► supervise ──► Fleet (the data path)
//!                                         │  resolve   names → addresses → plan
//!                                         │  health    which backends may be used
//!                                         │  early     clients' SYNs, windows: programs in the kernel
//!                                         │  friends   legs that ask for them
//!                                         │  admin     metrics, status, probes
//!                                         └─ logging   events, and pairs at their end
//!         command/friends ──► midmile_kernel: programs on a cgroup
//!         command/status ◄── the admin server of a midmile that runs
//!         command/friends ─► becomes another program, with the preload library (`midmile_friends_preload`) loaded into it
//!         command/lab ─► midmile_lab, which starts this binary again in the hosts that it makes
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod addr;
mod admin;
mod cli;
mod command;
mod config;
mod descriptors;
mod doctor;
mod early;
mod exit;
mod framers;
mod friends;
mod health;
mod host;
mod intercept;
mod limits;
mod logging;
mod notify;
mod resolve;
mod signals;
mod supervise;
mod windows;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Relay(args) => command::relay::run(&args),
        cli::Command::Mux(args) => command::mux::run(&args),
        cli::Command::Gateway(args) => command::gateway::run(&args),
        cli::Command::Check(args) => command::check::run(&args),
        cli::Command::Status(args) => command::status::run(&args),
        cli::Command::Doctor(args) => command::doctor::run(&args),
        cli::Command::Friends(args) => command::friends::run(&args),
        cli::Command::Lab(args) => command::lab::run(&args),
        cli::Command::Completions(args) => command::pages::completions(&args),
        cli::Command::Man(args) => command::pages::man(&args),
        cli::Command::Keys => command::pages::keys(),
    };
    exit::code(&outcome)
}
