//! An HTTP/1.1 server for the files of a directory, which it reads at its start.
//!
//! Requests that came together are answered together. A short page is copied behind its head; a long one goes out from where it lies,
//! with its head in front by the same call, and waits there for a peer that is slow.

#[path = "../common/answers.rs"]
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod date;
mod request;
mod site;

use std::io::{IoSlice, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use answers::{Answers, Rest};
use clap::Parser;
use common::{Carrier, Flags, Program};
use midmile_engine::{Backend, Config, ConnError, ConnId, Cx, Handler, Incoming, Key, ListenerId, MeterId, Slab, Time};
use request::{Asked, Refusal};
use site::Site;

/// Pages up to so many bytes are copied behind their heads.
const COPIED_MAX: usize = 4096;
/// How long a connection may take for a request, or for reading any of an answer.
const IDLE: Duration = Duration::from_secs(30);

/// Serves the files of a directory over HTTP/1.1
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// The directory
    root: PathBuf,
    /// Memory for files, in MiB
    #[arg(long, value_name = "MIB", default_value = "256")]
    memory: u32,
}

/// A connection.
#[derive(Debug)]
struct Visitor {
    rest: Rest,
    /// The page that is going out from where it lies, and from which byte on; behind `rest`.
    sending: Option<(usize, usize)>,
    /// When it last was answered, or took some of an answer.
    active: Time,
}

struct Responder {
    site: Arc<Site>,
    conns_max: u32,
    visitors: Slab<Visitor>,
    answers: Answers,
    path: Vec<u8>,
    /// The time of day, and when it was asked for.
    date: String,
    date_at: Time,
}

impl Responder {
    fn new(site: Arc<Site>, conns_max: u32) -> Self {
        Self {
            site,
            conns_max,
            visitors: Slab::with_capacity(conns_max),
            answers: Answers::default(),
            path: Vec::with_capacity(request::HEAD_BYTES_MAX),
            date: String::with_capacity(32),
            date_at: Time::ZERO,
        }
    }

    /// Answers the requests at the front of `bytes`, as long as the peer takes answers, and says how many bytes they were.
    fn answer<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, key: Key, bytes: &[u8]) -> usize {
        self.tell_time(cx.now());
        let mut used = 0;
        while let Some(visitor) = self.visitors.get_mut(key)
            && !visitor.rest.is_ending()
            && !visitor.rest.is_waiting()
            && visitor.sending.is_none()
            && let Some(asked) = request::head(&bytes[used..])
        {
            used += asked.len;
            visitor.active = cx.now();
            let long = self.write_answer(&asked);
            let Some(visitor) = self.visitors.get_mut(key) else { break };
            if let Some(number) = long {
                visitor.send_page(cx, conn, &mut self.answers, &self.site, number);
            } else if self.answers.is_full() {
                self.answers.send(cx, conn, &mut visitor.rest);
            }
            if !asked.keeps {
                self.answers.send(cx, conn, &mut visitor.rest);
                visitor.rest.end(cx, conn, visitor.sending.is_none());
            }
        }
        match self.visitors.get_mut(key) {
            Some(visitor) => {
                self.answers.send(cx, conn, &mut visitor.rest);
                if visitor.rest.is_ending() { bytes.len() } else { used }
            }
            None => bytes.len(),
        }
    }

    /// Writes the answer, but for a page that is long, whose number it returns.
    fn write_answer(&mut self, asked: &Asked<'_>) -> Option<usize> {
        let found = asked.path.and_then(|path| {
            let decoded = request::decode(path, &mut self.path);
            if decoded { self.site.find(&self.path).ok_or(Refusal::NotFound) } else { Err(Refusal::Malformed) }
        });
        let status = found.map_or_else(Refusal::status, |_| "200 OK");
        let out = &mut self.answers.out;
        let connection = if asked.keeps { "" } else { "Connection: close\r\n" };
        write!(out, "HTTP/1.1 {status}\r\nDate: {}\r\n{connection}", self.date)
            .expect("a vector takes what it's given");
        let Ok(number) = found else {
            if found == Err(Refusal::Method) {
                out.extend_from_slice(b"Allow: GET, HEAD\r\n");
            }
            // The body repeats the status; an answer to HEAD has its length alone.
            write!(out, "Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n", status.len() + 1)
                .expect("a vector takes what it's given");
            if !asked.head_only {
                out.extend_from_slice(status.as_bytes());
                out.push(b'\n');
            }
            return None;
        };
        let page = self.site.page(number);
        out.extend_from_slice(&page.fields);
        out.extend_from_slice(b"\r\n");
        if asked.head_only {
            return None;
        }
        if page.body.len() > COPIED_MAX {
            return Some(number);
        }
        out.extend_from_slice(&page.body);
        None
    }

    /// Looks at the clock once a second.
    fn tell_time(&mut self, now: Time) {
        if self.date.is_empty() || now.since(self.date_at) >= Duration::from_secs(1) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            date::write(&mut self.date, since.as_secs());
            self.date_at = now;
        }
    }
}

impl Visitor {
    /// Sends what has gathered and a page behind it, by one call.
    fn send_page<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        conn: ConnId,
        answers: &mut Answers,
        site: &Site,
        number: usize,
    ) {
        let body = &site.page(number).body;
        let sent = cx.send_vectored(conn, &[IoSlice::new(&answers.out), IoSlice::new(body)]);
        let of_heads = sent.min(answers.out.len());
        self.rest.keep(&answers.out[of_heads..]);
        answers.out.clear();
        if sent - of_heads < body.len() {
            self.sending = Some((number, sent - of_heads));
            cx.pause(conn);
        }
    }

    /// There's room: sends on, and says whether all has gone.
    fn send_on<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, site: &Site) -> bool {
        if self.rest.is_waiting() && !self.rest.send_on(cx, conn) {
            return false;
        }
        let Some((number, from)) = self.sending else { return true };
        let body = &site.page(number).body;
        let to = from + cx.send(conn, &body[from..]);
        self.sending = (to < body.len()).then_some((number, to));
        self.sending.is_none()
    }
}

impl<B: Backend> Handler<B> for Responder {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let visitor = Visitor { rest: Rest::default(), sending: None, active: cx.now() };
        let Ok(key) = self.visitors.insert(visitor) else { return cx.refuse(incoming) };
        match cx.admit(incoming, key.to_bits(), MeterId::NONE) {
            Ok(conn) => {
                cx.set_timer(conn, IDLE);
                cx.read(conn);
            }
            Err(incoming) => {
                self.visitors.remove(key);
                cx.refuse(incoming);
            }
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        self.answer(cx, conn, Key::from_bits(token), bytes)
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let Some(visitor) = self.visitors.get_mut(Key::from_bits(token)) else { return };
        visitor.active = cx.now();
        if visitor.send_on(cx, conn, &self.site) {
            if visitor.rest.is_ending() {
                answers::finish(cx, conn);
            }
            cx.read(conn);
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        let key = Key::from_bits(token);
        let Some(visitor) = self.visitors.get(key) else { return };
        let quiet = cx.now().since(visitor.active);
        let is_sent = !visitor.rest.is_waiting() && visitor.sending.is_none();
        if quiet >= IDLE || (visitor.rest.is_ending() && is_sent) {
            self.visitors.remove(key);
            cx.reset(conn);
        } else {
            cx.set_timer(conn, IDLE - quiet);
        }
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.visitors.remove(Key::from_bits(token));
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, _error: ConnError) {
        self.visitors.remove(Key::from_bits(token));
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        cx.stop();
    }
}

impl Program for Responder {
    const DATAGRAMS: bool = false;

    fn again(&self) -> Option<Self> {
        Some(Self::new(self.site.clone(), self.conns_max))
    }

    fn run_on<B: Carrier>(self, backend: B, flags: &Flags) -> anyhow::Result<()> {
        common::serve(backend, flags, Config::default(), self)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let site = Site::read(&cli.root, (cli.memory as usize) << 20)?;
    let responder = Responder::new(Arc::new(site), cli.flags.conns_max);
    common::run(responder, &cli.flags)
}
