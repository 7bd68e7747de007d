//! The links: one thread that moves packets between the TUN devices of all of them, when [`Direction`] says so.
//!
//! ```text
//!  host A ─ TUN ──read──► Direction (towards the server) ──write──► TUN ─ host B
//!           TUN ◄─write── Direction (towards the client) ◄──read─── TUN
//! ```
//! The clock is read here and nowhere else. The thread sleeps in ppoll with a timer slack of 1 ns until the next packet is due or a
//! device has one.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::direction::{Counters, Direction, Shape};
use crate::packet::{Packet, TcpView};
use crate::tun::{PACKET_MAX, Tun};

/// The least nice value (setpriority(2)): a wire doesn't wait for programs.
const HIGHEST_PRIORITY: i32 = -20;
/// Packets read from a device before others are looked at.
const BATCH: usize = 64;
/// Packets remembered of a trace; a visit of 50 MB has fewer.
const SIGHTINGS_MAX: usize = 1 << 16;

/// A link to be: its ends and what it does each way.
#[derive(Debug)]
pub(crate) struct Link {
    /// The end at the client's side, then the one at the server's.
    pub(crate) ends: [Tun; 2],
    /// Towards the server, then towards the client.
    pub(crate) shapes: [Shape; 2],
}

/// A TCP packet that crossed a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The link's place in the topology.
    pub link: usize,
    /// Whether it went towards the server.
    pub to_server: bool,
    /// When it came into the link.
    pub entered: Instant,
    /// When it was handed over at the other end.
    pub arrived: Instant,
    /// Its header.
    pub tcp: TcpView,
}

/// What came of one link.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkCounters {
    /// Towards the server.
    pub to_server: Counters,
    /// Towards the client.
    pub to_client: Counters,
}

/// The running links; they stop when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    stop: Arc<OwnedFd>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What the thread tells others, and is told.
#[derive(Debug, Default)]
struct Shared {
    counters: Vec<LinkCounters>,
    /// Which links are cut.
    cut: Vec<bool>,
    /// `None` while nobody traces.
    sightings: Option<Vec<Sighting>>,
}

/// One direction and its ends.
struct Lane {
    direction: Direction,
    link: usize,
    from: usize,
    to: usize,
}

struct Loop {
    began: Instant,
    tuns: Vec<Tun>,
    /// The lane at place `i` reads from the device at place `i`.
    lanes: Vec<Lane>,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<OwnedFd>,
}

impl Emulator {
    /// Starts to move packets. `seed` decides what chance does.
    pub(crate) fn start(links: Vec<Link>, seed: u64) -> Result<Self> {
        let stop =
            Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("can't make an eventfd")?);
        let counters = vec![LinkCounters::default(); links.len()];
        let shared = Arc::new(Mutex::new(Shared { counters, cut: vec![false; links.len()], sightings: None }));
        let mut run = Loop {
            began: Instant::now(),
            tuns: Vec::new(),
            lanes: Vec::new(),
            shared: Arc::clone(&shared),
            stop: Arc::clone(&stop),
        };
        for (link, Link { ends, shapes }) in links.into_iter().enumerate() {
            let first = run.tuns.len();
            run.tuns.extend(ends);
            for (side, shape) in shapes.into_iter().enumerate() {
                let lane_seed = seed.wrapping_mul(31).wrapping_add(u64::try_from(first + side).expect("few links"));
                let direction = Direction::new(shape, lane_seed);
                run.lanes.push(Lane { direction, link, from: first + side, to: first + 1 - side });
            }
        }
        let thread =
            thread::Builder::new().name("links".to_owned()).spawn(move || run.run()).context("can't start a thread")?;
        Ok(Self { stop, shared, thread: Some(thread) })
    }

    /// What the links have done, as of their last pause.
    #[must_use]
    pub fn counters(&self) -> Vec<LinkCounters> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).counters.clone()
    }

    /// Cuts the link at this place of the topology, both ways: all that comes in from now on is lost. What is under way arrives.
    ///
    /// # Panics
    /// There is no such link.
    pub fn cut(&self, link: usize) {
        self.set_cut(link, true);
    }

    /// Mends the link that was cut.
    ///
    /// # Panics
    /// There is no such link.
    pub fn restore(&self, link: usize) {
        self.set_cut(link, false);
    }

    fn set_cut(&self, link: usize, cut: bool) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).cut[link] = cut;
    }

    /// Begins to remember the TCP packets that arrive.
    pub fn begin_trace(&self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).sightings = Some(Vec::new());
    }

    /// Ends it, and answers what was seen, in the order of arrival.
    #[must_use]
    pub fn end_trace(&self) -> Vec<Sighting> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).sightings.take().unwrap_or_default()
    }

    /// Stops the links and says what went wrong with them, if anything did.
    ///
    /// # Errors
    /// A device failed while they ran.
    pub fn stop(mut self) -> Result<Vec<LinkCounters>> {
        self.halt()?;
        Ok(self.counters())
    }

    fn halt(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).context("can't stop the links")?;
        thread.join().map_err(|_| anyhow!("the thread of the links panicked"))?
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            eprintln!("links: {error:#}");
        }
    }
}

impl Loop {
    fn run(mut self) -> Result<()> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("can't set the timer slack")?;
        // On Linux it is the thread's own. Without the right to it links are later on a busy machine, which the report shows.
        rustix::process::setpriority_process(None, HIGHEST_PRIORITY).ok();
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            self.deliver();
            self.tell();
            let ready = self.wait()?;
            let Some((stop, readable)) = ready.split_last() else { return Ok(()) };
            if *stop {
                return Ok(());
            }
            for (place, _) in readable.iter().enumerate().filter(|(_, readable)| **readable) {
                self.take_in(place, &mut buffer)?;
            }
        }
    }

    /// Hands over all that is due.
    fn deliver(&mut self) {
        for lane in &mut self.lanes {
            while let Some(delivery) = lane.direction.poll_delivery(self.began.elapsed()) {
                let tcp = Packet::new(&delivery.bytes).tcp();
                // A host that takes no packet (its device is going down) loses it, as a real one does.
                let taken = self.tuns[lane.to].write(&delivery.bytes);
                let (Some(tcp), true) = (tcp, taken) else { continue };
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(sightings) = shared.sightings.as_mut().filter(|seen| seen.len() < SIGHTINGS_MAX) else {
                    continue;
                };
                sightings.push(Sighting {
                    link: lane.link,
                    to_server: lane.from < lane.to,
                    entered: self.began + delivery.entered,
                    arrived: Instant::now(),
                    tcp,
                });
            }
        }
    }

    fn tell(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &self.lanes {
            let counters = &mut shared.counters[lane.link];
            let counters = if lane.from < lane.to { &mut counters.to_server } else { &mut counters.to_client };
            *counters = lane.direction.counters();
        }
    }

    /// Waits for a packet, a deadline or the end. Answers which devices have a packet, and last whether to stop.
    fn wait(&self) -> Result<Vec<bool>> {
        let next = self.lanes.iter().filter_map(|lane| lane.direction.deadline()).min();
        let timeout = next.map(|due| timespec(due.saturating_sub(self.began.elapsed())));
        let mut watched: Vec<_> = self.tuns.iter().map(|tun| PollFd::new(tun, PollFlags::IN)).collect();
        watched.push(PollFd::new(&self.stop, PollFlags::IN));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => Ok(watched.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => Ok(vec![false; watched.len()]),
            Err(error) => Err(error).context("can't wait for packets"),
        }
    }

    fn take_in(&mut self, place: usize, buffer: &mut [u8]) -> Result<()> {
        let lane = &mut self.lanes[place];
        lane.direction.set_cut(self.shared.lock().unwrap_or_else(PoisonError::into_inner).cut[lane.link]);
        for _ in 0..BATCH {
            let Some(length) = self.tuns[place].read(buffer)? else { break };
            lane.direction.handle_packet(self.began.elapsed(), &buffer[..length]);
        }
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}
