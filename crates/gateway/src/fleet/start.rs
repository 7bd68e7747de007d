//! Starting the cores: a thread each, pinned to a CPU, with a loop that waits for its sockets by what the plan says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, channel, sync_channel};

use midmile_engine::kernel::{self, Kernel, Listener};
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{Allowance, Backend, Config, Core, Mesh, Seat};

use super::{CoreHandle, Fleet, StartError};
use crate::plan::WaitBy;
use crate::relay::{Parts, Relay};
use crate::report::PairReport;

/// SYNs that may wait for a core; those beyond it find their clients served without early dial.
const SYNS_MAX: usize = 1024;

/// How a core's backend is made, for so many connections.
type Make<B> = fn(u32) -> io::Result<B>;

fn epoll(_: u32) -> io::Result<Kernel> {
    Kernel::new()
}

fn io_uring(conns_max: u32) -> io::Result<Uring> {
    // A closed connection keeps its place until what it still sends has gone.
    let sockets_max = conns_max.saturating_add(conns_max / 4);
    Uring::new(UringConfig { sockets_max, ..UringConfig::default() }).map_err(io::Error::other)
}

impl Fleet {
    /// Starts a core on each of `cpus`. After an error some may run.
    pub(super) fn start_cores(&mut self, cpus: &[u32], reports: &SyncSender<PairReport>) -> Result<(), StartError> {
        match self.limits.wait_by {
            WaitBy::Epoll => self.start_by(epoll, cpus, reports),
            WaitBy::IoUring => self.start_by(io_uring, cpus, reports),
        }
    }

    fn start_by<B>(&mut self, make: Make<B>, cpus: &[u32], reports: &SyncSender<PairReport>) -> Result<(), StartError>
    where
        B: Backend<Listener = Listener> + 'static,
    {
        let limits = self.limits;
        let pairs = Arc::new(Allowance::new(limits.pairs_max, limits.cores));
        let beside = limits.pooled_max.saturating_add(limits.upstreams_max);
        let conns_max = limits.pairs_max.saturating_mul(2).saturating_add(beside);
        let (_, seats) = Mesh::new(limits.cores, conns_max)?;
        for (seat, cpu) in seats.into_iter().zip(cpus) {
            let core = self.start_core(make, seat, *cpu, pairs.clone(), reports.clone())?;
            self.cores.push(core);
        }
        Ok(())
    }

    fn start_core<B>(
        &self,
        make: Make<B>,
        seat: Seat<B::Parcel>,
        cpu: u32,
        pairs: Arc<Allowance>,
        reports: SyncSender<PairReport>,
    ) -> Result<CoreHandle, StartError>
    where
        B: Backend<Listener = Listener> + 'static,
    {
        let pooled_max = share(self.limits.pooled_max, self.limits.cores);
        let (sender, orders) = channel();
        let (syns, heard) = sync_channel(SYNS_MAX);
        let waker = seat.waker().clone();
        let core = seat.core().0;
        // One core may hold all pairs; together they hold no more than the seats allow.
        let upstreams_max = self.limits.upstreams_max.div_ceil(u32::from(self.limits.cores));
        let conns_max = pairs.max().saturating_mul(2).saturating_add(pooled_max).saturating_add(upstreams_max);
        let config = Config {
            conns_max,
            // A message is told of as a whole.
            read_bytes: Config::DEFAULT.read_bytes.max(self.limits.message_max as usize),
            pipes_max: share(self.limits.pipes_max, self.limits.cores),
            pipe_bytes: self.limits.pipe_bytes,
            busy_poll: self.limits.busy_poll,
            ..Config::default()
        };
        let parts = Parts {
            core,
            pairs,
            pooled_max,
            counters: self.watch.cores[usize::from(core)].clone(),
            orders,
            syns: heard,
            reports,
        };
        let (begun, has_begun) = sync_channel(1);
        let run = move || {
            let (core, answer) = match prepare(cpu, make, config, parts, seat) {
                Ok(core) => {
                    let pulse = core.pulse();
                    (Some(core), Ok(pulse))
                }
                Err(error) => (None, Err(error)),
            };
            // The starter waits for this word, so it's there to take it.
            begun.send(answer).ok();
            core.map_or(Ok(()), |mut core| core.run())
        };
        let thread = std::thread::Builder::new().name(format!("midmile-core{core}")).spawn(run)?;
        let pulse = has_begun.recv().map_err(io::Error::other)??;
        Ok(CoreHandle { cpu, orders: sender, given: AtomicU64::new(0), syns, waker, pulse, thread })
    }
}

/// Puts the calling thread on its CPU and makes its core.
fn prepare<B: Backend<Listener = Listener>>(
    cpu: u32,
    make: Make<B>,
    config: Config,
    parts: Parts<Listener>,
    seat: Seat<B::Parcel>,
) -> io::Result<Core<B, Relay<Listener>>> {
    kernel::pin_to(cpu)?;
    Core::seated(make(config.conns_max)?, config, Relay::new(parts), seat)
}

/// What one core gets of something that all share.
pub(super) fn share(all: u32, cores: u16) -> u32 {
    all.div_ceil(u32::from(cores.max(1))).max(1)
}
