//! What a backend costs: CPU time of the server's thread for each request, by epoll and by io_uring.
//!
//! ```text
//! cargo run --release -p midmile-engine --example backend_cost -- BACKEND <echo|short|bulk> CONNECTIONS SECONDS
//! ```
//!
//! BACKEND is `epoll`, `uring` or `uring-without-bundles`. `echo`: 64 bytes there and back; `short`: connect, ask, close; `bulk`: one way, as fast as it goes. Client and server have a CPU each,
//! if there are two. See docs/experiments/io-uring.md.
#![expect(clippy::unwrap_used, reason = "a measurement ends where its set-up fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use midmile_engine::kernel::{self, Kernel, allowed_cpus, pin_to};
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};
use rustix::time::{ClockId, clock_gettime};

const MESSAGE: usize = 64;

struct Echo {
    requests: u64,
    bytes: u64,
    sinks: bool,
    stop: Arc<AtomicBool>,
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        match cx.admit(incoming, 0, MeterId::NONE) {
            Ok(conn) => cx.read(conn),
            Err(incoming) => cx.refuse(incoming),
        }
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        self.bytes += bytes.len() as u64;
        if self.sinks {
            return bytes.len();
        }
        let whole = bytes.len() - bytes.len() % MESSAGE;
        self.requests += (whole / MESSAGE) as u64;
        if whole > 0 {
            cx.send(conn, &bytes[..whole]);
        }
        whole
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, _error: ConnError) {}

    fn on_turn_end(&mut self, cx: &mut Cx<B>) {
        if self.stop.load(Ordering::Relaxed) {
            cx.stop();
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

/// Runs the server; gives requests, bytes, and the thread's CPU time.
fn serve<B: Backend<Listener = kernel::Listener>>(
    backend: B,
    listener: kernel::Listener,
    sinks: bool,
    stop: Arc<AtomicBool>,
) -> (u64, u64, Duration) {
    let mut core = Core::new(backend, Config::default(), Echo { requests: 0, bytes: 0, sinks, stop });
    core.parts().1.listen(listener).unwrap();
    let begun = thread_time();
    core.run().unwrap();
    let spent = thread_time() - begun;
    let echo = core.parts().0;
    (echo.requests, echo.bytes, spent)
}

fn echoes(at: SocketAddr, count: usize, until: Instant) {
    let mut streams: Vec<_> = (0..count).map(|_| TcpStream::connect(at).unwrap()).collect();
    for stream in &streams {
        stream.set_nodelay(true).unwrap();
    }
    let mut answer = [0; MESSAGE];
    while Instant::now() < until {
        for stream in &mut streams {
            stream.write_all(&[7; MESSAGE]).unwrap();
        }
        for stream in &mut streams {
            stream.read_exact(&mut answer).unwrap();
        }
    }
}

fn short_ones(at: SocketAddr, count: usize, until: Instant) {
    let mut answer = [0; MESSAGE];
    while Instant::now() < until {
        let mut streams: Vec<_> = (0..count).map(|_| TcpStream::connect(at).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(&[7; MESSAGE]).unwrap();
        }
        for stream in &mut streams {
            stream.read_exact(&mut answer).unwrap();
        }
    }
}

fn bulk(at: SocketAddr, until: Instant) {
    let mut stream = TcpStream::connect(at).unwrap();
    let piece = vec![7; 256 * 1024];
    while Instant::now() < until {
        stream.write_all(&piece).unwrap();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [backend, what, count, seconds] = &args[..] else { panic!("backend, what, connections, seconds") };
    let (count, seconds): (usize, u64) = (count.parse().unwrap(), seconds.parse().unwrap());
    let cpus = allowed_cpus().unwrap();
    let at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (mut listeners, at) = kernel::listen(&at, &LegOptions::default(), &[0], false).unwrap();
    let (listener, at) = (listeners.remove(0), at.inet().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let server = {
        let (stop, backend, sinks, cpu) = (stop.clone(), backend.clone(), what == "bulk", cpus[0]);
        thread::spawn(move || {
            pin_to(cpu).unwrap();
            match &backend[..] {
                "epoll" => serve(Kernel::new().unwrap(), listener, sinks, stop),
                "uring" => serve(Uring::new(UringConfig::default()).unwrap(), listener, sinks, stop),
                "uring-without-bundles" => {
                    let config = UringConfig { bundles: false, ..UringConfig::default() };
                    serve(Uring::new(config).unwrap(), listener, sinks, stop)
                }
                other => panic!("no backend {other}"),
            }
        })
    };
    pin_to(*cpus.last().unwrap()).unwrap();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    match &what[..] {
        "echo" => echoes(at, count, until),
        "short" => short_ones(at, count, until),
        "bulk" => bulk(at, until),
        other => panic!("nothing called {other}"),
    }
    let spent = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    drop(TcpStream::connect(at).unwrap());
    let (requests, bytes, time) = server.join().unwrap();
    let units = if what == "bulk" { bytes / 65_536 } else { requests };
    println!(
        "{backend} {what} {count}: {:.0} a second, {:.0} ns of the server a unit, its CPU {:.0} % busy",
        units as f64 / spent.as_secs_f64(),
        time.as_nanos() as f64 / units as f64,
        100.0 * time.as_secs_f64() / spent.as_secs_f64(),
    );
}
