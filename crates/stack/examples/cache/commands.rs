//! What the cache does when it's asked: the commands, their arguments and their answers (redis.io/docs/latest/commands).

use std::ops::Range;

use crate::resp::{array, bulk, error, int, integer, nothing, simple};
use crate::store::Store;

/// Bytes of one answer, at most.
const ANSWER_MAX: usize = 4 << 20;
const SYNTAX: &str = "syntax error";
const NOT_AN_INTEGER: &str = "value is not an integer or out of range";

/// As many words as a request may have.
const MANY: usize = usize::MAX;
/// Each command's name, and how many words it has at least and at most, itself among them.
const COMMANDS: [(&str, usize, usize); 29] = [
    ("PING", 1, 2),
    ("ECHO", 2, 2),
    ("SET", 3, 7),
    ("GET", 2, 2),
    ("DEL", 2, MANY),
    ("EXISTS", 2, MANY),
    ("INCR", 2, 2),
    ("DECR", 2, 2),
    ("INCRBY", 3, 3),
    ("DECRBY", 3, 3),
    ("MGET", 2, MANY),
    ("MSET", 3, MANY),
    ("EXPIRE", 3, 3),
    ("PEXPIRE", 3, 3),
    ("TTL", 2, 2),
    ("PTTL", 2, 2),
    ("PERSIST", 2, 2),
    ("STRLEN", 2, 2),
    ("DBSIZE", 1, 1),
    ("FLUSHALL", 1, 2),
    ("FLUSHDB", 1, 2),
    ("INFO", 1, MANY),
    ("COMMAND", 1, MANY),
    ("CONFIG", 2, MANY),
    ("CLIENT", 2, MANY),
    ("SELECT", 2, 2),
    ("HELLO", 1, MANY),
    ("QUIT", 1, 1),
    ("RESET", 1, 1),
];

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    /// It's to end once the answer has gone.
    Quit,
}

/// A request's words.
pub(crate) struct Words<'a> {
    bytes: &'a [u8],
    places: &'a [Range<usize>],
}

impl<'a> Words<'a> {
    pub(crate) const fn new(bytes: &'a [u8], places: &'a [Range<usize>]) -> Self {
        Self { bytes, places }
    }

    /// The word at `index`; an empty one beyond the last.
    fn at(&self, index: usize) -> &'a [u8] {
        self.places.get(index).map_or(&[], |place| &self.bytes[place.clone()])
    }

    fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> {
        let bytes = self.bytes;
        self.places.iter().skip(index).map(move |place| &bytes[place.clone()])
    }

    const fn len(&self) -> usize {
        self.places.len()
    }

    fn is(&self, index: usize, word: &str) -> bool {
        self.at(index).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Does what the words say, and writes the answer behind what `out` holds.
pub(crate) fn execute(words: &Words<'_>, store: &mut Store, now_ms: u64, out: &mut Vec<u8>) -> Next {
    let Some((name, least, most)) = COMMANDS.into_iter().find(|(name, ..)| words.is(0, name)) else {
        error(out, &format!("unknown command '{}'", printable(words.at(0))));
        return Next::GoOn;
    };
    if words.len() < least || words.len() > most {
        error(out, &format!("wrong number of arguments for '{}' command", name.to_ascii_lowercase()));
        return Next::GoOn;
    }
    match name {
        "SET" => set(words, store, now_ms, out),
        "GET" => value(store, words.at(1), now_ms, out),
        "MGET" => mget(words, store, now_ms, out),
        "MSET" => mset(words, store, now_ms, out),
        "DEL" => count(out, words.from(1).filter(|key| store.remove(key, now_ms)).count()),
        "EXISTS" => count(out, words.from(1).filter(|key| store.get(key, now_ms).is_some()).count()),
        "STRLEN" => count(out, store.get(words.at(1), now_ms).map_or(0, |(value, _)| value.len())),
        "INCR" => add(store, words.at(1), Some(1), now_ms, out),
        "DECR" => add(store, words.at(1), Some(-1), now_ms, out),
        "INCRBY" => add(store, words.at(1), integer(words.at(2)), now_ms, out),
        "DECRBY" => add(store, words.at(1), integer(words.at(2)).and_then(i64::checked_neg), now_ms, out),
        "EXPIRE" => expire(words, store, 1000, now_ms, out),
        "PEXPIRE" => expire(words, store, 1, now_ms, out),
        "PERSIST" => {
            let had = store.get(words.at(1), now_ms).is_some_and(|(_, expires_ms)| expires_ms != 0);
            int(out, i64::from(had && store.expire(words.at(1), 0, now_ms)));
        }
        "TTL" => time_left(words, store, 1000, now_ms, out),
        "PTTL" => time_left(words, store, 1, now_ms, out),
        "DBSIZE" => count(out, store.len()),
        "FLUSHALL" | "FLUSHDB" => {
            store.clear();
            simple(out, "OK");
        }
        _ => return about(name, words, store, out),
    }
    Next::GoOn
}

/// Commands that aren't about keys: what clients say and ask for when they begin and end.
fn about(name: &str, words: &Words<'_>, store: &Store, out: &mut Vec<u8>) -> Next {
    match name {
        "PING" if words.len() == 1 => simple(out, "PONG"),
        "PING" | "ECHO" => bulk(out, words.at(1)),
        // There's one database.
        "SELECT" if words.at(1) == b"0" => simple(out, "OK"),
        "SELECT" => error(out, "DB index is out of range"),
        "CONFIG" if words.is(1, "GET") => config(words, out),
        "CONFIG" => error(out, "the configuration is given on the command line"),
        "CLIENT" if words.is(1, "SETNAME") || words.is(1, "SETINFO") => simple(out, "OK"),
        "CLIENT" => error(out, "unknown subcommand"),
        "COMMAND" => array(out, 0),
        "INFO" => {
            let text = format!(
                "# Server\r\nredis_version:0.0.0\r\nredis_mode:standalone\r\n# Stats\r\nevicted_keys:{}\r\n# Keyspace\r\n\
                 db0:keys={}\r\n",
                store.evicted(),
                store.len()
            );
            bulk(out, text.as_bytes());
        }
        // The second version of the protocol is all that's spoken here.
        "HELLO" if words.len() > 1 && words.at(1) != b"2" => {
            out.extend_from_slice(b"-NOPROTO unsupported protocol version\r\n");
        }
        "HELLO" => {
            array(out, 4);
            for word in ["server", "midmile-cache", "proto"] {
                bulk(out, word.as_bytes());
            }
            int(out, 2);
        }
        "RESET" => simple(out, "RESET"),
        _ => {
            simple(out, "OK");
            return Next::Quit;
        }
    }
    Next::GoOn
}

/// `redis-benchmark` asks for two of these before it begins.
fn config(words: &Words<'_>, out: &mut Vec<u8>) {
    let known = [("save", ""), ("appendonly", "no"), ("maxmemory-policy", "allkeys-lru")];
    match known.into_iter().find(|(name, _)| words.is(2, name)) {
        Some((name, value)) => {
            array(out, 2);
            bulk(out, name.as_bytes());
            bulk(out, value.as_bytes());
        }
        None => array(out, 0),
    }
}

fn set(words: &Words<'_>, store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let (key, mut expires_ms, mut only) = (words.at(1), 0, None);
    let mut at = 3;
    while at < words.len() {
        match (only, expires_ms) {
            (None, _) if words.is(at, "NX") => only = Some(false),
            (None, _) if words.is(at, "XX") => only = Some(true),
            (_, 0) if words.is(at, "EX") || words.is(at, "PX") => {
                let unit_ms = if words.is(at, "EX") { 1000 } else { 1 };
                at += 1;
                match integer(words.at(at)).filter(|wait| *wait > 0).and_then(|wait| moment(wait, unit_ms, now_ms)) {
                    Some(moment) => expires_ms = moment,
                    None => return error(out, "invalid expire time in 'set' command"),
                }
            }
            _ => return error(out, SYNTAX),
        }
        at += 1;
    }
    if only.is_some_and(|there| store.get(key, now_ms).is_some() != there) {
        return nothing(out);
    }
    match store.set(key, words.at(2), expires_ms, now_ms) {
        Ok(()) => simple(out, "OK"),
        Err(_) => too_big(out),
    }
}

fn too_big(out: &mut Vec<u8>) {
    error(out, "too big: key and value may take an eighth of the cache's memory");
}

/// When something is that is `wait` units away.
fn moment(wait: i64, unit_ms: i64, now_ms: u64) -> Option<u64> {
    now_ms.checked_add_signed(wait.checked_mul(unit_ms)?)
}

fn value(store: &mut Store, key: &[u8], now_ms: u64, out: &mut Vec<u8>) {
    match store.get(key, now_ms) {
        Some((value, _)) => bulk(out, value),
        None => nothing(out),
    }
}

fn mget(words: &Words<'_>, store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    let start = out.len();
    array(out, words.len() - 1);
    for key in words.from(1) {
        value(store, key, now_ms, out);
        if out.len() - start > ANSWER_MAX {
            out.truncate(start);
            return error(out, "the answer would be too long: ask for fewer keys at once");
        }
    }
}

fn mset(words: &Words<'_>, store: &mut Store, now_ms: u64, out: &mut Vec<u8>) {
    if words.len().is_multiple_of(2) {
        return error(out, "wrong number of arguments for 'mset' command");
    }
    for at in (1..words.len()).step_by(2) {
        if store.set(words.at(at), words.at(at + 1), 0, now_ms).is_err() {
            return too_big(out);
        }
    }
    simple(out, "OK");
}

fn add(store: &mut Store, key: &[u8], change: Option<i64>, now_ms: u64, out: &mut Vec<u8>) {
    let before = store.get(key, now_ms).map_or(Some((0, 0)), |(value, expires_ms)| Some((integer(value)?, expires_ms)));
    let (Some(change), Some((before, expires_ms))) = (change, before) else { return error(out, NOT_AN_INTEGER) };
    let Some(after) = before.checked_add(change) else {
        return error(out, "increment or decrement would overflow");
    };
    let mut text = [0; 20];
    match store.set(key, decimal(after, &mut text), expires_ms, now_ms) {
        Ok(()) => int(out, after),
        Err(_) => too_big(out),
    }
}

/// Writes the number's digits at the end of `text`.
fn decimal(number: i64, text: &mut [u8; 20]) -> &[u8] {
    let (mut left, mut at) = (number.unsigned_abs(), text.len());
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(left % 10).expect("a digit");
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    &text[at..]
}

fn expire(words: &Words<'_>, store: &mut Store, unit_ms: i64, now_ms: u64, out: &mut Vec<u8>) {
    let key = words.at(1);
    let done = match integer(words.at(2)) {
        None => return error(out, NOT_AN_INTEGER),
        Some(wait) if wait <= 0 => store.remove(key, now_ms),
        Some(wait) => match moment(wait, unit_ms, now_ms) {
            Some(moment) => store.expire(key, moment, now_ms),
            None => return error(out, "invalid expire time"),
        },
    };
    int(out, i64::from(done));
}

fn time_left(words: &Words<'_>, store: &mut Store, unit_ms: u64, now_ms: u64, out: &mut Vec<u8>) {
    int(
        out,
        match store.get(words.at(1), now_ms) {
            None => -2,
            Some((_, 0)) => -1,
            // Rounded as Redis does.
            Some((_, expires_ms)) => i64::try_from((expires_ms - now_ms + unit_ms / 2) / unit_ms).unwrap_or(i64::MAX),
        },
    );
}

fn count(out: &mut Vec<u8>, number: usize) {
    int(out, i64::try_from(number).unwrap_or(i64::MAX));
}

/// The beginning of a word, as an error may show it.
fn printable(word: &[u8]) -> String {
    word.iter().take(64).filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp;
    use crate::store::MEMORY_MIN;

    fn ask(store: &mut Store, line: &str, now_ms: u64) -> String {
        let (mut places, mut out) = (Vec::new(), Vec::new());
        let line = format!("{line}\r\n");
        resp::request(line.as_bytes(), &mut places).unwrap();
        execute(&Words::new(line.as_bytes(), &places), store, now_ms, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_answer_as_redis_does() {
        let store = &mut Store::new(MEMORY_MIN);
        for (line, answer) in [
            ("ping", "+PONG\r\n"),
            ("PING x", "$1\r\nx\r\n"),
            ("GET a", "$-1\r\n"),
            ("SET a 1 XX", "$-1\r\n"),
            ("SET a 1 NX", "+OK\r\n"),
            ("SET a 2 NX", "$-1\r\n"),
            ("INCR a", ":2\r\n"),
            ("INCRBY a -12", ":-10\r\n"),
            ("DECR a", ":-11\r\n"),
            ("INCRBY a 9223372036854775807", ":9223372036854775796\r\n"),
            ("INCRBY a 100", "-ERR increment or decrement would overflow\r\n"),
            ("MSET b x c yz", "+OK\r\n"),
            ("MSET b x c", "-ERR wrong number of arguments for 'mset' command\r\n"),
            ("INCR b", "-ERR value is not an integer or out of range\r\n"),
            ("MGET b nothing c", "*3\r\n$1\r\nx\r\n$-1\r\n$2\r\nyz\r\n"),
            ("EXISTS a b b nothing", ":3\r\n"),
            ("DBSIZE", ":3\r\n"),
            ("DEL a nothing b", ":2\r\n"),
            ("TTL c", ":-1\r\n"),
            ("TTL a", ":-2\r\n"),
            ("SET", "-ERR wrong number of arguments for 'set' command\r\n"),
            ("SET a b EX", "-ERR invalid expire time in 'set' command\r\n"),
            ("SET a b NX XX", "-ERR syntax error\r\n"),
            ("NO\u{7}PE", "-ERR unknown command 'NOPE'\r\n"),
            ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("HELLO 3", "-NOPROTO unsupported protocol version\r\n"),
            ("FLUSHALL", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
        ] {
            assert_eq!(ask(store, line, 1), answer, "{line}");
        }
    }

    #[test]
    fn what_expires_does_so_by_the_clock() {
        let store = &mut Store::new(MEMORY_MIN);
        assert_eq!(ask(store, "SET a 1 EX 10", 1000), "+OK\r\n");
        assert_eq!(ask(store, "INCR a", 2000), ":2\r\n");
        assert_eq!(ask(store, "TTL a", 2000), ":9\r\n");
        assert_eq!(ask(store, "PTTL a", 10_999), ":1\r\n");
        assert_eq!(ask(store, "GET a", 11_000), "$-1\r\n");
        assert_eq!(ask(store, "SET b 1 PX 10", 0), "+OK\r\n");
        assert_eq!(ask(store, "PERSIST b", 0), ":1\r\n");
        assert_eq!(ask(store, "TTL b", 1000), ":-1\r\n");
        assert_eq!(ask(store, "EXPIRE b 1", 1000), ":1\r\n");
        assert_eq!(ask(store, "EXISTS b", 2000), ":0\r\n");
        assert_eq!(ask(store, "EXPIRE b 1", 2000), ":0\r\n");
    }
}
