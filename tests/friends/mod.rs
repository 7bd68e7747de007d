//! Cgroups of a test's own, and programs in them.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde_json::Value;

use crate::process::{Running, midmile, run, text, until};

/// A cgroup of version 2, removed at the end. Its processes have to have ended by then: whoever started them waits for them.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// One below this process's own. `None`, and the reason printed, where there's none or friends can't be had.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let found = findings().into_iter().find(|finding| finding["feature"] == "friends").unwrap();
        if found["state"] == "absent" {
            println!("SKIP: friends by eBPF aren't tried: {}", found["found"]);
            return None;
        }
        let path = own().join(format!("midmile-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        match std::fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("SKIP: friends by eBPF aren't tried: {}: {error}", path.display());
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// A command that runs in it.
    pub(crate) fn within(&self, command: &Command) -> Command {
        let mut within = Command::new("sh");
        within.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"", self.path()]);
        within.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        command.get_envs().for_each(|(name, value)| {
            value.map(|value| within.env(name, value));
        });
        within
    }

    /// Attaches friends to it, and waits until they are on.
    pub(crate) fn attach(&self, more: &[&str]) -> Running {
        let running = Running::start(&[&["friends", "attach", "--cgroup", self.path()], more].concat());
        assert_eq!(running.line(), format!("ready cgroup={}", self.path()));
        running
    }

    /// Detaches them, which has to succeed; what was said.
    pub(crate) fn detach(&self) -> String {
        let output = run(&["friends", "detach", "--cgroup", self.path()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What is attached to it, as `midmile friends status` tells it.
    pub(crate) fn attachments(&self) -> Vec<Value> {
        let output = run(&["friends", "status", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = document["attachments"].as_array().unwrap();
        all.iter().filter(|one| one["cgroup"] == self.path()).cloned().collect()
    }

    /// The one that is attached to it.
    pub(crate) fn attachment(&self) -> Value {
        let mut all = self.attachments();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// How often a reason kept from it.
    pub(crate) fn count(&self, reason: &str) -> u64 {
        self.attachment()["reasons"][reason].as_u64().unwrap_or(0)
    }

    /// Bytes that have skipped TCP.
    pub(crate) fn bytes(&self) -> u64 {
        self.attachment()["bytes"].as_u64().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A test that failed may have left processes behind, which nobody else can have put there.
        std::fs::write(self.0.join("cgroup.kill"), "1").ok();
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn findings() -> Vec<Value> {
    let document: Value = serde_json::from_slice(&run(&["doctor", "--json"]).stdout).unwrap();
    document["findings"].as_array().unwrap().clone()
}

/// This process's cgroup. Here, and in CI, the mount shows the whole tree.
fn own() -> PathBuf {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let mounts = read("/proc/self/mountinfo");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let own = read("/proc/self/cgroup");
    let below = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(mount.unwrap_or("/sys/fs/cgroup")).join(below)
}

/// A script of `tests/friends`.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(format!("{}/tests/friends/{name}", env!("CARGO_MANIFEST_DIR")));
    // No files beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Waits until nothing of a cgroup is left in the kernel.
pub(crate) fn until_gone(cgroup: &Cgroup) {
    until("the end of what is left over", || cgroup.attachments().is_empty().then_some(()));
}

/// Runs `midmile friends`, which must fail; the exit code and what it said.
pub(crate) fn refused(args: &[&str]) -> (i32, String) {
    let output = midmile(&[&["friends"], args].concat()).output().unwrap();
    assert!(!output.status.success(), "{args:?}");
    (output.status.code().unwrap(), text(&output.stderr))
}
