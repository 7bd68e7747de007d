//! Whose the programs are: what the map `friends_control` says.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `struct control` of `bpf/friends.bpf.c`: two numbers of four bytes for the program, in one word here, then what is user space's.
pub(super) type Words = [u64; 39];

/// Says that the map is ours, and by which layout the rest is written.
const MARK: u64 = u64::from_be_bytes(*b"midmile\x01");
const PATH_AT: usize = 9;
/// Bytes of a path that are kept. Of a longer one it's the end, which tells more.
const PATH_BYTES: usize = (size_of::<Words>() / 8 - PATH_AT) * 8;

/// What is written down of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    /// The programs let everything go by TCP.
    pub(super) is_off: bool,
    pub(super) are_ports_listed: bool,
    /// The cgroup's number, which its directory has as inode.
    pub(super) cgroup: u64,
    /// The process that attached it, and when that began (proc(5), `starttime`): a number alone may be another's by now.
    pub(super) pid: u32,
    pub(super) started: u64,
    /// The kernel's numbers of the maps: of sockets, of counters, of the tap's switch and of its ring.
    pub(super) maps: [u32; 4],
    pub(super) path: PathBuf,
}

impl Control {
    pub(super) fn of_this_process(cgroup: u64, path: &Path, are_ports_listed: bool, maps: [u32; 4]) -> Self {
        let pid = std::process::id();
        let started = started(pid).unwrap_or(0);
        Self { is_off: false, are_ports_listed, cgroup, pid, started, maps, path: path.to_owned() }
    }

    pub(super) fn words(&self) -> Words {
        let mut words = [0; 39];
        words[0] = u64::from(self.is_off) | u64::from(self.are_ports_listed) << 32;
        words[1..5].copy_from_slice(&[MARK, self.cgroup, self.pid.into(), self.started]);
        words[5..PATH_AT].copy_from_slice(&self.maps.map(u64::from));
        let path = self.path.as_os_str().as_bytes();
        let path = &path[path.len().saturating_sub(PATH_BYTES)..];
        for (word, bytes) in words[PATH_AT..].iter_mut().zip(path.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        words
    }

    /// `None` if the map is somebody else's.
    pub(super) fn from_words(words: &Words) -> Option<Self> {
        let [flags, mark, cgroup, pid, started, ref maps @ ..] = words[..PATH_AT] else { return None };
        let path: Vec<u8> =
            words[PATH_AT..].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        (mark == MARK).then_some(())?;
        let mut ids = [0; 4];
        for (id, word) in ids.iter_mut().zip(maps) {
            *id = (*word).try_into().ok()?;
        }
        Some(Self {
            is_off: flags & 1 == 1,
            are_ports_listed: flags >> 32 == 1,
            cgroup,
            pid: pid.try_into().ok()?,
            started,
            maps: ids,
            path: PathBuf::from(OsStr::from_bytes(&path)),
        })
    }

    /// Whether the process is still there.
    pub(super) fn is_held(&self) -> bool {
        is_running(self.pid, self.started)
    }
}

/// Whether the process that had this number and began then is still there.
pub(super) fn is_running(pid: u32, began: u64) -> bool {
    started(pid) == Some(began)
}

/// When a process began, in the kernel's ticks; none if it's gone or a zombie, which holds nothing any more.
pub(super) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have blanks and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_gone = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !is_gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(path: &str) -> Control {
        Control::of_this_process(77, Path::new(path), true, [5, 6, 7, 8])
    }

    #[test]
    fn what_is_written_is_read() {
        // bpf/friends.bpf.c asserts the same.
        assert_eq!(size_of::<Words>(), 312);
        for is_off in [false, true] {
            let control = Control { is_off, ..control("/sys/fs/cgroup/a b") };
            assert_eq!(Control::from_words(&control.words()), Some(control));
        }
        assert_eq!(Control::from_words(&[0; 39]), None);
    }

    #[test]
    fn the_programs_numbers_come_first() {
        let first = control("/x").words()[0].to_ne_bytes();
        assert_eq!(first, [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn of_a_long_path_the_end_is_kept() {
        let long = format!("/{}/end", "a".repeat(500));
        let read = Control::from_words(&control(&long).words()).unwrap();
        assert_eq!(read.path.as_os_str().len(), 240);
        assert!(read.path.ends_with("end"));
    }

    #[test]
    fn a_process_is_known_by_when_it_began() {
        let mut control = control("/x");
        assert!(control.is_held());
        control.started += 1;
        assert!(!control.is_held());
        control.pid = u32::MAX;
        assert!(!control.is_held());
    }
}
