//! What the examples share: flags, a core on the backend that was asked for, and the end by a signal.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use midmile_engine::kernel::Kernel;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{Backend, Config, Core, Cx, DatagramId, DatagramOptions, Handler, LegOptions, Waker};
use midmile_stack::{Stack, StackConfig, Tun, XdpConfig, XdpDevice};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BackendName {
    /// The kernel's TCP and UDP, by epoll
    Epoll,
    /// The kernel's TCP and UDP, by io_uring
    #[value(name = "io_uring")]
    IoUring,
    /// A TCP of its own on a network device, by AF_XDP: packets to the port are taken from the kernel
    Xdp,
    /// A TCP of its own at the other end of a TUN device, for trying out
    Tun,
}

/// Flags of every example.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// What carries the bytes
    #[arg(long, value_enum, default_value = "epoll")]
    pub(crate) backend: BackendName,
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The device, for xdp and tun: one that has the address to listen on, or the TUN device to be made
    #[arg(long, value_name = "NAME", required_if_eq_any([("backend", "xdp"), ("backend", "tun")]))]
    pub(crate) device: Option<String>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "20000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) conns_max: u32,
}

/// A program that runs on any backend.
pub(crate) trait Program: Sized {
    /// Whether it's reached by UDP too, on the same port.
    const DATAGRAMS: bool;

    /// Makes a core of the program on `backend` and runs it: a call of [`serve`].
    fn run_on<B: Backend>(self, backend: B, flags: &Flags) -> anyhow::Result<()>;
}

/// Runs `program` on the backend that `flags` name.
pub(crate) fn run(program: impl Program, flags: &Flags) -> anyhow::Result<()> {
    match flags.backend {
        BackendName::Epoll => program.run_on(Kernel::new()?, flags),
        BackendName::IoUring => program.run_on(Uring::new(UringConfig::default())?, flags),
        BackendName::Xdp => {
            let config = stack_config(flags)?;
            let name = flags.device()?;
            let device = XdpDevice::attach(name, None)?;
            let queues = device.queues();
            anyhow::ensure!(
                queues == 1,
                "{name} has {queues} receive queues, and one core serves one: `ethtool -L {name} combined 1` leaves it one"
            );
            let queue = device.open(0, &XdpConfig::default(), &config)?;
            program.run_on(Stack::new(queue, config)?, flags)
        }
        BackendName::Tun => {
            let config = stack_config(flags)?;
            let tun = Tun::open(flags.device()?, &config.addresses)?;
            program.run_on(Stack::new(tun, config)?, flags)
        }
    }
}

impl Flags {
    fn device(&self) -> anyhow::Result<&str> {
        self.device.as_deref().context("this backend needs --device")
    }
}

/// A stack with the address and the port to listen on. The kernel has to be kept from a port of the stack's, so it's chosen beforehand.
fn stack_config(flags: &Flags) -> anyhow::Result<StackConfig> {
    let (ip, port) = (flags.listen.ip(), flags.listen.port());
    anyhow::ensure!(!ip.is_unspecified() && port != 0, "this backend needs --listen with an address and a port");
    Ok(StackConfig {
        addresses: vec![ip],
        listen_ports: vec![port..=port],
        datagram_ports: vec![port..=port],
        flows_max: flags.conns_max.max(1024),
        ..StackConfig::default()
    })
}

/// Runs `program` until a signal says that it should end, and prints a line `ready listen=ADDRESS:PORT` once it can be reached.
pub(crate) fn serve<B: Backend, H: Program + Handler<B>>(
    backend: B,
    flags: &Flags,
    config: Config,
    program: H,
) -> anyhow::Result<()> {
    let config = Config { conns_max: flags.conns_max, ..config };
    let mut core = Core::new(backend, config, program);
    let cx = core.parts().1;
    let waker = Waker::new()?;
    cx.backend().watch_waker(&waker)?;
    let at = open(cx, flags.listen, H::DATAGRAMS).with_context(|| format!("can't listen on {}", flags.listen))?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().for_each(|_| waker.wake()));
    println!("ready listen={at}");
    Ok(core.run()?)
}

/// Listens, and binds the same port for datagrams if need be.
fn open<B: Backend>(cx: &mut Cx<B>, at: SocketAddr, datagrams: bool) -> anyhow::Result<SocketAddr> {
    /// Ports that are tried, where any will do: one that is free for TCP may be taken for UDP.
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let (listener, reached) = cx.listen_at(&at.into(), &LegOptions::default(), BACKLOG)?;
        let reached = reached.inet().context("an address of the network was asked for")?;
        if !datagrams {
            return Ok(reached);
        }
        match bind(cx, reached) {
            Ok(_) => return Ok(reached),
            Err(_) if at.port() == 0 => cx.unlisten(listener),
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("no port is free for both TCP and UDP")
}

fn bind<B: Backend>(cx: &mut Cx<B>, at: SocketAddr) -> io::Result<DatagramId> {
    // Room for what comes while a batch is answered.
    let options =
        DatagramOptions { recv_buffer: Some(4 << 20), send_buffer: Some(4 << 20), ..DatagramOptions::default() };
    cx.bind(at, &options)
}
