//! midmile-engine: one handler, whatever carries its bytes.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use midmile_engine::kernel::Kernel;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Frame, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use midmile_stack::{Stack, StackConfig, Xdp, XdpConfig, XdpDevice};
use midmile_wire::frame::{LengthPrefix, Order, Width};

use crate::frames::MESSAGE_BYTES_MAX;

/// The protocol of [`crate::frames`].
const FRAMES: LengthPrefix =
    LengthPrefix { offset: 0, width: Width::Four, order: Order::Big, adjust: 0, len_max: MESSAGE_BYTES_MAX };

/// Options of the server.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddrV4,
    /// What carries the bytes.
    #[arg(long, value_enum)]
    backend: Carrier,
    /// The device whose packets to the port are taken from the kernel (xdp).
    #[arg(long, required_if_eq("backend", "xdp"))]
    device: Option<String>,
    /// Packets that may wait while the server is off its core (xdp); a power of two.
    #[arg(long, default_value_t = 4096)]
    frames: u32,
    /// Microseconds for which the server looks for more after each event before it sleeps.
    #[arg(long, default_value_t = 0)]
    busy_poll_us: u64,
}

/// The backends.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Carrier {
    /// The kernel's TCP by epoll.
    Epoll,
    /// The kernel's TCP by io_uring.
    Uring,
    /// A TCP in user space, smoltcp, above AF_XDP.
    Xdp,
}

/// Connections at once; memory for them is touched as they come.
const CONNS_MAX: u32 = 65_536;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 8192;

/// Serves for ever.
pub(crate) fn run(options: &Options) -> Result<()> {
    let at = Addr::Inet(options.listen.into());
    match options.backend {
        Carrier::Epoll => serve(Kernel::new().context("start epoll")?, &at, options),
        Carrier::Uring => {
            // Messages are small: fewer cache lines are touched in turn, and less memory.
            let config = UringConfig { sockets_max: CONNS_MAX, recv_buffer_bytes: 512, ..UringConfig::default() };
            serve(Uring::new(config).context("start io_uring")?, &at, options)
        }
        Carrier::Xdp => serve(stack(options)?, &at, options),
    }
}

/// A stack above the first queue of the device.
fn stack(options: &Options) -> Result<Stack<Xdp>> {
    let port = options.listen.port();
    let config = StackConfig {
        addresses: vec![(*options.listen.ip()).into()],
        listen_ports: vec![port..=port],
        flows_max: CONNS_MAX,
        receive_bytes: MESSAGE_BYTES_MAX,
        send_bytes: MESSAGE_BYTES_MAX,
        ..StackConfig::default()
    };
    let device = XdpDevice::attach(options.device.as_deref().context("--device")?, None).context("attach")?;
    let frames = XdpConfig { rx_frames: options.frames, tx_frames: options.frames / 2, ..XdpConfig::default() };
    let queue = device.open(0, &frames, &config).context("open a queue")?;
    Stack::new(queue, config).context("start the stack")
}

/// Runs the handler on a backend.
fn serve<B: Backend>(backend: B, at: &Addr, options: &Options) -> Result<()> {
    let listen = LegOptions { keepalive: None, ends_if_killed: true, ..LegOptions::default() };
    let busy_poll = Duration::from_micros(options.busy_poll_us);
    let config = Config { conns_max: CONNS_MAX, pipes_max: 0, busy_poll, ..Config::default() };
    let mut core = Core::new(backend, config, Echo { owed: HashMap::new() });
    let (_, cx) = core.parts();
    cx.listen_at(at, &listen, BACKLOG).context("listen")?;
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
            Ok(conn) => cx.read_messages(conn),
            Err(incoming) => cx.refuse(incoming),
        }
    }

    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        // Only messages are asked for.
        bytes.len()
    }

    fn frame(&mut self, _: ConnId, _: u64, bytes: &[u8]) -> Frame {
        FRAMES.measure(bytes).into()
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, message: &[u8]) {
        let sent = cx.send(conn, message);
        if sent < message.len() {
            self.owed.insert(conn, message[sent..].to_vec());
            cx.pause(conn);
        }
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        let Some(mut bytes) = self.owed.remove(&conn) else { return };
        let sent = cx.send(conn, &bytes);
        if sent == bytes.len() {
            cx.read_messages(conn);
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
