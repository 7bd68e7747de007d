//! Mixed traffic for a while through one relay, and then nothing is left of it: no pair, no pipe, no descriptor, no memory.
//!
//! `MIDMILE_SOAK_SECONDS` says how long; a release is soaked for minutes.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use process::{PATIENCE, Scratch, until};
use programs::data::{MIB, file, noise, sum, sum_said};
use programs::nginx::{self, Site};
use programs::relay::{Relay, number};
use programs::{Server, client, curl, lacks, reserve, said, server};
use rustix::net::sockopt;
use rustix::process::Signal;

const SECONDS: u64 = 20;
/// Resident memory that the relay may gain: what the first pairs touch, never more with time.
const GAIN_KIB_MAX: u64 = 32 * 1024;

/// Repeats `work` until `end`; how often it did.
fn repeat(end: Instant, mut work: impl FnMut(u64)) -> u64 {
    let mut times = 0;
    while Instant::now() < end {
        work(times);
        times += 1;
    }
    times
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Requests in pipelines by some clients, and then with a connection for each.
fn redis_benchmark(to: SocketAddr) {
    for more in [["-n", "20000", "-P", "16"], ["-n", "1000", "-k", "0"]] {
        let mut command = client("redis-benchmark");
        command.args(["-p", &to.port().to_string(), "-q", "-t", "set,get", "-c", "50"]).args(more);
        let said = said(&mut command);
        assert!(said.contains("requests per second"), "{said}");
    }
}

/// Everything echoed comes back, after the client has finished sending.
fn half_close(to: SocketAddr, bytes: &[u8]) {
    let mut stream = connect(to);
    let mut back = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        back.read_to_end(&mut got).unwrap();
        assert!(got == bytes, "{} of {} bytes came back", got.len(), bytes.len());
    });
}

/// A client that goes away in the middle: at once, after its request, or with a part of the answer read.
fn abort(to: SocketAddr, turn: u64) {
    let mut stream = connect(to);
    if !turn.is_multiple_of(3) {
        stream.write_all(b"GET /bulk HTTP/1.0\r\n\r\n").unwrap();
    }
    if turn % 3 > 1 {
        stream.read_exact(&mut [0; 100_000]).unwrap();
    }
    sockopt::set_socket_linger(&stream, turn.is_multiple_of(2).then_some(Duration::ZERO)).unwrap();
}

/// A client of a server that isn't there.
fn refused(to: SocketAddr) {
    // The reset may even be there before the client sees its connection.
    let got = TcpStream::connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0])
    });
    assert!(got.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{got:?}");
}

/// The servers behind the relay, in the order of its listeners.
struct Servers {
    _running: [Server; 3],
    addrs: [SocketAddr; 4],
    /// Checksum of the file that nginx serves.
    bulk: String,
}

fn start(scratch: &Scratch) -> Servers {
    let (nginx, http) = nginx::start(scratch, Site::default());
    let bulk = sum(&file(scratch, "data/bulk", 64 * MIB, 21));
    let (redis, keys) = Server::start(scratch, "redis.log", |addr| {
        let mut command = server("redis-server");
        command.args(["--save", "", "--bind", &addr.ip().to_string(), "--port", &addr.port().to_string()]);
        command
    });
    let (socat, echo) = Server::start(scratch, "socat.log", |addr| {
        let mut command = server("socat");
        let listen = format!("TCP-LISTEN:{},bind={},fork,reuseaddr,backlog=1024", addr.port(), addr.ip());
        command.args(["-t", "60", &listen, "EXEC:cat"]);
        command
    });
    Servers { _running: [nginx, redis, socat], addrs: [http, keys, echo, reserve()], bulk }
}

/// All kinds of traffic at once, until `end`.
fn traffic(relay: &Relay, bulk: &str, end: Instant) {
    let [http, keys, echo, nobody] = [0, 1, 2, 3].map(|index| relay.addr_of(index));
    let noise = noise(1_000_000, 22);
    let done = thread::scope(|scope| {
        let workers = [
            ("benchmarks", scope.spawn(|| repeat(end, |_| redis_benchmark(keys)))),
            (
                "downloads",
                scope.spawn(|| repeat(end, |_| assert_eq!(sum_said(&mut curl(&[&relay.url("/bulk")])), bulk))),
            ),
            ("half-closes", scope.spawn(|| repeat(end, |turn| half_close(echo, &noise[..noise.len() >> (turn % 20)])))),
            ("aborts", scope.spawn(|| repeat(end, |turn| abort(http, turn)))),
            ("refusals", scope.spawn(|| repeat(end, |_| refused(nobody)))),
        ];
        workers.map(|(what, worker)| (what, worker.join().unwrap()))
    });
    for (what, times) in done {
        eprintln!("{times} {what}");
        assert!(times > 0, "no {what}");
    }
}

#[test]
fn nothing_is_left_after_mixed_traffic() {
    if lacks(&["nginx", "curl", "redis-server", "redis-benchmark", "socat"]) {
        return;
    }
    let seconds = std::env::var("MIDMILE_SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let scratch = Scratch::new("soak");
    let servers = start(&scratch);
    let to = servers.addrs.map(|addr| addr.to_string());
    let routes: Vec<_> = to.iter().map(|to| ("127.0.0.1:0", &**to)).collect();
    let mut relay = Relay::between(&routes, &[]);
    let (descriptors, resident) = (relay.descriptors(), relay.resident_kib());
    traffic(&relay, &servers.bulk, Instant::now() + Duration::from_secs(seconds));
    let status = relay.settled();
    let pipes = usize::try_from(number(&status, "/pipes/exist")).unwrap();
    until("the descriptors to be back", || (relay.descriptors() == descriptors + 2 * pipes).then_some(()));
    let gained = relay.resident_kib().saturating_sub(resident);
    assert!(gained < GAIN_KIB_MAX, "{gained} KiB more than at the start");
    for reason in ["finished", "client-reset", "dial-refused"] {
        assert!(relay.ends(reason) > 0, "{reason}: {status:#}");
    }
    eprintln!("{pipes} pipes kept, {gained} KiB gained, {:#}", status["totals"]["ends"]);
    relay.running.signal(Signal::TERM);
    assert_eq!(relay.running.code(), Some(0), "{}", relay.running.log());
}
