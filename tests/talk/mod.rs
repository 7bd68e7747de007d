//! A program of friends that does as it's told.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::io::Write;
use std::process::{ChildStdin, Stdio};

use crate::process::Running;
use crate::rings::{Friends, script};

/// A program that talks with itself by a connection of friends, as it's told.
pub(crate) struct Talk {
    orders: ChildStdin,
    running: Running,
    /// The ports of both ends.
    pub(crate) near: String,
    pub(crate) far: String,
    /// What each end has sent since.
    pub(crate) sent: [u64; 2],
}

impl Talk {
    pub(crate) fn start(friends: &Friends) -> Self {
        let mut command = script("talk.py");
        command.args([friends.scratch.path("near"), friends.scratch.path("far")]);
        let mut command = friends.with(&command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let running = Running::of(child);
        let said = running.line();
        let (near, far) = said.strip_prefix("friends ").and_then(|ports| ports.split_once(' ')).unwrap();
        Self { orders, near: near.to_owned(), far: far.to_owned(), running, sent: [0, 0] }
    }

    /// Has it do something, to the end.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        let said = self.running.line();
        let sent: Vec<_> = said.split(' ').skip(1).map(|count| count.parse().unwrap()).collect();
        self.sent = sent.try_into().unwrap();
    }

    /// Has it end in order.
    pub(crate) fn end(self) {
        let Self { orders, mut running, .. } = self;
        drop(orders);
        assert_eq!(running.code(), Some(0), "{}", running.log());
        assert_eq!(running.log(), "");
    }
}
