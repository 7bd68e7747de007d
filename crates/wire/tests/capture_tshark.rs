//! Captures as tshark reads them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use midmile_wire::capture::{Capture, Event, Way, What};

/// A file of the test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn with(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("midmile-{name}-{}.pcapng", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// What tshark says of a file; `None`, and the reason printed, where there's none.
fn tshark(file: &Scratch, args: &[&str]) -> Option<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-r"]).arg(&file.0).args(args);
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            println!("SKIP: captures aren't read by tshark: {error}");
            None
        }
    }
}

/// Two connections, by IPv4 and IPv6, with an exchange and a long answer that is told as it was offered: some of it twice.
fn exchange() -> Vec<u8> {
    let mut file = Vec::new();
    let mut capture = Capture::begin(&mut file);
    let interface = capture.interface("friends /sys/fs/cgroup/shop.slice", &mut file).unwrap();
    let mut at = Duration::from_secs(1_700_000_000);
    let long: Vec<u8> = (0..=252).cycle().take(300_000).collect();
    let ways = [("127.0.0.1:40000", "127.0.0.2:80"), ("[::1]:40000", "[::1]:80")].map(|(from, to)| {
        let there = Way { from: from.parse().unwrap(), to: to.parse().unwrap() };
        (there, Way { from: there.to, to: there.from })
    });
    for (there, back) in ways {
        for (way, place, what) in [
            (there, 0, What::Dialled),
            (back, 0, What::Accepted),
            (there, 0, What::Bytes(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")),
            (back, 0, What::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")),
            (back, 43, What::Bytes(&long[..200_000])),
            (back, 43 + 150_000, What::Bytes(&long[150_000..])),
            (there, 28, What::Ended),
            (back, 300_043, What::Ended),
        ] {
            at += Duration::from_micros(7);
            capture.tell(&Event { at, interface, way, place: Some(place), what }, &mut file);
        }
    }
    capture.finish(interface, at, 0, &mut file);
    assert_eq!(capture.counts().missing, 0);
    file
}

#[test]
fn tshark_follows_both_streams_and_finds_nothing_wrong() {
    let file = Scratch::with("exchange", &exchange());
    let Some(wrong) = tshark(&file, &["-Y", "tcp.analysis.flags || tcp.checksum.status==0 || ip.checksum.status==0"])
    else {
        return;
    };
    assert_eq!(wrong, "");
    let told = |args: &[&str]| tshark(&file, args).unwrap();
    let bad = told(&["-Y", "_ws.malformed || _ws.expert.severity >= 0x600000"]);
    assert_eq!(bad, "");
    // Each answer is put together of its segments.
    let answers =
        told(&["-Y", "http.response", "-T", "fields", "-e", "http.content_length", "-e", "http.response.code"]);
    assert_eq!(answers, "300000\t200\n300000\t200\n");
    let followed = told(&["-q", "-z", "follow,tcp,ascii,0"]);
    assert!(followed.contains("GET /a HTTP/1.1") && followed.contains("HTTP/1.1 200 OK"), "{followed}");
    let complete = told(&["-Y", "tcp.flags.fin==1", "-T", "fields", "-e", "frame.interface_name", "-e", "tcp.stream"]);
    assert_eq!(complete.lines().count(), 4, "{complete}");
    assert!(complete.starts_with("friends /sys/fs/cgroup/shop.slice\t0"), "{complete}");
}

#[test]
fn tshark_shows_what_is_missing() {
    let mut file = Vec::new();
    let mut capture = Capture::begin(&mut file);
    let interface = capture.interface("friends", &mut file).unwrap();
    let way = Way { from: "127.0.0.1:40000".parse().unwrap(), to: "127.0.0.1:80".parse().unwrap() };
    for (place, bytes) in [(0, b"here"), (9, b"late")] {
        let event = Event { at: Duration::ZERO, interface, way, place: Some(place), what: What::Bytes(bytes) };
        capture.tell(&event, &mut file);
    }
    let file = Scratch::with("missing", &file);
    let Some(lost) = tshark(&file, &["-Y", "tcp.analysis.lost_segment", "-T", "fields", "-e", "frame.comment"]) else {
        return;
    };
    assert_eq!(lost, "midmile: 5 bytes before this weren't captured\n");
}
