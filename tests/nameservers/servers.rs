//! Name servers that nobody here wrote, each with the zone of [`super::zone`], on addresses of their own.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::process::{Scratch, until};
use crate::programs::{Server, is_listening, server};

use super::message::{self, Query};
use super::zone::{self, ORIGIN};

/// The key that signs questions (RFC 8945), as kdig's `-y` takes it.
pub(crate) const KEY: &str = "hmac-sha256:midmile-test:bWlkbWlsZSB0ZXN0cywgbm8gc2VjcmV0IGF0IGFsbC4=";

/// How long Unbound says that a connection to it may idle (RFC 7828), in milliseconds.
pub(crate) const KEEPALIVE_MS: u16 = 47_000;

/// A zone that Unbound is long in answering about, for it asks somebody who says nothing.
pub(crate) const SLOW: &str = "slow.test.";

/// The servers that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Knot,
    Unbound,
    Nsd,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Knot, Self::Unbound, Self::Nsd];

    /// Its program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Knot => "knotd",
            Self::Unbound => "unbound",
            Self::Nsd => "nsd",
        }
    }

    fn configuration(self, dir: &str, addr: SocketAddr, mute: SocketAddr) -> String {
        match self {
            Self::Knot => knot(dir, addr),
            Self::Unbound => unbound(dir, addr, mute),
            Self::Nsd => nsd(dir, addr),
        }
    }

    fn command(self, scratch: &Scratch, name: &str, addr: SocketAddr, mute: SocketAddr) -> Command {
        let dir = scratch.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        scratch.write("zone", &zone::file());
        let file = scratch.write(&format!("{name}/conf"), &self.configuration(&dir, addr, mute));
        let mut command = server(self.program());
        // unbound and nsd stay in the foreground with -d; knotd does without it.
        command.args(if self == Self::Knot { &[][..] } else { &["-d"] }).args(["-c", &file]);
        command
    }
}

/// A running name server.
pub(crate) struct NameServer {
    kind: Kind,
    name: String,
    server: Server,
    pub(crate) addr: SocketAddr,
    /// Whom Unbound asks about [`SLOW`], and never hears from.
    mute: UdpSocket,
}

impl NameServer {
    /// Starts one; its files are in a directory `name`.
    pub(crate) fn start(kind: Kind, scratch: &Scratch, name: &str) -> Self {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = mute.local_addr().unwrap();
        let log = format!("{name}.log");
        let (server, addr) = Server::start(scratch, &log, |addr| kind.command(scratch, name, addr, asked));
        Self { kind, name: name.to_owned(), server, addr, mute }
    }

    /// Kills it and waits for its end, without a word to those who wait for its answers.
    pub(crate) fn kill(&mut self) {
        self.server.signal(rustix::process::Signal::KILL);
        self.server.ended();
        until("the end of its listener", || (!is_listening(self.addr)).then_some(()));
    }

    /// Has it serve the zone's second version.
    pub(crate) fn update(&self, scratch: &Scratch) {
        scratch.write("zone", &zone::second());
        self.server.signal(rustix::process::Signal::HUP);
        // By datagrams: NSD resets connections when it reloads.
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        asking.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let soa = Query::plain(ORIGIN, message::SOA).framed(1);
        // Serial, refresh, retry, expire: what an SOA has behind its names, its last number left out.
        let numbers = [2_u32, 3600, 600, 604_800].map(u32::to_be_bytes).concat();
        until("the zone's second version", || {
            asking.send_to(&soa[2..], self.addr).unwrap();
            let mut answer = [0; 512];
            let len = asking.recv(&mut answer).unwrap_or(0);
            answer[..len].windows(numbers.len()).any(|bytes| bytes == numbers).then_some(())
        });
    }

    /// Starts it again where it was.
    pub(crate) fn again(&mut self, scratch: &Scratch) {
        let mute = self.mute.local_addr().unwrap();
        let command = self.kind.command(scratch, &self.name, self.addr, mute);
        self.server = Server::spawn(command, scratch.path(&format!("{}.log", self.name)));
        let up = self.server.comes_up(|| is_listening(self.addr));
        assert!(up, "{} doesn't start again:\n{}", self.name, self.server.said());
    }
}

/// One worker for TCP, and differences between the zone's versions kept: what comes from one connection can be told from what comes from several.
fn knot(dir: &str, addr: SocketAddr) -> String {
    let [algorithm, id, secret] = KEY.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "server:
  rundir: {dir}
  listen: {ip}@{port}
  tcp-workers: 1
  udp-workers: 1
  background-workers: 1
  tcp-idle-timeout: 60
log:
  - target: stderr
    any: info
database:
  storage: {dir}
control:
  listen: {dir}/knot.sock
key:
  - id: {id}
    algorithm: {algorithm}
    secret: {secret}
acl:
  - id: anybody
    address: 127.0.0.0/8
    action: transfer
  - id: signed
    key: {id}
    action: [query, transfer]
zone:
  - domain: {ORIGIN}
    file: {dir}/../zone
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: changes
    acl: [signed, anybody]
"
    )
}

/// Records in the order of the file, and nobody is asked about what isn't in it: that is a zone of no names. An access control would
/// refuse it by messages that have bytes of earlier ones behind their end (Unbound 1.17).
fn unbound(dir: &str, addr: SocketAddr, mute: SocketAddr) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "server:
  directory: \"{dir}\"
  chroot: \"\"
  username: \"\"
  pidfile: \"{dir}/pid\"
  logfile: \"\"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  interface: {ip}@{port}
  local-zone: \".\" static
  local-zone: {ORIGIN} transparent
  local-zone: {SLOW} transparent
  do-not-query-localhost: no
  incoming-num-tcp: 200
  outgoing-range: 64
  num-queries-per-thread: 4096
  module-config: \"iterator\"
  rrset-roundrobin: no
  tcp-idle-timeout: 60000
  edns-tcp-keepalive: yes
  edns-tcp-keepalive-timeout: {KEEPALIVE_MS}
remote-control:
  control-enable: no
auth-zone:
  name: {ORIGIN}
  zonefile: \"{dir}/../zone\"
  for-downstream: yes
  for-upstream: no
stub-zone:
  name: {SLOW}
  stub-addr: {}@{}
",
        mute.ip(),
        mute.port(),
    )
}

/// Whoever asks much over UDP isn't left without answers (RRL), as NSD would without a word.
fn nsd(dir: &str, addr: SocketAddr) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "server:
  ip-address: {ip}@{port}
  server-count: 1
  username: \"\"
  database: \"\"
  zonesdir: \"{dir}\"
  pidfile: \"{dir}/pid\"
  zonelistfile: \"{dir}/zone.list\"
  xfrdfile: \"{dir}/xfrd.state\"
  xfrdir: \"{dir}\"
  cookie-secret-file: \"{dir}/cookies\"
  logfile: \"{dir}/log\"
  tcp-count: 200
  tcp-timeout: 60
  round-robin: no
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: {ORIGIN}
  zonefile: \"{dir}/../zone\"
  provide-xfr: 127.0.0.0/8 NOKEY
"
    )
}
