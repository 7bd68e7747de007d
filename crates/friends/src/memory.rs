//! The mapped memory: the only unsafe code. It turns an address into words and rings, and copies bytes to and from a ring.
//!
//! The other process may write to any byte at any time. Words are atomics, so that's no race. The bytes of a ring are copied as bytes
//! without atomicity: where both ends keep to the protocol no byte is written and read at once (loom checks it), and where the peer
//! doesn't, the copy carries what the peer wrote, old or new or torn, as it could have sent it. Each copy's bounds come from lengths of
//! our own; a position from shared memory is only ever taken modulo the ring's length.
#![cfg_attr(not(loom), expect(unsafe_code, reason = "memory that another process shares"))]

#[cfg(not(loom))]
pub(crate) use mapped::Area;
#[cfg(not(loom))]
pub(crate) use mapped::{parts, view};
#[cfg(loom)]
pub(crate) use modelled::Area;

#[cfg(all(any(test, fuzzing), not(loom)))]
pub use mapped::Heap;
#[cfg(loom)]
pub use modelled::Heap;

/// The two ends of a ring's bytes from `at` on: how many stand before the ring's end.
fn before_wrap(at: u64, length: usize, ring: usize) -> (usize, usize) {
    assert!(length <= ring, "a copy is no longer than its ring");
    let index = index(at, ring);
    (index, length.min(ring - index))
}

/// Where the place `at` is in a ring.
fn index(at: u64, ring: usize) -> usize {
    usize::try_from(at & (ring as u64 - 1)).expect("below the ring's length")
}

#[cfg(not(loom))]
mod mapped {
    use core::ptr;
    #[cfg(any(test, fuzzing))]
    use core::slice;
    use core::sync::atomic::AtomicU8;

    use super::{before_wrap, index};
    use crate::layout::{DATA_AT, Shared};
    use crate::reason::BadSegment;

    /// How far lines, of 64 bytes, are fetched ahead of what is written. More is no faster: from there on the processor sees by itself where the
    /// writes go.
    const AHEAD: usize = 8 * 64;

    /// Bytes of a line of the cache's.
    const LINE: usize = 64;

    /// A ring's bytes. Their number is a power of two.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Area<'m> {
        bytes: &'m [AtomicU8],
    }

    impl Area<'_> {
        pub(crate) fn capacity(&self) -> usize {
            self.bytes.len()
        }

        /// Copies into the ring, from the place `at` on, around its end.
        #[inline]
        pub(crate) fn write(&self, at: u64, from: &[u8]) {
            let index = index(at, self.bytes.len());
            match self.bytes.get(index..index + from.len()) {
                Some(place) => store(place, from),
                None => self.write_around(at, from),
            }
        }

        #[cold]
        fn write_around(&self, at: u64, from: &[u8]) {
            let (index, first) = before_wrap(at, from.len(), self.bytes.len());
            store(&self.bytes[index..index + first], &from[..first]);
            store(&self.bytes[..from.len() - first], &from[first..]);
        }

        /// The same past the processor's caches, for much that a reader on another CPU takes from memory faster than from them.
        pub(crate) fn write_past(&self, at: u64, from: &[u8]) {
            let (index, first) = before_wrap(at, from.len(), self.bytes.len());
            store_past(&self.bytes[index..index + first], &from[..first]);
            store_past(&self.bytes[..from.len() - first], &from[first..]);
        }

        /// Has the processor fetch the lines from the place `at` on, to be written soon, without waiting for them: the reader's CPU has them still.
        /// Not around the ring's end, which is one write of many.
        #[inline]
        pub(crate) fn fetch_for_writing(&self, at: u64) {
            let index = index(at, self.bytes.len());
            if let Some(lines) = self.bytes.get(index..).and_then(|bytes| bytes.first_chunk()) {
                fetch_lines(lines);
            }
        }

        /// Copies out of the ring, from the place `at` on, around its end.
        pub(crate) fn read(&self, at: u64, into: &mut [u8]) {
            let (index, first) = before_wrap(at, into.len(), self.bytes.len());
            let (head, rest) = into.split_at_mut(first);
            load(&self.bytes[index..index + first], head);
            load(&self.bytes[..rest.len()], rest);
        }
    }

    fn store(to: &[AtomicU8], from: &[u8]) {
        assert_eq!(to.len(), from.len(), "both parts were cut to one length");
        // SAFETY: both are valid for this many bytes; `to` may be written through a shared reference, because it's made of atomics;
        // `from` is the caller's own memory, and no process maps its own buffers over a ring, so they don't overlap. What another
        // process writes meanwhile is in the module's documentation. An atomic copy of bytes moves a tenth of this one's.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr().cast_mut().cast::<u8>(), from.len()) }
    }

    /// Copies so many lines, at least one, by moves of 16 bytes: what comes before those of each line, by which instruction they are stored, and what
    /// comes at the end.
    #[cfg(target_arch = "x86_64")]
    macro_rules! copy_lines {
        ($from:expr, $to:expr, $lines:expr, ahead: $ahead:literal, store: $store:literal, then: $then:literal) => {
            core::arch::asm!(
                "2:",
                $ahead,
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                concat!($store, " [{to}], {a}"),
                concat!($store, " [{to} + 16], {b}"),
                concat!($store, " [{to} + 32], {c}"),
                concat!($store, " [{to} + 48], {d}"),
                "add {from}, 64",
                "add {to}, 64",
                "dec {lines}",
                "jnz 2b",
                $then,
                from = inout(reg) $from => _,
                to = inout(reg) $to => _,
                lines = inout(reg) $lines => _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack)
            )
        };
    }

    /// As [`store`], past the caches; on processors for which that isn't known to be worth anything it's the same.
    fn store_past(to: &[AtomicU8], from: &[u8]) {
        assert_eq!(to.len(), from.len(), "both parts were cut to one length");
        // Lines are written whole.
        let head = to.as_ptr().align_offset(LINE).min(to.len());
        let lines = (to.len() - head) / LINE;
        let tail = head + lines * LINE;
        store(&to[..head], &from[..head]);
        store(&to[tail..], &from[tail..]);
        store_lines(&to[head..tail], &from[head..tail]);
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn store_lines(to: &[AtomicU8], from: &[u8]) {
        store(to, from);
    }

    /// Whole lines of the ring, before whatever is stored after them.
    #[cfg(target_arch = "x86_64")]
    fn store_lines(to: &[AtomicU8], from: &[u8]) {
        if to.is_empty() {
            return;
        }
        assert!(to.len() == from.len() && to.len().is_multiple_of(LINE) && to.as_ptr().addr().is_multiple_of(LINE));
        // SAFETY: as in `store`: so many bytes are valid, here and there; `to` begins where a line does.
        unsafe {
            // Such stores wait for nobody, not for the word either that tells the reader of them.
            copy_lines!(from.as_ptr(), to.as_ptr(), to.len() / LINE, ahead: "", store: "movntps", then: "sfence");
        }
    }

    /// Bytes from which on a copy out of the ring is a loop of ours: for so many the string instructions are slow on some processors, by
    /// where in their pages both stand (glibc's bug 30994, Zen 4).
    const MUCH: usize = 4096;

    fn load(from: &[AtomicU8], into: &mut [u8]) {
        assert_eq!(into.len(), from.len(), "both parts were cut to one length");
        let lines = if into.len() < MUCH { 0 } else { into.len() / LINE * LINE };
        load_lines(&from[..lines], &mut into[..lines]);
        load_rest(&from[lines..], &mut into[lines..]);
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn load_lines(from: &[AtomicU8], into: &mut [u8]) {
        load_rest(from, into);
    }

    /// As many bytes as whole lines have, fetched well ahead.
    #[cfg(target_arch = "x86_64")]
    fn load_lines(from: &[AtomicU8], into: &mut [u8]) {
        assert!(into.len() == from.len() && into.len().is_multiple_of(LINE));
        if into.is_empty() {
            return;
        }
        // SAFETY: as in `store`: so many bytes are valid, here and there. What is fetched beyond them is a hint, wherever it points.
        unsafe {
            copy_lines!(from.as_ptr(), into.as_mut_ptr(), into.len() / LINE, ahead: "prefetcht0 [{from} + 1024]", store: "movups", then: "");
        }
    }

    fn load_rest(from: &[AtomicU8], into: &mut [u8]) {
        // SAFETY: as in `store`, the other way; both parts have one length.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), into.as_mut_ptr(), into.len()) }
    }

    /// A hint for each line, which changes nothing that a program can see; on processors that have none it's left out.
    #[inline]
    fn fetch_lines(lines: &[AtomicU8; AHEAD]) {
        let at = lines.as_ptr();
        #[cfg(target_arch = "x86_64")]
        // SAFETY: hints, which neither read nor write for the program, wherever they point; processors that don't know them pass over them.
        unsafe {
            core::arch::asm!(
                "prefetchw [{at}]",
                "prefetchw [{at} + 64]",
                "prefetchw [{at} + 128]",
                "prefetchw [{at} + 192]",
                "prefetchw [{at} + 256]",
                "prefetchw [{at} + 320]",
                "prefetchw [{at} + 384]",
                "prefetchw [{at} + 448]",
                at = in(reg) at, options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(target_arch = "aarch64")]
        for line in (0..AHEAD).step_by(64) {
            // SAFETY: as above.
            unsafe {
                core::arch::asm!("prfm pstl1keep, [{at}]", at = in(reg) at.wrapping_add(line), options(nostack, preserves_flags));
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = at;
    }

    /// The words and the two rings in `memory`, that has to have just the length for rings of `capacity`.
    pub(crate) fn view(memory: &[AtomicU8], capacity: usize) -> Result<(&Shared, [Area<'_>; 2]), BadSegment> {
        if crate::segment_bytes(capacity)? != memory.len() {
            return Err(BadSegment::Length);
        }
        parts(memory, capacity)
    }

    /// The same, where `memory` may be longer.
    #[inline]
    pub(crate) fn parts(memory: &[AtomicU8], capacity: usize) -> Result<(&Shared, [Area<'_>; 2]), BadSegment> {
        if !memory.as_ptr().addr().is_multiple_of(align_of::<Shared>()) {
            return Err(BadSegment::Alignment);
        }
        let (words, rings) = memory.split_at_checked(DATA_AT).ok_or(BadSegment::Length)?;
        // SAFETY: the address is aligned, and no `Shared` exceeds DATA_AT; it's made of atomics, as the bytes are, and any bits are
        // valid ones.
        let shared = unsafe { &*words.as_ptr().cast::<Shared>() };
        let (first, second) = rings.split_at_checked(capacity).ok_or(BadSegment::Length)?;
        let second = second.get(..capacity).ok_or(BadSegment::Length)?;
        Ok((shared, [Area { bytes: first }, Area { bytes: second }]))
    }

    /// Memory of a segment that isn't shared with another process: for tests, in which both ends are in one.
    #[cfg(any(test, fuzzing))]
    #[derive(Debug)]
    pub struct Heap {
        pages: Box<[Page]>,
        capacity: usize,
    }

    #[cfg(any(test, fuzzing))]
    #[derive(Debug)]
    #[repr(C, align(4096))]
    struct Page([AtomicU8; 4096]);

    #[cfg(any(test, fuzzing))]
    impl Heap {
        /// Memory for rings of `capacity`, full of zeros.
        #[must_use]
        pub fn new(capacity: usize) -> Self {
            let length = crate::segment_bytes(capacity).expect("a capacity that the test chose");
            let page = || Page([const { AtomicU8::new(0) }; 4096]);
            Self { pages: (0..length.div_ceil(4096)).map(|_| page()).collect(), capacity }
        }

        /// Bytes of the segment.
        #[must_use]
        pub fn length(&self) -> usize {
            crate::segment_bytes(self.capacity).expect("checked when it was made")
        }

        pub(super) fn memory(&self) -> &[AtomicU8] {
            // SAFETY: the pages follow each other, are at least so long, and are made of such atomics alone.
            unsafe { slice::from_raw_parts(self.pages.as_ptr().cast(), self.length()) }
        }

        /// Makes a segment in it.
        #[must_use]
        pub fn create(&self) -> crate::Segment<'_> {
            crate::Segment::create(self.memory(), self.capacity, [1, 2]).expect("fresh memory")
        }

        /// The segment that was made in it.
        ///
        /// # Errors
        /// As [`crate::Segment::open`].
        pub fn open(&self) -> Result<crate::Segment<'_>, BadSegment> {
            crate::Segment::open(self.memory(), [1, 2])
        }

        /// Overwrites a byte, as a hostile peer does.
        pub fn scribble(&self, at: usize, byte: u8) {
            let at = at % self.length();
            self.pages[at / 4096].0[at % 4096].store(byte, core::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Heap;

    #[test]
    fn what_is_copied_in_comes_out_wherever_it_stands() {
        const RING: usize = 1 << 16;
        let heap = Heap::new(RING);
        let _segment = heap.create();
        let (_, [ring, _]) = super::view(heap.memory(), RING).unwrap();
        let source: Vec<u8> = (0..=250).cycle().take(RING + 64).collect();
        let mut into = vec![0; RING + 64];
        for length in [0, 1, 63, 64, 65, 4095, 4096, 4097, 10_000, 32_768, RING] {
            for shift in [0, 1, 16, 31, 63] {
                for at in [0, 1, 64, 4095, RING as u64 - 100, 3 * RING as u64 - 1] {
                    let bytes = &source[shift..shift + length];
                    for is_past in [false, true] {
                        into.fill(255);
                        if is_past {
                            ring.write_past(at, bytes)
                        } else {
                            ring.write(at, bytes)
                        }
                        ring.read(at, &mut into[shift..shift + length]);
                        assert!(into[shift..shift + length] == *bytes, "{length} bytes at {at}, past: {is_past}");
                        let around = into[..shift].iter().chain(&into[shift + length..]);
                        assert!(around.copied().all(|byte| byte == 255), "more than {length} bytes at {at}");
                        // Others, for the next way.
                        ring.write(at, &vec![7; length]);
                    }
                }
            }
        }
    }
}

#[cfg(loom)]
mod modelled {
    use loom::cell::UnsafeCell;

    use super::before_wrap;
    use crate::layout::Shared;

    /// A ring's bytes: loom fails a model in which one is read and written at once.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Area<'m> {
        bytes: &'m [UnsafeCell<u8>],
    }

    #[expect(unsafe_code, reason = "loom's cells give pointers, and check each use")]
    impl Area<'_> {
        pub(crate) fn capacity(&self) -> usize {
            self.bytes.len()
        }

        pub(crate) fn write(&self, at: u64, from: &[u8]) {
            let (index, _) = before_wrap(at, from.len(), self.bytes.len());
            for (offset, &byte) in from.iter().enumerate() {
                // SAFETY: loom gives a valid pointer, and fails where another thread uses the cell.
                self.bytes[(index + offset) % self.bytes.len()].with_mut(|cell| unsafe { *cell = byte });
            }
        }

        /// The same: loom has no caches.
        pub(crate) fn write_past(&self, at: u64, from: &[u8]) {
            self.write(at, from);
        }

        /// Nothing here.
        pub(crate) fn fetch_for_writing(&self, _at: u64) {}

        pub(crate) fn read(&self, at: u64, into: &mut [u8]) {
            let (index, _) = before_wrap(at, into.len(), self.bytes.len());
            for (offset, byte) in into.iter_mut().enumerate() {
                // SAFETY: as above.
                *byte = self.bytes[(index + offset) % self.bytes.len()].with(|cell| unsafe { *cell });
            }
        }
    }

    /// A segment of loom's atomics, with rings as small as a model needs.
    #[derive(Debug)]
    pub struct Heap {
        shared: Shared,
        rings: [Box<[UnsafeCell<u8>]>; 2],
    }

    impl Heap {
        /// A segment with rings of `capacity`: a power of two.
        #[must_use]
        pub fn new(capacity: usize) -> Self {
            let ring = || (0..capacity).map(|_| UnsafeCell::new(0)).collect();
            Self { shared: Shared::default(), rings: [ring(), ring()] }
        }

        /// The segment.
        #[must_use]
        pub fn segment(&self) -> crate::Segment<'_> {
            crate::Segment::of(&self.shared, [Area { bytes: &self.rings[0] }, Area { bytes: &self.rings[1] }])
        }
    }
}
