//! The kernel's TCP as peer, over links that lose, double, reorder and spoil packets: what one end sends the other reads, both ways,
//! and connections end. A capture of it has no malformed segment.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId, Waker,
};
use midmile_stack::Stack;
use midmile_stack::faulty::{Faults, Faulty};
use midmile_stack::link::Link;
use world::{PEER_V4, STACK_V4, STACK_V6, TunGround, VethGround, config};

const PATIENCE: Duration = Duration::from_secs(30);
/// Tokens: of a connection that is dialled, and of one whose peer has finished.
const DIALLED: u64 = 1;
const FINISHED: u64 = 2;

/// Echoes what comes; where it's told to, it dials first and echoes on that connection.
struct Echo {
    dial: Option<Addr>,
    stops: Arc<AtomicBool>,
}

/// Stops a core when it's dropped, be it by a test that failed.
struct Stop {
    stops: Arc<AtomicBool>,
    waker: Waker,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _: ListenerId, incoming: Incoming<B::Socket>) {
        if let Ok(id) = cx.admit(incoming, 0, MeterId::NONE) {
            cx.read(id);
        }
    }

    fn on_connect(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.read(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, token: u64, bytes: &[u8]) -> usize {
        let sent = cx.send(conn, bytes);
        if token == FINISHED && sent == bytes.len() {
            cx.close(conn);
        }
        sent
    }

    fn on_writable(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.read(conn);
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        if cx.left_over(conn) == 0 {
            cx.close(conn);
        } else {
            cx.rename(conn, FINISHED, MeterId::NONE);
        }
    }

    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, token: u64, error: ConnError) {
        assert!(token != DIALLED, "the dial failed: {error}");
    }

    fn on_wake(&mut self, cx: &mut Cx<B>) {
        if self.stops.load(Ordering::Relaxed) {
            cx.stop();
        } else if let Some(to) = self.dial.take() {
            cx.dial(&to, &LegOptions::default(), DIALLED, MeterId::NONE).unwrap();
        }
    }
}

/// Runs an echo on `link` while `work` is done, which is told where it listens.
fn serving<D: Link + Send>(link: D, dial: Option<Addr>, work: impl FnOnce(&Waker, [SocketAddr; 2])) {
    let waker = Waker::new().unwrap();
    let mut stack = Stack::new(link, config()).unwrap();
    stack.watch_waker(&waker).unwrap();
    let stop = Stop { stops: Arc::default(), waker: waker.clone() };
    let stops = stop.stops.clone();
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let stop = stop;
        scope.spawn(move || {
            let echo = Echo { dial, stops };
            let mut core = Core::new(stack, Config { conns_max: 64, ..Config::default() }, echo);
            let at = [IpAddr::V4(STACK_V4), IpAddr::V6(STACK_V6)].map(|ip| {
                let any = Addr::Inet((ip, 0).into());
                core.parts().1.listen_at(&any, &LegOptions::default(), 16).unwrap().1.inet().unwrap()
            });
            tell.send(at).unwrap();
            core.run().unwrap();
            core.parts().1.backend().check();
        });
        work(&waker, told.recv().unwrap());
        drop(stop);
    });
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 251 + usize::from(seed)) % 256).unwrap()).collect()
}

/// Sends and reads the echo at once, to its end.
fn exchange(mut stream: TcpStream, seed: u8, len: usize) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let bytes = pattern(seed, len);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writes = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap();
    writes.join().unwrap();
    assert!(echoed == bytes, "{} bytes of {} come back, or others", echoed.len(), bytes.len());
}

fn bad(seed: u64) -> (Faults, u64) {
    (Faults { lost: 10, doubled: 20, late: 50, spoilt: 10 }, seed)
}

fn skips() -> bool {
    let why = world::lacks_network();
    if let Some(why) = &why {
        println!("SKIP: {why}");
    }
    why.is_some()
}

#[test]
fn bytes_cross_a_bad_link_both_ways() {
    if skips() {
        return;
    }
    for seed in 0..3 {
        let ground = TunGround::new();
        let (faults, seed) = bad(seed);
        let link = Faulty::new(ground.link(), faults, seed);
        serving(link, None, |_, at| {
            thread::scope(|scope| {
                for (number, at) in (0..).zip(at.into_iter().cycle().take(6)) {
                    let stream = ground.host.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
                    scope.spawn(move || exchange(stream, number, 60_000));
                }
            });
        });
    }
}

#[test]
fn a_dial_crosses_a_bad_link() {
    if skips() {
        return;
    }
    let ground = TunGround::new();
    let (faults, seed) = bad(7);
    let link = Faulty::new(ground.link(), faults, seed);
    let listener = ground.host.run(|| TcpListener::bind((PEER_V4, 0)).unwrap());
    let to = Addr::Inet(listener.local_addr().unwrap());
    serving(link, Some(to), |waker, _| {
        waker.wake();
        let (stream, _) = listener.accept().unwrap();
        exchange(stream, 3, 60_000);
    });
}

#[test]
fn a_dial_finds_its_neighbour_by_the_kernel() {
    if skips() {
        return;
    }
    let ground = VethGround::new();
    let listener = ground.peer.run(|| TcpListener::bind((PEER_V4, 0)).unwrap());
    let to = Addr::Inet(listener.local_addr().unwrap());
    // The kernel hasn't spoken with the peer yet, so it has to ask for its address first.
    serving(ground.link(None), Some(to), |waker, _| {
        waker.wake();
        let (stream, _) = listener.accept().unwrap();
        exchange(stream, 3, 300_000);
    });
}

/// Lines of tshark's about a capture. Each segment is looked at for itself: one that is sent again with other bounds than before may end
/// tshark's reassembly of the stream, and it calls that malformed. What the streams carry is looked at by [`carries`].
fn dissect(capture: &str, filter: &str, shown: &[&str]) -> String {
    let mut command = Command::new("tshark");
    let settings = ["tcp.check_checksum:TRUE", "ip.check_checksum:TRUE", "tcp.desegment_tcp_streams:FALSE"];
    command.args(["-r", capture, "-Y", filter]).args(settings.iter().flat_map(|setting| ["-o", setting])).args(shown);
    let output = command.stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Whether each segment of a capture, and each that is sent again, has the bytes that its place in [`pattern`] asks for. The streams are in the
/// patterns' order, with a refused dial after each.
fn carries(capture: &str, len: usize) {
    let fields = ["-T", "fields", "-e", "tcp.stream", "-e", "tcp.seq", "-e", "tcp.payload"];
    let mut bytes = 0;
    for line in dissect(capture, "tcp.len > 0", &fields).lines() {
        let [stream, seq, payload] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let from = seq.parse::<usize>().unwrap() - 1;
        let wanted = pattern(stream.parse::<u8>().unwrap() / 2, len);
        let wanted = &wanted[from..from + payload.len() / 2];
        assert!(
            wanted.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == payload,
            "stream {stream} at {seq}"
        );
        bytes += wanted.len();
    }
    assert!(bytes >= 2 * len, "{bytes} bytes are in the capture");
}

#[test]
fn a_capture_has_no_malformed_segment() {
    if skips() {
        return;
    }
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("SKIP: segments aren't dissected: there's no tshark");
        return;
    }
    let ground = VethGround::new();
    let directory = std::env::temp_dir().join(format!("midmile-stack-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let capture = directory.join("capture.pcap");
    let file = capture.to_str().unwrap().to_owned();
    // What arrives at the peer, whose own segments have unfinished checksums when they are captured. A slot of tcpdump's has the size of the
    // largest packet: with the default of 256 KiB there are but a few of them, and packets are missing.
    let mut command = Command::new("tcpdump");
    command
        .args(["-i", "p0", "-Q", "in", "-s", "4096", "-B", "8192", "-U", "--immediate-mode", "-w", &file, "tcp"])
        .stderr(Stdio::piped());
    let mut tcpdump = ground.peer.run(|| command.spawn().unwrap());
    let mut stderr = tcpdump.stderr.take().unwrap();
    let mut said = Vec::new();
    while !said.windows(9).any(|words| words == b"listening") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    let (faults, seed) = (Faults { lost: 10, doubled: 10, late: 30, spoilt: 0 }, 5);
    serving(Faulty::new(ground.link(None), faults, seed), None, |_, at| {
        for (number, at) in (0..).zip(at) {
            let stream = ground.peer.run(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
            exchange(stream, number, 60_000);
            let refused = SocketAddr::new(at.ip(), 7999);
            assert!(ground.peer.run(|| TcpStream::connect_timeout(&refused, PATIENCE).is_err()));
        }
    });
    // tcpdump may be behind on a busy machine, and forgets what it hasn't written when it's told to end.
    let began = Instant::now();
    let mut len = 0;
    while began.elapsed() < PATIENCE && (len == 0 || len < std::fs::metadata(&file).unwrap().len()) {
        len = std::fs::metadata(&file).unwrap().len();
        std::thread::sleep(Duration::from_millis(500));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&tcpdump), rustix::process::Signal::INT).unwrap();
    tcpdump.wait().unwrap();
    let bad = dissect(&file, "_ws.malformed || tcp.checksum.status == \"Bad\" || ip.checksum.status == \"Bad\"", &[]);
    let (all, resets) = (dissect(&file, "tcp", &[]), dissect(&file, "tcp.flags.reset == 1", &[]));
    carries(&file, 60_000);
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(bad, "");
    assert!(all.lines().count() > 30 && !resets.is_empty(), "{} segments", all.lines().count());
}
