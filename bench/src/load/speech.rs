//! What is said on a connection: one question, and what answers it.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::framed::{self, FRAMED_BYTES};
use super::query::{self, ANSWER_BYTES_MAX, QUERY_BYTES};
use super::{MESSAGE_BYTES, Purpose};

/// A language of questions and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// Bytes that the relays' server gives back.
    Echo,
    /// The curve's framed messages.
    Framed,
    /// DNS.
    Dns,
}

/// Room for an answer.
pub(super) type Answer = [u8; ANSWER_BYTES_MAX];
const _: () = assert!(FRAMED_BYTES <= ANSWER_BYTES_MAX && MESSAGE_BYTES <= ANSWER_BYTES_MAX);

impl Speech {
    /// Sends question `number` of connection `conn`, all of it at once.
    pub(super) fn ask(self, fd: impl std::os::fd::AsFd, conn: u64, number: u64) -> rustix::io::Result<bool> {
        match self {
            Self::Echo => Ok(send(fd, &[Purpose::Echo.byte(); MESSAGE_BYTES], SendFlags::NOSIGNAL)? == MESSAGE_BYTES),
            Self::Framed => Ok(send(fd, &framed::message(conn, number), SendFlags::NOSIGNAL)? == FRAMED_BYTES),
            Self::Dns => {
                let (id, host) = dns(conn, number);
                Ok(send(fd, &query::query(id, host), SendFlags::NOSIGNAL)? == QUERY_BYTES)
            }
        }
    }

    /// Whether `bytes` are the whole answer to it.
    ///
    /// # Errors
    /// They are whole, and answer something else.
    pub(super) fn is_answer(self, bytes: &[u8], conn: u64, number: u64) -> Result<bool> {
        match self {
            Self::Echo => return Ok(bytes.len() >= MESSAGE_BYTES),
            Self::Framed => {
                let Some(answer) = bytes.first_chunk() else { return Ok(false) };
                framed::check(answer, conn, number)?;
            }
            Self::Dns => {
                let Some(length) = query::whole(bytes) else { return Ok(false) };
                let (id, host) = dns(conn, number);
                query::check(&bytes[2..2 + length], id, host)?;
            }
        }
        Ok(true)
    }

    /// The first exchange on a connection; blocks.
    pub(super) fn exchange(self, fd: &OwnedFd) -> Result<()> {
        ensure!(self.ask(fd, 0, 0).context("send")?, "a question was cut");
        let mut answer: Answer = [0; ANSWER_BYTES_MAX];
        let mut have = 0;
        while !self.is_answer(&answer[..have], 0, 0)? {
            let (_, received) = recv(fd, &mut answer[have..], RecvFlags::empty()).context("receive")?;
            ensure!(received > 0, "the connection ended after {have} bytes of an answer");
            have += received;
        }
        Ok(())
    }
}

/// The id and the host that a question is for. All connections use the same ids.
fn dns(conn: u64, number: u64) -> (u16, usize) {
    let host = usize::try_from((conn + number * 7) % query::HOSTS as u64).unwrap_or(0);
    (u16::try_from(number & 0xFFFF).unwrap_or(0), host)
}
