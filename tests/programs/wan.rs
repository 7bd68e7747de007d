//! Gateways in a WAN of the lab's: a client, two gateways and a server, and the links between them, which can be cut.
//!
//! ```text
//!  client ── CLIENT_LINK ── near ── TRUNK ── far ── SERVER_LINK ── server
//! ```

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use midmile_lab::netns::Host;
use midmile_lab::scenario::Scenario;
use midmile_lab::topology::{HostOptions, Topology, address};
use serde_json::Value;

use super::gateways::{self, KEYS, key_file, listener_on, peer, trunk};
use super::relay::{counts, number};
use crate::process::{PATIENCE, Running, Scratch, midmile, status, until};

/// Places of the links.
pub(crate) const CLIENT_LINK: usize = 0;
pub(crate) const TRUNK: usize = 1;
pub(crate) const SERVER_LINK: usize = 2;
/// Connections that wait ready in these tests' pools.
pub(crate) const READY: u64 = 4;
/// Of the server, and of the near gateway's listener.
pub(crate) const PORT: u16 = 80;
const TRUNK_PORT: u16 = 7000;

/// The hosts and links.
pub(crate) struct Wan {
    pub(crate) topology: Topology,
    scratch: Scratch,
}

/// What is special about the gateways of a test: lines of their tables.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lines<'a> {
    /// Of near's listener.
    pub(crate) listener: &'a str,
    /// Of near's peer.
    pub(crate) peer: &'a str,
    /// Of far's trunk.
    pub(crate) trunk: &'a str,
    /// Whether near has another key than far.
    pub(crate) wrong_key: bool,
}

/// A gateway in its host, killed when it is dropped.
pub(crate) struct Gateway<'a> {
    pub(crate) running: Running,
    host: &'a Host,
    admin: SocketAddr,
}

impl Wan {
    /// Links with these delays one way, in milliseconds, and more keys for the trunk. `None`, and the reason printed, where the
    /// machine allows no such thing.
    pub(crate) fn new(name: &str, [client, trunk, server]: [u32; 3], of_trunk: &str) -> Option<Self> {
        let text = format!(
            r#"
            title = "faults"
            hosts = ["client", "near", "far", "server"]
            link = [{{ delay = "{client}ms" }}, {{ delay = "{trunk}ms"{of_trunk} }}, {{ delay = "{server}ms" }}]
            direct = {{ delay = "1ms" }}
            object = [{{ name = "any", bytes = "1kB", repetitions = 1 }}]
            "#
        );
        match Topology::build(&Scenario::parse("faults", &text).unwrap(), HostOptions::default()) {
            Ok(topology) => Some(Self { topology, scratch: Scratch::new(name) }),
            Err(error) => {
                let root = rustix::process::geteuid().is_root();
                let (text, denied) = (format!("{error:#}"), ["/dev/net/tun", "os error 1)"]);
                // As root with the device, anything else that fails is a failure.
                assert!(!root || denied.iter().any(|denied| text.contains(denied)), "{text}");
                println!("SKIP: the lab's network isn't tried: {text}");
                None
            }
        }
    }

    /// Both gateways, once the pool is full.
    pub(crate) fn gateways(&self, lines: Lines<'_>) -> (Gateway<'_>, Gateway<'_>) {
        let (near, far) = self.files(lines);
        let far = self.start(1, &far);
        let near = self.start(0, &near);
        if !lines.wrong_key {
            near.ready();
        }
        (near, far)
    }

    /// The files of near and far.
    pub(crate) fn files(&self, lines: Lines<'_>) -> (String, String) {
        let key = key_file(&self.scratch, "key", KEYS[0]);
        let of_near = key_file(&self.scratch, "near.key", KEYS[usize::from(lines.wrong_key)]);
        let (server, limits) = (server_addr().to_string(), "cores = 1\npairs_max = 1000");
        let trunk_addr = SocketAddrV4::new(address(TRUNK, 2), TRUNK_PORT).to_string();
        let far =
            [peer(&key, "near", None, ""), trunk(&format!("0.0.0.0:{TRUNK_PORT}"), &["near"], &[&server], lines.trunk)];
        let of_peer = format!("pool_min = {READY}\n{}", lines.peer);
        let near = [
            listener_on(&format!("0.0.0.0:{PORT}"), &server, &["far"], lines.listener),
            peer(&of_near, "far", Some(&trunk_addr), &of_peer),
        ];
        let file = |name: &str, tables: &[String]| gateways::file(&self.scratch, name, limits, tables);
        (file("near", &near), file("far", &far))
    }

    /// Starts the gateway at `place` with its file, and waits until it accepts.
    pub(crate) fn start(&self, place: usize, file: &str) -> Gateway<'_> {
        let host = &self.topology.gateways()[place];
        let mut command = midmile(&["gateway", "--config", file]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = Running::of(host.spawn(command).unwrap());
        assert!(running.line().starts_with("ready "));
        let admin = running.admin();
        Gateway { running, host, admin }
    }

    /// A listener in the server's host, where the gateways dial.
    pub(crate) fn listen(&self) -> TcpListener {
        self.topology.server().run(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap()
    }

    /// The next connection to a listener of [`Wan::listen`], waited for within the tests' patience.
    pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(true).unwrap();
        let (stream, _) = until("a connection to the server", || listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection from the client's host to the near gateway.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = self.topology.client().run(|| TcpStream::connect(near_addr())).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A client that is reset without a byte; how long that took.
    pub(crate) fn reset_client(&self) -> Duration {
        let began = Instant::now();
        let took = self.topology.client().run(move || {
            let mut stream = TcpStream::connect(near_addr())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read(&mut [0])
        });
        assert_eq!(took.unwrap().expect_err("a reset isn't an end").kind(), ErrorKind::ConnectionReset);
        began.elapsed()
    }

    /// Bytes that the trunk has carried towards the client.
    pub(crate) fn trunk_bytes(&self) -> u64 {
        self.topology.emulator().counters()[TRUNK].to_client.bytes
    }

    /// Waits until the trunk has carried so many more bytes towards the client.
    pub(crate) fn carries(&self, bytes: u64) {
        let before = self.trunk_bytes();
        until("bytes on the trunk", || (self.trunk_bytes() >= before + bytes).then_some(()));
    }
}

/// Where clients go.
pub(crate) fn near_addr() -> SocketAddrV4 {
    SocketAddrV4::new(address(CLIENT_LINK, 2), PORT)
}

/// Where the far gateway dials.
pub(crate) fn server_addr() -> SocketAddrV4 {
    SocketAddrV4::new(address(SERVER_LINK, 2), PORT)
}

impl Gateway<'_> {
    /// Whether it hears of SYNs; says so if this kernel or its privileges don't allow it.
    pub(crate) fn hears_syns(&self) -> bool {
        let line = until("word of SYNs", || {
            let log = self.running.log();
            log.lines()
                .find(|line| line.contains("hears of clients' SYNs") || line.contains("no early dial"))
                .map(String::from)
        });
        let hears = line.contains("hears of");
        if !hears {
            println!("SKIP: early dial isn't tried: {line}");
        }
        hears
    }

    pub(crate) fn status(&self) -> Value {
        let admin = self.admin;
        self.host.run(move || status(admin)).unwrap()
    }

    /// A number of the status document.
    pub(crate) fn count(&self, pointer: &str) -> u64 {
        number(&self.status(), pointer)
    }

    /// Pairs that ended for this reason.
    pub(crate) fn ends(&self, reason: &str) -> u64 {
        self.count(&format!("/totals/ends/{reason}"))
    }

    /// Waits until a number of the status document is `wanted`.
    pub(crate) fn counts(&self, pointer: &str, wanted: u64) {
        counts(|| self.status(), pointer, wanted);
    }

    /// Waits until its pool has what it should have; more if clients have waited for it.
    pub(crate) fn ready(&self) {
        until("the pool", || (self.count("/peers/0/ready") >= READY).then_some(()));
    }

    /// Waits until no pair is open any more.
    pub(crate) fn settled(&self) {
        self.counts("/totals/pairs_open", 0);
    }
}
