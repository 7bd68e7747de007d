//! The curve's servers on loopback: each must understand messages however they come in pieces.
#![cfg(test)]

mod started;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use started::{Load, Started, free_address};

const SERVERS: [&[&str]; 6] = [
    &["tokio"],
    &["monoio"],
    &["epoll"],
    &["uring"],
    &["midmile", "--backend", "epoll"],
    &["midmile", "--backend", "uring"],
];
/// The longest message that a server takes, its length included.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Whether this host lets a program use io_uring.
fn allowed(server: &[&str]) -> bool {
    // On a thread of its own: a ring's end interrupts what its thread waits for.
    let offered = || thread::spawn(|| io_uring::IoUring::new(8).is_ok()).join().unwrap();
    let allowed = !server.iter().any(|word| ["monoio", "uring"].contains(word)) || offered();
    if !allowed {
        println!("SKIP: io_uring isn't tried: this host refuses it");
    }
    allowed
}

/// Starts a server and waits until it listens.
fn start(server: &[&str]) -> (Started, SocketAddr) {
    let at = free_address();
    let mut command = Command::new(env!("CARGO_BIN_EXE_midmile-bench-server"));
    let started = Started(command.args(server).args(["--listen", &at.to_string()]).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(at).is_err() {
        assert!(Instant::now() < deadline, "{server:?} doesn't listen");
        thread::sleep(Duration::from_millis(10));
    }
    (started, at)
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A message with a payload of so many bytes, which depend on `seed`.
fn message(payload: usize, seed: usize) -> Vec<u8> {
    let mut message = u32::try_from(payload).unwrap().to_be_bytes().to_vec();
    message.extend((0..payload).map(|index| u8::try_from((index * 7 + seed) % 251).unwrap()));
    message
}

/// Runs a test on every server that this host lets run.
fn on_each(test: impl Fn(SocketAddr)) {
    for server in SERVERS {
        if allowed(server) {
            let (_started, at) = start(server);
            // Shown where the test fails.
            println!("{server:?}");
            test(at);
        }
    }
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer).unwrap();
    let differ = answer.iter().zip(wanted).position(|(got, wanted)| got != wanted);
    if let Some(at) = differ {
        panic!(
            "the answer isn't the message: at {at} of {} is {:?}",
            wanted.len(),
            &answer[at..wanted.len().min(at + 8)]
        );
    }
}

#[test]
fn messages_in_pieces_are_answered_whole() {
    on_each(|at| {
        let mut stream = connect(at);
        let question = message(60, 1);
        // Byte by byte; then cut once at every place, the length among them.
        for byte in &question {
            stream.write_all(&[*byte]).unwrap();
        }
        expect(&mut stream, &question);
        for cut in 1..question.len() {
            let question = message(60, cut);
            stream.write_all(&question[..cut]).unwrap();
            // Nothing is answered before the message is whole.
            stream.set_nonblocking(true).unwrap();
            let early = stream.read(&mut [0; 1]);
            assert!(
                early.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
                "cut at {cut}: {early:?}"
            );
            stream.set_nonblocking(false).unwrap();
            stream.write_all(&question[cut..]).unwrap();
            expect(&mut stream, &question);
        }
    });
}

#[test]
fn messages_that_come_together_are_each_answered_in_order() {
    on_each(|at| {
        let mut stream = connect(at);
        let questions: Vec<u8> = (0..200).flat_map(|seed| message(seed % 64, seed)).collect();
        stream.write_all(&questions).unwrap();
        expect(&mut stream, &questions);
        // The longest there may be, with a short one before and half of one behind.
        let longest = [message(3, 5), message(MESSAGE_BYTES_MAX - 4, 6)].concat();
        let last = message(60, 7);
        stream.write_all(&[&longest[..], &last[..30]].concat()).unwrap();
        expect(&mut stream, &longest);
        stream.write_all(&last[30..]).unwrap();
        expect(&mut stream, &last);
    });
}

#[test]
fn a_length_beyond_the_limit_ends_the_connection() {
    on_each(|at| {
        let mut stream = connect(at);
        let payload = u32::try_from(MESSAGE_BYTES_MAX - 4 + 1).unwrap();
        stream.write_all(&payload.to_be_bytes()).unwrap();
        match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn who_asks_and_does_not_listen_gets_all_answers_in_the_end() {
    on_each(|at| {
        let mut stream = connect(at);
        let mut writer = stream.try_clone().unwrap();
        // More than the kernel holds between the two ends: the server has to stop reading, and to go on.
        let questions: Vec<u8> = (0..12_000).flat_map(|seed| message(1200, seed)).collect();
        let sent = questions.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // Answers have filled what room there is by then, or not: both must do.
        thread::sleep(Duration::from_millis(100));
        expect(&mut stream, &questions);
        writing.join().unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the server closes after the last answer");
    });
}

#[test]
fn the_load_finds_every_answer_right() {
    on_each(|at| {
        // It ends at the first wrong one.
        let mut ask = Load::start(&["ask", &at.to_string(), "--conns", "300"]);
        ask.reaches("requests", 3_000);
        assert!(ask.counter("served_ns") > 0);
        let mut visit = Load::start(&["visit", &at.to_string(), "--conns", "8"]);
        visit.reaches("requests", 500);
        assert_eq!(visit.counter("errors"), 0);
    });
}

#[test]
fn the_curve_is_measured_and_drawn() {
    if !rustix::process::geteuid().is_root()
        || !Command::new("ip").args(["netns", "list"]).status().is_ok_and(|ip| ip.success())
    {
        println!("SKIP: the lab's network isn't tried: not root, or no network namespaces");
        return;
    }
    let dir = std::env::temp_dir().join(format!("midmile-curve-test-{}", std::process::id()));
    let json = dir.join("curve.json");
    std::fs::create_dir(&dir).unwrap();
    let args = [
        "curve",
        "--quick",
        "--seconds",
        "0.1",
        "--connections",
        "1,40",
        "--servers",
        "epoll,midmile-epoll,midmile-xdp",
        "--plots",
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_midmile-bench"));
    let output = command.args(args).arg(&dir).arg("--json").arg(&json).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let measured = std::fs::read_to_string(&json);
    let plot = std::fs::read_to_string(dir.join("curve-rate.svg"));
    std::fs::remove_dir_all(&dir).unwrap();
    if stderr.contains("build the lab") {
        println!("SKIP: the lab's network isn't tried: {stderr}");
        return;
    }
    assert!(output.status.success(), "{stderr}");
    let measured: serde_json::Value = serde_json::from_str(&measured.unwrap()).unwrap();
    let rows = measured["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "two counts of connections, short ones, and one alone");
    for row in rows {
        for server in ["epoll", "midmile-epoll"] {
            assert!(row["rounds"][0][server]["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{row}");
        }
        let stack = &row["rounds"][0]["midmile-xdp"];
        match stack["failed"].as_str() {
            Some(why) => println!("SKIP: the stack above AF_XDP isn't tried: {why}"),
            None => assert!(stack["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{row}"),
        }
    }
    let plot = plot.unwrap();
    let drawn = roxmltree::Document::parse(&plot).unwrap();
    assert!(drawn.descendants().any(|node| node.text().is_some_and(|text| text.trim() == "midmile-epoll")));
}
