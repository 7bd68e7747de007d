//! The two halves of an AF_XDP socket, each with the frames that it owns.
//!
//! The memory for frames (UMEM) is cut in two: what the kernel fills with packets that came, and what we fill with packets that leave.
//! So each half knows whose each of its frames is, and a packet can be answered while it is still being read: no frame is ever in
//! both hands. Which frames are ours follows from what was put into the rings and taken out of them; the rings are nobody else's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with, sockopt};

use super::map::Mapping;
use super::ring::{Descriptor, Ring};
use crate::link::{Receive, Transmit};
use crate::sum::Unfinished;

/// Bytes of a frame: a page, the only size that every driver takes.
pub(crate) const FRAME_BYTES: usize = 4096;
/// In front of a packet that leaves: `struct xsk_tx_metadata` of linux/if_xdp.h (Documentation/networking/xsk-tx-metadata.rst).
const METADATA: u32 = 24;
const METADATA_BYTES: usize = METADATA as usize;
/// A descriptor's packet has that in front of it (`XDP_TX_METADATA`), and a checksum is to be finished (`XDP_TXMD_FLAGS_CHECKSUM`).
const TX_METADATA: u32 = 1 << 1;
const FINISH_CHECKSUM: u64 = 1 << 1;
/// The memory's packets may (`XDP_UMEM_TX_METADATA_LEN`, Linux 6.11).
const HAS_METADATA: XdpUmemRegFlags = XdpUmemRegFlags::from_bits_retain(1 << 2);
/// Calls without any progress after which a full device is left alone for now.
const KICKS_MAX: u32 = 256;

/// An AF_XDP socket with its rings, which are unmapped before it is closed: they would keep it, and its queue with it.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) rx: RxHalf,
    pub(crate) tx: TxHalf,
    /// Whether the device reads and writes our frames itself.
    pub(crate) zero_copy: bool,
    socket: Arc<OwnedFd>,
}

/// The half that receives.
#[derive(Debug)]
pub struct RxHalf {
    rx: Ring<Descriptor>,
    fill: Ring<u64>,
    memory: Arc<Mapping>,
    /// Frames below it are this half's.
    end: u64,
    /// The frame that is lent now.
    lent: Option<u64>,
}

/// The half that sends.
#[derive(Debug)]
pub struct TxHalf {
    tx: Ring<Descriptor>,
    completion: Ring<u64>,
    memory: Arc<Mapping>,
    /// Frames from it on are this half's.
    begin: u64,
    /// Frames in nobody's hands.
    free: Vec<u64>,
    /// All that there are.
    frames: usize,
    /// Whether the device reads them where they lie, until it has sent them.
    zero_copy: bool,
    /// Whether the kernel finishes their checksums.
    finishes: bool,
    socket: Arc<OwnedFd>,
    /// Put in since the kernel was last told.
    unpublished: bool,
    stalled: bool,
}

/// Has the kernel finish a checksum.
fn request(unfinished: Unfinished) -> [u8; METADATA_BYTES] {
    let mut metadata = [0; METADATA_BYTES];
    metadata[..8].copy_from_slice(&FINISH_CHECKSUM.to_ne_bytes());
    metadata[8..10].copy_from_slice(&unfinished.start.to_ne_bytes());
    metadata[10..12].copy_from_slice(&unfinished.at.to_ne_bytes());
    metadata
}

/// Gives the kernel the memory for frames; answers whether metadata may stand in front of packets, which it's asked for if `wanted`.
fn register(socket: &OwnedFd, memory: &Mapping, wanted: bool) -> io::Result<bool> {
    let mut memory = XdpUmemReg {
        addr: memory.start().as_ptr().expose_provenance() as u64,
        len: memory.len() as u64,
        chunk_size: u32::try_from(FRAME_BYTES).expect("a page is small"),
        headroom: 0,
        flags: if wanted { HAS_METADATA } else { XdpUmemRegFlags::empty() },
        tx_metadata_len: if wanted { METADATA } else { 0 },
    };
    match sockopt::set_xdp_umem_reg(socket, memory) {
        // An older kernel.
        Err(Errno::INVAL) if wanted => {
            (memory.flags, memory.tx_metadata_len) = (XdpUmemRegFlags::empty(), 0);
            sockopt::set_xdp_umem_reg(socket, memory)?;
            Ok(false)
        }
        other => Ok(other.map(|()| wanted)?),
    }
}

/// Makes a socket for a device's queue, with `rx` frames for what comes and `tx` for what leaves: powers of two, at most 2^20. If the device
/// `finishes` checksums for whoever copies, and the kernel lets it be asked, it's asked.
pub(crate) fn open_rings(
    device: u32,
    queue: u32,
    rx: u32,
    tx: u32,
    zero_copy: bool,
    finishes: bool,
) -> io::Result<Rings> {
    let socket = Arc::new(socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?);
    let memory = Arc::new(Mapping::anonymous((rx as usize + tx as usize) * FRAME_BYTES)?);
    let finishes = register(&socket, &memory, finishes)?;
    sockopt::set_xdp_umem_fill_ring_size(&socket, rx)?;
    sockopt::set_xdp_umem_completion_ring_size(&socket, tx)?;
    sockopt::set_xdp_rx_ring_size(&socket, rx)?;
    sockopt::set_xdp_tx_ring_size(&socket, tx)?;
    let offsets = sockopt::xdp_mmap_offsets(&socket)?;
    let fd = socket.as_fd();
    let begin = u64::from(rx) * FRAME_BYTES as u64;
    let frames = |count: u32| (0..u64::from(count)).map(|place| place * FRAME_BYTES as u64);
    let mut receives = RxHalf {
        rx: Ring::map(fd, &offsets.rx, rx, XDP_PGOFF_RX_RING)?,
        fill: Ring::map(fd, &offsets.fr, rx, XDP_UMEM_PGOFF_FILL_RING)?,
        memory: memory.clone(),
        end: begin,
        lent: None,
    };
    let mut sends = TxHalf {
        tx: Ring::map(fd, &offsets.tx, tx, XDP_PGOFF_TX_RING)?,
        completion: Ring::map(fd, &offsets.cr, tx, XDP_UMEM_PGOFF_COMPLETION_RING)?,
        memory,
        begin,
        free: frames(tx).map(|frame| begin + frame).collect(),
        frames: tx as usize,
        zero_copy,
        finishes,
        socket: socket.clone(),
        unpublished: false,
        stalled: false,
    };
    for frame in frames(rx) {
        receives.fill.push(frame);
    }
    receives.fill.publish();
    let mode = if zero_copy { SocketAddrXdpFlags::XDP_ZEROCOPY } else { SocketAddrXdpFlags::XDP_COPY };
    bind(&socket, &SocketAddrXdp::new(mode | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, device, queue))?;
    let zero_copy = sockopt::xdp_options(&socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
    (sends.zero_copy, sends.finishes) = (zero_copy, finishes && !zero_copy);
    Ok(Rings { rx: receives, tx: sends, zero_copy, socket })
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RxHalf {
    /// Whether a frame waits.
    pub(crate) fn has_frame(&mut self) -> bool {
        self.rx.available() > 0
    }

    /// Whether the kernel wants to be told of frames to fill.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// The frame in which a packet lies.
    fn frame_of(&self, packet: &Descriptor) -> u64 {
        let frame = packet.addr & !(FRAME_BYTES as u64 - 1);
        let end = (packet.addr - frame) + u64::from(packet.len);
        assert!(frame < self.end && end <= FRAME_BYTES as u64, "the kernel gives back the frames that it was given");
        frame
    }

    /// A packet that the ring gave.
    fn bytes_of(&self, packet: &Descriptor) -> &[u8] {
        self.frame_of(packet);
        let offset = usize::try_from(packet.addr).expect("memory has addresses");
        // SAFETY: the frame is within the mapping, as was just checked.
        let start = unsafe { self.memory.start().add(offset) };
        // SAFETY: the bytes are within one frame of this half, which the kernel has given back and won't touch until it's put into
        // the fill ring again; that takes this half mutably, and so ends what is lent here. Zeroed when mapped, so initialised.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), packet.len as usize) }
    }
}

impl Receive for RxHalf {
    fn next_frame(&mut self) -> Option<&[u8]> {
        if let Some(frame) = self.lent.take() {
            // The ring has a place for each of the half's frames.
            self.fill.push(frame);
            self.fill.publish();
        }
        let descriptor = self.rx.pop()?;
        self.rx.release();
        self.lent = Some(self.frame_of(&descriptor));
        Some(self.bytes_of(&descriptor))
    }

    fn peek(&mut self, behind: u32) -> Option<&[u8]> {
        let descriptor = self.rx.peek(behind)?;
        Some(self.bytes_of(&descriptor))
    }
}

impl TxHalf {
    /// Whether the kernel finishes checksums.
    pub(crate) const fn finishes(&self) -> bool {
        self.finishes
    }

    /// Whether the device had no room for all at the last try.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether frames would be lost with the socket: the kernel hasn't copied all of them, or the device hasn't sent all that are shared
    /// with it.
    pub(crate) fn is_leaving(&mut self) -> bool {
        if !self.zero_copy || self.tx.pending() > 0 {
            return self.tx.pending() > 0;
        }
        self.reclaim();
        self.ask_back();
        self.free.len() < self.frames
    }

    fn lacks_room(&mut self) -> bool {
        self.free.is_empty() || self.tx.room() == 0
    }

    /// Has the driver give back what it has sent: some look for that only when they're called to send.
    fn ask_back(&mut self) {
        if self.free.len() < self.frames && self.tx.needs_wakeup() {
            // What it can't do now is asked for again by whoever looks for room next.
            send(&*self.socket, &[], SendFlags::DONTWAIT).ok();
            self.reclaim();
        }
    }

    /// Takes back frames that have left.
    fn reclaim(&mut self) {
        let mut any = false;
        while let Some(frame) = self.completion.pop() {
            let frame = frame & !(FRAME_BYTES as u64 - 1);
            let end = self.memory.len() as u64;
            assert!((self.begin..end).contains(&frame), "the kernel gives back the frames that it was given");
            self.free.push(frame);
            any = true;
        }
        if any {
            self.completion.release();
        }
    }
}

impl Transmit for TxHalf {
    fn has_room(&mut self) -> bool {
        if self.lacks_room() {
            self.reclaim();
            if self.lacks_room() {
                self.flush();
            }
            if self.free.is_empty() && self.tx.pending() == 0 {
                self.ask_back();
            }
        }
        !self.lacks_room()
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.send_unfinished(len, |frame| (fill(frame), None))
    }

    fn send_unfinished<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> (R, Option<Unfinished>)) -> R {
        assert!(len <= FRAME_BYTES - METADATA_BYTES, "a frame is no longer than the link carries");
        let frame = self.free.pop().expect("the caller has asked for room");
        let offset = usize::try_from(frame).expect("memory has addresses");
        // SAFETY: the frame is within the mapping: only this half's frames come into its list.
        let start = unsafe { self.memory.start().add(offset) };
        // SAFETY: the bytes are within one frame, which is in nobody's hands: it was in the list, and the kernel has given it back
        // since. Zeroed when mapped, so initialised.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), METADATA_BYTES + len) };
        let (metadata, packet) = bytes.split_at_mut(METADATA_BYTES);
        let (answer, unfinished) = fill(packet);
        let mut options = 0;
        match unfinished {
            Some(unfinished) if self.finishes => {
                metadata.copy_from_slice(&request(unfinished));
                options = TX_METADATA;
            }
            Some(unfinished) => unfinished.finish(packet),
            None => {}
        }
        let len = u32::try_from(len).expect("a frame is short");
        self.tx.push(Descriptor { addr: frame + METADATA_BYTES as u64, len, options });
        self.unpublished = true;
        answer
    }

    /// In copy mode the kernel sends while it's called, 32 frames a call (`TX_BATCH_SIZE`), as far as the device's queue has room.
    fn flush(&mut self) {
        if !std::mem::take(&mut self.unpublished) && !self.stalled {
            return;
        }
        self.tx.publish();
        let mut pending = self.tx.pending();
        for _ in 0..KICKS_MAX {
            if pending == 0 || !self.tx.needs_wakeup() {
                break;
            }
            let sent = send(&*self.socket, &[], SendFlags::DONTWAIT);
            let before = std::mem::replace(&mut pending, self.tx.pending());
            match sent {
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) if pending < before => {}
                // No room, or the device is down: nothing tells when that changes.
                _ => break,
            }
        }
        self.stalled = pending > 0 && self.tx.needs_wakeup();
        self.reclaim();
    }
}

#[cfg(any(test, fuzzing))]
mod model;
#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub use model::fuzz_rings;
