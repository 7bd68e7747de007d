//! Signals in the middle of a download: it goes on, and arrives as it was.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use process::{Scratch, until};
use programs::data::{MIB, file, sum};
use programs::nginx::{self, Site};
use programs::relay::Relay;
use programs::{Server, client, curl, lacks};
use rustix::process::Signal;

/// A download of which the first part has arrived, and the rest isn't read yet: so it's running, however fast the machine.
struct Download {
    curl: Child,
    rest: ChildStdout,
    begin: Vec<u8>,
}

impl Download {
    fn begin(url: &str) -> Self {
        // Where a test fails, curl ends by itself: nobody reads on.
        let mut curl = curl(&[url]).stdout(Stdio::piped()).spawn().unwrap();
        let mut rest = curl.stdout.take().unwrap();
        let mut begin = vec![0; 1024 * 1024];
        rest.read_exact(&mut begin).unwrap();
        Self { curl, rest, begin }
    }

    /// Reads the rest; the checksum of all.
    fn finish(mut self) -> String {
        let mut sum = client("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut into = sum.stdin.take().unwrap();
        into.write_all(&self.begin).unwrap();
        std::io::copy(&mut self.rest, &mut into).unwrap();
        drop(into);
        assert!(self.curl.wait().unwrap().success());
        let said = sum.wait_with_output().unwrap().stdout;
        process::text(&said).split_whitespace().next().unwrap().to_owned()
    }
}

/// nginx, and a configuration file that relays to it.
struct Setting {
    _nginx: Server,
    relay: Relay,
    scratch: Scratch,
    sum: String,
}

fn listener(name: &str, to: &str) -> String {
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    )
}

fn setting(name: &str, len: u64) -> Option<Setting> {
    if lacks(&["nginx", "curl"]) {
        return None;
    }
    let scratch = Scratch::new(name);
    let (nginx, addr) = nginx::start(&scratch, Site::default());
    let sum = sum(&file(&scratch, "data/file", len, 20));
    let relay = Relay::of_file(&scratch.write("m.toml", &listener("one", &addr.to_string())));
    Some(Setting { _nginx: nginx, relay, scratch, sum })
}

#[test]
fn a_reload_leaves_a_running_download_alone() {
    let Some(setting) = setting("reload-download", 256 * MIB) else { return };
    let relay = &setting.relay;
    let download = Download::begin(&relay.url("/file"));
    relay.running.signal(Signal::HUP);
    relay.running.logged("reloaded");
    assert_eq!(relay.count("/totals/pairs_open"), 1);
    assert_eq!(download.finish(), setting.sum);
    relay.finished();
}

#[test]
fn a_download_outlives_its_listener() {
    let Some(setting) = setting("gone-download", 256 * MIB) else { return };
    let (relay, scratch) = (&setting.relay, &setting.scratch);
    let download = Download::begin(&relay.url("/file"));
    scratch.write("m.toml", &listener("another", "127.0.0.1:1"));
    relay.running.signal(Signal::HUP);
    relay.running.logged("reloaded");
    until("the listener's end", || TcpStream::connect(relay.addr()).is_err().then_some(()));
    assert_eq!(download.finish(), setting.sum);
    relay.counts("/totals/pairs_open", 0);
}

#[test]
fn a_drain_lets_a_running_download_finish() {
    let Some(mut setting) = setting("drain-download", 256 * MIB) else { return };
    let relay = &mut setting.relay;
    let download = Download::begin(&relay.url("/file"));
    relay.running.signal(Signal::TERM);
    relay.running.logged("draining");
    until("the listener's end", || TcpStream::connect(relay.addr()).is_err().then_some(()));
    assert_eq!(download.finish(), setting.sum);
    assert_eq!(relay.running.code(), Some(0), "{}", relay.running.log());
}

/// Connections that stand before the signal: more than a loop accepts in one turn.
const CONNECTED: usize = 300;

#[test]
fn a_drain_serves_all_who_had_connected_before_it() {
    let mut relay = Relay::with(process::echo(b'e'), &["--cores", "1"]);
    // The relay stands still: the kernel completes the connections meanwhile.
    relay.running.signal(Signal::STOP);
    let clients: Vec<_> = (0..CONNECTED).map(|_| TcpStream::connect(relay.addr()).unwrap()).collect();
    relay.running.signal(Signal::TERM);
    relay.running.signal(Signal::CONT);
    let served = clients.into_iter().filter(|mut stream| stream.read_exact(&mut [0]).is_ok()).count();
    assert_eq!(served, CONNECTED, "{}", relay.running.log());
    assert_eq!(relay.running.code(), Some(0), "{}", relay.running.log());
}
