//! DNS over TCP in a few lines: a server whose answers tests hold back and let go, and clients that look at each byte that matters.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::process::{PATIENCE, own_loopback, until};

/// Bytes of a DNS header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// What an answer's flags have more than its query's: it is one, and recursion was available.
const ANSWER_FLAGS: u16 = 0x8080;

/// A query for the address of `name`, framed: its length stands in front (RFC 1035, 4.2.2).
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    framed(&message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// The answer of server `number` to a query: its own bytes, and one address, 192.0.2.`number`.
fn answer(query: &[u8], number: u8) -> Vec<u8> {
    let mut message = query.to_vec();
    let flags = u16::from_be_bytes([query[2], query[3]]) | ANSWER_FLAGS;
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[7] = 1;
    // The name is the question's (RFC 1035, 4.1.4); an address of the Internet, for a minute, of four bytes.
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, number]);
    framed(&message)
}

/// The name that a message asks for.
fn name_of(message: &[u8]) -> String {
    let (mut at, mut labels) = (HEADER, Vec::new());
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8(message[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    labels.join(".")
}

/// Reads one message, without its length; `None` at the end of the stream.
fn read(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut len = [0; 2];
    match stream.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// An answer, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: u16,
    pub(crate) name: String,
    /// 0: no error; 2: SERVFAIL.
    pub(crate) code: u8,
    /// The server that gave it; `None` if it has no address in it.
    pub(crate) server: Option<u8>,
}

/// A client.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends bytes, in one write.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends that nothing more comes.
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The next answer; `None` at the end of the stream.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let message = read(&mut self.0).unwrap()?;
        let flags = u16::from_be_bytes([message[2], message[3]]);
        assert_eq!(flags & 0x8000, 0x8000, "a query came back: {message:?}");
        let server = (message[7] == 1).then(|| *message.last().unwrap());
        Some(Answer {
            id: u16::from_be_bytes([message[0], message[1]]),
            name: name_of(&message),
            code: message[3] & 0x0f,
            server,
        })
    }

    /// Asks one thing and takes the answer.
    pub(crate) fn ask(&mut self, id: u16, name: &str) -> Answer {
        self.send(&query(id, name));
        self.answer().unwrap()
    }

    /// The next answer; `None` at the end of the stream or after a reset.
    pub(crate) fn answer_or_reset(&mut self) -> Option<Answer> {
        let mut first = [0];
        let peeked = self.0.peek(&mut first);
        if peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset) {
            None
        } else {
            self.answer()
        }
    }

    /// Whether the connection ended in order, without another answer.
    pub(crate) fn has_ended(&mut self) -> bool {
        read(&mut self.0).is_ok_and(|message| message.is_none())
    }

    /// Whether the connection was reset.
    pub(crate) fn was_reset(&mut self) -> bool {
        read(&mut self.0).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }
}

/// A query that waits to be answered.
struct Held {
    stream: TcpStream,
    query: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// Queries whose name begins so are held back.
    holds: Option<&'static str>,
    held: Vec<Held>,
    /// The names that were asked for.
    asked: Vec<String>,
    /// Every connection that came.
    streams: Vec<TcpStream>,
    dead: bool,
}

/// A server. It ends with the test program.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    number: u8,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// One that says that it's server `number`.
    pub(crate) fn start(number: u8) -> Self {
        let listener = TcpListener::bind(own_loopback()).unwrap();
        let server = Self { addr: listener.local_addr().unwrap(), number, state: Arc::default() };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.state().dead {
                    return;
                }
                serving.state().streams.push(stream.try_clone().unwrap());
                let serving = serving.clone();
                // An error is the other side's end, or the test's.
                thread::spawn(move || serving.serve(stream).ok());
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        while let Some(query) = read(&mut stream)? {
            let name = name_of(&query);
            let mut state = self.state();
            let holds = state.holds.is_some_and(|prefix| name.starts_with(prefix));
            state.asked.push(name);
            if holds {
                let stream = stream.try_clone()?;
                state.held.push(Held { stream, query });
            } else {
                // Under the lock: answers that are let go go by the same connection.
                stream.write_all(&answer(&query, self.number))?;
            }
        }
        Ok(())
    }

    /// Holds queries back whose name begins so.
    pub(crate) fn hold(&self, prefix: &'static str) {
        self.state().holds = Some(prefix);
    }

    /// Waits until so many queries are held.
    pub(crate) fn holds(&self, count: usize) {
        until("queries at the server", || (self.state().held.len() >= count).then_some(()));
    }

    /// Answers what is held, the last first, and holds nothing any more.
    pub(crate) fn let_go(&self) {
        let mut state = self.state();
        state.holds = None;
        while let Some(Held { mut stream, query }) = state.held.pop() {
            // Whoever asked may have gone.
            stream.write_all(&answer(&query, self.number)).ok();
        }
    }

    /// The names that were asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.state().streams.len()
    }

    /// Ends all connections, and listens no more.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.dead = true;
        state.held.clear();
        for stream in state.streams.drain(..) {
            // It may be gone already.
            stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        // Whoever waits for a connection gets one, and looks.
        TcpStream::connect(self.addr).ok();
        until("the end of the listener", || TcpStream::connect(self.addr).is_err().then_some(()));
    }
}
