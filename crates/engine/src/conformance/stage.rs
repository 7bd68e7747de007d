//! One case as it runs: a core with its [`Trace`], and the peers it talks to, each a little program of its own.

use std::time::{Duration, Instant};

use super::actor::{Actor, Ending, STEP};
use super::correspondents::Correspondence;
use super::record::{Record, Seen, Take};
use super::trace::{Hook, Trace};
use super::world::World;
use crate::addr::Addr;
use crate::backend::Backend;
use crate::config::Config;
use crate::core::Core;
use crate::cx::{Cx, MeterId};
use crate::error::ConnError;
use crate::handler::{ConnId, ListenerId};
use crate::mesh::{CoreId, HandOffError, Seat};
use crate::options::LegOptions;

/// What no step of a case takes, however busy the machine: a case that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the core may sleep while a peer could have something to do.
const BEAT: Duration = Duration::from_millis(1);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Steps of peers between two turns.
const STEPS: usize = 100;

/// A peer of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(pub(super) usize);

/// A small core: limits are met soon.
pub const SMALL: Config = Config {
    conns_max: 8,
    read_bytes: 4096,
    blocks: 4,
    pipes_max: 4,
    pipe_bytes: 64 * 1024,
    turn_bytes: 256 * 1024,
    loop_bytes: 512 * 1024,
    accept_batch: 4,
    accept_rest_ms: 20,
    catch_panics: false,
    busy_poll: std::time::Duration::ZERO,
};

/// A core, its trace, its peers.
pub struct Stage<'w, W: World> {
    pub(super) world: &'w mut W,
    pub(super) core: Core<W::Backend, Trace<W::Backend>>,
    pub(super) actors: Vec<Actor<W::Peer>>,
    door: Option<(W::Door, Addr)>,
    listener: Option<(ListenerId, Addr)>,
    deadline: Instant,
    pub(super) correspondents: Vec<Correspondence<W::Correspondent>>,
    /// The peer that did the last step.
    next: usize,
    /// Peers did something in the last step.
    lively: bool,
    pub(super) buffer: Vec<u8>,
}

impl<'w, W: World> Stage<'w, W> {
    /// A core of `config`, without connections.
    pub fn new(world: &'w mut W, config: Config) -> Self {
        let core = Core::new(world.backend(), config, Trace::default());
        Self::around(world, core)
    }

    /// A core of `config` among others, on `seat`.
    pub fn seated(world: &'w mut W, config: Config, seat: Seat<<W::Backend as Backend>::Parcel>) -> Self {
        let core = Core::seated(world.backend(), config, Trace::default(), seat).expect("it can be woken");
        Self::around(world, core)
    }

    fn around(world: &'w mut W, core: Core<W::Backend, Trace<W::Backend>>) -> Self {
        Self {
            core,
            world,
            actors: Vec::new(),
            correspondents: Vec::new(),
            door: None,
            listener: None,
            deadline: Instant::now() + PATIENCE,
            next: 0,
            lively: true,
            buffer: vec![0; STEP],
        }
    }

    /// Downcalls.
    pub const fn cx(&mut self) -> &mut Cx<W::Backend> {
        self.core.parts().1
    }

    /// What happened so far.
    pub const fn record(&mut self) -> &mut Record {
        &mut self.core.parts().0.record
    }

    /// Both at once.
    pub const fn parts(&mut self) -> (&mut Record, &mut Cx<W::Backend>) {
        let (trace, cx) = self.core.parts();
        (&mut trace.record, cx)
    }

    /// The world and the backend.
    pub const fn world(&mut self) -> (&mut W, &mut W::Backend) {
        (self.world, self.core.parts().1.backend())
    }

    /// Calls `hook` within each upcall from now on.
    pub fn hook(&mut self, hook: Hook<W::Backend>) {
        self.core.parts().0.hook = Some(hook);
    }

    // Engine's side.

    /// Listens, unless it does, and says where.
    pub fn listen(&mut self) -> Addr {
        self.listen_with(&LegOptions::default())
    }

    /// As [`Stage::listen`], with options.
    pub fn listen_with(&mut self, options: &LegOptions) -> Addr {
        if self.listener.is_none() {
            let cx = self.core.parts().1;
            let at = self.world.free_addr();
            self.listener = Some(cx.listen_at(&at, options, BACKLOG).expect("nobody listens there"));
        }
        self.listener.as_ref().expect("it listens by now").1.clone()
    }

    /// The listener.
    pub fn listener(&mut self) -> ListenerId {
        self.listen();
        self.listener.as_ref().expect("it listens by now").0
    }

    /// The next connections come by another listener.
    pub fn forget_listener(&mut self) {
        self.listener = None;
    }

    /// A connection that was accepted, and its peer.
    pub fn accepted(&mut self) -> (ConnId, PeerId) {
        let before = self.record().accepted().len();
        let peer = self.connect();
        // Others may be met before it. Where peers have no addresses, they're met in the order of their coming.
        let addr = self.addr_of(peer);
        let mut met = None;
        self.until("a connection is accepted", |stage| {
            let record = stage.record();
            let known = |conn: &&ConnId| addr.is_none() || record.peer(**conn) == addr.as_ref();
            met = record.accepted()[before..].iter().find(known).copied();
            met.is_some()
        });
        let conn = met.expect("until one was");
        self.introduce(conn, peer);
        (conn, peer)
    }

    /// Begins a dial to `to`.
    ///
    /// # Errors
    /// When it failed at once.
    pub fn dial(&mut self, to: &Addr) -> Result<ConnId, ConnError> {
        let (record, cx) = self.parts();
        let token = record.token();
        let conn = cx.dial(to, &LegOptions::default(), token, MeterId::NONE)?;
        record.begin(conn, token, true);
        Ok(conn)
    }

    /// Where dials reach peers.
    pub fn door(&mut self) -> Addr {
        if self.door.is_none() {
            let cx = self.core.parts().1;
            self.door = Some(self.world.door(cx.backend()));
        }
        self.door.as_ref().expect("there's a door by now").1.clone()
    }

    /// The peer of the next dial that comes to stand.
    pub fn taken(&mut self) -> PeerId {
        let mut peer = None;
        self.until("a peer accepts", |stage| {
            peer = stage.take();
            peer.is_some()
        });
        peer.expect("until one did")
    }

    fn take(&mut self) -> Option<PeerId> {
        let (door, _) = self.door.as_mut()?;
        let peer = self.world.take(self.core.parts().1.backend(), door)?;
        Some(self.enter(peer))
    }

    /// A connection that was dialled and stands, and its peer. It isn't read yet.
    pub fn dialled(&mut self) -> (ConnId, PeerId) {
        let to = self.door();
        let conn = self.dial(&to).expect("a peer listens there");
        let peer = self.taken();
        self.introduce(conn, peer);
        self.until("the dial stands", |stage| stage.record().has_seen(conn, Seen::Connect));
        (conn, peer)
    }

    /// Sends on a connection.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let (record, cx) = self.parts();
        record.send(cx, conn, bytes)
    }

    /// Sends all of `bytes`, waiting for room where there's none.
    pub fn send_all(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut sent = 0;
        self.until("all is sent", |stage| {
            if stage.record().awaits_room(conn) {
                return false;
            }
            sent += stage.send(conn, &bytes[sent..]);
            sent == bytes.len()
        });
    }

    /// Closes a connection.
    pub fn close(&mut self, conn: ConnId) {
        let (record, cx) = self.parts();
        record.over(conn);
        cx.close(conn);
    }

    /// Resets a connection.
    pub fn reset(&mut self, conn: ConnId) {
        let (record, cx) = self.parts();
        record.over(conn);
        cx.reset(conn);
    }

    /// Hands a connection over to another core.
    ///
    /// # Errors
    /// See [`HandOffError`].
    pub fn hand_off(&mut self, conn: ConnId, to: CoreId) -> Result<(), HandOffError> {
        let (record, cx) = self.parts();
        cx.hand_off(conn, to)?;
        record.leaves(conn);
        Ok(())
    }

    /// Sets a connection's timer.
    pub fn set_timer(&mut self, conn: ConnId, wait: Duration) {
        let (record, cx) = self.parts();
        record.expect_timer(conn, Some(cx.now().after(wait)));
        cx.set_timer(conn, wait);
    }

    // Time.

    /// One turn of the core and one step of each peer; in a crowd, of some.
    pub fn turn(&mut self) {
        let wait = if self.lively { Duration::ZERO } else { BEAT };
        if !self.record().shows_alarms {
            self.cx().set_alarm(wait);
        }
        self.bare_turn();
        self.lively = false;
        for _ in 0..self.actors.len().min(STEPS) {
            self.next = (self.next + 1) % self.actors.len();
            self.lively |= self.step_peer(self.next);
            self.compare(self.next);
        }
        self.lively |= self.step_correspondents();
    }

    /// One turn of the core, however long it sleeps.
    pub fn bare_turn(&mut self) {
        self.core.turn().expect("the backend can wait for events");
        self.cx().check();
    }

    /// Has the core run until its program stops it, and then gives the peers their steps until `done`: no turn follows.
    ///
    /// # Panics
    /// When that doesn't come.
    pub fn run_out(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        self.core.run().expect("the backend can wait for events");
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: that doesn't come\n{}", self.tell());
            for index in 0..self.actors.len() {
                self.step_peer(index);
                self.compare(index);
            }
        }
    }

    /// Takes turns until `done`.
    ///
    /// # Panics
    /// When that doesn't come.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        self.deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < self.deadline, "{what}: that doesn't come\n{}", self.tell());
            self.turn();
        }
    }

    /// Takes turns until nothing has happened for a while, so that a case can see that nothing does.
    pub fn settle(&mut self) {
        let (mut quiet, mut before) = (0, self.progress());
        self.deadline = Instant::now() + PATIENCE;
        let rounds = u32::try_from(self.actors.len().div_ceil(STEPS)).expect("a crowd, no more");
        while quiet < self.world.quiet_turns() * rounds.max(1) {
            assert!(Instant::now() < self.deadline, "it never comes to rest\n{}", self.tell());
            self.turn();
            let now = self.progress();
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }

    fn progress(&mut self) -> (usize, usize) {
        let moved: usize = self.actors.iter().map(|actor| actor.said.len() + actor.heard.len()).sum();
        let posted: usize = self.correspondents.iter().map(Correspondence::progress).sum();
        (self.record().len(), moved + posted)
    }

    /// Takes turns until `conn` has used `count` bytes in all.
    pub fn until_received(&mut self, conn: ConnId, count: usize) {
        self.until("so many bytes are received", |stage| stage.record().received(conn).len() >= count);
        assert_eq!(self.record().received(conn).len(), count, "more bytes than were sent");
    }

    /// Takes turns until the peer has received `count` bytes in all.
    pub fn until_heard(&mut self, peer: PeerId, count: usize) {
        self.until("the peer receives so many bytes", |stage| stage.heard(peer).len() >= count);
        assert_eq!(self.heard(peer).len(), count, "more bytes than were sent");
    }

    /// Takes turns until `seen` has been seen on `conn`.
    pub fn until_seen(&mut self, conn: ConnId, seen: Seen) {
        self.until(&format!("{seen:?}"), |stage| stage.record().has_seen(conn, seen));
    }

    /// Takes turns until the connection has failed, and says how.
    pub fn until_failed(&mut self, conn: ConnId) -> ConnError {
        self.until("the connection fails", |stage| stage.record().error(conn).is_some());
        self.record().error(conn).expect("until it did")
    }

    /// Takes turns until the peer has seen the end of the connection, and asserts how.
    pub fn until_ending(&mut self, peer: PeerId, ending: Ending) {
        self.until("the peer sees the end", |stage| stage.ending(peer).is_some());
        assert_eq!(self.ending(peer), Some(ending), "{}", self.tell());
    }

    /// Asserts the upcalls of a connection, and that nothing else comes.
    pub fn expect(&mut self, conn: ConnId, order: &[Seen]) {
        self.settle();
        self.expect_order(conn, order);
    }

    /// Asserts the upcalls of a connection so far.
    pub fn expect_order(&mut self, conn: ConnId, order: &[Seen]) {
        let seen = self.record().order(conn);
        assert_eq!(seen, order, "{}", self.tell());
    }

    /// Another way to use what `conn` is offered.
    pub fn take_as(&mut self, conn: ConnId, take: Take) {
        self.record().set_take(conn, take);
    }

    /// Asserts that nothing is left of the case in the core: no connection, block or pipe.
    pub fn expect_nothing_left(&mut self) {
        let cx = self.cx();
        cx.check();
        let gauges = cx.gauges();
        assert_eq!((cx.conns_open(), gauges.blocks_leased, gauges.pipes_leased), (0, 0, 0), "something is left");
    }

    /// What happened, for a message.
    pub fn tell(&mut self) -> String {
        let peers: Vec<String> = self
            .actors
            .iter()
            .enumerate()
            .take(20)
            .map(|(index, actor)| {
                format!(
                    "  peer {index}: said {} of {}, heard {}, ending {:?}, stuck {}",
                    actor.said.len(),
                    actor.said.len() + actor.to_say.len(),
                    actor.heard.len(),
                    actor.ending,
                    actor.stuck
                )
            })
            .collect();
        format!("{}{}", self.record().tell(), peers.join("\n"))
    }

    // Within.

    /// Lets a peer do what it can. Says whether that was anything.
    pub(super) fn step_peer(&mut self, index: usize) -> bool {
        let backend = self.core.parts().1.backend();
        self.actors[index].step::<W>(self.world, backend, &mut self.buffer)
    }

    /// Holds what a peer and its connection have received against what the other has sent.
    fn compare(&mut self, index: usize) {
        let record = &self.core.parts().0.record;
        let actor = &self.actors[index];
        let Some(conn) = actor.conn else { return };
        let source = actor.source.map_or_else(|| record.sent(conn), |source| &self.actors[source].said[..]);
        let received = same(record.received(conn), &actor.said, actor.compared.0);
        let heard = same(&actor.heard[actor.heard_before..], source, actor.compared.1);
        self.actors[index].compared = (received, heard);
    }
}

/// Asserts that `got` begins `sent`, from `from` on where it was compared before.
fn same(got: &[u8], sent: &[u8], from: usize) -> usize {
    assert!(got.len() <= sent.len(), "{} bytes received of {} sent", got.len(), sent.len());
    assert!(got[from..] == sent[from..got.len()], "other bytes are received than were sent, after {from}");
    got.len()
}
