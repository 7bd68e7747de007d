//! Facts from `/proc` and `/sys`.

use std::path::PathBuf;
use std::str::FromStr;

/// `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE`, as bits of `CapEff` (capabilities(7)); `CAP_NET_ADMIN` likewise.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// Where the files are read.
#[derive(Debug)]
pub(super) struct System {
    root: PathBuf,
}

impl System {
    /// This host.
    pub(super) fn here() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// The files below `root`, for tests.
    #[cfg(test)]
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file's text without the white space around it; `None` if it isn't there or isn't readable.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned())
    }

    /// The numbers in a file, such as `4096 131072 6291456`.
    pub(super) fn numbers<T: FromStr>(&self, path: &str) -> Option<Vec<T>> {
        self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    /// The one number in a file.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// Whether the process may exceed limits on resources, pipes and descriptors among them.
    pub(super) fn may_exceed_limits(&self) -> bool {
        self.has(CAP_SYS_RESOURCE) || self.has(CAP_SYS_ADMIN)
    }

    /// Whether the process may raise its own hard limits (setrlimit(2) wants this one capability).
    pub(super) fn may_raise_hard_limits(&self) -> bool {
        self.has(CAP_SYS_RESOURCE)
    }

    /// Whether the process may choose any congestion control, not only those that are allowed to all.
    pub(super) fn may_choose_any_congestion(&self) -> bool {
        self.has(CAP_NET_ADMIN)
    }

    fn has(&self, capability: u32) -> bool {
        let Some(status) = self.text("/proc/self/status") else {
            return false;
        };
        let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits >> capability & 1 == 1)
    }

    /// A file of the process's cgroup: of version 2, or else `v1` of version 1's `controller`.
    pub(super) fn cgroup(&self, v2: &str, controller: &str, v1: &str) -> Option<String> {
        let groups = self.text("/proc/self/cgroup")?;
        let lines =
            || groups.lines().filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':')));
        let unified = lines().find(|(controllers, _)| controllers.is_empty());
        let found = unified.and_then(|(_, path)| self.text(&format!("/sys/fs/cgroup{path}/{v2}")));
        found.or_else(|| {
            let (_, path) = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == controller))?;
            // In a container the group is often mounted as the root.
            self.text(&format!("/sys/fs/cgroup/{controller}{path}/{v1}"))
                .or_else(|| self.text(&format!("/sys/fs/cgroup/{controller}/{v1}")))
        })
    }
}

/// Bytes as a person reads them.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}
