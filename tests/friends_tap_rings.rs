//! `midmile friends tap --rings`: what goes by rings, as tshark sees it.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
mod rings;
mod talk;
mod tapped;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use process::{Running, midmile, run, text, until};
use programs::{lacks, said};
use rings::Friends;
use rustix::process::Signal;
use talk::Talk;
use tapped::{end, tshark};

/// Begins a tap, and waits until it sees what is sent.
fn tap(friends: &Friends, args: &[&str]) -> Running {
    let directory = friends.scratch.path("run");
    let running =
        Running::spawn(midmile(&[&["friends", "tap", "--rings", "--runtime-dir", &directory], args].concat()));
    running.logged(&format!("tapping directory={directory}"));
    running
}

/// What is wrong with a capture in tshark's eyes.
fn wrong(file: &str) -> String {
    tshark(file, &["-Y", "tcp.analysis.flags || tcp.checksum.status==0 || ip.checksum.status==0"])
}

/// The bytes that one end sent, put together by tshark.
fn followed(file: &str, port: &str) -> Vec<u8> {
    let payload =
        tshark(file, &["-Y", &format!("tcp.srcport=={port} && tcp.len>0"), "-T", "fields", "-e", "tcp.payload"]);
    let digits: Vec<u8> = payload.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn tshark_reads_what_went_by_the_ring_and_by_tcp_as_one_stream() {
    if lacks(&["python3", "tshark"]) {
        return;
    }
    let friends = Friends::new("tap-rings");
    let mut talk = Talk::start(&friends);
    // Before the tap: not in the capture.
    talk.order("read");
    let file = friends.scratch.path("talk.pcapng");
    let tapped = tap(&friends, &["-w", &file]);
    talk.order("talk");
    talk.order("close");
    let summary = end(tapped);
    assert!(summary.contains("missing: 0 bytes, 0 records lost, 0 not followed"), "{summary}");
    assert_eq!(wrong(&file), "");
    for (port, sent, count) in [(&talk.near, "near", talk.sent[0]), (&talk.far, "far", talk.sent[1])] {
        let sent = fs::read(friends.scratch.path(sent)).unwrap();
        assert!(count > 150_000 && followed(&file, port) == sent, "{count} bytes");
    }
    assert_eq!(tshark(&file, &["-Y", "tcp.flags.fin==1"]).lines().count(), 2);
    assert!(!fs::exists(friends.scratch.path("run/tap")).unwrap());
    talk.end();
    friends.went_by_ring(500_000);
    assert!(friends.figure("tcp_out_bytes") > 100_000 && friends.figure("tap_untold") == 0);
}

#[test]
fn lines_tell_by_which_way_bytes_went() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("tap-lines");
    let mut talk = Talk::start(&friends);
    let tapped = tap(&friends, &["--ports", &talk.far]);
    let other = friends.scratch.path("run");
    let second = run(&["friends", "tap", "--rings", "--runtime-dir", &other]);
    assert!(text(&second.stderr).contains("another tap reads from it"), "{}", text(&second.stderr));
    talk.order("fill");
    let way = format!("127.0.0.1:{} > 127.0.0.1:{}: ", talk.near, talk.far);
    let lines = [tapped.line(), tapped.line()];
    assert!(lines[0].contains(&way) && lines[0].ends_with("262144 bytes past TCP"), "{lines:?}");
    assert!(lines[1].contains(&way) && lines[1].ends_with("137856 bytes by TCP"), "{lines:?}");
    end(tapped);
    // Nobody watches: nothing is told, or counted as untold.
    talk.order("read");
    talk.order("flood");
    // Another port's aren't shown.
    let tapped = tap(&friends, &["--ports", "1"]);
    talk.order("talk");
    assert!(end(tapped).starts_with("0 messages"));
    talk.end();
    assert_eq!(friends.figure("tap_untold"), 0);
}

#[test]
fn a_tap_that_does_not_read_holds_nobody_up_and_what_is_missing_is_said() {
    if lacks(&["python3", "tshark"]) {
        return;
    }
    let friends = Friends::new("tap-stopped");
    let mut talk = Talk::start(&friends);
    let file = friends.scratch.path("talk.pcapng");
    let tapped = tap(&friends, &["-w", &file]);
    tapped.signal(Signal::STOP);
    talk.order("flood");
    tapped.signal(Signal::CONT);
    until("what it found", || fs::metadata(&file).ok().filter(|file| file.len() > 100_000));
    talk.order("talk");
    let summary = end(tapped);
    assert!(!summary.contains("missing: 0 bytes") && !summary.contains(" 0 records lost"), "{summary}");
    assert!(tshark(&file, &["-Y", "tcp.len>0"]).lines().count() > 10);
    // One that is killed is forgotten, and the next one uses its pipe.
    let killed = tap(&friends, &["-w", &file]);
    killed.signal(Signal::KILL);
    drop(killed);
    talk.order("talk");
    said(&mut friends.with(&Command::new("true")));
    let tapped = tap(&friends, &["-w", &file]);
    talk.order("talk");
    end(tapped);
    assert_eq!(wrong(&file), "");
    talk.end();
    assert!(friends.figure("tap_untold") > 0);
}

#[test]
fn what_stands_in_the_pipes_place_is_refused() {
    let friends = Friends::new("tap-place");
    fs::write(friends.scratch.path("run/tap"), "no pipe").unwrap();
    let output = run(&["friends", "tap", "--rings", "--runtime-dir", &friends.scratch.path("run")]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("it's there and isn't a pipe"));
    assert_eq!(fs::read(friends.scratch.path("run/tap")).unwrap(), b"no pipe");
}

#[test]
fn a_capture_takes_the_place_of_nothing_that_is_wanted() {
    let friends = Friends::new("tap-rings-file");
    said(&mut friends.with(&Command::new("true")));
    let directory = friends.scratch.path("run");
    let (file, link) = (friends.scratch.path("old.pcapng"), friends.scratch.path("link"));
    let refused = |from: &str, into: &str| {
        let output = run(&["friends", "tap", "--rings", "--runtime-dir", from, "-w", into]);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    fs::write(&file, "of yesterday").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    // Another taps there; and it's no file of one's own by that name.
    let before = tap(&friends, &["-w", &friends.scratch.path("new.pcapng")]);
    assert!(refused(&directory, &file).contains("another tap reads from it"));
    end(before);
    assert!(refused(&directory, &link).contains("symbolic link"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "of yesterday");
    let tapped = tap(&friends, &["-w", &file]);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let began = fs::read(&file).unwrap();
    // Another tap of another directory would write between its blocks.
    let other = Friends::new("tap-rings-other");
    said(&mut other.with(&Command::new("true")));
    assert!(refused(&other.scratch.path("run"), &file).contains("another tap writes to it"));
    assert_eq!(fs::read(&file).unwrap(), began);
    end(tapped);
}

#[test]
fn a_tap_whose_reader_does_not_read_can_be_ended() {
    let friends = Friends::new("tap-rings-stuck");
    said(&mut friends.with(&Command::new("true")));
    let (directory, fifo) = (friends.scratch.path("run"), friends.scratch.path("fifo"));
    said(Command::new("mkfifo").arg(&fifo));
    let args = ["friends", "tap", "--rings", "--runtime-dir", &directory, "-w", &fifo];
    assert!(text(&run(&args).stderr).contains("nobody reads"));
    // A reader that opens it and reads nothing, while more is said than the pipe holds.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let mut talk = Talk::start(&friends);
    let mut tapped = tap(&friends, &["-w", &fifo]);
    talk.order("talk");
    talk.order("close");
    tapped.signal(Signal::TERM);
    assert_eq!(tapped.code(), Some(1));
    tapped.logged("ended without");
}
