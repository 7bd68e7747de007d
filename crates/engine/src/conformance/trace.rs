//! A program that writes down each upcall and holds it against the contract of [`Handler`].

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::datagram_story::DatagramStory;
use super::record::{Door, Record, Seen, Story, Take};
use crate::backend::Backend;
use crate::conn::Reading;
use crate::cx::{Cx, MeterId};
use crate::datagram::{DatagramId, Flow};
use crate::error::ConnError;
use crate::handler::{ConnId, Frame, Handler, Incoming, ListenerId};
use crate::mesh::CoreId;
use crate::time::Time;

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
        assert!(!story.leaving || matches!(seen, Seen::Error(_)), "{seen:?} for {conn:?}, which was handed over");
        assert_eq!(story.token, token, "{seen:?} for {conn:?} with another's token");
        let first = matches!(seen, Seen::Connect | Seen::Error(_) | Seen::Timer);
        assert!(story.stands || first, "{seen:?} before the dial of {conn:?} stands");
        story
    }

    /// An upcall of a socket for datagrams: it must be bound, and the program mustn't have let it go.
    fn of_socket(&mut self, cx: &Cx<B>, socket: DatagramId, seen: Seen) -> &mut DatagramStory {
        self.record.socket = Some(socket);
        let story = self.record.sockets.get_mut(&socket);
        let Some(story) = story else { panic!("{seen:?} for {socket:?}, which was never bound") };
        assert!(!story.over, "{seen:?} for {socket:?} after it was let go");
        assert_eq!(cx.datagram_addr(socket), Some(story.at), "{seen:?} for {socket:?}, which isn't bound");
        story
    }
}

impl<B: Backend> Handler<B> for Trace<B> {
    fn on_accept(&mut self, cx: &mut Cx<B>, listener: ListenerId, mut incoming: Incoming<B::Socket>) {
        let (token, peer) = (self.record.token(), cx.incoming_peer(&mut incoming).clone());
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

    fn on_hand_off(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let awaits_room = cx.conns.get(conn).is_some_and(|conn| conn.awaits_room);
        self.record.arrives(conn, token, awaits_room);
        self.note(cx, Some(conn), Seen::HandOff);
    }

    fn on_hand_off_lost(&mut self, cx: &mut Cx<B>, from: CoreId, token: u64, error: ConnError) {
        self.record.lost.push((from, token));
        self.note(cx, None, Seen::HandOffLost(error));
    }

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.of_socket(cx, socket, Seen::Datagram).hear(flow, bytes);
        if self.record.echoes {
            // One that there's no room for is let go, as a server that answers questions does.
            self.record.send_to(cx, socket, flow, bytes).ok();
        }
        self.note(cx, None, Seen::Datagram);
    }

    fn on_datagrams_writable(&mut self, cx: &mut Cx<B>, socket: DatagramId) {
        let story = self.of_socket(cx, socket, Seen::DatagramsWritable);
        assert!(std::mem::take(&mut story.awaits_room), "room for datagrams of {socket:?}, which didn't lack any");
        self.note(cx, None, Seen::DatagramsWritable);
    }

    fn on_datagrams_failed(&mut self, cx: &mut Cx<B>, socket: DatagramId, error: ConnError) {
        self.of_socket(cx, socket, Seen::DatagramsFailed(error));
        self.note(cx, None, Seen::DatagramsFailed(error));
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
        for (socket, story) in &self.record.sockets {
            story.check(cx.datagram_addr(*socket), cx.datagram_counts(*socket));
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
