//! Trickle: senders that never finish a message. Each sends a byte of the longest one every now and then; one that is cut comes back.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::control::{self, Order};
use super::poller::{ORDERS, Poller};
use super::socket;
use super::tally::Tally;

/// The length of the longest message, in two bytes; what follows it is of no matter.
const BEGINNING: [u8; 2] = [0xFF; 2];
/// How often a share of the senders sends: small shares, or the good clients, who have the same CPU, wait for the load and not for the proxy.
const TICK: Duration = Duration::from_millis(1);

struct Sender {
    fd: OwnedFd,
    sent: usize,
}

/// What to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The server.
    pub(super) to: SocketAddrV4,
    /// Connections.
    pub(super) conns: usize,
    /// How long it takes to open them: those that are cut after some time are then cut one by one, and not in one blow.
    pub(super) over: Duration,
    /// Between two bytes of a connection.
    pub(super) every: Duration,
}

/// Sends until the bench is done. Connections that were cut are counted as errors.
pub(super) fn run(plan: Plan) -> Result<()> {
    let poller = Poller::new()?;
    let started = Instant::now();
    let mut tally = Tally::new();
    let mut senders = Vec::with_capacity(plan.conns);
    let mut events = Poller::events();
    let stride = stride(plan.conns);
    let (mut next, mut due) = (0, 0.0);
    let mut ticked_at = Instant::now();
    loop {
        poller.wait(&mut events, Some(TICK.saturating_sub(ticked_at.elapsed())))?;
        if events.iter().any(|event| event.data.u64() == ORDERS) {
            if control::take()? == Order::Quit {
                return Ok(());
            }
            tally.report()?;
        }
        if ticked_at.elapsed() < TICK {
            continue;
        }
        ticked_at += TICK;
        let opened = plan.conns as f64 * started.elapsed().div_duration_f64(plan.over);
        while senders.len() < plan.conns && (senders.len() as f64) < opened {
            senders.push(Sender::open(plan.to)?);
        }
        due += plan.conns as f64 * TICK.div_duration_f64(plan.every);
        while due >= 1.0 {
            due -= 1.0;
            next = (next + stride) % plan.conns;
            let Some(sender) = senders.get_mut(next) else { continue };
            match sender.send_one() {
                Ok(()) => tally.counters.bytes += 1,
                Err(_) => {
                    tally.counters.errors += 1;
                    *sender = Sender::open(plan.to)?;
                }
            }
        }
    }
}

/// From one sender to the next. Those opened one after the other are cut one after the other: were they asked in that order too, all would come
/// back in one blow.
fn stride(conns: usize) -> usize {
    // The golden section spreads best; a stride that shares no factor reaches all.
    let golden = conns.saturating_mul(618) / 1000;
    (golden.max(1)..).find(|&stride| coprime(stride, conns)).expect("the next prime at the latest")
}

fn coprime(mut a: usize, mut b: usize) -> bool {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

impl Sender {
    fn open(to: SocketAddrV4) -> Result<Self> {
        let fd = socket::connected_nonblocking(to)?;
        socket::reset_on_close(&fd)?;
        Ok(Self { fd, sent: 0 })
    }

    fn send_one(&mut self) -> io::Result<()> {
        let byte = BEGINNING.get(self.sent).copied().unwrap_or(0);
        // An end that was sent is seen by a write after it only, so ask for it first.
        let mut answer = [0; 1];
        match rustix::net::recv(&self.fd, &mut answer, rustix::net::RecvFlags::empty()) {
            Err(Errno::AGAIN) => {}
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error.into()),
        }
        send(&self.fd, &[byte], SendFlags::NOSIGNAL)?;
        self.sent += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::stride;

    #[test]
    fn every_sender_has_its_turn_once_a_round() {
        for conns in [1, 2, 3, 10, 97, 2000, 10_000] {
            let mut turns = vec![0; conns];
            (0..conns).for_each(|turn| turns[turn * stride(conns) % conns] += 1);
            assert!(turns.iter().all(|&turns| turns == 1), "{conns}");
        }
    }
}
