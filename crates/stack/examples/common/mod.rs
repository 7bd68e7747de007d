//! What the examples share: flags, cores on the backend that was asked for, and the end by a signal.

mod carrier;
mod crew;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
pub(crate) use carrier::Carrier;
use clap::{Args, ValueEnum};
use crew::Crew;
use midmile_engine::kernel::Kernel;
use midmile_engine::sim::Sim;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{Backend, Config, Core, Cx, DatagramId, DatagramOptions, Handler, LegOptions};
use midmile_stack::{Stack, StackConfig, Tun, Xdp, XdpConfig, XdpDevice};

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
    /// No network: one client in a simulated world of faults asks what stands on standard input
    Sim,
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
    /// Connections at once, on each core
    #[arg(long, value_name = "N", default_value = "20000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) conns_max: u32,
    /// For io_uring: how long waiting spins on the device's queue (NAPI busy-poll, Linux 6.9), in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    busy_poll: Option<u32>,
    /// For sim: what its faults are drawn from; the same seed is the same run
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// The cores that run it.
    #[arg(skip)]
    crew: Arc<Crew>,
}

/// A program that runs on any backend.
pub(crate) trait Program: Sized + Send {
    /// Whether it's reached by UDP too, on the same port.
    const DATAGRAMS: bool;

    /// The same program for another core; `None` where it can only be in one place.
    fn again(&self) -> Option<Self>;

    /// Makes a core of the program on `backend` and runs it: a call of [`serve`].
    fn run_on<B: Carrier>(self, backend: B, flags: &Flags) -> anyhow::Result<()>;
}

/// Runs `program` on the backend that `flags` name.
pub(crate) fn run(program: impl Program, flags: &Flags) -> anyhow::Result<()> {
    match flags.backend {
        BackendName::Epoll => program.run_on(Kernel::new()?, flags),
        BackendName::IoUring => program.run_on(uring(flags)?, flags),
        BackendName::Xdp => run_on_queues(program, flags),
        BackendName::Tun => {
            let config = stack_config(flags)?;
            let tun = Tun::open(flags.device()?, &config.addresses)?;
            program.run_on(Stack::new(tun, config)?, flags)
        }
        BackendName::Sim => program.run_on(Sim::new(flags.seed, true), flags),
    }
}

/// A ring, which spins if it should.
fn uring(flags: &Flags) -> anyhow::Result<Uring> {
    let napi_busy_poll = flags.busy_poll.map(|micros| Duration::from_micros(micros.into()));
    let uring = Uring::new(UringConfig { napi_busy_poll, ..UringConfig::default() })?;
    anyhow::ensure!(
        uring.gauges().napi || napi_busy_poll.is_none(),
        "this kernel's io_uring knows no NAPI busy-poll: it needs Linux 6.9; leave --busy-poll out"
    );
    Ok(uring)
}

/// Runs `program` on a device: a core for each of its receive queues, since the device chooses by which of them a connection comes.
fn run_on_queues(program: impl Program, flags: &Flags) -> anyhow::Result<()> {
    let config = stack_config(flags)?;
    let name = flags.device()?;
    let device = XdpDevice::attach(name, None)?;
    let count = device.queues();
    let open = |queue| device.open(queue, &XdpConfig::default(), &config);
    let queues = (0..count).map(open).collect::<Result<Vec<Xdp>, _>>()?;
    let mut programs = vec![program];
    while programs.len() < queues.len() {
        programs.push(programs[0].again().with_context(|| {
            format!(
                "{name} has {count} receive queues with XDP on it, and this program has one core, which serves one: \
                 `ethtool -L {name} combined 1` leaves it one"
            )
        })?);
    }
    let copies = queues.iter().filter(|queue| !queue.is_zero_copy()).count();
    eprintln!("{name}: XDP {}, {count} queues, {copies} of them by copying", device.mode());
    let flags = Flags { crew: Arc::new(Crew::of(queues.len())), ..flags.clone() };
    thread::scope(|scope| {
        let run = |(program, queue)| scope.spawn(|| run_on_queue(program, queue, &config, &flags));
        let cores: Vec<_> = programs.into_iter().zip(queues).map(run).collect();
        let joined = cores.into_iter().map(|core| core.join().unwrap_or_else(|_| anyhow::bail!("a core panicked")));
        joined.fold(Ok(()), anyhow::Result::and)
    })
}

fn run_on_queue(program: impl Program, queue: Xdp, config: &StackConfig, flags: &Flags) -> anyhow::Result<()> {
    // However this core ends, the others do as well.
    let _end = flags.crew.ended_by();
    program.run_on(Stack::new(queue, config.clone())?, flags)
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

/// Has `backend` carry `program`.
pub(crate) fn serve<B: Carrier, H: Program + Handler<B>>(
    backend: B,
    flags: &Flags,
    config: Config,
    program: H,
) -> anyhow::Result<()> {
    let config = Config { conns_max: flags.conns_max, ..config };
    let mut core = Core::new(backend, config, program);
    let cx = core.parts().1;
    let at = open(cx, flags.listen, H::DATAGRAMS).with_context(|| format!("can't listen on {}", flags.listen))?;
    B::carry(core, at, flags)
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
