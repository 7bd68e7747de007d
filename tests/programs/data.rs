//! Files whose every page is different, and their checksums.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{client, said};

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;
pub(crate) const GIB: u64 = 1024 * MIB;

const BLOCK: usize = 1024 * 1024;
const PAGE: usize = 4096;

/// Bytes that don't repeat for a long while (xorshift, Marsaglia 2003).
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes `len` bytes of a block of `noise`, each page stamped with `seed` and its place: what is lost, doubled, swapped or
/// taken from another file shows in the checksum.
pub(crate) fn fill(path: impl AsRef<Path>, len: u64, seed: u64, noise: &[u8]) {
    let mut file = File::create(path).unwrap();
    let mut block = noise.to_vec();
    let (mut left, mut page) = (len, 0_u64);
    while left > 0 {
        for stamped in block.chunks_exact_mut(PAGE) {
            stamped[..8].copy_from_slice(&seed.to_le_bytes());
            stamped[8..16].copy_from_slice(&page.to_le_bytes());
            page += 1;
        }
        let now = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        file.write_all(&block[..now]).unwrap();
        left -= now as u64;
    }
}

/// A file of one seed; its path.
pub(crate) fn file(scratch: &crate::process::Scratch, name: &str, len: u64, seed: u64) -> String {
    let path = scratch.path(name);
    fill(&path, len, seed, &noise(BLOCK, seed));
    path
}

fn sum_of(said: &str) -> String {
    said.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The checksum of a file.
pub(crate) fn sum(path: &str) -> String {
    sum_of(&said(client("sha256sum").arg(path)))
}

/// The checksum of what a command says, which is never kept as a whole.
pub(crate) fn sum_said(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = said(client("sha256sum").stdin(child.stdout.take().unwrap()));
    super::succeeded(command, &child.wait_with_output().unwrap());
    sum_of(&said)
}
