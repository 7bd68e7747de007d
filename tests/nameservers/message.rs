//! DNS messages as the tests send them (RFC 1035, 4.1; RFC 6891), and their exchange over TCP (RFC 7766).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;

use crate::process::PATIENCE;

pub(crate) const A: u16 = 1;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const AXFR: u16 = 252;
/// The flag that asks for recursion (RFC 1035, 4.1.1).
pub(crate) const RD: u16 = 0x0100;
/// Class IN.
const IN: u16 = 1;
/// The header's bytes.
const HEADER: usize = 12;
/// The pseudo-record of EDNS (RFC 6891, 6.1.2), and its flag DO.
const OPT: u16 = 41;
const DO: u16 = 0x8000;
/// The option of a connection's time to idle (RFC 7828, 3.1): a query's has no content, an answer's two bytes that count tenths of a second.
const TCP_KEEPALIVE: u8 = 11;
/// Where a message's own answer code is, and the bits of it.
const RCODE_AT: usize = 3;
const RCODE_BITS: u8 = 0x0F;

/// What is asked about EDNS.
#[derive(Clone, Copy)]
pub(crate) struct Edns {
    /// Bytes that fit the asker's datagrams; of no meaning over TCP, and copied by nobody.
    pub(crate) datagram: u16,
    /// DNSSEC records are wanted.
    pub(crate) dnssec: bool,
    /// 0, or a version that no server has.
    pub(crate) version: u8,
    /// Has an option that nobody knows.
    pub(crate) option: bool,
    /// Has the option by which a server is asked how long a connection may idle (RFC 7828).
    pub(crate) keepalive: bool,
}

/// A question.
#[derive(Clone)]
pub(crate) struct Query {
    /// With its letters as they are.
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// The flags' bits in the header: RD, AD, CD.
    pub(crate) flags: u16,
    pub(crate) edns: Option<Edns>,
}

impl Query {
    /// One without anything particular.
    pub(crate) fn plain(name: &str, kind: u16) -> Self {
        Self { name: name.to_owned(), kind, flags: 0, edns: None }
    }

    /// The message under this id, its length of two bytes before it (RFC 1035, 4.2.2).
    pub(crate) fn framed(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::new();
        let counts = [1, 0, 0, u16::from(self.edns.is_some())];
        for field in [id, self.flags].into_iter().chain(counts) {
            message.extend(field.to_be_bytes());
        }
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.push(0);
        for field in [self.kind, IN] {
            message.extend(field.to_be_bytes());
        }
        if let Some(edns) = self.edns {
            edns.append(&mut message);
        }
        framed(&message)
    }
}

impl Edns {
    fn append(self, message: &mut Vec<u8>) {
        // An option of the range for local use (RFC 6891, 9).
        let unknown: &[u8] = if self.option { &[0xFD, 0xE9, 0, 2, 7, 7] } else { &[] };
        let keepalive: &[u8] = if self.keepalive { &[0, TCP_KEEPALIVE, 0, 0] } else { &[] };
        let options = [unknown, keepalive].concat();
        message.push(0);
        message.extend(OPT.to_be_bytes());
        message.extend(self.datagram.to_be_bytes());
        message.extend([0, self.version]);
        message.extend((if self.dnssec { DO } else { 0 }).to_be_bytes());
        message.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        message.extend(options);
    }
}

/// A message with its length before it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

/// The id of a message without its length.
pub(crate) fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Its answer code (RFC 1035, 4.1.1), without EDNS's part of it.
pub(crate) fn rcode(message: &[u8]) -> u8 {
    assert!(message.len() >= HEADER, "{message:?}");
    message[RCODE_AT] & RCODE_BITS
}

/// The option of an answer that says so many tenths of a second.
pub(crate) fn keepalive(tenths: u16) -> Vec<u8> {
    [&[0, TCP_KEEPALIVE, 0, 2][..], &tenths.to_be_bytes()].concat()
}

/// A connection that waits for an answer as long as a test does.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A socket for datagrams to `addr` that waits as long.
pub(crate) fn datagrams_to(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks by a datagram, and waits for the answer.
pub(crate) fn ask_by_datagram(socket: &UdpSocket, query: &Query, id: u16) -> Vec<u8> {
    socket.send(&query.framed(id)[2..]).unwrap();
    let mut answer = vec![0; usize::from(u16::MAX)];
    let len = socket.recv(&mut answer).unwrap();
    answer.truncate(len);
    answer
}

/// Whether it says that it was cut (TC).
pub(crate) fn is_cut(message: &[u8]) -> bool {
    message[2] & 0x02 != 0
}

/// The next message, without its length; `None` at the stream's end.
pub(crate) fn next(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).unwrap() == 0 {
        return None;
    }
    stream.read_exact(&mut length[1..]).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Some(message)
}

/// Asks and waits for the answer.
pub(crate) fn ask(stream: &mut TcpStream, query: &Query, id: u16) -> Vec<u8> {
    stream.write_all(&query.framed(id)).unwrap();
    next(stream).expect("a connection ended in place of an answer")
}

/// Asks everything on one connection without a wait for answers; the answers by their ids, each of which comes once.
pub(crate) fn ask_all(addr: SocketAddr, queries: &[(u16, Query)]) -> BTreeMap<u16, Vec<u8>> {
    let mut stream = connect(addr);
    let mut asking = stream.try_clone().unwrap();
    let questions: Vec<u8> = queries.iter().flat_map(|(id, query)| query.framed(*id)).collect();
    thread::scope(|scope| {
        scope.spawn(move || asking.write_all(&questions).unwrap());
        let mut answers = BTreeMap::new();
        for _ in queries {
            let have = answers.len();
            let answer =
                next(&mut stream).unwrap_or_else(|| panic!("the end after {have} of {} answers", queries.len()));
            let twice = answers.insert(id(&answer), answer);
            assert!(twice.is_none(), "one id was answered twice: {twice:?}");
        }
        answers
    })
}
