//! One thread that reads.

use std::sync::atomic::Ordering;

use super::sender::PIPE;
use super::{Dice, World};
use crate::{Owner, Step, Taken};

/// How the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without waiting; it goes on when the socket is readable, whether it has read all or not.
    Level,
    /// Without waiting, until there's nothing; it goes on at an arrival.
    Edge,
    /// As [`Style::Level`], where the pipe is readable too.
    Piped,
    /// Waiting, by the futex.
    Futex,
    /// Waiting in the kernel, until a byte comes.
    Bell,
    /// Waiting in the kernel, inside, as long as the ring hasn't the turn.
    Inside,
}

impl Style {
    pub(super) fn any(dice: &mut Dice<'_>) -> Self {
        [Self::Level, Self::Edge, Self::Futex, Self::Bell, Self::Inside][dice.below(5)]
    }

    /// The same where whoever looks at readiness looks at the pipe too.
    pub(super) fn by(self, piped: bool) -> Self {
        if piped && matches!(self, Self::Level | Self::Edge) { Self::Piped } else { self }
    }
}

/// Where the thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Idle,
    Lock,
    Step,
    Take,
    /// Doorbells, at most so many.
    Swallow(usize),
    /// Doorbells in the pipe.
    TakePipe(usize),
    Recv,
    /// In the kernel, inside, without the lock.
    Within,
    Leave(usize),
    /// Asks the kernel what it has.
    Ask,
    Wait,
    /// Asleep by the futex, while the readers were woken no more than so often.
    Dozing(usize),
    /// Asleep in the kernel.
    Sleeping,
    /// In `epoll_wait`; arrivals so far.
    Awaiting(usize),
    /// Out of `epoll_wait`, and nobody looks at readiness; whether the pipe is sure to be silent.
    Resting(bool),
    Finished,
}

#[derive(Debug)]
pub(super) struct Receiver {
    owner: Owner,
    style: Style,
    at: At,
    /// Bytes that the program asks for, and that it has got in this call.
    wanted: usize,
    got: usize,
    /// The kernel has said that the stream has ended.
    ended: bool,
    /// The pipe was looked at in this call.
    looked: bool,
    edges: usize,
    /// Nobody else reads.
    alone: bool,
}

impl Receiver {
    pub(super) fn new(id: usize, style: Style, alone: bool) -> Self {
        let owner = Owner::new(200 + u32::try_from(id).expect("few")).expect("not 0");
        Self { owner, style, at: At::Idle, wanted: 0, got: 0, ended: false, looked: false, edges: 0, alone }
    }

    /// Said before the writer's first act.
    pub(super) fn engage(&self, world: &World<'_>) {
        let quiet = match self.style {
            Style::Level => world.reader().watch(),
            Style::Edge => world.reader().watch_edges(),
            Style::Piped => world.reader().watch().and_then(|_| world.reader().watch_piped(false)),
            _ => Ok(true),
        };
        assert_eq!(quiet, Ok(true), "nothing was put");
    }

    pub(super) fn finished(&self) -> bool {
        self.at == At::Finished
    }

    pub(super) fn watches(&self) -> bool {
        matches!(self.style, Style::Level | Style::Piped) && !matches!(self.at, At::Resting(_) | At::Finished)
    }

    /// Whether the thread is in none of our calls and holds no lock.
    pub(super) fn outside(&self) -> bool {
        use At::{Awaiting, Dozing, Finished, Idle, Lock, Resting, Sleeping};
        matches!(self.at, Idle | Lock | Dozing(_) | Sleeping | Awaiting(_) | Resting(_) | Finished)
    }

    pub(super) fn able(&self, world: &World<'_>) -> bool {
        match self.at {
            At::Dozing(wakes) => wakes != world.wakes.0,
            At::Sleeping | At::Within => world.readable(),
            At::Awaiting(edges) => {
                if self.style == Style::Edge {
                    edges != world.edges
                } else {
                    world.readable() || self.style == Style::Piped && world.pipe > 0
                }
            }
            At::Finished => false,
            _ => true,
        }
    }

    pub(super) fn step(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) {
        let reader = world.reader();
        self.at = match self.at {
            At::Idle => self.call(world, dice),
            At::Lock if reader.lock().try_lock(self.owner, false).is_ok() => At::Step,
            At::Lock => At::Lock,
            At::Step => self.look(world, dice),
            At::Take => self.take(world, dice),
            At::Swallow(bells) => self.swallow(world, bells, dice),
            At::TakePipe(bells) => {
                let count = dice.up_to(bells).min(world.pipe).min(PIPE - 1);
                world.pipe -= count;
                reader.pipe_taken(count as u64);
                At::Step
            }
            At::Recv => {
                let left = self.wanted - self.got;
                let bytes = world.recv(left, dice);
                self.received(world, bytes)
            }
            At::Within => {
                let bytes = world.recv(self.wanted, dice);
                match self.received(world, bytes) {
                    At::Leave(count) => {
                        reader.leave_tcp(count as u64);
                        if self.ended { At::Finished } else { At::Idle }
                    }
                    other => other,
                }
            }
            At::Leave(count) => {
                reader.leave_tcp(count as u64);
                self.enough(world)
            }
            At::Ask => self.ask(world),
            At::Wait => self.wait(world),
            At::Sleeping => {
                reader.woke();
                At::Lock
            }
            At::Dozing(_) => At::Lock,
            At::Awaiting(_) => At::Idle,
            At::Resting(silent) => self.resume(world, silent),
            At::Finished => At::Finished,
        }
    }

    /// The program's next read.
    fn call(&mut self, world: &World<'_>, dice: &mut Dice<'_>) -> At {
        let most = if dice.one_in(3) { 700 } else { 40 };
        self.wanted = dice.up_to(most);
        self.got = 0;
        self.ended = false;
        self.looked = false;
        self.edges = world.edges;
        let inside = self.style == Style::Inside && world.reader().enter_tcp().expect("both keep to the protocol");
        if inside { At::Within } else { At::Lock }
    }

    fn look(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) -> At {
        if dice.one_in(6) {
            self.peek(world);
        }
        if self.style == Style::Piped && !self.looked {
            let bells = world.reader().let_go_piped().expect("both keep to the protocol");
            if bells > 0 {
                // Those that are on their way aren't waited for.
                self.looked = true;
                return At::TakePipe(usize::try_from(bells).expect("few"));
            }
        }
        match world.reader().step().expect("both keep to the protocol") {
            Step::Ring(_) if self.got == self.wanted => self.enough(world),
            Step::Ring(_) => At::Take,
            Step::Bells(bells) => At::Swallow(bells),
            Step::Tcp if self.got > 0 => {
                world.reader().leave_tcp(0);
                self.enough(world)
            }
            Step::Tcp => At::Recv,
            Step::Empty if self.got > 0 || self.ended => self.enough(world),
            Step::Empty => At::Ask,
        }
    }

    fn take(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) -> At {
        let mut buffer = vec![0; self.wanted - self.got];
        let taken = world.reader().take(&mut buffer).expect("both keep to the protocol");
        assert!(taken.count > 0, "a step said that there's something");
        world.consume(&buffer[..taken.count]);
        self.got += taken.count;
        world.wakes.1 += usize::from(taken.wake_writer);
        // Whoever is watched sees whether that was all; others sometimes stop there.
        if self.watched() || dice.one_in(2) { At::Step } else { self.enough(world) }
    }

    fn swallow(&mut self, world: &mut World<'_>, bells: usize, dice: &mut Dice<'_>) -> At {
        let bytes = world.recv(bells, dice);
        world.reader().swallowed(bytes.as_deref().unwrap_or_default()).expect("they are doorbells");
        match bytes {
            Some(bytes) if !bytes.is_empty() => At::Step,
            // Not here yet: as if there were none.
            _ if self.got > 0 => self.enough(world),
            _ => At::Wait,
        }
    }

    /// Bytes of data by TCP, inside.
    fn received(&mut self, world: &mut World<'_>, bytes: Option<Vec<u8>>) -> At {
        let count = bytes.as_ref().map_or(0, Vec::len);
        self.ended = bytes.as_ref().is_some_and(Vec::is_empty);
        world.consume(&bytes.unwrap_or_default());
        self.got += count;
        At::Leave(count)
    }

    fn ask(&mut self, world: &World<'_>) -> At {
        if !world.queue.is_empty() {
            world.reader().unannounced().expect("both keep to the protocol");
            return At::Step;
        }
        self.ended = world.fin.1;
        if self.ended { At::Step } else { At::Wait }
    }

    /// Nothing is there, or the program has what it gets.
    fn wait(&mut self, world: &World<'_>) -> At {
        let reader = world.reader();
        match self.style {
            Style::Level | Style::Edge | Style::Piped => {
                self.unlock(world);
                At::Awaiting(self.edges)
            }
            Style::Futex => {
                if let Some(doze) = reader.doze().expect("both keep to the protocol") {
                    let quiet = doze.word.load(Ordering::Relaxed) == doze.expected;
                    self.unlock(world);
                    return if quiet { At::Dozing(world.wakes.0) } else { At::Lock };
                }
                self.sleep(world)
            }
            Style::Bell | Style::Inside => self.sleep(world),
        }
    }

    fn sleep(&self, world: &World<'_>) -> At {
        if !world.reader().sleep_by_bell().expect("both keep to the protocol") {
            return At::Step;
        }
        self.unlock(world);
        At::Sleeping
    }

    /// The call ends.
    fn enough(&mut self, world: &World<'_>) -> At {
        if self.got == 0 && !self.ended {
            return At::Wait;
        }
        self.unlock(world);
        match self.style {
            _ if self.got == 0 => At::Finished,
            Style::Piped if self.alone && self.got.is_multiple_of(3) => At::Resting(world.reader().rest_pipe()),
            Style::Level | Style::Piped => At::Awaiting(self.edges),
            _ => At::Idle,
        }
    }

    /// Readiness is looked at again.
    fn resume(&self, world: &mut World<'_>, silent: bool) -> At {
        assert!(!silent || world.pipe == 0, "a pipe that rests says something");
        if world.reader().resume_pipe().expect("both keep to the protocol") {
            if world.pipe < PIPE {
                world.pipe += 1;
            } else {
                world.reader().pipe_missed();
            }
        }
        At::Awaiting(self.edges)
    }

    /// A look at ring and socket together, over the end of a stretch.
    fn peek(&self, world: &mut World<'_>) {
        let reader = world.reader();
        let view = reader.view().expect("both keep to the protocol");
        let mut buffer = vec![0; self.wanted];
        let ring = reader.peek(0, &mut buffer).expect("both keep to the protocol");
        world.compare(0, &buffer[..ring]);
        let bells = usize::try_from(view.bells).expect("few");
        if view.tcp && world.queue.len() > bells {
            reader.begin_swallow();
            let swallowed: Vec<u8> = world.queue.drain(..bells).collect();
            reader.swallowed(&swallowed).expect("they are doorbells");
            let data: Vec<u8> = world.queue.iter().copied().collect();
            world.compare(view.ring, &data);
        }
    }

    fn watched(&self) -> bool {
        matches!(self.style, Style::Level | Style::Edge | Style::Piped)
    }

    fn unlock(&self, world: &World<'_>) {
        assert!(!world.reader().lock().unlock(Taken::Owned), "nobody sleeps for the lock here");
    }
}
