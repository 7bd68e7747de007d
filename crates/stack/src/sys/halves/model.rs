//! The two halves against a kernel of the model's own, which holds the other ends of the four rings: packets come and leave in any order of
//! both sides' steps, in bursts, with frames that the kernel keeps for long and gives back in any order.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::net::UnixDatagram;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use rustix::net::xdp::XdpRingOffset;

use super::super::ring::Entry;
use super::*;

/// Frames of the half that receives, and of the one that sends.
pub(super) const RX: u8 = 8;
pub(super) const TX: u8 = 4;
pub(super) const MEMORY: usize = (RX + TX) as usize * FRAME_BYTES;
pub(super) const BEGIN: u64 = RX as u64 * FRAME_BYTES as u64;
/// In front of a packet that came, at least.
const HEADROOM: u16 = 256;
pub(super) const LEN_MAX: u16 = 1514;

const OFFSETS: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, desc: 128, flags: None };

/// Both ends of a ring: ours and the kernel's, with counters that begin there.
fn ring<T: Entry>(size: u32, counter: u32) -> (Ring<T>, Ring<T>) {
    let file = memory(4096);
    let end = || Ring::map(file.as_fd(), &OFFSETS, size, 0).expect("a file can be mapped");
    let (mut ours, mut kernels) = (end(), end());
    ours.begin_at(counter);
    kernels.begin_at(counter);
    (ours, kernels)
}

fn memory(len: usize) -> OwnedFd {
    let file = memfd_create("midmile-test", MemfdFlags::CLOEXEC).expect("the system has a descriptor left");
    ftruncate(&file, len as u64).expect("the system has memory left");
    file
}

/// A packet that no other is like.
fn packet(number: usize, len: u16) -> Vec<u8> {
    (0..usize::from(len))
        .map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(167) ^ (number >> 8)).to_le_bytes()[0])
        .collect()
}

/// The other side.
pub(super) struct Kernel {
    file: OwnedFd,
    fill: Ring<u64>,
    pub(super) rx: Ring<Descriptor>,
    tx: Ring<Descriptor>,
    pub(super) completion: Ring<u64>,
    /// Frames to put packets into.
    empty: VecDeque<u64>,
    /// Frames that leave.
    leaving: VecDeque<u64>,
    /// Every frame that the kernel was given and hasn't given back.
    held: BTreeSet<u64>,
    delivered: usize,
    pub(super) left: Vec<Vec<u8>>,
    /// What stood in front of those that said so.
    pub(super) metadata: Vec<[u8; METADATA_BYTES]>,
    calls: UnixDatagram,
}

impl Kernel {
    /// How often it was called to send since it was asked last.
    pub(super) fn calls(&self) -> usize {
        std::iter::from_fn(|| self.calls.recv(&mut []).ok()).count()
    }

    fn take_empty(&mut self) {
        while let Some(frame) = self.fill.pop() {
            assert!(frame < BEGIN && frame % FRAME_BYTES as u64 == 0, "{frame} is no frame to fill");
            assert!(self.held.insert(frame), "{frame} was given twice");
            self.empty.push_back(frame);
        }
        self.fill.release();
    }

    /// A packet comes. Without a frame for it, it's lost.
    fn deliver(&mut self, len: u16, room: u16) -> Option<Vec<u8>> {
        self.take_empty();
        let frame = self.empty.pop_front()?;
        let bytes = packet(self.delivered, len);
        self.delivered += 1;
        let addr = frame + u64::from(HEADROOM + room);
        assert_eq!(pwrite(&self.file, &bytes, addr).ok(), Some(bytes.len()));
        self.held.remove(&frame);
        self.rx.push(Descriptor { addr, len: len.into(), options: 0 });
        Some(bytes)
    }

    /// Takes so many packets that leave, and reads them.
    pub(super) fn transmit(&mut self, most: u8) {
        for _ in 0..most {
            let Some(Descriptor { addr, len, options }) = self.tx.pop() else { break };
            assert!((BEGIN..MEMORY as u64).contains(&addr), "{addr} isn't the sending half's");
            assert!(self.held.insert(addr), "{addr} was given twice");
            let mut bytes = vec![0; len as usize];
            assert_eq!(pread(&self.file, &mut bytes, addr).ok(), Some(bytes.len()));
            self.left.push(bytes);
            if options & TX_METADATA != 0 {
                let mut metadata = [0; METADATA_BYTES];
                assert_eq!(pread(&self.file, &mut metadata, addr - METADATA_BYTES as u64).ok(), Some(METADATA_BYTES));
                self.metadata.push(metadata);
            }
            self.leaving.push_back(addr);
        }
        self.tx.release();
    }

    /// Gives so many frames back that have left, from either end.
    pub(super) fn complete(&mut self, most: u8, newest_first: bool) {
        for _ in 0..most {
            let next = if newest_first { self.leaving.pop_back() } else { self.leaving.pop_front() };
            let Some(frame) = next else { break };
            self.held.remove(&frame);
            self.completion.push(frame);
        }
        self.completion.publish();
    }
}

/// A kernel, and the halves that it serves. All counters begin at `counter`.
pub(super) fn pair(counter: u32) -> (Kernel, RxHalf, TxHalf) {
    let file = memory(MEMORY);
    let memory = Arc::new(Mapping::shared(file.as_fd(), MEMORY, 0).expect("a file can be mapped"));
    let ((rx, kernels_rx), (mut fill, kernels_fill)) = (ring(RX.into(), counter), ring(RX.into(), counter));
    let ((tx, kernels_tx), (completion, kernels_completion)) = (ring(TX.into(), counter), ring(TX.into(), counter));
    for place in 0..u64::from(RX) {
        fill.push(place * FRAME_BYTES as u64);
    }
    fill.publish();
    let free = (0..u64::from(TX)).map(|place| BEGIN + place * FRAME_BYTES as u64).collect();
    // This kernel acts when the test says so: calls are only counted.
    let (calls, socket) = UnixDatagram::pair().expect("the system has descriptors left");
    calls.set_nonblocking(true).expect("a socket can be told not to wait");
    let socket = Arc::new(socket.into());
    let receives = RxHalf { rx, fill, memory: memory.clone(), end: BEGIN, lent: None };
    let sends = TxHalf {
        tx,
        completion,
        memory,
        begin: BEGIN,
        free,
        frames: TX.into(),
        zero_copy: false,
        finishes: false,
        socket,
        unpublished: false,
        stalled: false,
    };
    let kernel = Kernel {
        file,
        fill: kernels_fill,
        rx: kernels_rx,
        tx: kernels_tx,
        completion: kernels_completion,
        empty: VecDeque::new(),
        leaving: VecDeque::new(),
        held: BTreeSet::new(),
        delivered: 0,
        left: Vec::new(),
        metadata: Vec::new(),
        calls,
    };
    (kernel, receives, sends)
}

/// What either side does next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The kernel's.
    Deliver {
        len: u16,
        room: u16,
    },
    Publish,
    Transmit(u8),
    Complete {
        most: u8,
        newest_first: bool,
    },
    /// The program's.
    Receive(u8),
    Send(u16),
    Flush,
}

/// Has both sides take these steps, from counters that begin at `counter`: packets cross whole and in order, and no frame is lost, or in both
/// hands.
pub(super) fn run(steps: impl IntoIterator<Item = Step>, counter: u32) {
    let (mut kernel, mut receives, mut sends) = pair(counter);
    let (mut due, mut sent) = (VecDeque::new(), Vec::new());
    let receive = |receives: &mut RxHalf, due: &mut VecDeque<Vec<u8>>| {
        for behind in 0..RX {
            // What is seen ahead is what comes; how much of it has come is the kernel's to say.
            let Some(frame) = receives.peek(behind.into()) else { break };
            assert_eq!(Some(frame), due.get(usize::from(behind)).map(Vec::as_slice));
        }
        let Some(frame) = receives.next_frame() else { return false };
        assert_eq!(Some(frame), due.pop_front().as_deref());
        true
    };
    for step in steps {
        match step {
            Step::Deliver { len, room } => due.extend(kernel.deliver(len, room)),
            Step::Publish => kernel.rx.publish(),
            Step::Transmit(most) => kernel.transmit(most),
            Step::Complete { most, newest_first } => kernel.complete(most, newest_first),
            Step::Receive(most) => (0..most).for_each(|_| {
                receive(&mut receives, &mut due);
            }),
            Step::Send(len) if sends.has_room() => {
                let bytes = packet(sent.len(), len);
                sends.send(bytes.len(), |frame| frame.copy_from_slice(&bytes));
                sent.push(bytes);
            }
            Step::Send(_) => {}
            Step::Flush => sends.flush(),
        }
    }
    // In the end all that was taken is there, and all frames are where they belong.
    kernel.rx.publish();
    let seen = due.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
    assert!(seen.is_none_or(|last| receives.peek(last).is_some() && receives.peek(last + 1).is_none()));
    while receive(&mut receives, &mut due) {}
    assert!(due.is_empty(), "{} packets never came", due.len());
    sends.flush();
    kernel.transmit(u8::MAX);
    kernel.complete(u8::MAX, false);
    assert_eq!(kernel.left, sent);
    sends.reclaim();
    assert_eq!(sends.free.iter().collect::<BTreeSet<_>>().len(), TX as usize);
    kernel.fill.release();
    while let Some(frame) = kernel.fill.pop() {
        assert!(kernel.held.insert(frame), "{frame} was given twice");
    }
    assert_eq!(kernel.held.len(), RX as usize);
}

/// The steps are the fuzzer's: three bytes each, behind four of the counters' beginning.
#[cfg(fuzzing)]
pub fn fuzz_rings(tape: &[u8]) {
    /// Longer tapes show nothing new.
    const STEPS_MAX: usize = 1000;
    let Some((counter, tape)) = tape.split_first_chunk() else { return };
    let (steps, _) = tape.as_chunks();
    run(steps.iter().take(STEPS_MAX).map(step_of), u32::from_le_bytes(*counter));
}

#[cfg(fuzzing)]
fn step_of(&[kind, low, high]: &[u8; 3]) -> Step {
    let len = u16::from_le_bytes([low, high]) % (LEN_MAX + 1);
    match kind % 8 {
        0 | 1 => Step::Deliver { len, room: u16::from(kind / 8) * 32 },
        2 => Step::Publish,
        3 => Step::Transmit(1 + low % TX),
        4 => Step::Complete { most: 1 + low % TX, newest_first: high % 2 == 1 },
        5 => Step::Receive(1 + low % RX),
        6 => Step::Send(len),
        _ => Step::Flush,
    }
}
