//! monoio, as a good program on it is written: its io_uring driver, a task a connection, buffers that the driver owns meanwhile.

use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::frames::{self, BUFFER_BYTES, MESSAGE_BYTES_MAX};
use crate::listening;

/// Entries of the ring, and twice as many completions: thousands of connections have an operation under way. A ring counts as locked
/// memory, of which a program without privileges has 8 MiB, for a while after its end as well.
const ENTRIES: u32 = 8192;

/// Serves for ever.
pub(crate) fn run(at: SocketAddrV4) -> Result<()> {
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES);
    let mut runtime = builder.build().context("start monoio")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listening::listener(at)?.into()).context("hand the listener to monoio")?;
        loop {
            // What fails here is one connection, or descriptors for a moment.
            if let Ok((stream, _)) = listener.accept().await {
                monoio::spawn(serve(stream));
            }
        }
    })
}

/// Answers until the peer ends, fails or can't be understood.
async fn serve(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let (read, slice) = stream.read(buffer.slice_mut(filled..)).await;
        buffer = slice.into_inner();
        match read {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        let Ok(whole) = frames::whole(&buffer[..filled]) else { return };
        if whole > 0 {
            let (written, slice) = stream.write_all(buffer.slice(..whole)).await;
            buffer = slice.into_inner();
            if written.is_err() {
                return;
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        } else if filled == buffer.len() {
            buffer.resize(MESSAGE_BYTES_MAX, 0);
        }
    }
}
