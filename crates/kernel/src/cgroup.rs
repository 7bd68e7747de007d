//! Cgroups of version 2: the process's own, and one by its directory (Linux: admin-guide/cgroup-v2).

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::friends::FriendsError;
use crate::unavailable::Unavailable;

/// `CGROUP2_SUPER_MAGIC` (statfs(2)).
const CGROUP2: u64 = 0x6367_7270;

/// Opens the directory of the process's own cgroup.
///
/// # Errors
/// [`Unavailable::NoCgroup`] if there is none, or none that is mounted here.
pub(crate) fn open_own() -> Result<File, Unavailable> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let path = directory(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
        .map_err(|why| Unavailable::NoCgroup { why: why.to_owned() })?;
    File::open(&path).map_err(|error| Unavailable::NoCgroup { why: format!("{}: {error}", path.display()) })
}

/// Opens the directory of a cgroup; answers its absolute path as well.
///
/// # Errors
/// [`FriendsError::Cgroup`] if it can't be opened, [`FriendsError::NotCgroup`] if it is something else.
pub(crate) fn open(path: &Path) -> Result<(PathBuf, File), FriendsError> {
    let cgroup = |error| FriendsError::Cgroup { path: path.to_owned(), error };
    let path = path.canonicalize().map_err(cgroup)?;
    let directory = File::open(&path).map_err(cgroup)?;
    let is_one = rustix::fs::fstatfs(&directory).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2));
    if is_one && directory.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Ok((path, directory));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mend = match mounts.lines().find_map(mount) {
        Some((_, point)) => format!("they are below {point} here"),
        None => "there's none here; mount them: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
    };
    Err(FriendsError::NotCgroup { path, mend })
}

/// The number of a cgroup, which isn't used again while the host runs.
///
/// # Errors
/// The system's; they aren't known to happen.
pub(crate) fn id(directory: &File) -> io::Result<u64> {
    directory.metadata().map(|metadata| metadata.ino())
}

/// The directory, from `/proc/self/cgroup` and `/proc/self/mountinfo`. Version 2 may be mounted anywhere, beside version 1.
fn directory(cgroup: &str, mountinfo: &str) -> Result<PathBuf, &'static str> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or("/proc/self/cgroup has no line 0::")?;
    let mounts = mountinfo.lines().filter_map(mount);
    // A container's mount shows a part of the tree alone.
    let mut found = mounts.filter_map(|(root, point)| {
        let below = if root == "/" { own } else { own.strip_prefix(root.as_str())? };
        (below.is_empty() || below.starts_with('/')).then(|| PathBuf::from(format!("{point}{below}")))
    });
    found.next().ok_or("no mount of type cgroup2 in /proc/self/mountinfo shows it")
}

/// The root and the mount point of a line of `/proc/self/mountinfo` (proc(5)), if it is of type cgroup2.
fn mount(line: &str) -> Option<(String, String)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    (kind.split(' ').next() == Some("cgroup2")).then(|| (unescaped(root), unescaped(point)))
}

/// White space and backslashes are written as three octal digits there.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, char)| text.replace(escape, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

    #[test]
    fn version_2_is_found_wherever_it_is_mounted() {
        let cases = [
            ("0::/\n", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/unified/"),
            (
                "1:cpu:/x\n0::/a.slice/b\n",
                "25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw",
                "/sys/fs/cgroup/a.slice/b",
            ),
            ("0::/pod/c\n", "25 20 0:22 /pod /sys/fs/cgroup rw - cgroup2 none rw", "/sys/fs/cgroup/c"),
            ("0::/a\n", "25 20 0:22 / /mnt/my\\040group rw - cgroup2 none rw", "/mnt/my group/a"),
        ];
        for (cgroup, mount, expected) in cases {
            assert_eq!(directory(cgroup, &format!("{V1}{mount}\n")), Ok(PathBuf::from(expected)));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(directory("4:memory:/b\n", V1).unwrap_err().contains("0::"));
        assert!(directory("0::/a\n", V1).unwrap_err().contains("cgroup2"));
        let elsewhere =
            "25 20 0:22 /podium /sys/fs/cgroup rw - cgroup2 none rw\n25 20 0:22 /pod /y rw - cgroup2 none rw";
        assert!(directory("0::/podi/c\n", elsewhere).is_err());
    }
}
