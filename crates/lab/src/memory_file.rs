//! Files in memory alone, so that none is left behind, whatever happens.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

/// Readable by its owner alone, as gateways want it of keys.
const MODE: u32 = 0o600;

/// A file without a name (memfd_create(2), Linux 3.17).
#[derive(Debug)]
pub(crate) struct MemoryFile {
    _file: File,
    path: String,
}

impl MemoryFile {
    /// One that has these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self> {
        let descriptor = memfd_create("lab", MemfdFlags::CLOEXEC).context("can't make a file in memory")?;
        let mut file = File::from(descriptor);
        file.set_permissions(Permissions::from_mode(MODE)).context("can't close a file to others")?;
        file.write_all(bytes).context("can't write a file in memory")?;
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
    fn it_is_found_by_its_path_by_its_owner_alone() {
        let file = MemoryFile::new(b"some text").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"some text");
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, MODE);
    }
}
