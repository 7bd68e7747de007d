//! Processes that a test starts, and where they listen.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// An address that nobody else comes by: other tests listen at 127.0.0.1 and connect from there, so the port stays free. The socket that has
/// the kernel choose it never listens: a process that another test starts just now may hold a copy of it for a moment, and whoever waits for
/// the server would meet that one.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    net::bind(&socket, &SocketAddrV4::new(ip, 0)).unwrap();
    net::getsockname(&socket).unwrap().try_into().unwrap()
}

/// A process that is killed at the end of its test.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        if thread::panicking() {
            // Shown where the test fails.
            println!("process {}: {:?}", self.0.id(), self.0.try_wait());
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A load process: a newline in, its counters out.
pub(crate) struct Load {
    process: Started,
    answers: BufReader<ChildStdout>,
}

impl Load {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_midmile-bench"));
        command.arg("load").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Started(command.spawn().unwrap());
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        Self { process, answers }
    }

    pub(crate) fn counter(&mut self, key: &str) -> u64 {
        self.process.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let counters: serde_json::Value = serde_json::from_str(&line).unwrap();
        counters[key].as_u64().unwrap()
    }

    /// Waits until a counter passes `least`.
    pub(crate) fn reaches(&mut self, key: &str, least: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut was = (0, Instant::now());
        loop {
            let is = self.counter(key);
            if is >= least {
                return;
            }
            if is != was.0 {
                was = (is, Instant::now());
            }
            assert!(Instant::now() < deadline, "{key} is {is}, below {least}, and has been for {:?}", was.1.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
    }
}
