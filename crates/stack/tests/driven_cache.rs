//! The cache among the examples, on each backend, driven by the programs that come with Redis.

mod driven;

use std::io::{Read, Write};

use driven::{Example, Ground, lacks};

const PROGRAMS: [&str; 2] = ["redis-cli", "redis-benchmark"];

fn cli(ground: &Ground, example: &Example, args: &[&str]) -> String {
    let (ip, port) = (example.ip(), example.port());
    ground.said("redis-cli", &[&["-h", &ip, "-p", &port], args].concat())
}

/// Runs the benchmark, and asserts that nothing went wrong.
fn benchmark(ground: &Ground, example: &Example, args: &[&str]) {
    let (ip, port) = (example.ip(), example.port());
    let said = ground.said("redis-benchmark", &[&["-h", &ip, "-p", &port, "-q"], args].concat());
    assert!(said.contains("requests per second") && !said.contains("rror"), "on {}: {said}", ground.backend());
}

#[test]
fn a_client_is_served() {
    if lacks(&PROGRAMS) {
        return;
    }
    for ground in Ground::all() {
        let example = ground.start("cache", &[]);
        for (args, answer) in [
            (&["SET", "a", "1", "EX", "100"][..], "OK\n"),
            (&["INCR", "a"], "2\n"),
            (&["TTL", "a"], "100\n"),
            (&["MSET", "b", "two words", "c", ""], "OK\n"),
            (&["MGET", "a", "b", "c", "d"], "2\ntwo words\n\n\n"),
            (&["DEL", "a", "b", "d"], "2\n"),
            (&["DBSIZE"], "1\n"),
            (&["FLUSHALL"], "OK\n"),
            (&["EXISTS", "c"], "0\n"),
        ] {
            assert_eq!(cli(&ground, &example, args), answer, "on {}: {args:?}", ground.backend());
        }
        example.end();
    }
}

#[test]
fn the_benchmark_runs_and_loses_nothing() {
    if lacks(&PROGRAMS) {
        return;
    }
    for ground in Ground::all() {
        let example = ground.start("cache", &[]);
        benchmark(&ground, &example, &["-t", "ping,set,get,mset", "-n", "5000", "-c", "20"]);
        benchmark(&ground, &example, &["-t", "incr", "-n", "20000", "-c", "50", "-P", "16"]);
        assert_eq!(cli(&ground, &example, &["GET", "counter:__rand_int__"]), "20000\n", "on {}", ground.backend());
        // Answers that don't fit a socket, and requests longer than a read.
        benchmark(&ground, &example, &["-t", "set,get", "-n", "40", "-c", "5", "-P", "4", "-d", "200000"]);
        example.end();
    }
}

#[test]
fn memory_is_bounded_and_the_newest_stay() {
    if lacks(&PROGRAMS) {
        return;
    }
    for ground in Ground::all() {
        let example = ground.start("cache", &["--memory", "1"]);
        benchmark(&ground, &example, &["-t", "set", "-n", "50000", "-r", "50000", "-P", "32", "-d", "100"]);
        cli(&ground, &example, &["SET", "newest", "here"]);
        assert_eq!(cli(&ground, &example, &["GET", "newest"]), "here\n");
        let kept: usize = cli(&ground, &example, &["DBSIZE"]).trim().parse().unwrap();
        // A record of 16 and 100 bytes takes 160 of 900,000.
        assert!((4_000..6_500).contains(&kept), "on {}: {kept} keys in a MiB", ground.backend());
        assert!(!cli(&ground, &example, &["INFO"]).contains("evicted_keys:0\r"));
        example.end();
    }
}

#[test]
fn what_is_no_request_is_told_why_and_ended() {
    for ground in Ground::all() {
        let example = ground.start("cache", &[]);
        for (said, heard) in [
            ("*1\r\n$-3\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
            ("PING\r\n*1\r\n!", "+PONG\r\n-ERR Protocol error: expected '$'\r\n"),
            ("\r\nECHO x\r\nQUIT\r\nPING\r\n", "$1\r\nx\r\n+OK\r\n"),
        ] {
            let mut stream = ground.connect(example.at());
            stream.write_all(said.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, heard, "on {}", ground.backend());
        }
        example.end();
    }
}

#[test]
fn a_client_that_does_not_read_gets_all_answers_later() {
    const REQUESTS: usize = 100;
    let value = "v".repeat(50_000);
    for ground in Ground::all() {
        let example = ground.start("cache", &[]);
        let mut stream = ground.connect(example.at());
        write!(stream, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len()).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            writer.write_all("GET a\r\n".repeat(REQUESTS).as_bytes()).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        writing.join().unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        let expected = format!("${}\r\n{value}\r\n", value.len()).repeat(REQUESTS);
        assert!(answers == format!("+OK\r\n{expected}").as_bytes(), "on {}: {}", ground.backend(), answers.len());
        example.end();
    }
}
