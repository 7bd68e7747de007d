//! What is known of one socket for datagrams: what it was told, and what it was given to send.

use std::net::SocketAddr;

use super::record::Record;
use crate::backend::Backend;
use crate::cx::Cx;
use crate::datagram::{DATAGRAM_BYTES_MAX, DatagramCounts, DatagramId, Flow, SendToError};

/// Bytes of the longest datagram that can come: over IPv6 a header less than 16 bits of length say (RFC 8200, 8.1).
const HEARD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + 20;

/// A datagram that was given to a socket.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    pub(super) flow: Flow,
    pub(super) bytes: Vec<u8>,
    /// A peer has got it.
    pub(super) arrived: bool,
}

/// What is known of one socket.
#[derive(Clone, Debug)]
pub(super) struct DatagramStory {
    pub(super) at: SocketAddr,
    /// What the program was told, in order.
    pub(super) told: Vec<(Flow, Vec<u8>)>,
    /// How far that was held against what peers have sent.
    pub(super) compared: usize,
    /// What it was given to send, in order.
    pub(super) handed: Vec<Handed>,
    /// Sends that found no room.
    refused: u64,
    /// A send found no room, and nobody has said since that there's some.
    pub(super) awaits_room: bool,
    /// The program has let it go.
    pub(super) over: bool,
}

impl DatagramStory {
    const fn new(at: SocketAddr) -> Self {
        Self { at, told: Vec::new(), compared: 0, handed: Vec::new(), refused: 0, awaits_room: false, over: false }
    }

    /// Writes down what the program was told.
    pub(super) fn hear(&mut self, flow: Flow, bytes: &[u8]) {
        assert!(bytes.len() <= HEARD_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        self.told.push((flow, bytes.to_vec()));
    }

    /// What has to hold at the end of each turn: each datagram that was told or refused is counted, and none twice.
    pub(super) fn check(&self, at: Option<SocketAddr>, counts: DatagramCounts) {
        if self.over {
            return assert_eq!(
                (at, counts),
                (None, DatagramCounts::default()),
                "a socket is there after it was let go"
            );
        }
        assert_eq!(at, Some(self.at), "a socket isn't where it was bound");
        let told = (counts.received, counts.refused);
        assert_eq!(told, (self.told.len() as u64, self.refused), "what is counted isn't what was told");
        let spent = counts.sent + counts.exhausted + counts.failed;
        assert!(spent <= self.handed.len() as u64, "{spent} of {} datagrams went out", self.handed.len());
    }

    /// For a message.
    pub(super) fn tell(&self, socket: DatagramId) -> String {
        let arrived = self.handed.iter().filter(|handed| handed.arrived).count();
        format!(
            "{socket:?} at {}: told {}, handed {} of which {arrived} arrived, refused {}, over {}",
            self.at,
            self.told.len(),
            self.handed.len(),
            self.refused,
            self.over
        )
    }
}

impl Record {
    /// Writes a new socket down.
    pub fn bound(&mut self, socket: DatagramId, at: SocketAddr) {
        assert!(self.sockets.insert(socket, DatagramStory::new(at)).is_none(), "a handle is given twice");
    }

    /// The program has let it go: nothing may follow.
    pub fn unbound(&mut self, socket: DatagramId) {
        self.socket_mut(socket).over = true;
    }

    /// Sends a datagram, and remembers what became of it.
    ///
    /// # Errors
    /// See [`SendToError`].
    pub fn send_to<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        socket: DatagramId,
        flow: Flow,
        bytes: &[u8],
    ) -> Result<(), SendToError> {
        let answer = cx.send_to(socket, flow, bytes);
        let story = self.socket_mut(socket);
        match answer {
            Ok(()) => story.handed.push(Handed { flow, bytes: bytes.to_vec(), arrived: false }),
            Err(SendToError::Full) => {
                story.refused += 1;
                story.awaits_room = true;
            }
            Err(SendToError::TooLong) => {}
            Err(SendToError::Gone) => assert!(story.over, "{socket:?} is gone, and nobody let it go"),
        }
        answer
    }

    /// Sockets that were bound, those that were let go among them.
    pub fn sockets(&self) -> impl Iterator<Item = DatagramId> + '_ {
        self.sockets.keys().copied()
    }

    /// The socket that the last upcall about one was about.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn socket(&self) -> DatagramId {
        self.socket.expect("a datagram was told")
    }

    /// What the program was told by the socket, in order.
    #[must_use]
    pub fn told(&self, socket: DatagramId) -> &[(Flow, Vec<u8>)] {
        &self.socket_of(socket).told
    }

    /// How many datagrams the socket was given to send.
    #[must_use]
    pub fn handed(&self, socket: DatagramId) -> usize {
        self.socket_of(socket).handed.len()
    }

    /// Whether a send found no room, and nobody has said since that there's some.
    #[must_use]
    pub fn awaits_datagram_room(&self, socket: DatagramId) -> bool {
        self.socket_of(socket).awaits_room
    }

    fn socket_of(&self, socket: DatagramId) -> &DatagramStory {
        self.sockets.get(&socket).expect("a socket of this run")
    }

    fn socket_mut(&mut self, socket: DatagramId) -> &mut DatagramStory {
        self.sockets.get_mut(&socket).expect("a socket of this run")
    }
}
