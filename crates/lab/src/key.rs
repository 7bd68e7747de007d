//! The key that gateways of a run prove to each other.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

use crate::memory_file::MemoryFile;

const RANDOM: &str = "/dev/urandom";
/// Bytes of a key.
const LENGTH: usize = 32;

/// A file that has 64 hexadecimal digits.
#[derive(Debug)]
pub(crate) struct Key {
    file: MemoryFile,
}

impl Key {
    /// A new one that nobody knows.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = [0; LENGTH];
        let mut random = File::open(RANDOM).with_context(|| format!("can't open {RANDOM}"))?;
        random.read_exact(&mut bytes).with_context(|| format!("can't read {RANDOM}"))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file: MemoryFile::new(digits.as_bytes())? })
    }

    /// Where gateways find it while this lives.
    pub(crate) fn path(&self) -> &str {
        self.file.path()
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
    }
}
