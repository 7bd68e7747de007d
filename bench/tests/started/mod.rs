//! Processes that a test starts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A process that is killed at the end of its test.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
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
        while self.counter(key) < least {
            assert!(Instant::now() < deadline, "{key} stays below {least}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
