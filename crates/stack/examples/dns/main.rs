//! A DNS server for one zone, over UDP and TCP (RFC 1035; RFC 7766).
//!
//! A question that comes in a datagram is answered from the address that it came to, and all answers of a turn go out together. Over TCP
//! each message is told whole; answers go in the order of their questions, and those to questions that came together go out together.

mod answer;
#[path = "../common/answers.rs"]
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod name;
mod zone;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use answer::{Over, UDP_BYTES_MAX};
use answers::{Answers, Rest};
use anyhow::Context as _;
use clap::Parser;
use common::{Carrier, Flags, Program};
use midmile_engine::{
    Backend, Config, ConnError, ConnId, Cx, DatagramId, Flow, Frame, Handler, Incoming, Key, ListenerId, MeterId, Slab,
    Time,
};
use midmile_wire::frame::LengthPrefix;
use zone::Zone;

/// How long a connection may take for its next whole question, or for reading any of an answer (RFC 9210, section 4.4).
const IDLE: Duration = Duration::from_secs(10);

/// Answers questions about one zone, over UDP and TCP
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// The zone, in the master-file format: SOA, NS, A, AAAA, CNAME and TXT records
    zone: PathBuf,
    /// Where its names begin that have no dot at their end, unless $ORIGIN says so
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
}

/// A connection.
#[derive(Debug)]
struct Asker {
    rest: Rest,
    /// When it last asked, or took some of an answer.
    active: Time,
}

struct Responder {
    zone: Arc<Zone>,
    conns_max: u32,
    askers: Slab<Asker>,
    /// Answers of the connection that asked last.
    answers: Answers,
    asked: Option<(ConnId, Key)>,
    datagram: Vec<u8>,
}

impl Responder {
    fn new(zone: Arc<Zone>, conns_max: u32) -> Self {
        Self {
            zone,
            conns_max,
            askers: Slab::with_capacity(conns_max),
            answers: Answers::default(),
            asked: None,
            datagram: Vec::with_capacity(UDP_BYTES_MAX),
        }
    }

    /// Sends what has gathered. A peer that doesn't take it isn't asked for more.
    fn send<B: Backend>(&mut self, cx: &mut Cx<B>) {
        if let Some((conn, key)) = self.asked.take()
            && let Some(asker) = self.askers.get_mut(key)
        {
            self.answers.send(cx, conn, &mut asker.rest);
        }
        // Of a connection that has failed since.
        self.answers.out.clear();
    }
}

impl<B: Backend> Handler<B> for Responder {
    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.datagram.clear();
        if answer::answer(&self.zone, bytes, Over::Udp, &mut self.datagram) {
            // Without room the answer is lost; who asked asks again.
            cx.send_to(socket, flow, &self.datagram).ok();
        }
    }

    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let asker = Asker { rest: Rest::default(), active: cx.now() };
        let Ok(key) = self.askers.insert(asker) else { return cx.refuse(incoming) };
        match cx.admit(incoming, key.to_bits(), MeterId::NONE) {
            Ok(conn) => {
                cx.set_timer(conn, IDLE);
                cx.read_messages(conn);
            }
            Err(incoming) => {
                self.askers.remove(key);
                cx.refuse(incoming);
            }
        }
    }

    fn frame(&mut self, _conn: ConnId, _token: u64, bytes: &[u8]) -> Frame {
        LengthPrefix::DNS.measure(bytes).into()
    }

    fn on_message(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) {
        let key = Key::from_bits(token);
        if self.asked.is_some_and(|(_, asked)| asked != key) || self.answers.is_full() {
            self.send(cx);
        }
        let Some(asker) = self.askers.get_mut(key) else { return };
        asker.active = cx.now();
        self.asked = Some((conn, key));
        let out = &mut self.answers.out;
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        if answer::answer(&self.zone, &bytes[2..], Over::Tcp, out) {
            let len = u16::try_from(out.len() - start - 2).expect("an answer has no more than 65,535 bytes");
            out[start..start + 2].copy_from_slice(&len.to_be_bytes());
        } else {
            out.truncate(start);
        }
    }

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        self.send(cx);
    }

    /// Connections are read by messages.
    fn on_data(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let key = Key::from_bits(token);
        let Some(asker) = self.askers.get_mut(key) else { return };
        asker.active = cx.now();
        if asker.rest.send_on(cx, conn) {
            if asker.rest.is_ending() {
                self.askers.remove(key);
                cx.close(conn);
            } else {
                cx.read_messages(conn);
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let key = Key::from_bits(token);
        let Some(asker) = self.askers.get(key) else { return };
        let quiet = cx.now().since(asker.active);
        if quiet >= IDLE {
            self.askers.remove(key);
            cx.reset(conn);
        } else {
            cx.set_timer(conn, IDLE - quiet);
        }
    }

    /// It asks no more; its answers go out first.
    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.send(cx);
        let key = Key::from_bits(token);
        match self.askers.get_mut(key) {
            Some(asker) if asker.rest.is_waiting() => asker.rest.end(cx, conn, true),
            _ => {
                self.askers.remove(key);
                cx.close(conn);
            }
        }
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, _error: ConnError) {
        self.askers.remove(Key::from_bits(token));
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        cx.stop();
    }
}

impl Program for Responder {
    const DATAGRAMS: bool = true;

    fn again(&self) -> Option<Self> {
        Some(Self::new(self.zone.clone(), self.conns_max))
    }

    fn run_on<B: Carrier>(self, backend: B, flags: &Flags) -> anyhow::Result<()> {
        common::serve(backend, flags, Config { read_bytes: 2 + 65_535, ..Config::default() }, self)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let named = cli.zone.display();
    let text = fs::read_to_string(&cli.zone).with_context(|| format!("can't read {named}"))?;
    let zone = Zone::parse(&text, cli.origin.as_deref()).with_context(|| format!("in {named}"))?;
    let responder = Responder::new(Arc::new(zone), cli.flags.conns_max);
    common::run(responder, &cli.flags)
}
