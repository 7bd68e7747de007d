//! The seam beneath: what the stack needs from whatever carries its packets.
//!
//! A link has two halves that can be used at once, since a packet that came is answered while it still lies in the link's memory.
//! Frames are lent, never handed over: nothing is copied between the link's memory and the stack's buffers but the payload.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use midmile_engine::{ConnError, Time, Waker};

use crate::sum::Unfinished;

/// An Ethernet address.
pub type LinkAddress = [u8; 6];

/// Bytes of an Ethernet header (IEEE 802.3, 3.1.1).
pub const ETHERNET_BYTES: usize = 14;

/// What a link is like. Nothing but `mtu` changes while the link lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The longest IP packet that it carries, in bytes.
    pub mtu: usize,
    /// This end's Ethernet address; `None` where packets have no Ethernet header.
    pub address: Option<LinkAddress>,
    /// Whether TCP and UDP checksums of packets that came are whole. A veth device hands over what another socket of this host sent,
    /// with a checksum that nobody has finished (`CHECKSUM_PARTIAL`): to verify it would be to drop it all.
    pub verifies: bool,
}

/// By whom packets to a host leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where they come from: an address of ours.
    pub source: IpAddr,
    /// The neighbour's Ethernet address, any where packets have no Ethernet header; `None` while it's asked for. Look again in some
    /// milliseconds.
    pub link: Option<LinkAddress>,
}

/// The half that receives.
pub trait Receive {
    /// The next frame, if one has come. The one before is given back.
    fn next_frame(&mut self) -> Option<&[u8]>;

    /// The frame so many places behind the next one, which stays where it is. `None` if it hasn't come, or the link can't tell yet.
    fn peek(&mut self, behind: u32) -> Option<&[u8]> {
        let _ = behind;
        None
    }
}

/// The half that sends.
pub trait Transmit {
    /// Whether another frame can be taken now.
    fn has_room(&mut self) -> bool;

    /// Takes a frame of `len` bytes, which `fill` writes: all of them, for what was there before is there still. It leaves at the
    /// next [`Transmit::flush`] at the latest.
    ///
    /// # Panics
    /// When there's no room, or the frame is longer than the link carries.
    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R;

    /// As [`Transmit::send`], but a checksum may be left to the link: the one that `fill` answers with. It's finished here, unless the link
    /// has somebody else do so.
    ///
    /// # Panics
    /// As [`Transmit::send`]; and when the checksum isn't within the frame.
    fn send_unfinished<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> (R, Option<Unfinished>)) -> R {
        self.send(len, |frame| {
            let (answer, unfinished) = fill(frame);
            if let Some(unfinished) = unfinished {
                unfinished.finish(frame);
            }
            answer
        })
    }

    /// Has what was taken leave, as far as the device has room. What it had none for leaves with a later call.
    fn flush(&mut self);
}

impl<R: Receive> Receive for &mut R {
    fn next_frame(&mut self) -> Option<&[u8]> {
        R::next_frame(self)
    }

    fn peek(&mut self, behind: u32) -> Option<&[u8]> {
        R::peek(self, behind)
    }
}

impl<T: Transmit> Transmit for &mut T {
    fn has_room(&mut self) -> bool {
        T::has_room(self)
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        T::send(self, len, fill)
    }

    fn send_unfinished<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> (R, Option<Unfinished>)) -> R {
        T::send_unfinished(self, len, fill)
    }

    fn flush(&mut self) {
        T::flush(self);
    }
}

/// A device, or something that stands for one.
pub trait Link {
    /// The half that receives.
    type Rx<'a>: Receive
    where
        Self: 'a;
    /// The half that sends.
    type Tx<'a>: Transmit
    where
        Self: 'a;

    /// What it is like. Looked at after each [`Link::wait`].
    fn figures(&self) -> Figures;

    /// Reads the clock: the time since the link was made.
    fn now(&self) -> Time;

    /// Both halves.
    fn halves(&mut self) -> (Self::Rx<'_>, Self::Tx<'_>);

    /// Waits until a frame has come, a waker wakes it, or `timeout` has passed (`None`: for ever); answers whether a waker did. Frames
    /// that the device had no room for are tried again meanwhile.
    ///
    /// # Errors
    /// When the system refuses to wait.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool>;

    /// Whether frames that were taken haven't left: the device had no room for them. Dropped now, the link loses them.
    fn is_stalled(&mut self) -> bool {
        false
    }

    /// Lets `waker` end [`Link::wait`].
    ///
    /// # Errors
    /// When the system has no room for it.
    fn watch_waker(&mut self, waker: &Waker) -> io::Result<()>;

    /// By whom packets to `to` leave.
    ///
    /// # Errors
    /// [`ConnError::Unreachable`] when there is no way by this link, or the neighbour doesn't answer; [`ConnError::Denied`] where a route
    /// prohibits it, or answers wouldn't come by this link.
    fn next_hop(&mut self, to: IpAddr) -> Result<Hop, ConnError>;
}
