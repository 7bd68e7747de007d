//! An echo server (RFC 862), over TCP and UDP.
//!
//! Bytes are sent from where they were received: nothing is copied into memory of its own, and a peer that doesn't read isn't read
//! from either.

#[path = "../common/mod.rs"]
mod common;

use clap::Parser;
use common::{Carrier, Flags, Program};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Cx, DatagramId, Flow, Handler, Incoming, ListenerId, MeterId,
};

/// Sends back what it's sent, over TCP and UDP
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

struct Echo;

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        match cx.admit(incoming, 0, MeterId::NONE) {
            Ok(conn) => cx.read(conn),
            Err(incoming) => cx.refuse(incoming),
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        let sent = cx.send(conn, bytes);
        if sent < bytes.len() {
            cx.pause(conn);
        }
        sent
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, _error: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        // Where there's no room the datagram is lost, as on any way.
        cx.send_to(socket, flow, bytes).ok();
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        cx.stop();
    }
}

impl Program for Echo {
    const DATAGRAMS: bool = true;

    fn again(&self) -> Option<Self> {
        Some(Self)
    }

    fn run_on<B: Carrier>(self, backend: B, flags: &Flags) -> anyhow::Result<()> {
        common::serve(backend, flags, Config::default(), self)
    }
}

fn main() -> anyhow::Result<()> {
    common::run(Echo, &Cli::parse().flags)
}
