//! Paths that are put together without allocating.

use std::ffi::CStr;

use crate::settings::{self, PATH_MAX};

/// A path that is put together without allocating.
pub(crate) struct Path {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl Path {
    pub(crate) fn empty() -> Self {
        Self { bytes: [0; PATH_MAX], length: 0 }
    }

    pub(crate) fn directory() -> Self {
        let mut path = Self::empty();
        path.length = settings::directory(&mut path.bytes);
        path
    }

    /// Of a file in the directory, up to its name.
    pub(crate) fn within() -> Self {
        let mut path = Self::directory();
        path.push(b"/");
        path
    }

    pub(crate) fn push(&mut self, text: &[u8]) {
        // The directory takes at most half, and the longest name isn't a third.
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    pub(crate) fn hex(&mut self, number: u128) {
        self.digits(number, 16);
    }

    pub(crate) fn digits(&mut self, mut number: u128, base: u128) {
        let mut digits = [0_u8; 40];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b"0123456789abcdef"[usize::try_from(number % base).expect("below the base")];
            number /= base;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }

    pub(crate) fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("there is room for the end")
    }
}

/// Of a thread's or a process's state.
pub(crate) fn stat_of(thread: u32) -> Path {
    let mut path = Path::empty();
    path.push(b"/proc/");
    path.digits(u128::from(thread), 10);
    path.push(b"/stat");
    path
}

/// Of a descriptor, this process's where no other is named.
pub(crate) fn in_proc(process: Option<i32>, descriptor: i32) -> Path {
    let mut path = Path::empty();
    path.push(b"/proc/");
    match process {
        Some(process) => path.digits(u128::from(process.cast_unsigned()), 10),
        None => path.push(b"self"),
    }
    path.push(b"/fd/");
    path.digits(u128::from(descriptor.cast_unsigned()), 10);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_proc() {
        assert_eq!(in_proc(Some(12), 700).text().to_str(), Ok("/proc/12/fd/700"));
        assert_eq!(in_proc(None, 0).text().to_str(), Ok("/proc/self/fd/0"));
        assert_eq!(stat_of(4_294_967_295).text().to_str(), Ok("/proc/4294967295/stat"));
    }
}
