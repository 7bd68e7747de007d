//! What carries a program's bytes, and brings it those who ask.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use midmile_engine::kernel::Kernel;
use midmile_engine::sim::{Script, Sim};
use midmile_engine::uring::Uring;
use midmile_engine::{Backend, Core, Handler, Waker};
use midmile_stack::Stack;
use midmile_stack::link::Link;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Flags;

/// The most that a simulated client asks.
const ASKED_BYTES_MAX: u64 = 1 << 20;
/// How long it waits for its answers, by the simulation's clock.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

pub(crate) trait Carrier: Backend + Sized {
    /// Runs a core that listens at `at` for whoever comes, until a signal says that it should end. The last of the cores that can be
    /// reached prints a line `ready listen=ADDRESS:PORT`.
    fn carry<H: Handler<Self>>(mut core: Core<Self, H>, at: SocketAddr, flags: &Flags) -> anyhow::Result<()> {
        let waker = Waker::new()?;
        core.parts().1.backend().watch_waker(&waker)?;
        if flags.crew.join(waker) {
            let mut signals = Signals::new([SIGINT, SIGTERM])?;
            let crew = flags.crew.clone();
            thread::spawn(move || signals.forever().for_each(|_| crew.end()));
            println!("ready listen={at}");
        }
        Ok(core.run()?)
    }
}

impl Carrier for Kernel {}
impl Carrier for Uring {}
impl<D: Link> Carrier for Stack<D> {}

impl Carrier for Sim {
    /// Has one client ask what stands on standard input, and end; what it hears goes to standard output.
    fn carry<H: Handler<Self>>(mut core: Core<Self, H>, at: SocketAddr, flags: &Flags) -> anyhow::Result<()> {
        let mut asked = Vec::new();
        io::stdin().take(ASKED_BYTES_MAX + 1).read_to_end(&mut asked)?;
        anyhow::ensure!(asked.len() as u64 <= ASKED_BYTES_MAX, "standard input has more than {ASKED_BYTES_MAX} bytes");
        let world = core.parts().1.backend();
        let script = Script { preamble: asked, ..Script::default() };
        let client = world.client_to(&at.into(), Duration::ZERO, script).context("nothing listens")?;
        let until = world.now().after(PATIENCE);
        while !core.parts().1.backend().remote(client).is_over() {
            anyhow::ensure!(core.parts().1.backend().now() < until, "seed {}: the client waits for ever", flags.seed);
            core.turn()?;
        }
        let client = core.parts().1.backend().remote(client);
        io::stdout().write_all(client.received())?;
        anyhow::ensure!(client.saw_end(), "seed {}: the client's connection was reset", flags.seed);
        Ok(())
    }
}
