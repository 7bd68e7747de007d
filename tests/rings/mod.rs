//! Programs that are run by `midmile friends run`, in a runtime directory of a test's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::process::{Scratch, midmile};
use crate::programs::client;

/// A runtime directory of a test's own, and what the library said in it.
pub(crate) struct Friends {
    pub(crate) scratch: Scratch,
}

impl Friends {
    pub(crate) fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        std::fs::create_dir(scratch.path("run")).unwrap();
        std::fs::set_permissions(scratch.path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { scratch }
    }

    /// The command, run as a friend.
    pub(crate) fn with(&self, command: &Command) -> Command {
        self.after(8, command)
    }

    /// As [`Friends::with`], with connections that may become friends after so many sends.
    pub(crate) fn after(&self, sends: u32, command: &Command) -> Command {
        let (directory, log) = (self.scratch.path("run"), self.scratch.path("log"));
        let sends = sends.to_string();
        let mut run = midmile(&["friends", "run", "--runtime-dir", &directory, "--log", &log, "--after", &sends, "--"]);
        run.arg(command.get_program()).args(command.get_args());
        command.get_envs().for_each(|(name, value)| {
            value.map(|value| run.env(name, value));
        });
        run
    }

    /// One figure, of all processes that have exited.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let log = std::fs::read_to_string(self.scratch.path("log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()[name].as_u64().unwrap()).sum()
    }

    /// Asserts that at least so many bytes were received by rings, and that no peer was caught writing what can't be.
    pub(crate) fn went_by_ring(&self, bytes: usize) {
        let (by_ring, broken) = (self.figure("ring_in_bytes"), self.figure("friend_broken"));
        assert!(by_ring >= u64::try_from(bytes).unwrap() && broken == 0, "{by_ring} of {bytes} bytes, {broken} broken");
    }
}

/// A script beside the tests.
pub(crate) fn script(name: &str) -> Command {
    let mut command = client("python3");
    command.arg(format!("{}/tests/friends/{name}", env!("CARGO_MANIFEST_DIR")));
    // No files beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
