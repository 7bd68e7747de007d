//! A peer made by hand, at the other end of a stack's cable: it sends any segment, and sees each that comes.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use midmile_engine::backend::{AcceptError, Backend, Ready, Tag};
use midmile_engine::{Addr, LegOptions};
use midmile_stack::cable::{Cable, CableEnd};
use midmile_stack::{Listener, Socket, Stack, StackConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const PORT: u16 = 80;
pub(crate) const BACKLOG: u32 = 4;
const DOOR: Tag = Tag(1);
/// The peer's first number.
pub(crate) const ISS: i32 = 1000;

/// A segment, as the peer sends or sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seg {
    pub(crate) port: u16,
    pub(crate) control: TcpControl,
    pub(crate) seq: i32,
    pub(crate) ack: Option<i32>,
    pub(crate) bytes: usize,
}

/// A segment from the peer's `port`.
pub(crate) fn seg(port: u16, control: TcpControl, seq: i32, ack: Option<i32>) -> Seg {
    Seg { port, control, seq, ack, bytes: 0 }
}

/// A stack that listens on [`PORT`], and the peer.
pub(crate) struct Table {
    pub(crate) cable: Cable,
    pub(crate) stack: Stack<CableEnd>,
    pub(crate) listener: Option<Listener>,
    pub(crate) events: Vec<Ready>,
    sent: Vec<Seg>,
}

pub(crate) fn config() -> StackConfig {
    StackConfig {
        addresses: vec![OURS.into()],
        listen_ports: vec![PORT..=PORT],
        dial_ports: 5000..=5009,
        flows_max: 32,
        half_open_max: 8,
        waits_max: 4,
        receive_bytes: 4096,
        send_bytes: 4096,
        ..StackConfig::default()
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        let cable = Cable::new(Duration::ZERO);
        let [end, _] = cable.ends(1500, false, [vec![OURS.into()], vec![PEER.into()]]);
        let mut stack = Stack::with_seed(end, config(), 1).unwrap();
        let at = Addr::Inet((OURS, PORT).into());
        let options = LegOptions { keepalive: None, ..LegOptions::default() };
        let (listener, _) = stack.listen(&at, &options, BACKLOG).unwrap();
        stack.watch_listener(&listener, DOOR).unwrap();
        Self { cable, stack, listener: Some(listener), events: Vec::new(), sent: Vec::new() }
    }

    /// Two turns of the stack, in which it takes what was sent and answers.
    pub(crate) fn turn(&mut self) {
        for _ in 0..2 {
            let count = self.stack.poll(Some(Duration::ZERO)).unwrap();
            self.events.extend((0..count).map(|index| self.stack.ready(index)));
            self.stack.check();
        }
    }

    /// Lets time pass, with what is due in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.cable.now().after(time);
        while self.cable.now() < until {
            let count = self.stack.poll(Some(until.since(self.cable.now()))).unwrap();
            self.events.extend((0..count).map(|index| self.stack.ready(index)));
            self.stack.check();
            self.take();
            assert!(self.cable.advance());
        }
        self.turn();
    }

    pub(crate) fn accept(&mut self) -> Result<(Socket, Option<Addr>), AcceptError> {
        self.stack.accept(self.listener.as_ref().unwrap())
    }

    pub(crate) fn send_from(&mut self, from: IpAddr, segment: Seg) {
        self.cable.inject(0, emit(from, PORT, segment));
        self.turn();
    }

    /// The peer refuses a dial from our `port`, whose SYN ended at `end`.
    pub(crate) fn refuse(&mut self, port: u16, end: i32) {
        let segment = seg(PORT, TcpControl::Rst, 0, Some(end));
        self.cable.inject(0, emit(PEER.into(), port, segment));
        self.turn();
    }

    /// The peer sends a segment; what the stack answers.
    pub(crate) fn send(&mut self, segment: Seg) -> Vec<Seg> {
        self.send_from(PEER.into(), segment);
        self.seen()
    }

    /// What the stack has sent since the last look.
    pub(crate) fn seen(&mut self) -> Vec<Seg> {
        self.take();
        std::mem::take(&mut self.sent)
    }

    fn take(&mut self) {
        let cable = &self.cable;
        self.sent.extend(std::iter::from_fn(|| cable.intercept(1)).map(|frame| parse(&frame)));
    }

    /// The peer begins a connection; the stack's first number.
    pub(crate) fn syn(&mut self, port: u16) -> i32 {
        let answer = self.send(seg(port, TcpControl::Syn, ISS, None));
        assert!(matches!(answer[..], [Seg { control: TcpControl::Syn, ack: Some(1001), .. }]), "{answer:?}");
        answer[0].seq
    }

    /// The peer makes a connection, which the stack accepts; the stack's next number.
    pub(crate) fn connect(&mut self, port: u16) -> (Socket, i32) {
        let iss = self.syn(port);
        assert_eq!(self.send(seg(port, TcpControl::None, ISS + 1, Some(iss + 1))), []);
        let (socket, peer) = self.accept().unwrap();
        assert_eq!(peer, Some(Addr::Inet((PEER, port).into())));
        (socket, iss + 1)
    }
}

fn emit(from: IpAddr, port: u16, segment: Seg) -> Vec<u8> {
    let payload = vec![b'x'; segment.bytes];
    let tcp = TcpRepr {
        src_port: segment.port,
        dst_port: port,
        control: segment.control,
        seq_number: TcpSeqNumber(segment.seq),
        ack_number: segment.ack.map(TcpSeqNumber),
        window_len: 60_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &payload,
    };
    let (from, to) = (IpAddress::from(from), IpAddress::from(OURS));
    let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let checksums = ChecksumCapabilities::default();
    let mut packet = vec![0; ip.buffer_len()];
    ip.emit(&mut packet, &checksums);
    tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]), &from, &to, &checksums);
    packet
}

fn parse(packet: &[u8]) -> Seg {
    let ip = Ipv4Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum());
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let ends = (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()));
    let repr = TcpRepr::parse(&tcp, &ends.0, &ends.1, &ChecksumCapabilities::default()).unwrap();
    let control = if repr.control == TcpControl::Psh { TcpControl::None } else { repr.control };
    let bytes = repr.payload.len();
    Seg { port: repr.dst_port, control, seq: repr.seq_number.0, ack: repr.ack_number.map(|ack| ack.0), bytes }
}
