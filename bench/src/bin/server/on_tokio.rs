//! tokio, as a good program on it is written: the current_thread runtime, a task a connection, bytes read into a buffer of the
//! connection's and answered with `write_all`.

use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{self, BUFFER_BYTES, MESSAGE_BYTES_MAX};
use crate::listening;

/// Serves for ever.
pub(crate) fn run(at: SocketAddrV4) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("start tokio")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listening::listener(at)?.into()).context("hand the listener to tokio")?;
        loop {
            // What fails here is one connection, or descriptors for a moment.
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        }
    })
}

/// Answers until the peer ends, fails or can't be understood.
async fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        let Ok(whole) = frames::whole(&buffer[..filled]) else { return };
        if whole > 0 {
            if stream.write_all(&buffer[..whole]).await.is_err() {
                return;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        } else if filled == buffer.len() {
            buffer.resize(MESSAGE_BYTES_MAX, 0);
        }
    }
}
