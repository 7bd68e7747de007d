//! The servers of `midmile-bench curve`: one program, one server a run.
//!
//! Each answers messages that carry their length: it reads the length, waits for the whole message, and sends it back in a
//! frame of its own ([`frames`]). No server may take one read for one message. All are single-threaded, listen on the same kind of
//! socket ([`listening`]), and are written as well as their kind allows; what differs is how they wait, read and write.
//!
//! ```text
//!  tokio    a task a connection on tokio's current_thread runtime
//!  monoio   a task a connection on monoio's io_uring driver
//!  epoll    a hand-written loop: epoll_wait, recv, send
//!  uring    a hand-written io_uring loop: multishot accept and receive, provided buffers, batched sends
//!  midmile  a handler on midmile-engine, the backend by `--backend`
//! ```
//!
//! Unsafe code lives in `uring::sys` alone: io_uring has no other way in.
#![deny(unsafe_code)]

mod epoll;
mod frames;
mod listening;
mod midmile;
mod on_monoio;
mod on_tokio;
mod uring;

use std::net::SocketAddrV4;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// One server of the curve.
#[derive(Debug, Parser)]
#[command(name = "midmile-bench-server", about)]
struct Cli {
    #[command(subcommand)]
    server: Server,
}

#[derive(Debug, Subcommand)]
enum Server {
    /// tokio, current_thread.
    Tokio(At),
    /// monoio on io_uring.
    Monoio(At),
    /// A plain epoll loop.
    Epoll(At),
    /// A plain io_uring loop.
    Uring(At),
    /// midmile-engine.
    Midmile(midmile::Options),
}

/// Where a server listens.
#[derive(Debug, clap::Args)]
struct At {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddrV4,
}

fn main() -> ExitCode {
    match run(&Cli::parse().server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("midmile-bench-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(server: &Server) -> Result<()> {
    match server {
        Server::Tokio(at) => on_tokio::run(at.listen),
        Server::Monoio(at) => on_monoio::run(at.listen),
        Server::Epoll(at) => epoll::run(at.listen),
        Server::Uring(at) => uring::run(at.listen),
        Server::Midmile(options) => midmile::run(options),
    }
}
