//! Nothing is allocated for a connection or its messages where its buffers have the usual sizes: not when it begins, nor when it rests
//! and is woken, nor when it ends.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use midmile_engine::backend::{Backend, Progress, Tag};
use midmile_engine::{Addr, ConnError, LegOptions, Time, Waker};
use midmile_stack::link::{Figures, Hop, Link, Receive, Transmit};
use midmile_stack::{Listener, REST_AFTER_MIN, Stack, StackConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 80;
const MTU: usize = 1500;
/// The tags of the listener and of a connection.
const DOOR: Tag = Tag(1);
const CONN: Tag = Tag(2);

/// A frame with memory of its own.
struct Frame {
    bytes: [u8; MTU],
    len: usize,
}

/// A link with room for one frame that comes, and for the last that left.
struct Wire {
    comes: Inward,
    left: Outward,
    now: Time,
}

struct Inward(Frame, bool);
struct Outward(Frame);

impl Receive for Inward {
    fn next_frame(&mut self) -> Option<&[u8]> {
        std::mem::take(&mut self.1).then(|| &self.0.bytes[..self.0.len])
    }
}

impl Transmit for Outward {
    fn has_room(&mut self) -> bool {
        true
    }

    fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.0.len = len;
        fill(&mut self.0.bytes[..len])
    }

    fn flush(&mut self) {}
}

impl Link for Wire {
    type Rx<'a> = &'a mut Inward;
    type Tx<'a> = &'a mut Outward;

    fn figures(&self) -> Figures {
        Figures { mtu: MTU, address: None, verifies: true }
    }

    fn now(&self) -> Time {
        self.now
    }

    fn halves(&mut self) -> (&mut Inward, &mut Outward) {
        (&mut self.comes, &mut self.left)
    }

    fn wait(&mut self, _: Option<Duration>) -> io::Result<bool> {
        Ok(false)
    }

    fn watch_waker(&mut self, _: &Waker) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn next_hop(&mut self, _: IpAddr) -> Result<Hop, ConnError> {
        Err(ConnError::Unreachable)
    }
}

impl Wire {
    fn new() -> Self {
        let frame = || Frame { bytes: [0; MTU], len: 0 };
        Self { comes: Inward(frame(), false), left: Outward(frame()), now: Time::ZERO }
    }

    /// The peer's segment comes next.
    fn say(&mut self, port: u16, control: TcpControl, seq: i32, ack: Option<i32>, payload: &[u8]) {
        let opens = control == TcpControl::Syn;
        let tcp = TcpRepr {
            src_port: port,
            dst_port: PORT,
            control,
            seq_number: TcpSeqNumber(seq),
            ack_number: ack.map(TcpSeqNumber),
            window_len: 60_000,
            window_scale: opens.then_some(7),
            max_seg_size: opens.then_some(1460),
            sack_permitted: opens,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let (from, to) = (IpAddress::from(PEER), IpAddress::from(OURS));
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let (frame, checksums) = (&mut self.comes.0, ChecksumCapabilities::default());
        frame.len = ip.buffer_len();
        let packet = &mut frame.bytes[..frame.len];
        ip.emit(&mut *packet, &checksums);
        tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]), &from, &to, &checksums);
        self.comes.1 = true;
    }

    /// The number behind the last segment that left.
    fn sent_to(&self) -> i32 {
        let ip = Ipv4Packet::new_checked(&self.left.0.bytes[..self.left.0.len]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        (tcp.seq_number() + tcp.segment_len()).0
    }
}

fn turn(stack: &mut Stack<Wire>) -> usize {
    stack.poll(Some(Duration::ZERO)).unwrap() + stack.poll(Some(Duration::ZERO)).unwrap()
}

/// A connection from `port`: it's accepted, asks, rests, asks again, and ends. Answers whether it rested.
fn converse(stack: &mut Stack<Wire>, listener: &Listener, port: u16) -> bool {
    const MESSAGE: &[u8] = &[7; 64];
    let mut theirs = 1000;
    stack.link().say(port, TcpControl::Syn, theirs, None, &[]);
    turn(stack);
    let mut ours = stack.link().sent_to();
    theirs += 1;
    stack.link().say(port, TcpControl::None, theirs, Some(ours), &[]);
    turn(stack);
    let (mut socket, _) = stack.accept(listener).unwrap();
    stack.watch(&socket, CONN).unwrap();
    let (mut buf, mut rested) = ([0; 99], true);
    for _ in 0..2 {
        stack.link().say(port, TcpControl::Psh, theirs, Some(ours), MESSAGE);
        assert!(turn(stack) > 0);
        theirs += 64;
        assert_eq!(stack.recv(&mut socket, &mut buf), Ok(Progress::Moved(64)));
        assert_eq!(stack.send(&mut socket, &buf[..64]), Ok(Progress::Moved(64)));
        turn(stack);
        ours += 64;
        assert_eq!(stack.link().sent_to(), ours);
        stack.link().say(port, TcpControl::None, theirs, Some(ours), &[]);
        turn(stack);
        stack.link().now = stack.link().now.after(REST_AFTER_MIN);
        turn(stack);
        rested &= stack.gauges().resting == 1;
    }
    stack.close(socket);
    turn(stack);
    ours += 1;
    stack.link().say(port, TcpControl::Fin, theirs, Some(ours), &[]);
    turn(stack);
    rested
}

#[test]
fn a_connections_life_allocates_nothing() {
    // Those that are kept, and those whose memory is given back.
    for spare_max in [4, 0] {
        let config = StackConfig {
            addresses: vec![OURS.into()],
            listen_ports: vec![PORT..=PORT],
            flows_max: 16,
            half_open_max: 4,
            waits_max: 16,
            spare_max,
            rest_after: REST_AFTER_MIN,
            ..StackConfig::default()
        };
        let mut stack = Stack::with_seed(Wire::new(), config, 1).unwrap();
        let options = LegOptions::default();
        let (listener, _) = stack.listen(&Addr::Inet((OURS, PORT).into()), &options, 4).unwrap();
        stack.watch_listener(&listener, DOOR).unwrap();
        // What grows once has grown by then.
        assert!(converse(&mut stack, &listener, 1));
        let mut rested = true;
        let counted = allocation_counter::measure(|| {
            for port in 2..12 {
                rested &= converse(&mut stack, &listener, port);
            }
        });
        assert!(rested);
        let gauges = stack.gauges();
        assert_eq!((gauges.flows, gauges.syns, gauges.waits), (0, 11, 11), "{gauges:?}");
        assert_eq!(counted.count_total, 0, "{counted:?}");
    }
}
