//! The tap: what friends say to each other, copied by the program while somebody watches.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, RingBuf};
use rustix::time::{ClockId, clock_gettime};

use super::FriendsError;
use super::control::{is_running, started};
use crate::address;
use crate::object::to_io;

/// Bytes of the ring by which the program tells, `TAP_RING_BYTES` of `bpf/friends_tap.h`.
pub const TAP_RING_BYTES: usize = 4 << 20;
/// Ports that a tap can be for, `TAP_PORTS_MAX` there.
pub const TAP_PORTS_MAX: usize = 16;
/// How long the program goes on after a [`Tap::renew`].
const LEASE: Duration = Duration::from_secs(5);
/// Records that one [`Tap::drain`] takes at most.
const RECORDS_PER_DRAIN: usize = 1024;

/// `struct tap` there: the time until when, what was lost, the process and when it began, the number of ports, and the ports.
type Words = [u64; 9];
const LOST: usize = 1;
const PID: usize = 2;
const STARTED: usize = 3;
const SWITCH_AT: u32 = 0;
const COUNTS_AT: u32 = 1;

/// Bytes of `struct tapped` there, in front of a record's bytes:
///
/// | at | bytes | what |
/// | --- | --- | --- |
/// | 0 | 8 | time |
/// | 8 | 8 | network namespace |
/// | 16 | 16 | the end's address |
/// | 32 | 16 | the other end's |
/// | 48 | 2 | the end's port |
/// | 50 | 2 | the other end's |
/// | 52 | 4 | nothing |
/// | 56 | 4 | place |
/// | 60 | 4 | what happened |
/// | 64 | 4 | bytes that follow |
/// | 68 | 4 | length of the message that begins here |
const HEAD_BYTES: usize = 72;

/// Has the program tell what friends say to each other, as long as it lives and is renewed. Made by [`super::Attachment::tap`].
pub struct Tap {
    switch: Array<MapData, Words>,
    ring: RingBuf<MapData>,
    words: Words,
    lost_before: u64,
    /// What to add to the program's clock for the time since 1970.
    epoch: Duration,
}

/// What one end did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tapped<'a> {
    /// When, since 1970.
    pub at: Duration,
    /// The cookie of the network namespace that the addresses are of.
    pub namespace: u64,
    /// The end that did it.
    pub from: SocketAddr,
    /// The other end.
    pub to: SocketAddr,
    /// How many bytes the direction had had before, modulo 2³², counted from anywhere.
    pub place: u32,
    /// What.
    pub what: TappedWhat<'a>,
}

/// See [`Tapped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TappedWhat<'a> {
    /// Its connection was made friends, and it dialled.
    Dialled,
    /// Its connection was made friends, and it accepted.
    Accepted,
    /// It sent.
    Bytes {
        /// A piece of a message.
        bytes: &'a [u8],
        /// The message's length where it begins here; 0 in what goes on.
        message: u32,
        /// Whether it went past TCP.
        has_skipped: bool,
    },
    /// It said that it will send no more.
    Ended,
    /// The connection was reset, which both ends tell.
    Reset,
    /// Its connection is plain TCP from now on.
    Left,
}

impl Tap {
    pub(super) fn begin(switch: u32, ring: u32, ports: &[u16]) -> Result<Self, FriendsError> {
        if ports.len() > TAP_PORTS_MAX {
            return Err(FriendsError::TapPorts { count: ports.len() });
        }
        let unlisted = |error: MapError| FriendsError::Unlisted(to_io(&error));
        let switch = MapData::from_id(switch).and_then(|map| Array::try_from(Map::Array(map))).map_err(unlisted)?;
        let ring = MapData::from_id(ring).and_then(|map| RingBuf::try_from(Map::RingBuf(map))).map_err(unlisted)?;
        let pid = std::process::id();
        let mut words = [0; 9];
        words[PID..5].copy_from_slice(&[pid.into(), started(pid).unwrap_or(0), ports.len() as u64]);
        for (at, port) in ports.iter().enumerate() {
            words[5 + at / 4] |= u64::from(*port) << (at % 4 * 16);
        }
        let epoch = now(ClockId::Realtime).saturating_sub(now(ClockId::Monotonic));
        let mut tap = Self { switch, ring, words, lost_before: 0, epoch };
        if let Some(pid) = tap.watcher().map_err(FriendsError::Map)? {
            // It isn't ours: nothing is to be switched off.
            tap.words[PID] = 0;
            return Err(FriendsError::Tapped { pid });
        }
        // What somebody before us left there.
        while tap.drain(|_| ()) == RECORDS_PER_DRAIN {}
        tap.lost_before = tap.lost_ever().map_err(FriendsError::Map)?;
        tap.renew().map_err(FriendsError::Map)?;
        Ok(tap)
    }

    /// Has the program go on for five seconds from now. So it stops by itself where the process is killed.
    ///
    /// # Errors
    /// If the map can't be written, which isn't known to happen.
    pub fn renew(&mut self) -> io::Result<()> {
        let until = now(ClockId::Monotonic) + LEASE;
        self.words[0] = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.write()
    }

    /// Has the program stop; what it has told can still be taken.
    ///
    /// # Errors
    /// See [`Self::renew`].
    pub fn stop(&mut self) -> io::Result<()> {
        self.words[0] = 0;
        self.write()
    }

    /// Takes what was told, at most 1,024 records, and says how many it was. If it was as many, more may wait. It never blocks: wait for
    /// [`AsFd::as_fd`] to become readable.
    pub fn drain(&mut self, mut on: impl FnMut(Tapped<'_>)) -> usize {
        for taken in 0..RECORDS_PER_DRAIN {
            let Some(record) = self.ring.next() else { return taken };
            on(decode(&record, self.epoch).expect("the program writes such records alone"));
        }
        RECORDS_PER_DRAIN
    }

    /// Records that found no room in the ring since it began. Their bytes are missing: the next record's place shows how many.
    ///
    /// # Errors
    /// If the map can't be read, which isn't known to happen.
    pub fn lost(&self) -> io::Result<u64> {
        Ok(self.lost_ever()?.wrapping_sub(self.lost_before))
    }

    fn lost_ever(&self) -> io::Result<u64> {
        self.switch.get(&COUNTS_AT, 0).map(|words| words[LOST]).map_err(|error| to_io(&error))
    }

    /// Another process that watches.
    fn watcher(&self) -> io::Result<Option<u32>> {
        let words = self.switch.get(&SWITCH_AT, 0).map_err(|error| to_io(&error))?;
        let pid = u32::try_from(words[PID]).unwrap_or(0);
        Ok((words[0] != 0 && is_running(pid, words[STARTED])).then_some(pid))
    }

    fn write(&mut self) -> io::Result<()> {
        self.switch.set(SWITCH_AT, self.words, 0).map_err(|error| to_io(&error))
    }
}

impl AsFd for Tap {
    /// Readable while records wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.words[PID] != 0 {
            // Where it fails, the program stops when the lease is over.
            self.stop().ok();
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("words", &self.words).finish_non_exhaustive()
    }
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::try_from(time).unwrap_or(Duration::ZERO)
}

/// `None` if no program of ours writes such a record.
fn decode(record: &[u8], epoch: Duration) -> Option<Tapped<'_>> {
    let (head, rest) = record.split_first_chunk::<HEAD_BYTES>()?;
    let ip = |at| address::from_bytes(bytes(head, at));
    let port = |at| u16::from_ne_bytes(bytes(head, at));
    let number = |at| u32::from_ne_bytes(bytes(head, at));
    let sent = |has_skipped| {
        let bytes = rest.get(..usize::try_from(number(64)).ok()?)?;
        Some(TappedWhat::Bytes { bytes, message: number(68), has_skipped })
    };
    Some(Tapped {
        at: epoch + Duration::from_nanos(u64::from_ne_bytes(bytes(head, 0))),
        namespace: u64::from_ne_bytes(bytes(head, 8)),
        from: SocketAddr::new(ip(16), port(48)),
        to: SocketAddr::new(ip(32), port(50)),
        place: number(56),
        what: match number(60) {
            0 => TappedWhat::Dialled,
            1 => TappedWhat::Accepted,
            2 => sent(false)?,
            3 => sent(true)?,
            4 => TappedWhat::Ended,
            5 => TappedWhat::Reset,
            6 => TappedWhat::Left,
            _ => return None,
        },
    })
}

/// The bytes from `at` on.
fn bytes<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    head[at..at + N].try_into().expect("the lengths are the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with each field where the table has it, and more room than its bytes take.
    fn record(what: u32, bytes: u32) -> Vec<u8> {
        let mut record = Vec::new();
        record.extend(3_000_000_005_u64.to_ne_bytes());
        record.extend(77_u64.to_ne_bytes());
        record.extend(address::to_bytes("127.0.0.1".parse().unwrap()));
        record.extend(address::to_bytes("127.0.0.2".parse().unwrap()));
        record.extend(40_000_u16.to_ne_bytes());
        record.extend(6379_u16.to_ne_bytes());
        record.extend([0; 4]);
        for number in [9, what, bytes, 500] {
            record.extend(u32::to_ne_bytes(number));
        }
        record.extend(b"PING and nothing");
        record
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let (message, has_skipped) = (500, true);
        let expected = Tapped {
            at: Duration::new(1003, 5),
            namespace: 77,
            from: "127.0.0.1:40000".parse().unwrap(),
            to: "127.0.0.2:6379".parse().unwrap(),
            place: 9,
            what: TappedWhat::Bytes { bytes: b"PING", message, has_skipped },
        };
        assert_eq!(decode(&record(3, 4), Duration::from_secs(1000)), Some(expected));
    }

    #[test]
    fn what_happened_has_the_number_that_the_program_gives_it() {
        let c = include_str!("../../bpf/friends_tap.h");
        let names = c.split_once("enum tapped_what {").unwrap().1.split_once('}').unwrap().0;
        let names: Vec<_> = names.split(',').map(str::trim).collect();
        let records: Vec<_> = (0..names.len()).map(|number| record(u32::try_from(number).unwrap(), 0)).collect();
        let what = |name| {
            let number = names.iter().position(|named| *named == name).unwrap();
            decode(&records[number], Duration::ZERO).unwrap().what
        };
        let sent = |has_skipped| TappedWhat::Bytes { bytes: b"", message: 500, has_skipped };
        assert_eq!([what("TAP_DIALLED"), what("TAP_ACCEPTED")], [TappedWhat::Dialled, TappedWhat::Accepted]);
        assert_eq!([what("TAP_BY_TCP"), what("TAP_PAST_TCP")], [sent(false), sent(true)]);
        let ends = [TappedWhat::Ended, TappedWhat::Reset, TappedWhat::Left];
        assert_eq!(["TAP_ENDED", "TAP_RESET", "TAP_LEFT"].map(what), ends);
        assert_eq!(names.len(), 7);
    }

    #[test]
    fn what_no_program_writes_is_nothing() {
        assert_eq!(decode(&record(7, 4), Duration::ZERO), None);
        assert_eq!(decode(&record(3, 17), Duration::ZERO), None);
        assert_eq!(decode(&record(3, 4)[..HEAD_BYTES - 1], Duration::ZERO), None);
    }

    #[test]
    fn the_layout_is_the_programs() {
        // bpf/friends_tap.h asserts the same.
        assert_eq!((size_of::<Words>(), HEAD_BYTES), (72, 72));
    }
}
