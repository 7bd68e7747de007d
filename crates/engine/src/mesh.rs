//! Cores that know each other: they wake one another, hand connections over, and share a bound on how many there are.
//!
//! Nothing here is locked. Each core has a mailbox that holds so much ([`MAIL_MAX`]) and a [`Waker`]; what doesn't fit stays where
//! it was.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::allowance::Allowance;
use crate::pool::{Claim, Stash};
use crate::waker::Waker;

/// Connections that may be on their way to a core at once.
pub const MAIL_MAX: usize = 1024;

/// A core of a [`Mesh`], by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Why a connection can't be handed over. It stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOffError {
    /// This core knows no such core.
    #[error("no such core")]
    NoCore,
    /// It's gone, has failed, is being dialled, or is on its way already.
    #[error("the connection doesn't stand")]
    NotStanding,
    /// It's forwarded, or something is forwarded to it; bytes may be between the two.
    #[error("the connection is tied to another")]
    Tied,
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Letter<P> {
    pub(crate) from: CoreId,
    pub(crate) parcel: P,
    pub(crate) token: u64,
    /// What the program left over: it comes first on the other core.
    pub(crate) stash: Option<Stash>,
    pub(crate) claim: Claim,
    pub(crate) ended: bool,
    pub(crate) end_ahead: bool,
    pub(crate) end_told: bool,
    pub(crate) awaits_room: bool,
}

/// What a mailbox takes.
#[derive(Debug)]
pub(crate) enum Mail<P> {
    Conn(Letter<P>),
    /// In place of one that came with a connection.
    Block(Box<[u8]>),
}

/// The cores, as whoever started them sees them.
#[derive(Clone, Debug)]
pub struct Mesh {
    wakers: Arc<[Waker]>,
    conns: Arc<Allowance>,
}

/// A core's place in the mesh, for connections that travel as `P` ([`Backend::Parcel`](crate::Backend::Parcel)).
#[derive(Debug)]
pub struct Seat<P> {
    pub(crate) core: CoreId,
    pub(crate) wakers: Arc<[Waker]>,
    pub(crate) conns: Arc<Allowance>,
    pub(crate) inbox: Receiver<Mail<P>>,
    pub(crate) outboxes: Vec<SyncSender<Mail<P>>>,
    /// Bytes of a block, which are the same for all; 0 until the first core has said so.
    block_bytes: Arc<AtomicUsize>,
}

impl Mesh {
    /// A mesh of `cores` cores with at most `conns_max` connections together, and a seat for each. A core may hold them all, if its own
    /// [`Config::conns_max`](crate::Config::conns_max) lets it.
    ///
    /// # Errors
    /// When there's no descriptor left for the wakers.
    pub fn new<P: Send>(cores: u16, conns_max: u32) -> io::Result<(Self, Vec<Seat<P>>)> {
        let wakers: Arc<[Waker]> = (0..cores).map(|_| Waker::new()).collect::<io::Result<_>>()?;
        let conns = Arc::new(Allowance::new(conns_max, cores));
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| sync_channel(MAIL_MAX)).unzip();
        let block_bytes = Arc::new(AtomicUsize::new(0));
        let seat = |(core, inbox)| Seat {
            core: CoreId(core),
            wakers: wakers.clone(),
            conns: conns.clone(),
            inbox,
            outboxes: outboxes.clone(),
            block_bytes: block_bytes.clone(),
        };
        let seats = (0..cores).zip(inboxes).map(seat).collect();
        Ok((Self { wakers, conns }, seats))
    }

    /// Wakes a core from any thread: it upcalls [`Handler::on_wake`](crate::Handler::on_wake). Nothing happens if there's no such core.
    pub fn wake(&self, core: CoreId) {
        if let Some(waker) = self.wakers.get(usize::from(core.0)) {
            waker.wake();
        }
    }

    /// The bound on connections that the cores share.
    #[must_use]
    pub fn conns(&self) -> &Allowance {
        &self.conns
    }
}

impl<P> Seat<P> {
    /// Which core sits here.
    #[must_use]
    pub const fn core(&self) -> CoreId {
        self.core
    }

    /// What wakes this core, for threads outside of the mesh.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.wakers[usize::from(self.core.0)]
    }

    /// Panics where the cores' blocks aren't alike: our own mistake, checked before anything is opened.
    pub(crate) fn check(&self, block_bytes: usize) {
        let before = self.block_bytes.swap(block_bytes, Relaxed);
        assert!(before == 0 || before == block_bytes, "cores of a mesh have the same `read_bytes`");
    }
}
