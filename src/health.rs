//! Health checks: a connection to each backend now and then, closed again at once.
//!
//! A check reads no data and sends none: it says that something accepts there. A backend that is asked over UDP is checked alike: all that
//! doesn't fit a datagram needs its TCP, and whether datagrams are answered shows by the answers. The verdict is a flag that the cores read when
//! they choose a backend; open pairs aren't touched by it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use midmile_engine::{Addr, UnixAddr};
use midmile_gateway::{Backend, HealthCheck, Plan};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Checks under way at once: bounds the descriptors they take.
const CHECKS_MAX: usize = 16;

/// Starts checking every backend of `plan` that is to be checked; dropping the set ends it. Health itself is kept by the
/// backends, so a reload that keeps a backend keeps its health.
pub(crate) fn watch(plan: &Plan) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CHECKS_MAX));
    for route in &plan.routes {
        for backend in route.backends.backends() {
            let Some(check) = route.backends.health() else {
                // It may be the object of an earlier plan that had checks.
                backend.set_healthy(true);
                continue;
            };
            tasks.spawn(keep_checking(Arc::clone(&route.name), Arc::clone(backend), check, Arc::clone(&slots)));
        }
    }
    tasks
}

async fn keep_checking(route: Arc<str>, backend: Arc<Backend>, check: HealthCheck, slots: Arc<Semaphore>) {
    let mut streak = Streak::new(backend.is_healthy());
    let mut ticks = interval(check.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(slot) = slots.acquire().await else {
            return;
        };
        let result = timeout(check.timeout, connect(backend.addrs())).await;
        drop(slot);
        let result = result.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        let Some(healthy) = streak.handle_result(check, result.is_ok()) else {
            continue;
        };
        backend.set_healthy(healthy);
        match result {
            Ok(()) => tracing::info!(route = &*route, backend = &**backend.name(), "backend is healthy again"),
            Err(error) => {
                tracing::warn!(route = &*route, backend = &**backend.name(), %error, "backend is unhealthy: no new pairs go there");
            }
        }
    }
}

/// Connects to the first of `addrs` that accepts.
async fn connect(addrs: &[Addr]) -> io::Result<()> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in addrs {
        let done = match addr {
            Addr::Inet(addr) => TcpStream::connect(addr).await.map(drop),
            Addr::Unix(UnixAddr::Path(path)) => UnixStream::connect(path).await.map(drop),
            // Tokio takes a leading zero byte as the kernel does: for a name in the abstract namespace.
            Addr::Unix(UnixAddr::Abstract(name)) => {
                let path = OsString::from_vec([&[0], &**name].concat());
                UnixStream::connect(path).await.map(drop)
            }
            Addr::Unix(UnixAddr::Unnamed) => Err(io::ErrorKind::InvalidInput.into()),
        };
        match done {
            Ok(()) => return Ok(()),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Results in a row that speak against the present verdict.
#[derive(Clone, Copy, Debug)]
struct Streak {
    healthy: bool,
    against: u32,
}

impl Streak {
    const fn new(healthy: bool) -> Self {
        Self { healthy, against: 0 }
    }

    /// Takes one result, and says the new verdict if it changes.
    const fn handle_result(&mut self, check: HealthCheck, success: bool) -> Option<bool> {
        if success == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.healthy { check.fall } else { check.rise };
        if self.against < enough {
            return None;
        }
        *self = Self::new(success);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn it_takes_a_streak_to_change_the_verdict() {
        let check = HealthCheck { rise: 2, fall: 3, ..HealthCheck::default() };
        let mut streak = Streak::new(true);
        let results = [false, false, true, false, false, false, false, true, false, true, true, true];
        let verdicts = results.map(|success| streak.handle_result(check, success));
        let mut wanted = [None; 12];
        wanted[5] = Some(false);
        wanted[10] = Some(true);
        assert_eq!(verdicts, wanted);
    }

    #[test]
    fn a_listener_is_healthy_and_a_closed_port_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Addr::Inet(listener.local_addr().unwrap());
        let name = format!("midmile-health-{}", std::process::id());
        let socket = SocketAddr::from_abstract_name(&name).unwrap();
        let _unix = UnixListener::bind_addr(&socket).unwrap();
        let abstract_name = Addr::Unix(UnixAddr::Abstract(name.as_bytes().into()));
        runtime.block_on(async {
            connect(std::slice::from_ref(&open)).await.unwrap();
            connect(&[abstract_name]).await.unwrap();
            drop(listener);
            connect(std::slice::from_ref(&open)).await.unwrap_err();
            connect(&[Addr::unix("/nowhere/at/all")]).await.unwrap_err();
        });
    }
}
