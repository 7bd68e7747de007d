//! Programs that nobody here wrote, as child processes: found, started where nobody else is, stopped at the end.
//!
//! Each server gets a loopback address of its own, so that neither other tests nor the ephemeral ports of clients (which are on
//! 127.0.0.1) can come between a port's reservation and its use.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

pub(crate) mod acceptor;
pub(crate) mod between;
pub(crate) mod data;
pub(crate) mod dialer;
pub(crate) mod gateways;
pub(crate) mod mute;
pub(crate) mod nginx;
pub(crate) mod postgres;
pub(crate) mod relay;
pub(crate) mod wan;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::process::{Scratch, own_loopback, text, until};

/// How long a client may take before it's ended, in seconds. Only a test that fails ever waits so long.
const CLIENT_SECS_MAX: &str = "150";
/// How often a server is started on another port when the one reserved was taken meanwhile.
const STARTS_MAX: usize = 3;
/// Where servers are that aren't on the search path of every user.
const BEYOND_PATH: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Where a program is, if it's installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).chain(BEYOND_PATH.map(PathBuf::from)).collect();
    // Debian keeps PostgreSQL's own programs by version.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map_while(Result::ok);
    dirs.extend(versions.map(|version| version.path().join("bin")));
    dirs.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Whether one of `programs` isn't there; says which.
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find(program).is_none());
    if let Some(program) = missing {
        eprintln!("SKIP: {program} is not installed");
    }
    missing.is_some()
}

/// Gives this process, and those it starts, all the descriptors that each may have without more rights, and says how many.
pub(crate) fn raise_descriptors() -> usize {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }).unwrap();
    now.maximum.map_or(usize::MAX, |maximum| maximum.try_into().unwrap())
}

/// A client program, which is ended if it takes far too long.
pub(crate) fn client(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", CLIENT_SECS_MAX]).arg(find(program).unwrap()).stdin(Stdio::null());
    command
}

/// curl without a word beside errors, for HTTP statuses too.
pub(crate) fn curl(args: &[&str]) -> Command {
    let mut command = client("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(args);
    command
}

/// A server program, to be started by [`Server`]. The kernel kills it if the tests are killed and can't.
pub(crate) fn server(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(find(program).unwrap()).stdin(Stdio::null());
    command
}

/// What a command says when it succeeds.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    succeeded(command, &output);
    text(&output.stdout)
}

/// Asserts that a command succeeded.
pub(crate) fn succeeded(command: &Command, output: &Output) {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{command:?}: {}\n{stderr}{stdout}", output.status);
}

/// An address that nobody else uses, on a loopback address of its own.
pub(crate) fn reserve() -> SocketAddr {
    port_of(own_loopback()).unwrap()
}

/// As [`reserve`], of IPv6, where loopback has but one address. `None` where there's no IPv6.
pub(crate) fn reserve_v6() -> Option<SocketAddr> {
    let found = port_of((Ipv6Addr::LOCALHOST, 0).into());
    found.inspect_err(|error| eprintln!("SKIP: IPv6 isn't tried: {error}")).ok()
}

/// Has the kernel choose a port. The socket never listens, and shares its address: a process that is being forked just now may
/// hold a copy of it for a moment, which is then in nobody's way.
fn port_of(addr: SocketAddr) -> rustix::io::Result<SocketAddr> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &addr)?;
    Ok(net::getsockname(&socket)?.try_into().unwrap())
}

/// Whether somebody listens there, without troubling them with a connection (see proc(5), `/proc/net/tcp`).
pub(crate) fn is_listening(addr: SocketAddr) -> bool {
    let (table, host) = match addr {
        SocketAddr::V4(v4) => ("/proc/net/tcp", format!("{:08X}", u32::from_ne_bytes(v4.ip().octets()))),
        SocketAddr::V6(v6) => {
            let words = v6.ip().octets();
            let words = words.as_chunks().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
            ("/proc/net/tcp6", words.collect())
        }
    };
    let local = format!("{host}:{:04X}", addr.port());
    std::fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("0A")
    })
}

/// Connections to a server at `addr`, which is of IPv4, that stand (see proc(5), `/proc/net/tcp`).
pub(crate) fn connections_to(addr: SocketAddr) -> usize {
    let SocketAddr::V4(v4) = addr else { panic!("{addr} isn't of IPv4") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let stands = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("01")
    };
    table.lines().filter(stands).count()
}

/// Whether somebody listens on the Unix socket at `path` (see proc(5), `/proc/net/unix`: flag `__SO_ACCEPTCON`).
pub(crate) fn is_listening_unix(path: &str) -> bool {
    std::fs::read_to_string("/proc/net/unix").unwrap_or_default().lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"00010000") && fields.get(7) == Some(&path)
    })
}

/// A server in the foreground, stopped when it's dropped.
pub(crate) struct Server {
    child: Child,
    /// The signal that ends it in order.
    pub(crate) stop: Signal,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it says goes to the file `log`.
    pub(crate) fn spawn(mut command: Command, log: impl AsRef<Path>) -> Self {
        let file = std::fs::File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, stop: Signal::TERM, log: log.as_ref().to_owned() }
    }

    /// Starts it on an address of its own; `make` makes the command for an address.
    pub(crate) fn start(scratch: &Scratch, name: &str, make: impl Fn(SocketAddr) -> Command) -> (Self, SocketAddr) {
        let mut said = String::new();
        for _ in 0..STARTS_MAX {
            let addr = reserve();
            let mut server = Self::spawn(make(addr), scratch.path(name));
            if server.comes_up(|| is_listening(addr)) {
                return (server, addr);
            }
            said = server.said();
        }
        panic!("{name} doesn't start:\n{said}");
    }

    /// Starts it on the Unix socket `path`.
    pub(crate) fn start_unix(scratch: &Scratch, name: &str, path: &str, command: Command) -> Self {
        let mut server = Self::spawn(command, scratch.path(name));
        assert!(server.comes_up(|| is_listening_unix(path)), "{name} doesn't start:\n{}", server.said());
        server
    }

    /// Waits until it's up, or is gone.
    pub(crate) fn comes_up(&mut self, is_up: impl Fn() -> bool) -> bool {
        until("a server's start", || {
            let gone = self.child.try_wait().unwrap().is_some();
            (gone || is_up()).then_some(!gone)
        })
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) {
        until("the server's end", || self.child.try_wait().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A stopped process takes the signal when it goes on.
        for signal in [self.stop, Signal::CONT] {
            kill_process(Pid::from_child(&self.child), signal).ok();
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while std::time::Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
