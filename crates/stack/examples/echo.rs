//! One echo server, above the kernel's TCP or above a TCP of its own: the handler doesn't know which.
//!
//! ```text
//! echo epoll 0.0.0.0:7000
//! echo xdp 0.0.0.0:7000 DEVICE     takes TCP packets to port 7000 of the device's addresses from the kernel
//! ```

use std::error::Error;
use std::time::Duration;

use midmile_engine::kernel::Kernel;
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use midmile_stack::{Stack, StackConfig, XdpConfig, XdpDevice};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The token of a connection whose peer has finished.
const FINISHED: u64 = 1;

struct Echo;

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        if let Ok(id) = cx.admit(incoming, 0, MeterId::NONE) {
            cx.read(id);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        let sent = cx.send(conn, bytes);
        if token == FINISHED && sent == bytes.len() {
            cx.close(conn);
        }
        sent
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        // What found no room is still to be sent.
        if cx.left_over(conn) == 0 {
            cx.close(conn);
        } else {
            cx.rename(conn, FINISHED, MeterId::NONE);
        }
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}
}

fn serve<B: Backend>(backend: B, at: &Addr) -> Result<(), Box<dyn Error>> {
    let config = Config { conns_max: 32_768, ..Config::default() };
    let mut core = Core::new(backend, config, Echo);
    let options = LegOptions { keepalive: Some(Duration::from_mins(1)), ..LegOptions::default() };
    let (_, at) = core.parts().1.listen_at(at, &options, BACKLOG)?;
    println!("listening on {at}");
    Ok(core.run()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: echo epoll ADDRESS:PORT, or echo xdp ADDRESS:PORT DEVICE";
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [backend, at, rest @ ..] = &words[..] else { return Err(usage.into()) };
    let at: std::net::SocketAddr = at.parse()?;
    match (&backend[..], rest) {
        ("epoll", []) => serve(Kernel::new()?, &Addr::Inet(at)),
        ("xdp", [device]) => {
            let device = XdpDevice::attach(device, None)?;
            let config = StackConfig {
                addresses: device.addresses(),
                listen_ports: vec![at.port()..=at.port()],
                ..StackConfig::default()
            };
            let queue = device.open(0, &XdpConfig::default(), &config)?;
            println!("{} mode, {}", device.mode(), if queue.is_zero_copy() { "zero-copy" } else { "copying" });
            serve(Stack::new(queue, config)?, &Addr::Inet(at))
        }
        _ => Err(usage.into()),
    }
}
