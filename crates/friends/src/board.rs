//! The *board* of a process: memory in which it tells what its friends do, and in which the operator tells it what he wishes.
//!
//! ```text
//!    0  head       magic, version, process, directory     written once, by the process
//!  128             the wish                               written by the operator, read by the process at each call
//!  256             the process's figures
//! 4096  entries    256 bytes each: a connection's end, and what it sends
//! ```
//!
//! The process maps it. The operator's side reads and writes the file and maps nothing, so it can't be hurt by a file that shrinks; and
//! the process seals it before it maps it. Whatever stands in it is believed by nobody: the wish is a wish, the rest are figures for people.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::name::Name;
use crate::reason::Plain;
use crate::{Figure, Writer, layout};

/// Entries of a board: connections of a process that can be told of.
pub const ENTRIES: usize = 1 << 14;
/// Bytes before the first entry.
pub const HEAD_BYTES: usize = 4096;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes of a board.
pub const BOARD_BYTES: usize = size_of::<Board>();
/// Where the wish stands: four bytes, as the machine has them.
pub const WISH_AT: u64 = offset_of!(Head, wish) as u64;

/// Where it stands until when somebody watches: four bytes.
pub const TAP_AT: u64 = (offset_of!(Head, wish) + offset_of!(WishLine, tap)) as u64;

/// `midmile` and a byte that isn't text.
const MAGIC: u64 = u64::from_be_bytes(*b"\xf2midmile");
/// Of the layout, the figures and the reasons.
const VERSION: u32 = 1;
const FIGURES_MAX: usize = 64;

/// What a process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Wish {
    /// Friends may be made.
    On = 0,
    /// What are friends go by TCP again, and no new ones are made.
    Off = 1,
    /// Nobody has said anything yet: the process looks for itself, and then writes what it found, unless somebody was faster.
    Unknown = 2,
}

impl Wish {
    /// The wish with this code; anything else that isn't [`Wish::On`] is [`Wish::Off`]: TCP is never wrong.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::On,
            2 => Self::Unknown,
            _ => Self::Off,
        }
    }
}

#[derive(Debug)]
#[repr(C, align(128))]
struct Said {
    magic: AtomicU64,
    version: AtomicU32,
    process: AtomicU32,
    directory: [AtomicU64; 2],
    /// Entries at or above it were never used.
    used: AtomicU32,
}

#[derive(Debug)]
#[repr(C, align(128))]
struct WishLine {
    word: AtomicU32,
    /// Until when somebody watches, in seconds of the monotonic clock; 0: nobody does.
    tap: AtomicU32,
}

/// What stands before the entries.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Head {
    said: Said,
    wish: WishLine,
    figures: [AtomicU64; FIGURES_MAX],
}

impl Head {
    /// One in which nothing is said, and nothing is wished.
    #[must_use]
    pub const fn new() -> Self {
        let directory = [const { AtomicU64::new(0) }; 2];
        let (magic, version, process) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU32::new(0));
        Self {
            said: Said { magic, version, process, directory, used: AtomicU32::new(0) },
            wish: WishLine { word: AtomicU32::new(Wish::Unknown as u32), tap: AtomicU32::new(0) },
            figures: [const { AtomicU64::new(0) }; FIGURES_MAX],
        }
    }

    /// Says whose board this is: a process, as it knows itself, and the device and inode of its runtime directory. The wish is
    /// [`Wish::Unknown`] from here on. Before anybody else can see the board.
    pub fn begin(&self, process: u32, directory: [u64; 2]) {
        let Said { magic, version, process: place, directory: places, used: _ } = &self.said;
        place.store(process, Ordering::Relaxed);
        places.iter().zip(directory).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        version.store(VERSION, Ordering::Relaxed);
        self.wish.word.store(Wish::Unknown as u32, Ordering::Relaxed);
        magic.store(MAGIC, Ordering::Release);
    }

    /// What is wished: one load.
    #[inline]
    #[must_use]
    pub fn wish(&self) -> Wish {
        Wish::from_code(self.wish.word.load(Ordering::Relaxed))
    }

    /// Until when somebody watches what the process sends, in seconds of the monotonic clock; 0: nobody does. One load.
    #[inline]
    #[must_use]
    pub fn tapped_until(&self) -> u32 {
        self.wish.tap.load(Ordering::Relaxed)
    }

    /// What the process found out for itself: it counts only while nobody has said anything.
    pub fn found(&self, wish: Wish) {
        let (word, relaxed) = (&self.wish.word, Ordering::Relaxed);
        word.compare_exchange(Wish::Unknown as u32, wish as u32, relaxed, relaxed).map_or_else(drop, drop);
    }

    /// The operator can't reach the process any more: it does without friends.
    pub fn demand_off(&self) {
        self.wish.word.store(Wish::Off as u32, Ordering::Relaxed);
    }

    /// Begins anew: nothing is counted, and nothing is known of a wish.
    pub fn forget(&self) {
        self.figures.iter().for_each(|figure| figure.store(0, Ordering::Relaxed));
        self.wish.word.store(Wish::Unknown as u32, Ordering::Relaxed);
    }

    /// One of the process's figures.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> &AtomicU64 {
        &self.figures[figure as usize]
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// An end of a connection, and what it sends. The process writes it, under the lock of who writes that direction.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Entry {
    /// Odd: in use. It changes whenever the entry begins or ends.
    serial: AtomicU32,
    /// 1 once the other end shares the segment.
    attached: AtomicU32,
    name: [AtomicU64; 6],
    ring_bytes: AtomicU64,
    tcp_bytes: AtomicU64,
    bells: AtomicU64,
    wakes: AtomicU64,
    /// The direction's gate, without those who are inside.
    gate: AtomicU64,
    returns: [AtomicU64; layout::REASONS_MAX],
}

impl Entry {
    /// Takes the entry for this connection.
    pub fn begin(&self, name: Name) {
        self.end();
        let relaxed = Ordering::Relaxed;
        self.name.iter().zip(name.to_words()).for_each(|(place, word)| place.store(word, relaxed));
        let Self { attached: _, name: _, serial: _, ring_bytes, tcp_bytes, bells, wakes, gate, returns } = self;
        [ring_bytes, tcp_bytes, bells, wakes, gate].into_iter().chain(returns).for_each(|word| word.store(0, relaxed));
        self.attached.store(0, relaxed);
        self.serial.fetch_add(1, Ordering::Release);
    }

    /// The other end shares the segment.
    pub fn attached(&self) {
        self.attached.store(1, Ordering::Relaxed);
    }

    /// Copies what was counted of what a writer sends. The caller holds its lock: a few loads and stores.
    #[inline]
    pub fn tell(&self, writer: &Writer<'_>) {
        writer.tell([&self.ring_bytes, &self.tcp_bytes, &self.bells, &self.wakes], &self.gate, &self.returns);
    }

    /// Bytes that the end has sent by either way, as was told last.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.ring_bytes.load(Ordering::Relaxed).wrapping_add(self.tcp_bytes.load(Ordering::Relaxed))
    }

    /// Gives the entry back.
    pub fn end(&self) {
        if !self.serial.load(Ordering::Relaxed).is_multiple_of(2) {
            self.serial.fetch_add(1, Ordering::Release);
        }
    }
}

/// A whole board.
#[derive(Debug)]
#[repr(C)]
pub struct Board {
    /// What stands before the entries.
    pub head: Head,
    entries: [Entry; ENTRIES],
}

impl Board {
    /// The entry of this number; `None` where there's none.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<&Entry> {
        self.entries.get(number)
    }

    /// Says that entries up to this one are in use, or were.
    pub fn reach(&self, number: usize) {
        self.head.said.used.fetch_max(u32::try_from(number + 1).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// What stands in a board's head, as it was read from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadTold {
    /// The process, as it knows itself: another number than outside its pid namespace.
    pub process: u32,
    /// Device and inode of its runtime directory.
    pub directory: [u64; 2],
    /// What it is asked to do.
    pub wish: Wish,
    /// Entries to read, at most [`ENTRIES`].
    pub entries: usize,
    figures: [u64; Figure::ALL.len()],
}

impl HeadTold {
    /// Reads the head of a board; `None` where it isn't one of this version.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let said = |at: usize| word(bytes, offset_of!(Head, said) + at);
        let half = |at: usize| half(bytes, offset_of!(Head, said) + at);
        let standing = bytes.len() >= HEAD_BYTES
            && said(offset_of!(Said, magic)) == MAGIC
            && half(offset_of!(Said, version)) == VERSION;
        let directory = offset_of!(Said, directory);
        standing.then(|| Self {
            process: half(offset_of!(Said, process)),
            directory: [said(directory), said(directory + 8)],
            wish: Wish::from_code(self::half(bytes, offset_of!(Head, wish))),
            entries: usize::try_from(half(offset_of!(Said, used))).unwrap_or(ENTRIES).min(ENTRIES),
            figures: core::array::from_fn(|index| word(bytes, offset_of!(Head, figures) + 8 * index)),
        })
    }

    /// One of the process's figures.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> u64 {
        self.figures[figure as usize]
    }
}

/// What stands in an entry, as it was read from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryTold {
    /// Another number means that the entry was given to another connection.
    pub serial: u32,
    /// The connection; its `own` end is the one that sends.
    pub name: Name,
    /// Whether the other end shares the segment.
    pub attached: bool,
    /// Bytes sent by the ring.
    pub ring_bytes: u64,
    /// Bytes sent by TCP, since the connection began.
    pub tcp_bytes: u64,
    /// Doorbells.
    pub bells: u64,
    /// Futex wakes of the reader.
    pub wakes: u64,
    /// Whether bytes go by the ring now.
    pub ring: bool,
    /// Whether they go by TCP for good.
    pub last: bool,
    /// Switches from TCP to the ring.
    pub switches: u64,
    returns: [u64; Plain::ALL.len()],
}

impl EntryTold {
    /// Reads an entry; `None` for one that isn't in use, or isn't whole.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let serial = half(bytes, offset_of!(Entry, serial));
        if bytes.len() < ENTRY_BYTES || serial.is_multiple_of(2) {
            return None;
        }
        let name = core::array::from_fn(|index| word(bytes, offset_of!(Entry, name) + 8 * index));
        let gate = crate::gate::Gate(word(bytes, offset_of!(Entry, gate)));
        Some(Self {
            serial,
            name: Name::from_words(name),
            attached: half(bytes, offset_of!(Entry, attached)) != 0,
            ring_bytes: word(bytes, offset_of!(Entry, ring_bytes)),
            tcp_bytes: word(bytes, offset_of!(Entry, tcp_bytes)),
            bells: word(bytes, offset_of!(Entry, bells)),
            wakes: word(bytes, offset_of!(Entry, wakes)),
            ring: gate.ring(),
            last: gate.last(),
            switches: gate.epoch().div_ceil(2),
            returns: core::array::from_fn(|index| word(bytes, offset_of!(Entry, returns) + 8 * index)),
        })
    }

    /// How often the direction went back to TCP, or was told to stay there, for this reason.
    #[must_use]
    pub fn returns(&self, why: Plain) -> u64 {
        self.returns[why.index()]
    }
}

/// Eight bytes as the machine has them; 0 where there are fewer.
fn word(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u64::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u32::from_ne_bytes)
}

const _: () = {
    assert!(size_of::<Head>() == HEAD_BYTES && size_of::<Entry>() == 256);
    assert!(offset_of!(Board, entries) == HEAD_BYTES && offset_of!(Head, wish) == 128);
    assert!(size_of::<Board>() == HEAD_BYTES + ENTRIES * 256 && Figure::ALL.len() <= FIGURES_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Heap, Side};
    use std::net::{Ipv6Addr, SocketAddrV6};

    fn name() -> Name {
        let end = |port| SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
        Name { namespace: 7, own: end(80), peer: end(40000) }
    }

    fn entry() -> Entry {
        let zero = || AtomicU64::new(0);
        let (ring_bytes, tcp_bytes, bells, wakes, gate) = (zero(), zero(), zero(), zero(), zero());
        let (serial, attached) = (AtomicU32::new(0), AtomicU32::new(0));
        Entry {
            serial,
            attached,
            name: std::array::from_fn(|_| zero()),
            ring_bytes,
            tcp_bytes,
            bells,
            wakes,
            gate,
            returns: std::array::from_fn(|_| zero()),
        }
    }

    /// The bytes of an entry, as a file would have them.
    fn bytes(entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed).to_ne_bytes();
        put(offset_of!(Entry, serial), &entry.serial.load(Ordering::Relaxed).to_ne_bytes());
        put(offset_of!(Entry, attached), &entry.attached.load(Ordering::Relaxed).to_ne_bytes());
        for (index, word) in entry.name.iter().enumerate() {
            put(offset_of!(Entry, name) + 8 * index, &load(word));
        }
        let Entry { ring_bytes, tcp_bytes, bells, wakes, gate, .. } = entry;
        for (at, word) in [
            (offset_of!(Entry, ring_bytes), ring_bytes),
            (offset_of!(Entry, tcp_bytes), tcp_bytes),
            (offset_of!(Entry, bells), bells),
            (offset_of!(Entry, wakes), wakes),
            (offset_of!(Entry, gate), gate),
        ] {
            put(at, &load(word));
        }
        for (index, word) in entry.returns.iter().enumerate() {
            put(offset_of!(Entry, returns) + 8 * index, &load(word));
        }
        bytes
    }

    #[test]
    fn an_entry_tells_what_its_direction_counted() {
        let (heap, entry) = (Heap::new(64), entry());
        let segment = heap.create();
        let (writer, reader) = (segment.outgoing(Side::Offering), segment.incoming(Side::Attached));
        writer.begin(5);
        reader.engage(5);
        assert_eq!(EntryTold::read(&bytes(&entry)), None);
        entry.begin(name());
        entry.attached();
        assert_eq!(writer.way(), Ok(crate::Way::Ring));
        assert_eq!(writer.put(&[1; 20]).map(|put| put.taken), Ok(20));
        assert_eq!(writer.back_to_tcp(Plain::Full), 0);
        writer.begin_tcp();
        assert_eq!(writer.sent(7).bells, 0);
        entry.tell(&writer);
        let told = EntryTold::read(&bytes(&entry)).expect("it's in use");
        assert_eq!((told.name, told.attached, told.ring_bytes, told.tcp_bytes), (name(), true, 20, 12));
        assert_eq!((told.ring, told.last, told.switches, told.returns(Plain::Full)), (false, false, 1, 1));
        assert_eq!(told.returns(Plain::Off), 0);
        entry.begin(name());
        let next = EntryTold::read(&bytes(&entry)).expect("it's in use again");
        assert_eq!((next.ring_bytes, next.attached, next.serial == told.serial), (0, false, false));
        entry.end();
        assert_eq!(EntryTold::read(&bytes(&entry)), None);
        assert_eq!(EntryTold::read(&bytes(&entry)[1..]), None);
    }

    #[test]
    fn what_the_operator_wrote_is_not_undone_by_what_the_process_found() {
        let head = Head::new();
        head.begin(9, [1, 2]);
        assert_eq!(head.wish(), Wish::Unknown);
        head.found(Wish::On);
        assert_eq!(head.wish(), Wish::On);
        head.found(Wish::Off);
        assert_eq!(head.wish(), Wish::On);
        assert_eq!(
            [0, 1, 2, 3, u32::MAX].map(Wish::from_code),
            [Wish::On, Wish::Off, Wish::Unknown, Wish::Off, Wish::Off]
        );
    }

    #[test]
    fn a_head_that_is_none_is_refused_and_its_reach_is_bounded() {
        let mut bytes = vec![0; HEAD_BYTES];
        assert_eq!(HeadTold::read(&bytes), None);
        bytes[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        assert_eq!(HeadTold::read(&bytes), None);
        bytes[8..12].copy_from_slice(&VERSION.to_ne_bytes());
        let at = offset_of!(Said, used);
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        bytes[256..264].copy_from_slice(&3_u64.to_ne_bytes());
        let told = HeadTold::read(&bytes).expect("magic and version stand");
        assert_eq!((told.entries, told.figure(Figure::Offered), told.wish), (ENTRIES, 3, Wish::On));
        assert_eq!(HeadTold::read(&bytes[..HEAD_BYTES - 1]), None);
    }
}
