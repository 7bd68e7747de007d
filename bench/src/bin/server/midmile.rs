//! midmile-engine: one handler, whatever carries its bytes.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use midmile_engine::kernel::Kernel;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};

use crate::frames;

/// Options of the server.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddrV4,
    /// What carries the bytes.
    #[arg(long, value_enum)]
    backend: Carrier,
}

/// The backends.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Carrier {
    /// The kernel's TCP by epoll.
    Epoll,
    /// The kernel's TCP by io_uring.
    Uring,
}

/// Connections at once; memory for them is touched as they come.
const CONNS_MAX: u32 = 65_536;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 8192;

/// Serves for ever.
pub(crate) fn run(options: &Options) -> Result<()> {
    let at = Addr::Inet(options.listen.into());
    match options.backend {
        Carrier::Epoll => serve(Kernel::new().context("start epoll")?, &at),
        Carrier::Uring => {
            let config = UringConfig { sockets_max: CONNS_MAX, ..UringConfig::default() };
            serve(Uring::new(config).context("start io_uring")?, &at)
        }
    }
}

/// Runs the handler on a backend.
fn serve<B: Backend>(mut backend: B, at: &Addr) -> Result<()> {
    let listen = LegOptions { keepalive: None, ..LegOptions::default() };
    let (listener, _) = backend.listen(at, &listen, BACKLOG).context("listen")?;
    let config = Config { conns_max: CONNS_MAX, pipes_max: 0, ..Config::default() };
    let mut core = Core::new(backend, config, Echo { owed: HashMap::new() });
    let (_, cx) = core.parts();
    cx.listen(listener).context("watch the listener")?;
    core.run().context("the loop")
}

/// Sends each message back.
struct Echo {
    /// Answers that found no room, of connections that aren't read meanwhile.
    owed: HashMap<ConnId, Vec<u8>>,
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        match cx.admit(incoming, 0, MeterId::NONE) {
            Ok(conn) => cx.read(conn),
            Err(incoming) => cx.refuse(incoming),
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, bytes: &[u8]) -> usize {
        let Ok(whole) = frames::whole(bytes) else {
            cx.reset(conn);
            return bytes.len();
        };
        if whole > 0 {
            let sent = cx.send(conn, &bytes[..whole]);
            if sent < whole {
                self.owed.insert(conn, bytes[sent..whole].to_vec());
                cx.pause(conn);
            }
        }
        whole
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        let Some(mut bytes) = self.owed.remove(&conn) else { return };
        let sent = cx.send(conn, &bytes);
        if sent == bytes.len() {
            cx.read(conn);
        } else {
            bytes.drain(..sent);
            self.owed.insert(conn, bytes);
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        self.owed.remove(&conn);
        cx.close(conn);
    }

    fn on_error(&mut self, _: &mut Cx<B>, conn: ConnId, _: u64, _: ConnError) {
        self.owed.remove(&conn);
    }
}
