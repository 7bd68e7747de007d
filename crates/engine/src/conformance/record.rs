//! What a case has seen: each upcall in order, and what is known of each connection.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::datagram_story::DatagramStory;
use crate::addr::Addr;
use crate::backend::Backend;
use crate::cx::Cx;
use crate::datagram::DatagramId;
use crate::error::ConnError;
use crate::handler::{ConnId, ListenerId};
use crate::mesh::CoreId;
use crate::time::Time;

/// An upcall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A connection was accepted and admitted.
    Accept,
    /// A connection was accepted and turned away.
    TurnedAway,
    /// The listener found nothing to accept with.
    Exhausted,
    /// A dial came to stand.
    Connect,
    /// Bytes were offered. Several in a row show as one.
    Data,
    /// A whole message has come. Several in a row show as one.
    Message,
    /// There's room again.
    Writable,
    /// The peer has finished sending.
    PeerClose,
    /// The connection failed.
    Error(ConnError),
    /// The connection's timer ran out.
    Timer,
    /// The alarm ran out.
    Alarm,
    /// Another thread woke the core.
    Wake,
    /// A connection came from another core, or couldn't go there.
    HandOff,
    /// A connection came from another core, and couldn't be taken in.
    HandOffLost(ConnError),
    /// A datagram has come.
    Datagram,
    /// There's room for datagrams again.
    DatagramsWritable,
    /// What was sent by a socket with one peer isn't taken.
    DatagramsFailed(ConnError),
}

/// How much of what is offered the program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// All of it.
    All,
    /// None of it.
    Nothing,
    /// At most so many bytes of each offer.
    AtMost(usize),
    /// All whole frames of so many bytes.
    Frames(usize),
    /// As a seed decides.
    Seeded(u64),
}

/// What the program does with those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Admits them, and reads messages.
    AdmitMessages,
    /// Admits them, and reads if it's so told.
    Admit {
        /// Whether it reads from the start.
        read: bool,
    },
    /// Refuses them.
    Refuse,
    /// Drops them.
    Drop,
}

/// What is known of one connection.
#[derive(Clone, Debug)]
pub struct Story {
    pub(super) token: u64,
    pub(super) dialled: bool,
    pub(super) stands: bool,
    /// What the program used.
    pub(super) received: Vec<u8>,
    /// What it was offered last and didn't use.
    pub(super) left_over: Vec<u8>,
    /// What it has sent.
    pub(super) sent: Vec<u8>,
    /// What it says in answer, and found no room for yet.
    pub(super) owed: Vec<u8>,
    /// A send was short, and nobody has said since that there's room.
    pub(super) short: bool,
    pub(super) ended: bool,
    pub(super) error: Option<ConnError>,
    pub(super) over: bool,
    /// It's on its way to another core.
    pub(super) leaving: bool,
    pub(super) take: Take,
    pub(super) timer_at: Option<Time>,
    /// Its upcalls.
    pub(super) order: Vec<Seen>,
    pub(super) peer: Option<Addr>,
    pub(super) listener: Option<ListenerId>,
    /// Messages, by their lengths.
    pub(super) messages: Vec<usize>,
}

/// What happened so far.
#[derive(Debug)]
pub struct Record {
    pub(super) log: Vec<(Time, Option<ConnId>, Seen)>,
    pub(super) stories: HashMap<ConnId, Story>,
    pub(super) accepted: Vec<ConnId>,
    /// Those that have to be gone at the end of the turn.
    pub(super) ending: Vec<ConnId>,
    tokens: u64,
    /// How the next connections are met.
    pub door: Door,
    /// How the next connections' bytes are used.
    pub take: Take,
    /// What is offered is sent back.
    pub echoes: bool,
    /// Alarms are written down: those that a stage sets to go on aren't.
    pub shows_alarms: bool,
    /// Connections that couldn't be taken in: from whom they came, and their tokens.
    pub lost: Vec<(CoreId, u64)>,
    /// Offered bytes in order of offers, for cases that count offers.
    pub offers: Vec<usize>,
    pub(super) sockets: HashMap<DatagramId, DatagramStory>,
    /// The socket for datagrams that the last upcall about one was about.
    pub(super) socket: Option<DatagramId>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            log: Vec::new(),
            stories: HashMap::new(),
            accepted: Vec::new(),
            ending: Vec::new(),
            tokens: 1000,
            door: Door::Admit { read: true },
            take: Take::All,
            echoes: false,
            shows_alarms: false,
            lost: Vec::new(),
            offers: Vec::new(),
            sockets: HashMap::new(),
            socket: None,
        }
    }

    /// A token that no other connection of the run has.
    pub const fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// Writes a new connection down.
    pub fn begin(&mut self, conn: ConnId, token: u64, dialled: bool) {
        let story = Story {
            token,
            dialled,
            stands: !dialled,
            received: Vec::new(),
            left_over: Vec::new(),
            sent: Vec::new(),
            owed: Vec::new(),
            short: false,
            ended: false,
            error: None,
            over: false,
            leaving: false,
            take: self.take,
            timer_at: None,
            order: Vec::new(),
            peer: None,
            listener: None,
            messages: Vec::new(),
        };
        assert!(self.stories.insert(conn, story).is_none(), "a handle is given twice");
    }

    /// Another token, after [`Cx::rename`].
    pub fn renamed(&mut self, conn: ConnId, token: u64) {
        self.story_mut(conn).token = token;
    }

    /// Sends, and remembers what went out.
    pub fn send<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, bytes: &[u8]) -> usize {
        let sent = cx.send(conn, bytes);
        self.note_sent(conn, &bytes[..sent], sent < bytes.len());
        sent
    }

    /// Sends all of `bytes`, what there's no room for when there is.
    pub fn say<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, bytes: &[u8]) {
        let story = self.story_mut(conn);
        story.owed.extend(bytes);
        if !story.short {
            let owed = std::mem::take(&mut story.owed);
            let sent = self.send(cx, conn, &owed);
            self.story_mut(conn).owed = owed[sent..].to_vec();
        }
    }

    /// Whether a send was short, and nobody has said since that there's room.
    #[must_use]
    pub fn awaits_room(&self, conn: ConnId) -> bool {
        self.story(conn).short
    }

    /// Remembers what went out, and whether more was to.
    pub fn note_sent(&mut self, conn: ConnId, bytes: &[u8], short: bool) {
        let story = self.story_mut(conn);
        story.sent.extend(bytes);
        story.short |= short;
    }

    /// Remembers when the connection's timer may run out at the earliest; `None`: not at all.
    pub fn expect_timer(&mut self, conn: ConnId, at: Option<Time>) {
        self.story_mut(conn).timer_at = at;
    }

    /// Another way to use what is offered.
    pub fn set_take(&mut self, conn: ConnId, take: Take) {
        self.story_mut(conn).take = take;
    }

    /// The program has closed or reset it: nothing may follow.
    pub fn over(&mut self, conn: ConnId) {
        self.story_mut(conn).over = true;
        self.ending.push(conn);
    }

    /// The program has handed it over: nothing may follow but a failure, unless it comes back.
    pub fn leaves(&mut self, conn: ConnId) {
        self.story_mut(conn).leaving = true;
    }

    /// It has come from another core, or back. Whether it awaits room is the engine's word.
    pub(super) fn arrives(&mut self, conn: ConnId, token: u64, awaits_room: bool) {
        match self.stories.get_mut(&conn) {
            Some(story) => assert!(std::mem::take(&mut story.leaving), "{conn:?} comes back and wasn't gone"),
            None => self.begin(conn, token, false),
        }
        self.story_mut(conn).short = awaits_room;
    }

    /// Connections accepted and admitted, in order.
    #[must_use]
    pub fn accepted(&self) -> &[ConnId] {
        &self.accepted
    }

    /// What the program used of the connection's bytes.
    #[must_use]
    pub fn received(&self, conn: ConnId) -> &[u8] {
        &self.story(conn).received
    }

    /// What it was offered and hasn't used.
    #[must_use]
    pub fn left_over(&self, conn: ConnId) -> &[u8] {
        &self.story(conn).left_over
    }

    /// What it has sent.
    #[must_use]
    pub fn sent(&self, conn: ConnId) -> &[u8] {
        &self.story(conn).sent
    }

    /// Who connected, for one that was accepted.
    #[must_use]
    pub fn peer(&self, conn: ConnId) -> Option<&Addr> {
        self.story(conn).peer.as_ref()
    }

    /// By which listener it came, for one that was accepted.
    #[must_use]
    pub fn listener(&self, conn: ConnId) -> Option<ListenerId> {
        self.story(conn).listener
    }

    /// The lengths of its messages.
    #[must_use]
    pub fn messages(&self, conn: ConnId) -> &[usize] {
        &self.story(conn).messages
    }

    /// Whether the peer's end was told.
    #[must_use]
    pub fn ended(&self, conn: ConnId) -> bool {
        self.story(conn).ended
    }

    /// How the connection failed, if it did.
    #[must_use]
    pub fn error(&self, conn: ConnId) -> Option<ConnError> {
        self.story(conn).error
    }

    /// Whether the program or an error ended it.
    #[must_use]
    pub fn is_over(&self, conn: ConnId) -> bool {
        self.story(conn).over
    }

    /// Connections that were begun, dialled or admitted.
    pub fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.stories.keys().copied()
    }

    /// How often `seen` was seen, on any connection.
    #[must_use]
    pub fn count(&self, seen: Seen) -> usize {
        self.log.iter().filter(|(.., what)| *what == seen).count()
    }

    /// Whether `seen` was seen on the connection.
    #[must_use]
    pub fn has_seen(&self, conn: ConnId, seen: Seen) -> bool {
        self.story(conn).order.contains(&seen)
    }

    /// The last upcall of a connection.
    #[must_use]
    pub fn last(&self, conn: ConnId) -> Option<Seen> {
        self.story(conn).order.last().copied()
    }

    /// The upcalls of one connection in order; offers in a row as one. Room isn't among them: a transport may lack it at any time, and
    /// what was lacked and told is checked by itself.
    #[must_use]
    pub fn order(&self, conn: ConnId) -> Vec<Seen> {
        let mut order = self.story(conn).order.clone();
        order.retain(|seen| *seen != Seen::Writable);
        order.dedup_by(|next, before| next == before && matches!(next, Seen::Data | Seen::Message));
        order
    }

    /// When `seen` was first seen on the connection.
    ///
    /// # Panics
    /// When it wasn't.
    #[must_use]
    pub fn seen_at(&self, conn: ConnId, seen: Seen) -> Time {
        let found = self.log.iter().find(|(_, id, what)| *id == Some(conn) && *what == seen);
        found.expect("it was seen").0
    }

    /// Upcalls so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.log.len()
    }

    /// Whether nothing has happened yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// The last upcalls, one a line.
    #[must_use]
    pub fn tell(&self) -> String {
        const LINES: usize = 60;
        let mut text = String::new();
        let skipped = self.log.len().saturating_sub(LINES);
        for (at, conn, seen) in &self.log[skipped..] {
            let who = conn.map_or_else(|| "core".into(), |conn| format!("{conn:?}"));
            writeln!(text, "  {:>9} us  {who}  {seen:?}", at.as_nanos() / 1000).expect("a string takes all");
        }
        for (conn, story) in self.stories.iter().take(20) {
            writeln!(
                text,
                "  {conn:?}: received {}, left over {}, sent {}, short {}, ended {}, error {:?}, over {}",
                story.received.len(),
                story.left_over.len(),
                story.sent.len(),
                story.short,
                story.ended,
                story.error,
                story.over
            )
            .expect("a string takes all");
        }
        for (socket, story) in &self.sockets {
            writeln!(text, "  {}", story.tell(*socket)).expect("a string takes all");
        }
        text
    }

    pub(super) fn story(&self, conn: ConnId) -> &Story {
        self.stories.get(&conn).expect("a connection of this run")
    }

    pub(super) fn story_mut(&mut self, conn: ConnId) -> &mut Story {
        self.stories.get_mut(&conn).expect("a connection of this run")
    }
}
