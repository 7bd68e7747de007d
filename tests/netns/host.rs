//! A host of the tests': a network namespace with a process that keeps it.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace. It lives as long as a process in it, which ends when our end of its pipe is closed: even if we are killed.
pub(crate) struct Host {
    keeper: Child,
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        // Once it answers it is in its namespace.
        keeper.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        keeper.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let host = Self { keeper };
        host.command("ip link set lo up");
        host
    }

    /// The process by which others, such as `ip`, name it.
    pub(crate) fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// Does something there. Sockets that it makes stay there, and so do the programs that it starts.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            there.join().unwrap()
        })
    }

    /// Runs a command there, which must do, and returns what it says.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = self.run(|| command.output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}
