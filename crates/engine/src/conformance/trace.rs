//! A program that writes down each upcall and holds it against the contract of [`Handler`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::addr::Addr;
use crate::backend::Backend;
use crate::conn::Reading;
use crate::cx::{Cx, MeterId};
use crate::error::ConnError;
use crate::handler::{ConnId, Frame, Handler, Incoming, ListenerId};
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
    token: u64,
    dialled: bool,
    stands: bool,
    /// What the program used.
    received: Vec<u8>,
    /// What it was offered last and didn't use.
    left_over: Vec<u8>,
    /// What it has sent.
    sent: Vec<u8>,
    /// What it says in answer, and found no room for yet.
    owed: Vec<u8>,
    /// A send was short, and nobody has said since that there's room.
    short: bool,
    ended: bool,
    error: Option<ConnError>,
    over: bool,
    take: Take,
    timer_at: Option<Time>,
    /// Its upcalls.
    order: Vec<Seen>,
    peer: Option<Addr>,
    listener: Option<ListenerId>,
    /// Messages, by their lengths.
    messages: Vec<usize>,
}

/// What happened so far.
#[derive(Debug)]
pub struct Record {
    log: Vec<(Time, Option<ConnId>, Seen)>,
    stories: HashMap<ConnId, Story>,
    accepted: Vec<ConnId>,
    /// Those that have to be gone at the end of the turn.
    ending: Vec<ConnId>,
    tokens: u64,
    /// How the next connections are met.
    pub door: Door,
    /// How the next connections' bytes are used.
    pub take: Take,
    /// What is offered is sent back.
    pub echoes: bool,
    /// Alarms are written down: those that a stage sets to go on aren't.
    pub shows_alarms: bool,
    /// Offered bytes in order of offers, for cases that count offers.
    pub offers: Vec<usize>,
}

impl Record {
    fn new() -> Self {
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
            offers: Vec::new(),
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
        text
    }

    pub(super) fn story(&self, conn: ConnId) -> &Story {
        self.stories.get(&conn).expect("a connection of this run")
    }

    fn story_mut(&mut self, conn: ConnId) -> &mut Story {
        self.stories.get_mut(&conn).expect("a connection of this run")
    }
}

/// What a case does within an upcall, after it was written down.
pub type Hook<B> = Box<dyn FnMut(&mut Cx<B>, &mut Record, Option<ConnId>, Seen)>;

/// The program of all cases.
pub struct Trace<B: Backend> {
    /// What happened so far.
    pub record: Record,
    /// What the case does within upcalls.
    pub hook: Option<Hook<B>>,
    within: bool,
    turn: (u64, Time),
}

impl<B: Backend> Default for Trace<B> {
    fn default() -> Self {
        Self { record: Record::new(), hook: None, within: false, turn: (0, Time::ZERO) }
    }
}

impl<B: Backend> Trace<B> {
    /// What every upcall has to keep to; then the case's hook.
    fn note(&mut self, cx: &mut Cx<B>, conn: Option<ConnId>, seen: Seen) {
        self.enter(cx);
        self.record.log.push((cx.now(), conn, seen));
        if let Some(conn) = conn {
            self.record.story_mut(conn).order.push(seen);
        }
        self.call_hook(cx, conn, seen);
        self.within = false;
    }

    fn enter(&mut self, cx: &Cx<B>) {
        assert!(!std::mem::replace(&mut self.within, true), "an upcall within an upcall");
        let (turn, now) = (cx.turns, cx.now());
        assert!(now >= self.turn.1, "time goes backwards");
        assert!(turn != self.turn.0 || now == self.turn.1, "time moves within a turn");
        self.turn = (turn, now);
    }

    fn call_hook(&mut self, cx: &mut Cx<B>, conn: Option<ConnId>, seen: Seen) {
        let Some(mut hook) = self.hook.take() else { return };
        let answer = catch_unwind(AssertUnwindSafe(|| hook(cx, &mut self.record, conn, seen)));
        self.hook = Some(hook);
        if let Err(panic) = answer {
            self.within = false;
            resume_unwind(panic);
        }
    }

    /// An upcall of a connection: it must be open, the program mustn't have ended it, and its token must be right.
    fn of_conn(&mut self, cx: &Cx<B>, conn: ConnId, token: u64, seen: Seen) -> &mut Story {
        let story = self.record.stories.get_mut(&conn);
        let Some(story) = story else { panic!("{seen:?} for {conn:?}, which was never begun") };
        assert!(!story.over, "{seen:?} for {conn:?} after its end");
        assert!(cx.conns.get(conn).is_some(), "{seen:?} for {conn:?}, which isn't open");
        assert_eq!(story.token, token, "{seen:?} for {conn:?} with another's token");
        let first = matches!(seen, Seen::Connect | Seen::Error(_) | Seen::Timer);
        assert!(story.stands || first, "{seen:?} before the dial of {conn:?} stands");
        story
    }
}

impl<B: Backend> Handler<B> for Trace<B> {
    fn on_accept(&mut self, cx: &mut Cx<B>, listener: ListenerId, incoming: Incoming<B::Socket>) {
        let (token, peer) = (self.record.token(), incoming.peer.clone());
        let admitted = match self.record.door {
            Door::Admit { .. } | Door::AdmitMessages => cx.admit(incoming, token, MeterId::NONE),
            Door::Refuse => Err(incoming),
            Door::Drop => {
                drop(incoming);
                return self.note(cx, None, Seen::TurnedAway);
            }
        };
        let Ok(conn) = admitted.map_err(|incoming| cx.refuse(incoming)) else {
            return self.note(cx, None, Seen::TurnedAway);
        };
        self.record.begin(conn, token, false);
        let story = self.record.story_mut(conn);
        (story.peer, story.listener) = (Some(peer), Some(listener));
        self.record.accepted.push(conn);
        match self.record.door {
            Door::AdmitMessages => cx.read_messages(conn),
            Door::Admit { read: true } => cx.read(conn),
            _ => {}
        }
        self.note(cx, Some(conn), Seen::Accept);
    }

    fn on_accept_exhausted(&mut self, cx: &mut Cx<B>, _listener: ListenerId) {
        self.note(cx, None, Seen::Exhausted);
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let story = self.of_conn(cx, conn, token, Seen::Connect);
        assert!(story.dialled && !story.stands, "{conn:?} comes to stand twice, or wasn't dialled");
        story.stands = true;
        self.note(cx, Some(conn), Seen::Connect);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        let (most, forwarded) = (cx.config.read_bytes, cx.has_forwarded(conn));
        let story = self.of_conn(cx, conn, token, Seen::Data);
        // What was left over is offered again to a program that asks.
        assert!(!story.ended || bytes == story.left_over, "bytes of {conn:?} after the peer's end");
        assert!(!bytes.is_empty() && bytes.len() <= most, "{} bytes are offered", bytes.len());
        assert!(forwarded || bytes.starts_with(&story.left_over), "what was left over isn't offered again in front");
        let used = match &mut story.take {
            Take::All => bytes.len(),
            Take::Nothing => 0,
            Take::AtMost(most) => bytes.len().min(*most),
            Take::Frames(frame) => bytes.len() - bytes.len() % *frame,
            Take::Seeded(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pick = usize::try_from(*seed >> 40).expect("24 bits");
                if bytes.len() == most { (pick % bytes.len()).max(1) } else { pick % (bytes.len() + 1) }
            }
        };
        story.received.extend(&bytes[..used]);
        story.left_over = bytes[used..].to_vec();
        let reading = cx.conns.get(conn).map(|conn| conn.reading);
        assert_eq!(reading, Some(Reading::Upcall), "bytes of {conn:?} that nobody asked for");
        self.record.offers.push(bytes.len());
        if self.record.echoes {
            self.record.say(cx, conn, &bytes[..used]);
        }
        self.note(cx, Some(conn), Seen::Data);
        used
    }

    fn frame(&mut self, conn: ConnId, token: u64, bytes: &[u8]) -> Frame {
        let story = self.record.stories.get(&conn);
        assert!(story.is_some_and(|story| story.token == token && !story.over && !story.ended), "a frame of nobody's");
        assert!(!bytes.is_empty(), "a frame of nothing");
        measure(bytes)
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        let reading = cx.conns.get(conn).map(|conn| conn.reading);
        let story = self.of_conn(cx, conn, token, Seen::Message);
        assert!(!story.ended, "a message of {conn:?} after the peer's end");
        assert_eq!(reading, Some(Reading::Messages), "a message of {conn:?} that nobody asked for");
        assert_eq!(measure(bytes), Frame::Message(bytes.len()), "a message isn't whole, or more than one");
        story.messages.push(bytes.len());
        story.received.extend(bytes);
        story.left_over.clear();
        if self.record.echoes {
            self.record.say(cx, conn, bytes);
        }
        self.note(cx, Some(conn), Seen::Message);
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let story = self.of_conn(cx, conn, token, Seen::Writable);
        assert!(std::mem::take(&mut story.short), "room for {conn:?}, which didn't lack any");
        if !story.owed.is_empty() {
            self.record.say(cx, conn, b"");
        }
        self.note(cx, Some(conn), Seen::Writable);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let story = self.of_conn(cx, conn, token, Seen::PeerClose);
        assert!(!std::mem::replace(&mut story.ended, true), "the peer of {conn:?} ends twice");
        self.note(cx, Some(conn), Seen::PeerClose);
    }

    fn on_error(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, error: ConnError) {
        let story = self.of_conn(cx, conn, token, Seen::Error(error));
        (story.error, story.over) = (Some(error), true);
        self.record.ending.push(conn);
        self.note(cx, Some(conn), Seen::Error(error));
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let now = cx.now();
        let story = self.of_conn(cx, conn, token, Seen::Timer);
        let at = story.timer_at.take();
        assert!(at.is_some_and(|at| at <= now), "the timer of {conn:?} runs out at {now:?}, and is due at {at:?}");
        self.note(cx, Some(conn), Seen::Timer);
    }

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        if self.record.shows_alarms {
            self.note(cx, None, Seen::Alarm);
        }
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        self.note(cx, None, Seen::Wake);
    }

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        self.enter(cx);
        self.within = false;
        for conn in self.record.ending.drain(..) {
            assert!(cx.conns.get(conn).is_none(), "{conn:?} is open after its end");
        }
    }
}

/// Messages of a case: two bytes for the length of what follows, the higher first. Of the longest length there's none.
fn measure(bytes: &[u8]) -> Frame {
    match bytes {
        [0xFF, 0xFF, ..] => Frame::Broken,
        [high, low, ..] => Frame::Message(2 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => Frame::More,
    }
}
