//! One GET of the status document (HTTP/1.1, RFC 9112). Who answers may be anybody: the answer is bounded in time and size, and
//! checked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::document::Document;
use crate::addr::Endpoint;
use crate::exit::Failure;

/// For a connection to one address to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// From the request to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read: some thousands of routes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The status document, as it came and as it's understood.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) text: String,
    pub(super) document: Document,
}

/// Fetches the status document of the admin server at `admin`.
///
/// # Errors
/// [`Failure::Run`]: nobody is there, or it's somebody else.
pub(super) fn document(admin: &Endpoint) -> Result<Fetched, Failure> {
    let stream = connect(&addrs(admin)?).map_err(|error| {
        Failure::Run(format!(
            "nobody answers at {admin}: {error}; start midmile with --admin {admin} or [admin], or give the address it has"
        ))
    })?;
    let answer = ask(stream, admin).map_err(|error| {
        Failure::Run(format!("{admin} doesn't answer: {error}; see that midmile listens there, and ask again"))
    })?;
    understood(&answer).ok_or_else(|| {
        Failure::Run(format!(
            "who answers at {admin} isn't midmile's admin server; give the address that midmile's log says"
        ))
    })
}

/// The addresses of `admin`, of which the resolver is asked for names.
fn addrs(admin: &Endpoint) -> Result<Vec<SocketAddr>, Failure> {
    match admin {
        Endpoint::Ip(addr) => Ok(vec![*addr]),
        Endpoint::Name(name) => {
            let found = (&*name.host, name.port).to_socket_addrs();
            let unknown =
                |error| Failure::Run(format!("can't resolve {admin}: {error}; mend the name, or give an address"));
            found.map(Iterator::collect).map_err(unknown)
        }
        Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => Ok(Vec::new()),
    }
}

/// A connection to the first address that answers.
fn connect(addrs: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for addr in addrs {
        match TcpStream::connect_timeout(addr, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn ask(mut stream: TcpStream, admin: &Endpoint) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(stream, "GET /status.json HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(bytes) => answer.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// The document in an answer, if it's one of midmile's and whole.
fn understood(answer: &[u8]) -> Option<Fetched> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n")?;
    let mut words = status.split(' ');
    if !words.next()?.starts_with("HTTP/1.") || words.next()? != "200" {
        return None;
    }
    let length = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    let whole: usize = length?.parse().ok()?;
    let text = body.get(..whole)?;
    let document = serde_json::from_str(text).ok()?;
    Some(Fetched { text: text.to_owned(), document })
}

#[cfg(test)]
mod tests {
    use super::super::document::sample;
    use super::*;

    fn answer(status: &str, headers: &str, body: &str) -> Option<Fetched> {
        understood(format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}").as_bytes())
    }

    #[test]
    fn a_whole_answer_is_understood_and_passed_through() {
        let text = sample().to_string();
        let headers = format!("content-type: application/json\r\nContent-Length: {}", text.len());
        let fetched = answer("200 OK", &headers, &text).unwrap();
        assert_eq!(fetched.text, text);
        assert_eq!(fetched.document.routes.len(), 2);
    }

    #[test]
    fn what_isnt_a_whole_document_of_midmiles_isnt_taken_for_one() {
        let text = sample().to_string();
        let length = |len: usize| format!("content-length: {len}");
        assert!(answer("404 Not Found", &length(text.len()), &text).is_none(), "another status");
        assert!(answer("200 OK", &length(text.len() + 1), &text).is_none(), "cut short");
        assert!(answer("200 OK", "transfer-encoding: chunked", &text).is_none(), "of unknown length");
        assert!(answer("200 OK", &length(2), "{}").is_none(), "another's JSON");
        assert!(answer("200 OK", "content-length: x", &text).is_none(), "no length");
        for bytes in [&b""[..], b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff\r\n\r\n"] {
            assert!(understood(bytes).is_none(), "{bytes:?}");
        }
        for end in 0..text.len() {
            assert!(answer("200 OK", &length(end), &text[..end]).is_none(), "cut at {end}");
        }
    }
}
