//! A socket that was made again is what it was.

use std::net::SocketAddr;

use midmile_engine::LegOptions;
use midmile_engine::backend::{Progress, Tag};

use super::*;
use crate::config::{REST_AFTER_MIN, StackConfig};
use crate::link::{ETHERNET_BYTES, Figures, LinkAddress};
use crate::net::{Accepted, packet};

mod crowd;
mod keepalive;
mod strangers;

/// How long connections of these tests are silent before they rest.
const REST_AFTER: Duration = REST_AFTER_MIN;
/// The stack's Ethernet address, and the peer's.
const OURS: LinkAddress = [2, 0, 0, 0, 0, 1];
const THEIRS: LinkAddress = [2, 0, 0, 0, 0, 2];

/// A link that keeps what leaves.
#[derive(Default)]
struct Kept(Vec<Vec<u8>>);

impl Transmit for Kept {
    fn has_room(&mut self) -> bool {
        true
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.0.push(vec![0; len]);
        fill(self.0.last_mut().unwrap())
    }

    fn flush(&mut self) {}
}

impl Kept {
    /// What has left, and to which neighbour.
    fn take(&mut self) -> Vec<(LinkAddress, Segment)> {
        let frames = std::mem::take(&mut self.0);
        let read = |frame: &Vec<u8>| {
            let (from, packet) = packet::unwrap(frame).unwrap();
            assert_eq!(from, OURS);
            (frame[..6].try_into().unwrap(), packet::parse(packet).unwrap())
        };
        frames.iter().map(read).collect()
    }
}

/// A stack for `flows` connections of `ends`.
fn net(ends: [SocketAddr; 2], flows: u32) -> Net {
    let config = StackConfig {
        addresses: vec![ends[1].ip()],
        listen_ports: vec![80..=80],
        flows_max: flows,
        half_open_max: 4,
        receive_bytes: 200_000,
        spare_max: 0,
        rest_after: REST_AFTER,
        ..StackConfig::default()
    };
    let figures = Figures { mtu: 1500, address: Some(OURS), verifies: true };
    let net = Net::new(config, figures, Some(1));
    assert!(net.rests, "smoltcp draws its numbers as it's expected to");
    net
}

fn ends(v4: bool) -> [SocketAddr; 2] {
    let ends = if v4 { ["10.9.0.2:7", "10.9.0.1:80"] } else { ["[fd09::2]:7", "[fd09::1]:80"] };
    ends.map(|end| end.parse().unwrap())
}

/// A segment of the peer's, its numbers, and what it says of itself if it begins the connection.
#[derive(Clone, Copy)]
struct Said<'a> {
    control: TcpControl,
    seq: u32,
    ack: Option<u32>,
    hello: Option<Hello>,
    window: u16,
    payload: &'a [u8],
}

/// Nothing.
const SAID: Said<'static> =
    Said { control: TcpControl::None, seq: 0, ack: None, hello: None, window: 5000, payload: &[] };

impl Said<'_> {
    /// The frame, as `from` sends it.
    fn frame(&self, ends: [SocketAddr; 2], from: LinkAddress) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: ends[0].port(),
            dst_port: ends[1].port(),
            control: self.control,
            seq_number: TcpSeqNumber(self.seq.cast_signed()),
            ack_number: self.ack.map(|ack| TcpSeqNumber(ack.cast_signed())),
            window_len: self.window,
            window_scale: self.hello.and_then(|hello| hello.scale),
            max_seg_size: self.hello.and_then(|hello| hello.mss),
            sack_permitted: self.hello.is_some_and(|hello| hello.sack),
            sack_ranges: [None; 3],
            timestamp: None,
            payload: self.payload,
        };
        let [peer, local] = ends.map(|end| IpAddress::from(end.ip()));
        let ip = IpRepr::new(peer, local, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut frame = packet::wrap(OURS, from, ends[1].is_ipv4()).to_vec();
        frame.resize(ETHERNET_BYTES + ip.buffer_len(), 0);
        let packet = &mut frame[ETHERNET_BYTES..];
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        let room = &mut packet[ip.header_len()..];
        tcp.emit(&mut TcpPacket::new_unchecked(room), &peer, &local, &ChecksumCapabilities::default());
        frame
    }
}

/// A stack, a connection that its peer has begun, and the peer's and our next numbers.
struct World {
    net: Net,
    link: Kept,
    key: Key,
    ends: [SocketAddr; 2],
    theirs: u32,
    ours: u32,
}

impl World {
    fn new(v4: bool, hello: Hello, options: &LegOptions) -> Self {
        let ends = ends(v4);
        let mut net = net(ends, 4);
        let (door, _) = net.listen(ends[1], options, 4).unwrap();
        // Their numbers are about to begin anew.
        let mut world = Self { net, link: Kept::default(), key: Key::NONE, ends, theirs: u32::MAX - 2, ours: 0 };
        let answers = world.hears(TcpControl::Syn, Some(hello), &[]);
        world.ours = answers[0].seq.wrapping_add(1);
        world.theirs = u32::MAX - 1;
        world.hears(TcpControl::None, None, &[]);
        let Accepted::One(key, _) = world.net.accept(door) else { panic!("it stands") };
        world.key = key;
        world
    }

    /// The peer says something; what is answered.
    fn hears(&mut self, control: TcpControl, hello: Option<Hello>, payload: &[u8]) -> Vec<Segment> {
        let said = Said { control, hello, payload, ..self.next() };
        self.takes(&said.frame(self.ends, THEIRS));
        self.theirs = self.theirs.wrapping_add(u32::try_from(payload.len()).unwrap());
        self.settles()
    }

    /// The peer's next segment, if it has nothing to say.
    fn next(&self) -> Said<'static> {
        let known = (self.key != Key::NONE || self.ours != 0).then_some(self.ours);
        Said { seq: self.theirs, ack: known, ..SAID }
    }

    fn takes(&mut self, frame: &[u8]) {
        self.net.handle_frame(frame, &mut self.link);
    }

    /// Sends what there is; what left.
    fn settles(&mut self) -> Vec<Segment> {
        self.net.settle(&mut self.link);
        self.net.gather();
        self.net.check();
        let sent = self.link.take();
        assert!(sent.iter().all(|(to, _)| *to == THEIRS), "it goes to the peer alone: {sent:?}");
        sent.into_iter().map(|(_, segment)| segment).collect()
    }

    fn passes(&mut self, time: Duration) -> Vec<Segment> {
        self.net.now = self.net.now.after(time);
        self.net.handle_timers();
        self.settles()
    }

    fn rests(&self) -> bool {
        self.net.flows.get(self.key).unwrap().rest().is_some()
    }

    /// What its socket says of itself.
    fn socket(&mut self) -> Vec<String> {
        const FIELDS: [&str; 18] = [
            "state",
            "rx_fin_received",
            "timeout",
            "hop_limit",
            "local",
            "remote",
            "local_seq_no",
            "remote_seq_no",
            "remote_last_seq",
            "remote_last_ack",
            "remote_win_shift",
            "remote_win_scale",
            "remote_has_sack",
            "remote_mss",
            "ack_delay",
            "nagle",
            "tsval_generator",
            "last_remote_tsval",
        ];
        let told = format!("{:?}", self.net.flows.get(self.key).unwrap().tcp().unwrap());
        let field = |name: &&str| {
            let at = told.find(&format!(" {name}: ")).unwrap_or_else(|| panic!("no {name} in {told}"));
            told[at..].chars().take(60).collect::<String>().split(", ").next().map(str::to_owned)
        };
        FIELDS.iter().map(|name| field(name).unwrap()).collect()
    }
}

fn hellos() -> [Hello; 3] {
    let bare = Hello { mss: None, scale: None, sack: false };
    [
        bare,
        Hello { mss: Some(1000), scale: Some(0), sack: true },
        Hello { mss: Some(1400), scale: Some(14), sack: false },
    ]
}

#[test]
fn a_socket_made_again_is_as_it_was() {
    for (hello, v4) in hellos().into_iter().flat_map(|hello| [(hello, true), (hello, false)]) {
        let options = LegOptions { keepalive: None, nodelay: v4, ..LegOptions::default() };
        let mut world = World::new(v4, hello, &options);
        let acknowledged = world.hears(TcpControl::Psh, None, b"hello, stack");
        let mut buf = [0; 99];
        world.net.recv(world.key, &mut buf).unwrap();
        world.net.send(world.key, b"hello, peer", false).unwrap();
        let said = [acknowledged, world.settles()].concat();
        assert_eq!(said.last().map(|said| (said.payload, said.ack)), Some((11, world.theirs)));
        world.ours = world.ours.wrapping_add(11);
        world.hears(TcpControl::None, None, &[]);
        let before = world.socket();
        assert!(!world.rests());
        assert_eq!(world.passes(REST_AFTER), []);
        assert!(world.rests());
        assert_eq!(world.net.gauges().resting, 1);
        world.net.awake(world.key);
        assert!(!world.rests());
        assert_eq!(world.socket(), before, "{hello:?}");
        assert_eq!(world.settles(), [], "nobody else sees it");
        assert!(world.rests(), "nothing has come meanwhile");
    }
}

/// A connection at rest, and what its memory is for: keepalive after a minute, as legs have it.
fn at_rest() -> World {
    let mut world = World::new(true, hellos()[1], &LegOptions::default());
    world.net.watch(world.key, Tag(1));
    world.settles();
    assert_eq!(world.passes(REST_AFTER), []);
    assert!(world.rests());
    world
}

#[test]
fn what_comes_and_what_is_sent_wakes_it() {
    let mut world = at_rest();
    world.hears(TcpControl::Psh, None, b"who's there");
    assert!(!world.rests());
    let mut buf = [0; 99];
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Moved(11)));
    assert_eq!(&buf[..11], b"who's there");
    assert_eq!(world.passes(Duration::from_millis(10)).last().map(|said| said.ack), Some(world.theirs));
    world.passes(REST_AFTER);
    assert!(world.rests());
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Blocked), "that doesn't wake it");
    assert!(world.rests());
    let long = vec![7; 9000];
    assert_eq!(world.net.send(world.key, &long, false), Ok(Progress::Moved(9000)));
    let said = world.settles();
    let bytes: u32 = said.iter().map(|said| said.payload).sum();
    assert!(said[0].seq == world.ours && bytes > 0 && bytes <= u32::from(WINDOW_MIN), "{said:?}");
    assert_eq!(world.passes(REST_AFTER)[0].seq, world.ours, "unanswered, it's sent again");
    assert!(!world.rests());
}

#[test]
fn it_ends_as_any_other() {
    let mut world = at_rest();
    world.hears(TcpControl::Fin, None, b"bye");
    let mut buf = [0; 99];
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Moved(3)));
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Ended));
    let mut world = at_rest();
    world.hears(TcpControl::Rst, None, &[]);
    assert_eq!(world.net.take_error(world.key), Some(ConnError::Reset));
    let closers: [fn(&mut Net, Key); 3] = [Net::close, Net::reset, |net, key| net.shutdown(key).unwrap()];
    for close in closers {
        let mut world = at_rest();
        close(&mut world.net, world.key);
        let said = world.settles();
        assert!(said.len() == 1 && (said[0].flags.fin() || said[0].flags.rst()), "{said:?}");
        assert_eq!((said[0].seq, said[0].ack), (world.ours, world.theirs));
    }
}

#[test]
fn whoever_has_something_left_to_do_does_not_rest() {
    let mut world = at_rest();
    world.hears(TcpControl::Psh, None, b"unread");
    world.passes(3 * REST_AFTER);
    assert!(!world.rests(), "unread");
    let mut world = at_rest();
    world.net.send(world.key, b"unacknowledged", false).unwrap();
    world.passes(REST_AFTER);
    world.passes(3 * REST_AFTER);
    assert!(!world.rests(), "unacknowledged");
    let mut world = at_rest();
    // A hole: what is behind it was acknowledged, and is kept for when it's filled.
    world.theirs = world.theirs.wrapping_add(9);
    world.hears(TcpControl::Psh, None, b"ahead");
    world.passes(REST_AFTER);
    world.passes(3 * REST_AFTER);
    assert!(!world.rests(), "a hole");
    world.theirs = world.theirs.wrapping_sub(14);
    world.hears(TcpControl::Psh, None, b"ninebytes");
    let mut buf = [0; 99];
    assert_eq!(world.net.recv(world.key, &mut buf), Ok(Progress::Moved(14)));
    world.theirs = world.theirs.wrapping_add(5);
    world.passes(Duration::from_millis(10));
    world.passes(REST_AFTER);
    assert!(world.rests());
}
