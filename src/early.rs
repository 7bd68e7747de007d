//! Early dial: the thread that hears of clients' SYNs and tells the cores.
//!
//! The program in the kernel bounds what it tells ([`SynConfig`]); the cores bound what they open. While the host answers SYNs
//! with cookies, which it does when a listener's queue is full of connections that were never finished, nothing is dialled early.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use midmile_gateway::Announcer;
use midmile_kernel::{Devices, SynConfig, SynWatch};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// How often it's looked whether cookies are sent.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing is dialled early after cookies were sent.
const COOKIES_REST: Duration = Duration::from_secs(10);

/// Hears of SYNs as long as it lives.
pub(crate) struct EarlyDial {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl EarlyDial {
    /// Begins to hear, if any listener asks for it, on the devices that are there now. Where that can't be, clients are dialled for
    /// when they are accepted, and a line in the log says so.
    pub(crate) fn start(announcer: Announcer) -> Option<Self> {
        let listeners = announcer.listeners();
        if listeners.is_empty() {
            return None;
        }
        match Self::try_start(announcer, listeners) {
            Ok(early) => Some(early),
            Err(error) => {
                tracing::warn!(%error, "no early dial: servers are dialled when clients are accepted");
                None
            }
        }
    }

    fn try_start(announcer: Announcer, listeners: Vec<SocketAddr>) -> Result<Self, Box<dyn std::error::Error>> {
        let transparent = announcer.intercepts_networks();
        let config = SynConfig { listeners, transparent, ..SynConfig::default() };
        let watch = SynWatch::attach(&Devices::All, &config)?;
        tracing::info!(devices = watch.devices().join(","), "hears of clients' SYNs");
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let listening = Listening { watch, announcer, stop: stop.clone() };
        let thread = std::thread::Builder::new().name("midmile-syn".to_owned()).spawn(move || listening.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EarlyDial {
    fn drop(&mut self) {
        // Adding one to a counter of zero can't fail.
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears of SYNs ended before its time");
        }
    }
}

/// The thread's side.
struct Listening {
    watch: SynWatch,
    announcer: Announcer,
    stop: Arc<OwnedFd>,
}

impl Listening {
    fn run(mut self) {
        let mut cookies = Cookies::new(sent_cookies().unwrap_or(0), Instant::now());
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            ];
            let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!(%error, "no early dial any more"),
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            self.watch.drain(|syn| {
                self.announcer.announce(syn.client, syn.listener, syn.cpu);
            });
            let now = Instant::now();
            if cookies.is_due(now) {
                self.look(&mut cookies, now);
            }
        }
    }

    fn look(&mut self, cookies: &mut Cookies, now: Instant) {
        let Ok(sent) = sent_cookies() else { return };
        let Some(enabled) = cookies.handle_sent(sent, now) else { return };
        match self.watch.set_enabled(enabled) {
            Ok(()) if enabled => tracing::info!("early dial goes on: no SYN cookies are sent any more"),
            Ok(()) => tracing::warn!("early dial rests: SYN cookies are sent"),
            Err(error) => tracing::warn!(%error, "early dial can't be switched"),
        }
    }
}

/// Whether cookies are being sent.
struct Cookies {
    sent: u64,
    looked: Instant,
    rests_until: Option<Instant>,
}

impl Cookies {
    const fn new(sent: u64, now: Instant) -> Self {
        Self { sent, looked: now, rests_until: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.looked) >= LOOK
    }

    /// So many cookies were sent until `now`; answers what early dial is to be switched to.
    fn handle_sent(&mut self, sent: u64, now: Instant) -> Option<bool> {
        self.looked = now;
        if std::mem::replace(&mut self.sent, sent) != sent {
            let rested = self.rests_until.replace(now + COOKIES_REST).is_some();
            return (!rested).then_some(false);
        }
        let over = self.rests_until.is_some_and(|until| now >= until);
        over.then(|| {
            self.rests_until = None;
            true
        })
    }
}

/// Cookies that this network namespace has sent (`SyncookiesSent` of the `TcpExt` lines in proc_net_netstat(5)).
fn sent_cookies() -> io::Result<u64> {
    parse_cookies(&std::fs::read_to_string("/proc/net/netstat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_cookies(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "SyncookiesSent")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_cookies_is_found() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 7 9\nIpExt: A\nIpExt: 1\n";
        assert_eq!(parse_cookies(text), Some(7));
        assert_eq!(parse_cookies("TcpExt: A\nTcpExt: 1\n"), None);
        sent_cookies().unwrap();
    }

    #[test]
    fn it_rests_while_cookies_are_sent_and_for_a_while_after() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cookies = Cookies::new(5, start);
        assert!(!cookies.is_due(at(0)) && cookies.is_due(at(1)));
        assert_eq!(cookies.handle_sent(5, at(1)), None);
        assert_eq!(cookies.handle_sent(6, at(2)), Some(false));
        assert_eq!(cookies.handle_sent(9, at(3)), None);
        assert_eq!(cookies.handle_sent(9, at(12)), None);
        assert_eq!(cookies.handle_sent(9, at(13)), Some(true));
        assert_eq!(cookies.handle_sent(9, at(14)), None);
    }
}
