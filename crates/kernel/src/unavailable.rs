//! Why a program can't be had here, and the mend.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_PERFMON` and `CAP_BPF` (the last two: Linux 5.8), as bits of `CapEff` (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why a program can't be had. The message says what, why, and the mend; midmile then goes on without.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The process lacks capabilities.
    #[error(
        "{what}: {error}; it needs CAP_BPF and CAP_NET_ADMIN: run as root or grant both (systemd: AmbientCapabilities=)"
    )]
    Privilege {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel is too old.
    #[error("{what}: {error}; it needs Linux {since} or later, and this is {release}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: String,
        /// The first kernel that has what it takes.
        since: Release,
        /// This kernel's release.
        release: String,
    },
    /// The process has the capabilities, and is refused.
    #[error(
        "{what}: {error}, in spite of the capabilities; look for a user namespace, a seccomp filter, the kernel's lockdown, or \
         a program on the cgroup that allows no other"
    )]
    Forbidden {
        /// What was tried.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// There is no such device.
    #[error("no device {device} in this network namespace; `ip link` lists those that are there")]
    NoDevice {
        /// Its name, or `#` and its index.
        device: String,
    },
    /// The device takes no XDP program of ours.
    #[error("no XDP on {device}: {error}; {mend}")]
    NoXdp {
        /// Its name.
        device: String,
        /// What the kernel said, or what is missing.
        error: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// There are more devices than are watched.
    #[error("{count} devices, and at most {max} are watched; name those by which clients come in")]
    TooManyDevices {
        /// Devices that there are.
        count: usize,
        /// Devices that may be.
        max: usize,
    },
    /// The process's cgroup of version 2 wasn't found.
    #[error("no cgroup of version 2 for this process: {why}; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoCgroup {
        /// What was looked for.
        why: String,
    },
    /// More listeners than the program knows.
    #[error("{0}")]
    Listeners(#[from] crate::syn::ListenersError),
    /// The kernel refuses it for a reason that we don't know.
    #[error("{what}: {error}; Linux {release} refuses it, please report that")]
    Refused {
        /// What was tried.
        what: String,
        /// What the kernel said, down to its last cause.
        error: String,
        /// This kernel's release.
        release: String,
    },
}

/// A kernel's version: its first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Release {
    /// This kernel's, if it says so in numbers.
    pub(crate) fn here() -> Option<Self> {
        Self::parse(&rustix::system::uname().release().to_string_lossy())
    }

    /// The first numbers of a release such as `6.1.0-42-amd64`.
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl Unavailable {
    /// Sorts what went wrong when `what` was tried, which Linux `since` can do.
    pub(crate) fn sort(what: impl Into<String>, since: Release, error: &(dyn Error + 'static)) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::judge(what.into(), since, error, release, may_load())
    }

    /// That `what` isn't tried here, where the kernel is older than `since`, and why.
    pub(crate) fn too_old(what: impl Into<String>, since: Release, why: impl Into<String>) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::Kernel { what: what.into(), error: why.into(), since, release }
    }

    fn judge(what: String, since: Release, error: &(dyn Error + 'static), release: String, privileged: bool) -> Self {
        let code = code_of(error);
        let denied = code.filter(|code| matches!(*code, Errno::PERM | Errno::ACCESS));
        match denied.map(io::Error::from) {
            Some(error) if !privileged => Self::Privilege { what, error },
            _ if Release::parse(&release).is_some_and(|here| here < since) => {
                Self::Kernel { what, error: story(error), since, release }
            }
            // EACCES is the verifier's word as well, and that would be our bug.
            Some(error) if code == Some(Errno::PERM) => Self::Forbidden { what, error },
            _ => Self::Refused { what, error: story(error), release },
        }
    }
}

/// The system's error at the root of an error.
pub(crate) fn code_of(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(Errno::from_io_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// An error and its causes in one line. A verifier's log can have thousands of lines: its last ones say why.
fn story(error: &(dyn Error + 'static)) -> String {
    const SAID_MAX: usize = 600;
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = line.chars().count().saturating_sub(SAID_MAX);
    if skipped == 0 { line } else { format!("… {}", line.chars().skip(skipped).collect::<String>()) }
}

/// Whether the process has the capabilities that loading and attaching take.
fn may_load() -> bool {
    let has = capabilities();
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_NET_ADMIN))
}

/// Whether its programs may read the kernel's memory.
pub(crate) fn may_trace() -> bool {
    let has = capabilities();
    has(CAP_SYS_ADMIN) || has(CAP_PERFMON)
}

/// The capabilities that the thread has in effect.
fn capabilities() -> impl Fn(u32) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    move |capability| bits >> capability & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Release = Release { major: 5, minor: 12 };

    fn judged(code: i32, release: &str, privileged: bool) -> Unavailable {
        let error = io::Error::from_raw_os_error(code);
        Unavailable::judge("loading".to_owned(), SINCE, &error, release.to_owned(), privileged)
    }

    #[test]
    fn each_cause_has_its_mend() {
        let (denied, access, invalid) = (1, 13, 22);
        for code in [denied, access] {
            let said = judged(code, "6.1.0-42-amd64", false).to_string();
            assert!(said.contains("CAP_BPF and CAP_NET_ADMIN"), "{said}");
        }
        let said = judged(invalid, "5.10.0-28-amd64", true).to_string();
        assert!(said.ends_with("needs Linux 5.12 or later, and this is 5.10.0-28-amd64"), "{said}");
        assert!(matches!(judged(denied, "6.1.0", true), Unavailable::Forbidden { .. }));
        assert!(matches!(judged(access, "6.1.0", true), Unavailable::Refused { .. }));
        assert!(matches!(judged(invalid, "6.1.0", true), Unavailable::Refused { .. }));
        assert!(matches!(judged(invalid, "no numbers", true), Unavailable::Refused { .. }));
    }

    #[test]
    fn a_long_story_keeps_its_end() {
        let told = story(&io::Error::other(format!("{}\nthe  end", "word ".repeat(1000))));
        assert!(told.starts_with('…') && told.ends_with("word the end") && told.chars().count() < 700, "{told}");
    }
}
