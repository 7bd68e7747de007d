//! Redis through the multiplexor: two servers of the same contents, a few connections to each, answers in the order of commands.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use process::{PATIENCE, Scratch};
use programs::relay::Relay;
use programs::{Server, client, connections_to, lacks, said, server};

/// Without these there's no Redis here.
const PROGRAMS: [&str; 3] = ["redis-server", "redis-cli", "redis-benchmark"];
/// Keys that both servers have.
const KEYS: usize = 1000;
/// Clients at once.
const CLIENTS: usize = 100;

/// Two servers with the same keys, and a multiplexor to both.
struct Pair {
    servers: Vec<(Server, SocketAddr)>,
    mux: Relay,
    _scratch: Scratch,
}

impl Pair {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let servers: Vec<_> = ["a", "b"].map(|name| start(&scratch, name)).into();
        let values: String = (0..KEYS).map(|key| command(&["SET", &format!("key:{key}"), &value(key)])).collect();
        for (_, addr) in &servers {
            assert_eq!(exchange(*addr, values.as_bytes(), "+OK\r\n".repeat(KEYS).len()), "+OK\r\n".repeat(KEYS));
        }
        let mux = Relay::mux("resp", &[servers[0].1, servers[1].1], &[]);
        Self { servers, mux, _scratch: scratch }
    }

    /// What redis-cli says through the multiplexor.
    fn cli(&self, args: &[&str]) -> String {
        said(client("redis-cli").args(["-p", &self.mux.port()]).args(args)).trim().to_owned()
    }
}

fn start(scratch: &Scratch, name: &str) -> (Server, SocketAddr) {
    Server::start(scratch, &format!("{name}.log"), |addr| {
        let mut command: Command = server("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--dir", &scratch.path("")]);
        command.args(["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        command
    })
}

/// A command as RESP has it: an array of strings.
fn command(words: &[&str]) -> String {
    let strings: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{strings}", words.len())
}

/// A key's value: some are empty, some have line breaks, some are long.
fn value(key: usize) -> String {
    format!("{key}\r\n$3\r\n").repeat(key % 7 * (key % 131))
}

/// Sends everything without a wait for answers, of which there are to be so many bytes.
fn exchange(addr: SocketAddr, commands: &[u8], answer_bytes: usize) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asking = stream.try_clone().unwrap();
    let mut answers = vec![0; answer_bytes];
    thread::scope(|scope| {
        scope.spawn(move || asking.write_all(commands).unwrap());
        stream.read_exact(&mut answers).unwrap();
    });
    process::text(&answers)
}

#[test]
fn each_client_has_its_answers_in_the_order_of_its_commands() {
    if lacks(&PROGRAMS) {
        return;
    }
    let pair = Pair::start("mux-redis-order");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let addr = pair.mux.addr();
            scope.spawn(move || {
                // Each asks for all keys in an order of its own, and says PING in between.
                let keys: Vec<usize> = (0..KEYS).map(|index| (index * 7 + client * 13) % KEYS).collect();
                let commands = keys.iter().map(|key| command(&["GET", &format!("key:{key}")]) + &command(&["PING"]));
                let expected: String =
                    keys.iter().map(|&key| format!("${}\r\n{}\r\n+PONG\r\n", value(key).len(), value(key))).collect();
                let answers = exchange(addr, commands.collect::<String>().as_bytes(), expected.len());
                assert!(answers == expected, "client {client} has answers that aren't its own");
            });
        }
    });
    pair.mux.finished();
}

#[test]
fn many_clients_share_few_connections_to_both_servers() {
    if lacks(&PROGRAMS) {
        return;
    }
    let pair = Pair::start("mux-redis-few");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(pair.mux.addr()).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    let connections: Vec<usize> = pair.servers.iter().map(|(_, addr)| connections_to(*addr)).collect();
    assert!(connections.iter().all(|&count| count > 0), "{connections:?}");
    assert!(connections.iter().sum::<usize>() <= CLIENTS / 2, "{connections:?}");
    drop(clients);
    pair.mux.settled();
}

#[test]
fn redis_cli_and_redis_benchmark_see_no_difference() {
    if lacks(&PROGRAMS) {
        return;
    }
    let pair = Pair::start("mux-redis-programs");
    assert_eq!(pair.cli(&["PING"]), "PONG");
    assert_eq!(pair.cli(&["GET", "key:12"]), value(12).trim());
    assert_eq!(pair.cli(&["GET", "no-such-key"]), "");
    assert_eq!(pair.cli(&["SET", "new", "value"]), "OK");
    for args in [
        &["-t", "ping,set,get", "-n", "20000", "-c", "200"][..],
        &["-t", "set,get", "-n", "20000", "-c", "50", "-P", "16", "-r", "1000"],
        &["-t", "set,get", "-n", "2000", "-c", "20", "-d", "16000"],
        // A connection for each command.
        &["-t", "ping", "-n", "1000", "-c", "10", "-k", "0"],
    ] {
        let mut command = client("redis-benchmark");
        command.args(["-p", &pair.mux.port(), "-q"]).args(args);
        let output = command.output().unwrap();
        programs::succeeded(&command, &output);
        let (stdout, stderr) = (process::text(&output.stdout), process::text(&output.stderr));
        assert!(stdout.contains("requests per second") && !stderr.contains("Error"), "{command:?}: {stdout}{stderr}");
    }
    for (_, addr) in &pair.servers {
        let stats = said(
            client("redis-cli")
                .args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()])
                .args(["INFO", "commandstats"]),
        );
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_get:calls=")?.split(',').next()?.parse::<u32>().ok());
        assert!(calls.is_some_and(|calls| calls > 1000), "one server did nothing: {stats}");
    }
    pair.mux.settled();
}

#[test]
fn what_would_change_a_shared_connection_is_refused_by_redis_as_the_page_has_it() {
    if lacks(&PROGRAMS) {
        return;
    }
    let page = include_str!("../docs/mux.md");
    let lines = page.split("```\n").find(|part| part.starts_with("rename-command")).unwrap();
    let scratch = Scratch::new("mux-redis-refuse");
    let path = scratch.write("redis.conf", lines);
    let (_server, addr) = Server::start(&scratch, "redis.log", |addr| {
        let mut command: Command = server("redis-server");
        command.args([&path, "--save", "", "--appendonly", "no", "--dir", &scratch.path("")]);
        command.args(["--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        command
    });
    let mux = Relay::mux("resp", &[addr], &["--cores", "1", "--upstreams-per-backend", "1"]);
    for refused in [
        "SELECT 1",
        "AUTH x",
        "HELLO 3",
        "QUIT",
        "RESET",
        "READONLY",
        "ASKING",
        "CLIENT SETNAME x",
        "CLIENT REPLY OFF",
        "CLIENT TRACKING on",
        "MULTI",
        "EXEC",
        "WATCH a",
        "SUBSCRIBE a",
        "PSUBSCRIBE a",
        "SSUBSCRIBE a",
        "MONITOR",
        "SYNC",
        "PSYNC ? -1",
        "BLPOP a 0",
        "BRPOP a 0",
        "XREAD BLOCK 0 STREAMS a 0",
        "WAIT 1 0",
    ] {
        let words: Vec<&str> = refused.split(' ').collect();
        // The answer's kind and no more: the words are the server's.
        assert_eq!(exchange(mux.addr(), command(&words).as_bytes(), 1), "-", "{refused}");
        assert_eq!(exchange(mux.addr(), command(&["PING"]).as_bytes(), 7), "+PONG\r\n", "after {refused}");
    }
    for (allowed, answer) in [("SET a b", "+OK\r\n"), ("GET a", "$1\r\nb\r\n"), ("ECHO c", "$1\r\nc\r\n")] {
        let words: Vec<&str> = allowed.split(' ').collect();
        assert_eq!(exchange(mux.addr(), command(&words).as_bytes(), answer.len()), answer, "{allowed}");
    }
    assert_eq!(mux.count("/routes/0/messages/upstreams/dialled"), 1, "no command ended the connection");
}
