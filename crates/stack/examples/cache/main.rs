//! A cache that speaks the protocol of Redis, version 2: strings with times to live, in memory of fixed size.
//!
//! Requests that came together are answered together, by one send. A peer that doesn't read its answers isn't read from either; they
//! wait in memory of the connection's own until it does.

#[path = "../common/answers.rs"]
mod answers;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod resp;
mod store;

use std::ops::Range;

use answers::{Answers, Rest};
use clap::Parser;
use commands::{Next, Words};
use common::{Carrier, Flags, Program};
use midmile_engine::{Backend, Config, ConnError, ConnId, Cx, Handler, Incoming, Key, ListenerId, MeterId, Slab};
use store::Store;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 512 * 1024;

/// A cache that speaks the Redis protocol
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// Memory for keys, values and their index, in MiB. When it's full, what was neither written nor read for longest goes
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65536))]
    memory: u32,
}

struct Cache {
    store: Store,
    conns: Slab<Rest>,
    answers: Answers,
    /// Where a request's words are.
    words: Vec<Range<usize>>,
}

impl Cache {
    /// Answers the requests at the front of `bytes`, as long as the peer takes answers, and says how many bytes they were.
    fn answer<B: Backend>(&mut self, cx: &mut Cx<B>, conn: ConnId, key: Key, bytes: &[u8]) -> usize {
        let now_ms = cx.now().as_millis();
        let Some(rest) = self.conns.get_mut(key) else { return bytes.len() };
        let mut used = 0;
        while !rest.is_waiting() && !rest.is_ending() {
            let next = match resp::request(&bytes[used..], &mut self.words) {
                Ok(Some(len)) => {
                    let words = Words::new(&bytes[used..used + len], &self.words);
                    used += len;
                    if self.words.is_empty() {
                        continue;
                    }
                    commands::execute(&words, &mut self.store, now_ms, &mut self.answers.out)
                }
                Ok(None) if bytes.len() - used < REQUEST_BYTES_MAX => break,
                Ok(None) => {
                    resp::error(&mut self.answers.out, "Protocol error: too big request");
                    Next::Quit
                }
                Err(malformed) => {
                    resp::error(&mut self.answers.out, malformed.0);
                    Next::Quit
                }
            };
            if next == Next::Quit {
                self.answers.send(cx, conn, rest);
                rest.end(cx, conn, true);
            } else if self.answers.is_full() {
                self.answers.send(cx, conn, rest);
            }
        }
        self.answers.send(cx, conn, rest);
        if rest.is_ending() { bytes.len() } else { used }
    }
}

impl<B: Backend> Handler<B> for Cache {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let Ok(key) = self.conns.insert(Rest::default()) else { return cx.refuse(incoming) };
        match cx.admit(incoming, key.to_bits(), MeterId::NONE) {
            Ok(conn) => cx.read(conn),
            Err(incoming) => {
                self.conns.remove(key);
                cx.refuse(incoming);
            }
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        self.answer(cx, conn, Key::from_bits(token), bytes)
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        if let Some(rest) = self.conns.get_mut(Key::from_bits(token))
            && rest.send_on(cx, conn)
        {
            if rest.is_ending() {
                answers::finish(cx, conn);
            }
            cx.read(conn);
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.conns.remove(Key::from_bits(token));
        cx.reset(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64) {
        self.conns.remove(Key::from_bits(token));
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, token: u64, _error: ConnError) {
        self.conns.remove(Key::from_bits(token));
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        cx.stop();
    }
}

impl Program for Cache {
    const DATAGRAMS: bool = false;

    /// What one core stored another wouldn't find.
    fn again(&self) -> Option<Self> {
        None
    }

    fn run_on<B: Carrier>(self, backend: B, flags: &Flags) -> anyhow::Result<()> {
        let config = Config { read_bytes: REQUEST_BYTES_MAX, ..Config::default() };
        common::serve(backend, flags, config, self)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let cache = Cache {
        store: Store::new((cli.memory as usize) << 20),
        conns: Slab::with_capacity(cli.flags.conns_max),
        answers: Answers::default(),
        words: Vec::with_capacity(64),
    };
    common::run(cache, &cli.flags)
}
