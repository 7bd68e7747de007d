//! What `midmile friends run` asks for, by the environment. Read once, at the library's start.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::sys;

/// The directory in which ends find each other. Without it all stays plain.
const DIRECTORY: &CStr = c"MIDMILE_FRIENDS_DIR";
/// How long a call looks at the ring before it sleeps, in microseconds, or [`AUTO`].
const SPIN: &CStr = c"MIDMILE_FRIENDS_SPIN_US";
/// Sends or receives of a connection before it may become friends.
const AFTER: &CStr = c"MIDMILE_FRIENDS_AFTER";
/// A file to which figures are appended when the process exits.
const LOG: &CStr = c"MIDMILE_FRIENDS_LOG";

/// The longest path, with its end.
pub(crate) const PATH_MAX: usize = 512;
/// The longest spin, in microseconds.
const SPIN_MAX: u64 = 10_000;
/// As long as looks of late have been worth it, and where nothing else is said.
const AUTO: &[u8] = b"auto";
const AUTO_NS: u64 = u64::MAX;
/// Where nothing else is said: a connection that ends before its eighth send pays for nothing.
const AFTER_DEFAULT: u32 = 8;
/// Bytes after which a connection may become friends, however few the sends.
pub(crate) const BYTES: u64 = 65_536;

static SPIN_NS: AtomicU64 = AtomicU64::new(AUTO_NS);
static CALLS: AtomicU32 = AtomicU32::new(AFTER_DEFAULT);
/// Nothing more becomes friends in this process.
static OFF: AtomicBool = AtomicBool::new(false);
static DIRECTORY_TEXT: Text = Text::new();
static LOG_TEXT: Text = Text::new();

/// How long to look before sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spin {
    /// A short while, where it has been worth it of late.
    Auto,
    /// Each time, so many nanoseconds; 0: never.
    For(u64),
}

/// A text that is written once.
struct Text {
    bytes: [std::sync::atomic::AtomicU8; PATH_MAX],
    length: AtomicUsize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [const { std::sync::atomic::AtomicU8::new(0) }; PATH_MAX], length: AtomicUsize::new(0) }
    }

    /// Keeps a text with room for a name behind it; a longer one is not kept. Whether it was.
    fn keep(&self, text: &[u8]) -> bool {
        let fits = text.len() < PATH_MAX / 2;
        if fits {
            self.bytes.iter().zip(text).for_each(|(place, byte)| place.store(*byte, Ordering::Relaxed));
            self.length.store(text.len(), Ordering::Release);
        }
        fits
    }

    fn copy(&self, into: &mut [u8; PATH_MAX]) -> usize {
        let length = self.length.load(Ordering::Acquire);
        into.iter_mut().zip(&self.bytes[..length]).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        length
    }
}

/// Reads them. A value that isn't understood is as one that isn't there: the library has no one to tell.
pub(crate) fn read() {
    if let Some(text) = sys::control::environment(DIRECTORY) {
        meet_in(text);
    }
    if let Some(text) = sys::control::environment(LOG) {
        LOG_TEXT.keep(text);
    }
    if sys::control::environment(SPIN) == Some(AUTO) {
        SPIN_NS.store(AUTO_NS, Ordering::Relaxed);
    } else if let Some(micros) = number(SPIN) {
        SPIN_NS.store(micros.min(SPIN_MAX) * 1000, Ordering::Relaxed);
    }
    if let Some(calls) = number(AFTER).and_then(|calls| u32::try_from(calls).ok()) {
        CALLS.store(calls.max(1), Ordering::Relaxed);
    }
}

/// Ends find each other in this directory, if its path is absolute and not too long; whether it is so.
pub(crate) fn meet_in(directory: &[u8]) -> bool {
    directory.starts_with(b"/") && DIRECTORY_TEXT.keep(directory)
}

fn number(name: &CStr) -> Option<u64> {
    std::str::from_utf8(sys::control::environment(name)?).ok()?.parse().ok()
}

/// Whether there's a place to meet, and this process may go there.
pub(crate) fn enabled() -> bool {
    DIRECTORY_TEXT.length.load(Ordering::Acquire) > 0 && !OFF.load(Ordering::Relaxed)
}

/// From now on nothing becomes friends.
pub(crate) fn disable() {
    OFF.store(true, Ordering::Relaxed);
}

/// Copies the directory's path; its length.
pub(crate) fn directory(into: &mut [u8; PATH_MAX]) -> usize {
    DIRECTORY_TEXT.copy(into)
}

/// Copies the path of the file for figures; its length, 0 if none is wanted.
pub(crate) fn log(into: &mut [u8; PATH_MAX]) -> usize {
    LOG_TEXT.copy(into)
}

/// How long to look before sleeping.
pub(crate) fn spin() -> Spin {
    match SPIN_NS.load(Ordering::Relaxed) {
        AUTO_NS => Spin::Auto,
        time => Spin::For(time),
    }
}

/// Sends or receives before a connection may become friends.
pub(crate) fn after() -> u32 {
    CALLS.load(Ordering::Relaxed)
}
