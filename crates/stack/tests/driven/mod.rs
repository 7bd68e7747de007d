//! The examples as programs: started on a backend, asked by programs that nobody here wrote, ended by their own process.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "../../../../tests/netns/host.rs"]
mod host;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use host::Host;
use midmile_engine::probe;
use rustix::process::{Pid, Signal, kill_process};

/// How long a client may take before it's ended, in seconds. Only a test that fails ever waits so long.
const CLIENT_SECS_MAX: &str = "60";

/// Where programs on the user-space stack are reached.
const STACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 66, 0, 2)), 7000);

/// A backend, and a place to run a program on it.
pub(crate) struct Ground {
    /// As the flag has it.
    backend: &'static str,
    /// Flags that the backend needs besides.
    flags: Vec<String>,
    at: SocketAddr,
    /// The program runs in the last, its clients in the first; here, where there's none.
    hosts: Vec<Host>,
}

impl Ground {
    /// One for each backend that can be tried here; says why others can't.
    pub(crate) fn all() -> Vec<Self> {
        let mut grounds = vec![Self::loopback("epoll")];
        match probe::io_uring() {
            Ok(()) => grounds.push(Self::loopback("io_uring")),
            Err(error) => println!("SKIP: io_uring isn't tried: {error}"),
        }
        if rustix::process::geteuid().is_root() {
            grounds.extend([Self::tun(), Self::veth()]);
        } else {
            println!("SKIP: the user-space stack isn't tried: network namespaces need root");
        }
        grounds
    }

    /// The kernel's own TCP and UDP.
    fn loopback(backend: &'static str) -> Self {
        let at = "127.0.0.1:0".parse().unwrap();
        Self { backend, flags: Vec::new(), at, hosts: Vec::new() }
    }

    /// The user-space TCP at the other end of a TUN device.
    fn tun() -> Self {
        let host = Host::new();
        for line in ["tuntap add dev tun mode tun", "addr add 10.66.0.1/24 dev tun", "link set tun up"] {
            host.command(&format!("ip {line}"));
        }
        Self { backend: "tun", flags: ["--device", "tun"].map(String::from).into(), at: STACK, hosts: vec![host] }
    }

    /// The user-space TCP on a veth device, whose other end is in the clients' host.
    fn veth() -> Self {
        let [near, far] = [Host::new(), Host::new()];
        let one = "numtxqueues 1 numrxqueues 1";
        near.command(&format!("ip link add near {one} type veth peer name far {one} netns {}", far.pid()));
        for (host, device, address) in [(&near, "near", "10.66.0.1/24"), (&far, "far", "10.66.0.2/24")] {
            host.command(&format!("ip addr add {address} dev {device}"));
            host.command(&format!("ip link set {device} up"));
        }
        Self { backend: "xdp", flags: ["--device", "far"].map(String::from).into(), at: STACK, hosts: vec![near, far] }
    }

    pub(crate) const fn backend(&self) -> &'static str {
        self.backend
    }

    /// Starts an example and waits until it's ready.
    pub(crate) fn start(&self, example: &str, args: &[&str]) -> Example {
        // The kernel kills it if this thread ends and can't: so it's started by this one, whichever host it's for.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(host) = self.hosts.last() {
            command.args(["nsenter", &format!("--net=/proc/{}/ns/net", host.pid())]);
        }
        command.arg(built(example)).args(["--backend", self.backend]).args(&self.flags);
        command.args(["--listen", &self.at.to_string()]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let Some(at) = said.trim_end().strip_prefix("ready listen=") else {
            child.kill().ok();
            panic!("{example} on {} isn't ready: {said:?}", self.backend);
        };
        Example { at: at.parse().unwrap(), child }
    }

    /// Asserts that nothing of an ended program is left on its device.
    pub(crate) fn check_device(&self) {
        if self.backend == "xdp" {
            let said = self.hosts.last().unwrap().command("ip link show far");
            assert!(!said.contains("xdp"), "{said}");
        }
    }

    /// Does something where clients are.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.hosts.first() {
            Some(host) => host.run(work),
            None => work(),
        }
    }

    /// Runs a client program to its end.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", CLIENT_SECS_MAX, program]).args(args).stdin(Stdio::null());
        self.run(|| command.output().unwrap())
    }

    /// What a client program says when it succeeds.
    pub(crate) fn said(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let on = self.backend;
        assert!(output.status.success(), "on {on}, {program} {args:?}: {}\n{errors}{said}", output.status);
        said.into_owned()
    }

    /// A connection to a program, which doesn't wait for ever.
    pub(crate) fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.run(|| TcpStream::connect(to).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

/// What a client hears from an example in the simulation that `seed` gives, when it has asked `asked`.
pub(crate) fn simulated(example: &str, args: &[&str], seed: u64, asked: &[u8]) -> Vec<u8> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", CLIENT_SECS_MAX]).arg(built(example));
    command.args(["--backend", "sim", "--seed", &seed.to_string()]).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{example}, seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where an example's program is. Cargo builds examples with all tests, but not with those that are named: then it's done here.
fn built(example: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(example);
    BUILT.call_once(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = ["examples", "src", "../engine/src"].map(|dir| last_change(&package.join(dir)));
        let is_fresh = std::fs::metadata(&path)
            .is_ok_and(|found| sources.into_iter().all(|change| found.modified().unwrap() > change));
        if is_fresh {
            return;
        }
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Of the package alone, cargo would build all beneath anew, with other features.
        command.args(["build", "--workspace", "--quiet", "--offline", "--examples"]).current_dir(package);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        assert!(command.status().unwrap().success(), "the examples can't be built");
    });
    path
}

/// When a file below `path` last changed.
fn last_change(path: &Path) -> SystemTime {
    if !path.is_dir() {
        return std::fs::metadata(path).unwrap().modified().unwrap();
    }
    let files = std::fs::read_dir(path).unwrap().map(|entry| last_change(&entry.unwrap().path()));
    files.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A running example, which is killed when it's dropped.
pub(crate) struct Example {
    child: Child,
    at: SocketAddr,
}

impl Example {
    pub(crate) const fn at(&self) -> SocketAddr {
        self.at
    }

    pub(crate) fn ip(&self) -> String {
        IpAddr::to_string(&self.at.ip())
    }

    pub(crate) fn port(&self) -> String {
        self.at.port().to_string()
    }

    /// Asks it to end, which it does in order.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may be gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether one of `programs` isn't installed; says which.
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if let Some(program) = missing {
        println!("SKIP: {program} is not installed");
    }
    missing.is_some()
}

/// A directory of its own, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("midmile-examples-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, in a directory of its own if its name has one.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Bytes without a pattern that a mistake would repeat.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
