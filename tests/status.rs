//! `midmile status` beside gateways that run, and beside those who aren't midmile.

mod process;
mod programs;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use process::{Running, Scratch, connect, echo, exchange, midmile, run, status, text, until};
use programs::gateways::{ONE_CORE, Way};
use programs::relay::number;

/// What `midmile status` says; it has to end well.
fn said(args: &[&str]) -> String {
    let output = run(&[&["status"], args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The one line in which it says why it can't.
fn refused(args: &[&str], code: i32) -> String {
    let output = run(&[&["status"], args].concat());
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn both_gateways_of_a_trunk_know_the_way_and_the_first_byte() {
    let way = Way::to("status-trunk", echo(b's'), ONE_CORE);
    way.ready(8);
    for _ in 0..3 {
        exchange(&mut connect(way.a.addr()).0, &"some bytes ".repeat(1000));
    }
    way.finished();
    for gateway in [&way.a, &way.b] {
        let document = gateway.status();
        let peer = &document["peers"][0];
        for figure in ["rtt_us", "sent_segments", "delivery_rate", "delivery_rate_best"] {
            assert!(peer[figure].as_u64().is_some_and(|figure| figure > 0), "{figure}: {document:#}");
        }
        assert_eq!(number(&document, "/totals/accept_to_first_byte/count"), 3, "{document:#}");
        let report = said(&["--admin", &gateway.admin.to_string()]);
        let row = |name: &str| report.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(row("pairs: ").contains(" 3 opened "), "{report}");
        assert_eq!(row("ended: "), "ended: finished 3", "{report}");
        let name = peer["name"].as_str().unwrap();
        assert!(row(&format!("{name} ")).contains("bit/s"), "{report}");
    }
    let metrics = process::get(way.a.admin, "/metrics").1;
    assert!(metrics.contains("midmile_peer_segments_sent_total{peer=\"b\"}"), "{metrics}");
    assert!(
        metrics.lines().any(|line| line.starts_with("midmile_ttfb_seconds_count{") && line.ends_with(" 3")),
        "{metrics}"
    );
}

#[test]
fn the_file_says_where_and_json_is_the_document() {
    let scratch = Scratch::new("status-file");
    let (admin, to) = (programs::reserve(), echo(b'f'));
    let tables = format!("[admin]\nlisten = \"{admin}\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n");
    let file = scratch.write("midmile.toml", &tables);
    let running = Running::start(&["gateway", "--config", &file]);
    running.ready();
    let document: serde_json::Value = serde_json::from_str(&said(&["--config", &file, "--json"])).unwrap();
    assert_eq!(document["state"], "accepting");
    assert_eq!(document["routes"], status(running.admin())["routes"]);
    assert!(said(&["--config", &file]).starts_with(&format!("midmile {}: accepting", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn watching_shows_it_anew_until_nobody_reads() {
    let to = echo(b'w').to_string();
    let relay = Running::start(&["relay", "--listen", "127.0.0.1:0", "--to", &to, "--admin", "127.0.0.1:0"]);
    let listen = relay.ready();
    let admin = relay.admin().to_string();
    let mut watching = midmile(&["status", "--admin", &admin, "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(" 0 opened ")));
    drop(connect(listen));
    assert!(lines.any(|line| line.contains(" 1 opened ")), "it isn't shown anew");
    drop(relay);
    assert!(lines.any(|line| line.contains("nobody answers at ")), "a relay that went isn't told of");
    drop(lines);
    let ended = until("the end of the watch", || watching.try_wait().unwrap());
    assert!(ended.success());
}

#[test]
fn what_cant_be_asked_is_told_with_its_mend() {
    let nobody = programs::reserve().to_string();
    let line = refused(&["--admin", &nobody], 1);
    assert!(line.contains(&format!("nobody answers at {nobody}")) && line.contains("[admin]"), "{line}");
    let scratch = Scratch::new("status-mends");
    let without = scratch.write("without.toml", "[[listener]]\nlisten = \"127.0.0.1:80\"\nto = \"a:1\"\n");
    let line = refused(&["--config", &without], 2);
    assert!(line.contains("there's no admin server to ask; add a table [admin]"), "{line}");
    let any = scratch.write(
        "any.toml",
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:80\"\nto = \"a:1\"\n",
    );
    assert!(refused(&["--config", &any], 2).contains("give --admin ADDR with the one that midmile's log says"));
    assert!(refused(&["--admin", "unix:@x"], 2).contains("HTTP over TCP only"));
    assert!(refused(&["--admin", "127.0.0.1:0"], 2).contains("nobody listens on port 0"));
}

#[test]
fn who_isnt_midmile_isnt_believed() {
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "SSH-2.0-OpenSSH\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The request is read first: closing with it unread would be a reset.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let line = refused(&["--admin", &addr], 1);
        assert!(line.contains("isn't midmile's admin server"), "{line}");
        assert!(serving.join().unwrap().starts_with("GET /status.json HTTP/1.1\r\n"));
    }
}
