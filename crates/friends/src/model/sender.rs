//! One thread that writes.

use super::{Dice, World};
use crate::{Owner, Plain, Taken, Wake, Way};

/// Room in the pipe: for more than are taken from it at once.
pub(super) const PIPE: usize = 3;

/// Where the thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Idle,
    Lock(Locked),
    Way,
    Put,
    /// Wakes the reader's threads, then sends the doorbells.
    Carry(Wake),
    Room,
    /// Asleep, while the writers were woken no more than so often.
    Asleep(usize),
    Begin,
    /// In the kernel, without the lock.
    Send,
    /// In the kernel, waiting until it can send.
    Writable,
    Finish,
    Finished,
}

/// What the lock is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locked {
    Begin,
    Sent(usize),
}

#[derive(Debug)]
pub(super) struct Sender {
    owner: Owner,
    at: At,
    /// Bytes of this call that aren't written.
    left: usize,
    waits: bool,
}

impl Sender {
    pub(super) fn new(id: usize) -> Self {
        let thread = 100 + u32::try_from(id).expect("few");
        Self { owner: Owner::new(thread).expect("not 0"), at: At::Idle, left: 0, waits: false }
    }

    pub(super) fn finished(&self) -> bool {
        self.at == At::Finished
    }

    /// Whether the thread is in none of our calls and holds no lock.
    pub(super) fn outside(&self) -> bool {
        matches!(self.at, At::Idle | At::Asleep(_) | At::Writable | At::Finished | At::Lock(Locked::Begin))
    }

    pub(super) fn able(&self, world: &World<'_>) -> bool {
        match self.at {
            At::Asleep(wakes) => wakes != world.wakes.1,
            At::Writable => world.wire.len() + world.queue.len() < world.room,
            At::Finished => false,
            _ => true,
        }
    }

    pub(super) fn step(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) {
        let writer = world.writer();
        self.at = match self.at {
            At::Idle => self.call(world, dice),
            At::Lock(what) => self.lock(world, what),
            At::Way => match writer.way().expect("both keep to the protocol") {
                Way::Ring if dice.one_in(40) => {
                    // Where it owes a doorbell, that's paid when the send begins.
                    assert_eq!(writer.back_to_tcp(Plain::Splice), writer.owed());
                    At::Begin
                }
                Way::Ring => At::Put,
                Way::Tcp => At::Begin,
            },
            At::Put => self.put(world),
            At::Carry(wake) => self.carry(world, wake, dice),
            At::Room => match writer.wait_for_room().expect("both keep to the protocol") {
                Some(doze) => {
                    self.unlock(world);
                    let quiet = doze.word.load(std::sync::atomic::Ordering::Relaxed) == doze.expected;
                    if quiet { At::Asleep(world.wakes.1) } else { At::Lock(Locked::Begin) }
                }
                None => At::Way,
            },
            At::Asleep(_) | At::Writable => At::Lock(Locked::Begin),
            At::Begin => self.begin(world, dice),
            At::Send => {
                let sent = world.send(&world.produce(self.left), dice);
                world.produced += sent;
                self.left -= sent;
                At::Lock(Locked::Sent(sent))
            }
            At::Finish => {
                world.fin.0 = true;
                world.wakes.0 += usize::from(writer.finish().futex);
                At::Finished
            }
            At::Finished => At::Finished,
        }
    }

    /// The program's next write, or its last act.
    fn call(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) -> At {
        let most = world.total - world.claimed;
        if most == 0 {
            world.senders_left -= 1;
            return if world.senders_left == 0 { At::Finish } else { At::Finished };
        }
        let call = if dice.one_in(4) { 900 } else { 60 };
        self.left = dice.up_to(most.min(call));
        world.claimed += self.left;
        self.waits = dice.one_in(2);
        At::Lock(Locked::Begin)
    }

    fn lock(&mut self, world: &mut World<'_>, what: Locked) -> At {
        let writer = world.writer();
        if writer.lock().try_lock(self.owner, false).is_err() {
            return At::Lock(what);
        }
        match what {
            Locked::Begin => At::Way,
            Locked::Sent(count) => {
                world.wakes.0 += usize::from(writer.sent(count as u64).futex);
                self.unlock(world);
                if count > 0 && self.left > 0 { At::Lock(Locked::Begin) } else { self.blocked_or_done(world) }
            }
        }
    }

    fn put(&mut self, world: &mut World<'_>) -> At {
        let put = world.writer().put(&world.produce(self.left)).expect("both keep to the protocol");
        world.produced += put.taken;
        self.left -= put.taken;
        if put.wake != Wake::default() {
            return At::Carry(put.wake);
        }
        if self.left == 0 {
            self.unlock(world);
            At::Idle
        } else if self.waits {
            At::Room
        } else {
            assert_eq!(world.writer().back_to_tcp(Plain::Full), 0, "it was paid when it was asked for");
            At::Begin
        }
    }

    fn carry(&mut self, world: &mut World<'_>, wake: Wake, dice: &mut Dice<'_>) -> At {
        if wake.futex {
            world.wakes.0 += 1;
            return At::Carry(Wake { futex: false, ..wake });
        }
        if wake.pipe {
            if world.pipe < PIPE {
                world.pipe += 1;
                world.writer().pipe_rang();
            } else {
                world.writer().pipe_missed();
            }
            return At::Carry(Wake { pipe: false, ..wake });
        }
        if !self.pay(world, dice) {
            return At::Carry(wake);
        }
        if self.left == 0 {
            self.unlock(world);
            return At::Idle;
        }
        At::Way
    }

    /// Sends the doorbells that are owed; false: not all have gone. The kernel's buffer empties by itself here only as the reader receives, which it does.
    fn pay(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) -> bool {
        let zeros = vec![0; usize::try_from(world.writer().owed()).expect("few")];
        let sent = world.send(&zeros, dice);
        world.writer().rang(u32::try_from(sent).expect("few"));
        sent == zeros.len()
    }

    fn begin(&mut self, world: &mut World<'_>, dice: &mut Dice<'_>) -> At {
        if !self.pay(world, dice) {
            return At::Begin;
        }
        world.writer().begin_tcp();
        self.unlock(world);
        At::Send
    }

    /// The kernel took nothing, or all is done.
    fn blocked_or_done(&mut self, world: &mut World<'_>) -> At {
        if self.left > 0 && self.waits {
            return At::Writable;
        }
        world.claimed -= self.left;
        self.left = 0;
        At::Idle
    }

    fn unlock(&self, world: &World<'_>) {
        assert!(!world.writer().lock().unlock(Taken::Owned), "nobody sleeps for the lock here");
    }
}
