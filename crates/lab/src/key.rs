//! The key that gateways of a run prove to each other: in memory alone, so that none is left behind.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

const RANDOM: &str = "/dev/urandom";
/// Bytes of a key.
const LENGTH: usize = 32;
/// Readable by its owner alone, as gateways want it.
const MODE: u32 = 0o600;

/// A file without a name (memfd_create(2), Linux 3.17) that has 64 hexadecimal digits.
#[derive(Debug)]
pub(crate) struct Key {
    _file: File,
    path: String,
}

impl Key {
    /// A new one that nobody knows.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; LENGTH];
        let mut random = File::open(RANDOM).with_context(|| format!("can't open {RANDOM}"))?;
        random.read_exact(&mut bytes).with_context(|| format!("can't read {RANDOM}"))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let descriptor = memfd_create("key", MemfdFlags::CLOEXEC).context("can't make a file in memory")?;
        let mut file = File::from(descriptor);
        file.set_permissions(Permissions::from_mode(MODE)).context("can't close a file to others")?;
        file.write_all(digits.as_bytes()).context("can't write a file in memory")?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok(Self { _file: file, path })
    }

    /// Where the processes of the same user find it while this lives.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_read_by_its_path_and_is_new_each_time() {
        let (one, other) = (Key::new().unwrap(), Key::new().unwrap());
        let read = |key: &Key| std::fs::read_to_string(key.path()).unwrap();
        assert!(read(&one).len() == 64 && read(&one).bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(read(&one), read(&other));
        assert_eq!(std::fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, MODE);
    }
}
