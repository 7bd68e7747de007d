//! The two processes that are measured: they use sockets as any program does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Bytes of a question, and of its answer.
const TRIP: usize = 64;
/// Trips before those that are timed.
const WARM_UP: u32 = 500;
/// Most of what a receive takes.
const RECEIVE: usize = 128 << 10;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Family {
    Tcp,
    Unix,
}

#[derive(Debug, Subcommand)]
#[command(hide = true)]
pub(crate) enum Work {
    /// Accepts one connection; prints where, and then what it measured.
    Serve {
        family: Family,
        #[command(flatten)]
        how: How,
    },
    /// Connects there.
    Ask {
        family: Family,
        place: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    milliseconds: u64,
    /// Bytes of a write; round trips without it.
    #[arg(long)]
    stream: Option<usize>,
    #[arg(long)]
    epoll: bool,
    #[arg(long)]
    nagle: bool,
}

/// A stream socket.
trait Stream: Read + Write + AsFd {
    fn set_nonblocking(&self) -> std::io::Result<()>;
    fn end(&self) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }

    fn end(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn set_nonblocking(&self) -> std::io::Result<()> {
        Self::set_nonblocking(self, true)
    }

    fn end(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Work {
    pub(crate) fn run(&self) -> Result<()> {
        let (Self::Serve { how, .. } | Self::Ask { how, .. }) = self;
        let mut cpus = CpuSet::new();
        cpus.set(how.cpu);
        sched_setaffinity(None, &cpus)?;
        match self {
            Self::Serve { family: Family::Tcp, .. } => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                println!("{}", listener.local_addr()?);
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(!how.nagle)?;
                serve(stream, how)
            }
            Self::Serve { family: Family::Unix, .. } => {
                let path = std::env::temp_dir().join(format!("midmile-bench-friends-{}.sock", std::process::id()));
                let listener = UnixListener::bind(&path)?;
                println!("{}", path.display());
                let (stream, _) = listener.accept()?;
                std::fs::remove_file(&path)?;
                serve(stream, how)
            }
            Self::Ask { family: Family::Tcp, place, .. } => {
                let stream = TcpStream::connect(place.as_str())?;
                stream.set_nodelay(!how.nagle)?;
                ask(stream, how)
            }
            Self::Ask { family: Family::Unix, place, .. } => ask(UnixStream::connect(place)?, how),
        }
    }
}

/// Receives what is there; waits by epoll where the socket doesn't.
fn receive(stream: &mut impl Stream, epoll: Option<&Epoll>, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        if let Some(epoll) = epoll {
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
        }
        match stream.read(into) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            answer => return answer,
        }
    }
}

/// By libc's functions, as programs call them: rustix would make the system calls itself, which a preload library doesn't see.
fn prepare(stream: &impl Stream, how: &How) -> Result<Option<Epoll>> {
    if !how.epoll {
        return Ok(None);
    }
    stream.set_nonblocking()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).context("can't register with epoll")?;
    Ok(Some(epoll))
}

fn serve(mut stream: impl Stream, how: &How) -> Result<()> {
    let epoll = prepare(&stream, how)?;
    let Some(size) = how.stream else {
        let mut message = [0; TRIP];
        loop {
            let mut got = 0;
            while got < TRIP {
                match receive(&mut stream, epoll.as_ref(), &mut message[got..])? {
                    0 => return Ok(()),
                    count => got += count,
                }
            }
            stream.write_all(&message)?;
        }
    };
    let mut buffer = vec![0; size.max(RECEIVE)];
    let (mut bytes, mut began) = (0_usize, None);
    loop {
        let count = receive(&mut stream, epoll.as_ref(), &mut buffer)?;
        if count == 0 {
            break;
        }
        began.get_or_insert_with(Instant::now);
        bytes += count;
    }
    let seconds = began.context("nothing came")?.elapsed().as_secs_f64();
    println!("{}", bytes as f64 / seconds / 1e6);
    Ok(())
}

fn ask(mut stream: impl Stream, how: &How) -> Result<()> {
    let epoll = prepare(&stream, how)?;
    let time = Duration::from_millis(how.milliseconds);
    if let Some(size) = how.stream {
        let buffer = vec![b'x'; size];
        let began = Instant::now();
        for write in 0_u32.. {
            stream.write_all(&buffer)?;
            if (write % 16 == 0 || size > 16384) && began.elapsed() > time {
                break;
            }
        }
        return Ok(stream.end()?);
    }
    let mut message = [b'q'; TRIP];
    let mut trip = || -> Result<()> {
        stream.write_all(&message)?;
        let mut got = 0;
        while got < TRIP {
            got += receive(&mut stream, epoll.as_ref(), &mut message[got..])?;
        }
        Ok(())
    };
    for _ in 0..WARM_UP {
        trip()?;
    }
    let (began, mut times) = (Instant::now(), Vec::with_capacity(1 << 20));
    let mut last = began;
    while last - began < time && times.len() < times.capacity() {
        trip()?;
        let now = Instant::now();
        times.push((now - last).as_secs_f64() * 1e6);
        last = now;
    }
    times.sort_by(f64::total_cmp);
    println!("{}", times[times.len() / 2]);
    Ok(())
}
