//! Datagrams on the kernel's sockets, over loopback: what is sent is what comes, whatever the batches it travels in.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use midmile_engine::datagram::{DATAGRAM_BYTES_MAX, TURN_DATAGRAMS};
use midmile_engine::kernel::{self, Kernel};
use midmile_engine::sim::Rng;
use midmile_engine::uring::{Uring, UringConfig};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, DatagramId, DatagramOptions, Flow, Handler, Incoming,
    LegOptions, ListenerId, MeterId, SendToError,
};

const SMALL: Config = Config { conns_max: 4, blocks: 4, pipes_max: 4, loop_bytes: 1024 * 1024, ..Config::DEFAULT };

/// Datagrams that stop an [`Echo`].
const STOP: &[u8] = b"stop";

/// Sends each datagram back to where it came from.
#[derive(Default)]
struct Echo {
    heard: usize,
    refused: usize,
    writable: usize,
    /// Bytes of connections, echoed too, and the datagrams heard by then.
    stream: Vec<usize>,
}

impl<B: Backend> Handler<B> for Echo {
    fn on_accept(&mut self, cx: &mut Cx<B>, _listener: ListenerId, incoming: Incoming<B::Socket>) {
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().unwrap();
        cx.read(conn);
    }

    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64, bytes: &[u8]) -> usize {
        self.stream.push(self.heard);
        cx.send(conn, bytes)
    }

    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _token: u64) {
        cx.close(conn);
        cx.stop();
    }

    fn on_error(&mut self, _cx: &mut Cx<B>, _conn: ConnId, _token: u64, _error: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.heard += 1;
        if bytes == STOP {
            cx.stop();
        }
        match cx.send_to(socket, flow, bytes) {
            Ok(()) => {}
            Err(SendToError::Full) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn on_datagrams_writable(&mut self, _cx: &mut Cx<B>, _socket: DatagramId) {
        self.writable += 1;
    }
}

fn core(at: &str, options: DatagramOptions) -> (Core<Kernel, Echo>, DatagramId, SocketAddr) {
    let mut core = Core::new(Kernel::new().unwrap(), SMALL, Echo::default());
    let cx = core.parts().1;
    let socket = cx.bind(at.parse().unwrap(), &options).unwrap();
    let at = cx.datagram_addr(socket).unwrap();
    (core, socket, at)
}

/// A plain socket with room for a batch of the longest.
fn plain(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20).ok();
    socket
}

/// Says and hears back in bursts, then stops the core; how many were said.
fn converse(client: &UdpSocket, at: SocketAddr) -> usize {
    let mut rng = Rng::new(7);
    let mut sent = 0;
    for round in 0..60 {
        // Small ones in bursts, and all lengths that there are alone.
        let small = round % 2 == 0;
        let (burst, most) = if small { (1 + rng.up_to(30), 1500) } else { (1, DATAGRAM_BYTES_MAX) };
        let equal = rng.one_in(2).then(|| rng.up_to(most));
        let said: Vec<Vec<u8>> = (0..burst)
            .map(|_| {
                let len = equal.unwrap_or_else(|| rng.up_to(most));
                (0..len).map(|_| rng.number().to_le_bytes()[0]).collect()
            })
            .collect();
        for bytes in &said {
            client.send_to(bytes, at).unwrap();
        }
        for bytes in &said {
            let mut heard = vec![0; 1 << 16];
            let (len, from) = client.recv_from(&mut heard).unwrap();
            assert!(heard[..len] == bytes[..], "round {round}: {len} of {} bytes came back", bytes.len());
            assert_eq!(from, at);
        }
        sent += burst;
    }
    client.send_to(STOP, at).unwrap();
    sent + 1
}

fn random_datagrams_come_back(at: &str, options: DatagramOptions) {
    let (mut core, socket, at) = core(at, options);
    let client = plain(if at.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
    let conversing = thread::spawn(move || converse(&client, at));
    core.run().unwrap();
    let sent = conversing.join().unwrap();
    let counts = core.parts().1.datagram_counts(socket);
    assert_eq!((core.parts().0.heard, core.parts().0.writable), (sent, 0));
    assert_eq!((counts.received, counts.sent), (sent as u64, sent as u64));
    assert_eq!((counts.truncated, counts.failed, counts.exhausted, counts.refused), (0, 0, 0, 0));
}

#[test]
fn datagrams_of_all_lengths_come_back() {
    random_datagrams_come_back("127.0.0.1:0", DatagramOptions::default());
}

#[test]
fn datagrams_of_all_lengths_come_back_one_by_one() {
    let options = DatagramOptions { coalesce: false, ..DatagramOptions::default() };
    random_datagrams_come_back("127.0.0.1:0", options);
}

/// Whether there's IPv6 here; says so if not.
fn has_ipv6() -> bool {
    let found = UdpSocket::bind("[::1]:0").is_ok();
    if !found {
        println!("SKIP: IPv6 isn't tried: there's no ::1");
    }
    found
}

#[test]
fn datagrams_of_all_lengths_come_back_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    random_datagrams_come_back("[::1]:0", DatagramOptions::default());
}

/// Sends a series of datagrams to another socket of the same core, which checks it.
struct Series {
    ends: Option<(DatagramId, SocketAddr)>,
    lengths: Vec<usize>,
    heard: usize,
}

fn datagram(index: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((index * 7 + at) % 251).unwrap()).collect()
}

impl<B: Backend> Handler<B> for Series {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_alarm(&mut self, cx: &mut Cx<B>) {
        let (from, to) = self.ends.unwrap();
        for (index, len) in self.lengths.iter().enumerate() {
            cx.send_to(from, Flow::to(to), &datagram(index, *len)).unwrap();
        }
    }

    fn on_datagram(&mut self, cx: &mut Cx<B>, _socket: DatagramId, _flow: Flow, bytes: &[u8]) {
        assert!(bytes == datagram(self.heard, self.lengths[self.heard]), "datagram {} differs", self.heard);
        self.heard += 1;
        if self.heard == self.lengths.len() {
            cx.stop();
        }
    }
}

/// What is sent stays within what a socket's queue holds, so all of it has to come.
fn a_series_arrives(lengths: Vec<usize>, coalesced: [bool; 2]) {
    let total = lengths.len() as u64;
    let mut core = Core::new(Kernel::new().unwrap(), SMALL, Series { ends: None, lengths, heard: 0 });
    let (series, cx) = core.parts();
    let [from, far] = coalesced.map(|coalesce| {
        let options = DatagramOptions { coalesce, ..DatagramOptions::default() };
        cx.bind("127.0.0.1:0".parse().unwrap(), &options).unwrap()
    });
    series.ends = Some((from, cx.datagram_addr(far).unwrap()));
    cx.set_alarm(Duration::ZERO);
    core.run().unwrap();
    let cx = core.parts().1;
    assert_eq!((cx.datagram_counts(from).sent, cx.datagram_counts(far).received), (total, total));
}

#[test]
fn pieces_are_cut_up_and_put_together_to_the_byte() {
    for coalesced in [[true, true], [true, false], [false, true], [false, false]] {
        a_series_arrives(vec![1200; 60], coalesced);
        a_series_arrives([vec![1200; 30], vec![7; 3], vec![], vec![0, 0, 1400, 1400, 1]].concat(), coalesced);
        a_series_arrives(vec![1; 100], coalesced);
        a_series_arrives(vec![30_000, 30_000, 5_000], coalesced);
    }
}

#[test]
fn answers_of_a_wildcard_socket_come_from_the_address_that_was_asked() {
    let v6 = has_ipv6();
    for (at, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.3")] {
        if at.starts_with('[') && !v6 {
            continue;
        }
        let (mut core, _, at) = core(at, DatagramOptions::default());
        let asked: IpAddr = asked.parse().unwrap();
        let client = plain(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
        // What comes from elsewhere isn't heard.
        client.connect((asked, at.port())).unwrap();
        client.send(STOP).unwrap();
        core.run().unwrap();
        let mut heard = [0; 16];
        let len = client.recv(&mut heard).unwrap();
        assert_eq!(&heard[..len], STOP);
    }
}

#[test]
fn a_flood_is_told_in_turns_between_which_connections_have_theirs() {
    const FLOOD: usize = 500;
    let options = DatagramOptions { recv_buffer: Some(212_992), ..DatagramOptions::default() };
    let (mut core, socket, at) = core("127.0.0.1:0", options);
    let listen_at = Addr::Inet(([127, 0, 0, 1], 0).into());
    let (mut listeners, listen_at) = kernel::listen(&listen_at, &LegOptions::default(), &[0], false).unwrap();
    core.parts().1.listen(listeners.remove(0)).unwrap();
    let client = plain("127.0.0.1:0");
    for _ in 0..FLOOD {
        client.send_to(&[1], at).unwrap();
    }
    let mut stream = TcpStream::connect(listen_at.inet().unwrap()).unwrap();
    core.turn().unwrap();
    let first = core.parts().0.heard;
    assert!((TURN_DATAGRAMS..FLOOD).contains(&first), "{first} in one turn");
    stream.write_all(b"y").unwrap();
    core.turn().unwrap();
    assert_eq!(core.parts().0.stream.last(), Some(&first), "the connection waited for the flood");
    while core.parts().0.heard < FLOOD {
        core.turn().unwrap();
    }
    assert_eq!(core.parts().1.datagram_counts(socket).received, FLOOD as u64);
}

#[test]
fn what_cannot_be_sent_is_refused_or_counted_and_the_rest_goes() {
    let (mut core, socket, _) = core("127.0.0.1:0", DatagramOptions::default());
    let client = plain("127.0.0.1:0");
    let cx = core.parts().1;
    let here = Flow::to(client.local_addr().unwrap());
    let too_long = vec![0; DATAGRAM_BYTES_MAX + 1];
    assert_eq!(cx.send_to(socket, here, &too_long), Err(SendToError::TooLong));
    // The kernel forbids the second (SO_BROADCAST), and has no such local address for the fourth.
    let nowhere = Flow::to("255.255.255.255:9".parse().unwrap());
    let gone = Flow { local: Some("192.0.2.1".parse().unwrap()), ..here };
    for (flow, bytes) in [(here, b"1"), (nowhere, b"2"), (here, b"3"), (gone, b"4"), (gone, b"5"), (here, b"6")] {
        cx.send_to(socket, flow, bytes).unwrap();
    }
    cx.set_alarm(Duration::ZERO);
    core.turn().unwrap();
    let cx = core.parts().1;
    let counts = cx.datagram_counts(socket);
    assert_eq!((counts.sent, counts.failed, counts.refused), (3, 3, 0));
    for expected in [b"1", b"3", b"6"] {
        let mut heard = [0];
        client.recv(&mut heard).unwrap();
        assert_eq!(&heard, expected);
    }
    cx.unbind(socket);
    assert_eq!(cx.send_to(socket, here, b"x"), Err(SendToError::Gone));
    assert_eq!(cx.datagram_addr(socket), None);
}

#[test]
fn an_outbox_bounds_what_one_datagram_may_be() {
    let options = DatagramOptions { outbox_bytes: 100, ..DatagramOptions::default() };
    let (mut core, socket, at) = core("127.0.0.1:0", options);
    let cx = core.parts().1;
    assert_eq!(cx.send_to(socket, Flow::to(at), &[0; 101]), Err(SendToError::TooLong));
    assert_eq!(cx.send_to(socket, Flow::to(at), &[0; 100]), Ok(()));
    // It goes out to make room.
    assert_eq!(cx.send_to(socket, Flow::to(at), &[0; 100]), Ok(()));
    assert_eq!(cx.datagram_counts(socket).sent, 1);
}

/// Lets its socket go with the first datagram.
struct OnlyOne(usize);

impl<B: Backend> Handler<B> for OnlyOne {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.0 += 1;
        cx.send_to(socket, flow, bytes).unwrap();
        cx.unbind(socket);
    }
}

#[test]
fn nothing_is_told_of_a_socket_that_was_let_go_and_what_it_sent_goes_out() {
    let mut core = Core::new(Kernel::new().unwrap(), SMALL, OnlyOne(0));
    let cx = core.parts().1;
    let socket = cx.bind("127.0.0.1:0".parse().unwrap(), &DatagramOptions::default()).unwrap();
    let at = cx.datagram_addr(socket).unwrap();
    let client = plain("127.0.0.1:0");
    for byte in 0..5 {
        client.send_to(&[byte], at).unwrap();
    }
    core.turn().unwrap();
    assert_eq!(core.parts().0.0, 1);
    let mut heard = [9];
    client.recv(&mut heard).unwrap();
    assert_eq!(heard, [0]);
    // The address is free again.
    core.parts().1.bind(at, &DatagramOptions::default()).unwrap();
}

#[test]
fn an_address_in_use_is_an_error_unless_it_is_shared() {
    let (mut core, _, at) = core("127.0.0.1:0", DatagramOptions::default());
    let again = core.parts().1.bind(at, &DatagramOptions::default());
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let shared = DatagramOptions { shared: true, ..DatagramOptions::default() };
    let cx = core.parts().1;
    let one = cx.bind("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
    let at = cx.datagram_addr(one).unwrap();
    assert_ne!(cx.bind(at, &shared).unwrap(), one);
}

/// Panics over the first datagram, and answers the others.
struct FirstPanics(bool);

impl<B: Backend> Handler<B> for FirstPanics {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        assert!(std::mem::replace(&mut self.0, true), "a fault in on_datagram");
        cx.send_to(socket, flow, bytes).unwrap();
    }
}

fn loses_only_the_datagram_it_panicked_over(backend: impl Backend) {
    let mut core = Core::new(backend, SMALL, FirstPanics(false));
    let cx = core.parts().1;
    let socket = cx.bind("127.0.0.1:0".parse().unwrap(), &DatagramOptions::default()).unwrap();
    let at = cx.datagram_addr(socket).unwrap();
    let client = plain("127.0.0.1:0");
    for byte in 0..3 {
        client.send_to(&[byte], at).unwrap();
    }
    while !core.parts().0.0 || core.parts().1.datagram_counts(socket).sent < 2 {
        core.turn().unwrap();
    }
    let mut heard = [9];
    for byte in 1..3 {
        client.recv(&mut heard).unwrap();
        assert_eq!(heard, [byte]);
    }
    assert_eq!(core.parts().1.gauges().panics, 1);
}

#[test]
fn a_program_loses_only_the_datagram_that_it_panicked_over() {
    loses_only_the_datagram_it_panicked_over(Kernel::new().unwrap());
    match Uring::new(UringConfig::default()) {
        Ok(uring) => loses_only_the_datagram_it_panicked_over(uring),
        Err(error) => println!("SKIP: datagrams aren't tried by io_uring: {error}"),
    }
}
