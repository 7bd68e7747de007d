//! curl and nginx through the relay: bulk each way and both ways, and a thousand connections at once.

mod process;
mod programs;

use std::path::Path;
use std::process::Command;
use std::thread;

use process::Scratch;
use programs::data::{GIB, KIB, MIB, file, fill, noise, sum, sum_said};
use programs::nginx::{self, Site};
use programs::relay::{Relay, number};
use programs::{client, curl, lacks, raise_descriptors, said};
use rustix::process::Signal;

/// Connections at once, and how many curl opens (it caps `--parallel-max` at 300).
const PARALLEL: u64 = 1000;
const PARALLEL_PER_CURL: u64 = 250;

fn download(relay: &Relay, name: &str) -> String {
    sum_said(&mut curl(&[&relay.url(name)]))
}

fn upload(relay: &Relay, path: &str) {
    said(&mut curl(&["--upload-file", path, &relay.url("/put/stored")]));
}

#[test]
fn a_gigabyte_comes_down_as_it_is() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("down");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let path = file(&scratch, "data/big", GIB, 1);
    let relay = Relay::to(addr);
    assert_eq!(download(&relay, "/big"), sum(&path));
    let status = relay.finished();
    let down = |key| number(&status, &format!("/totals/downstream/{key}"));
    assert!(down("bytes") > GIB && down("bytes") < GIB + 4 * KIB, "{status:#}");
    assert_eq!(down("bytes"), down("copied_bytes") + down("spliced_bytes"));
    assert!(down("spliced_bytes") > GIB / 2, "bulk goes by splice: {status:#}");
}

#[test]
fn a_gigabyte_goes_up_as_it_is() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("up");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let path = file(&scratch, "big", GIB, 2);
    let relay = Relay::to(addr);
    upload(&relay, &path);
    assert_eq!(sum(&scratch.path("put/stored")), sum(&path));
    let status = relay.finished();
    assert!(number(&status, "/totals/upstream/bytes") > GIB, "{status:#}");
}

#[test]
fn both_directions_at_once() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    let scratch = Scratch::new("both");
    let (_nginx, addr) = nginx::start(&scratch, Site::default());
    let (down, up) = (file(&scratch, "data/down", 256 * MIB, 3), file(&scratch, "up", 256 * MIB, 4));
    let relay = Relay::to(addr);
    thread::scope(|scope| {
        scope.spawn(|| upload(&relay, &up));
        assert_eq!(download(&relay, "/down"), sum(&down));
    });
    assert_eq!(sum(&scratch.path("put/stored")), sum(&up));
    relay.finished();
}

/// Files `0`, `1`, … and a list of their checksums.
fn thousand_files(scratch: &Scratch) -> String {
    let noise = noise(128 * 1024, 5);
    for index in 0..PARALLEL {
        fill(scratch.path(&format!("data/{index}")), 100 * KIB, index, &noise);
    }
    let names: Vec<_> = (0..PARALLEL).map(|index| index.to_string()).collect();
    let sums = said(client("sha256sum").args(names).current_dir(scratch.path("data")));
    scratch.write("sums", &sums)
}

/// Downloads files `first..=last`, all at once.
fn download_range(relay: &Relay, into: &str, first: u64, last: u64) -> Command {
    let most = PARALLEL_PER_CURL.to_string();
    let output = Path::new(into).join("#1");
    let mut command =
        curl(&["--http1.1", "--parallel", "--parallel-immediate", "--no-progress-meter", "--parallel-max"]);
    command.arg(&most).arg("--output").arg(output).arg(relay.url(&format!("/[{first}-{last}]")));
    command
}

#[test]
fn a_thousand_connections_at_once_each_get_their_own_file() {
    if lacks(&["nginx", "curl"]) {
        return;
    }
    raise_descriptors();
    let scratch = Scratch::new("thousand");
    let (nginx, addr) = nginx::start(&scratch, Site { listen: "backlog=2048", ..Site::default() });
    let sums = thousand_files(&scratch);
    let into = scratch.path("got");
    std::fs::create_dir(&into).unwrap();
    let relay = Relay::to(addr);
    // nginx stands still until all have connected, so that they really are there at once.
    nginx.signal(Signal::STOP);
    thread::scope(|scope| {
        for first in (0..PARALLEL).step_by(250) {
            let (relay, into) = (&relay, &into);
            scope.spawn(move || said(&mut download_range(relay, into, first, first + PARALLEL_PER_CURL - 1)));
        }
        relay.counts("/totals/pairs_open", PARALLEL);
        relay.counts("/totals/pairs_connected", PARALLEL);
        nginx.signal(Signal::CONT);
    });
    said(client("sha256sum").args(["--check", "--quiet", &sums]).current_dir(&into));
    let status = relay.finished();
    assert_eq!(number(&status, "/totals/pairs_opened"), PARALLEL);
}
