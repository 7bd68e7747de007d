//! The user-space stack at the end of a cable: any frames, segments of connections that are nearly right, and any order of what a
//! program does with its sockets, while time passes. Invariants are asserted after each step, and in the end nothing is left.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use midmile_engine::backend::{Backend, Tag};
use midmile_engine::{Addr, LegOptions};
use midmile_stack::cable::{Cable, CableEnd};
use midmile_stack::{Listener, Socket, Stack, StackConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 80;
/// Ports of the peer's.
const PORTS: u16 = 6;
const STEPS_MAX: usize = 200;
/// After so long nothing is left of a connection whose program and peer are gone.
const END: Duration = Duration::from_secs(20 * 60);

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes at all.
    Frame(Vec<u8>),
    /// A segment from one of the peer's ports, so far off the numbers that are expected there.
    Segment {
        port: u8,
        flags: u8,
        seq_off: i8,
        ack_off: i8,
        ack: bool,
        bytes: u8,
        window: u16,
    },
    Accept,
    Dial {
        port: u8,
    },
    Recv {
        socket: u8,
        bytes: u16,
    },
    Peek {
        socket: u8,
        bytes: u16,
    },
    Send {
        socket: u8,
        bytes: u16,
        ahead: bool,
    },
    Push {
        socket: u8,
    },
    Shutdown {
        socket: u8,
    },
    Close {
        socket: u8,
    },
    Reset {
        socket: u8,
    },
    Drop {
        socket: u8,
    },
    Relisten,
    Pass {
        ms: u16,
    },
}

/// What the peer knows of one of its ports: its own next number, and the stack's.
#[derive(Clone, Copy, Default)]
struct Known {
    local: u16,
    next: i32,
    theirs: i32,
}

struct World {
    cable: Cable,
    stack: Stack<CableEnd>,
    listener: Option<Listener>,
    sockets: Vec<Socket>,
    known: [Known; PORTS as usize],
}

fn config() -> StackConfig {
    StackConfig {
        addresses: vec![OURS.into()],
        listen_ports: vec![PORT..=PORT],
        dial_ports: 5000..=5003,
        flows_max: 12,
        half_open_max: 4,
        waits_max: 3,
        receive_bytes: 2048,
        send_bytes: 2048,
        spare_max: 2,
        ..StackConfig::default()
    }
}

impl World {
    fn new() -> Self {
        let cable = Cable::new(Duration::ZERO);
        let [end, _] = cable.ends(600, false, [vec![OURS.into()], vec![PEER.into()]]);
        let stack = Stack::with_seed(end, config(), 1).expect("the configuration is good");
        let known = [Known { local: PORT, next: 1000, theirs: 0 }; PORTS as usize];
        let mut world = Self { cable, stack, listener: None, sockets: Vec::new(), known };
        world.listen();
        world
    }

    fn listen(&mut self) {
        self.listener = None;
        let at = Addr::Inet((OURS, PORT).into());
        let (listener, _) = self.stack.listen(&at, &LegOptions::default(), 2).expect("nobody else listens");
        // It isn't watched: while somebody waits there, no time would pass.
        self.listener = Some(listener);
    }

    /// Lets the stack take what came, and reads what it answers.
    fn turn(&mut self, wait: Duration) {
        let until = self.cable.now().after(wait);
        loop {
            let left = until.since(self.cable.now());
            let events = self.stack.poll(Some(left)).expect("a cable's wait never fails");
            for index in 0..events {
                self.stack.ready(index);
            }
            self.stack.check();
            while let Some(frame) = self.cable.intercept(1) {
                self.learn(&frame);
            }
            if left.is_zero() || !self.cable.advance() {
                return;
            }
        }
    }

    /// What the stack sends is well-formed.
    fn learn(&mut self, frame: &[u8]) {
        let ip = Ipv4Packet::new_checked(frame).expect("a whole packet");
        assert!(ip.verify_checksum());
        let tcp = TcpPacket::new_checked(ip.payload()).expect("a whole segment");
        let ends = (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()));
        let repr = TcpRepr::parse(&tcp, &ends.0, &ends.1, &ChecksumCapabilities::default()).expect("a good segment");
        if let Some(known) = self.known.get_mut(usize::from(repr.dst_port.wrapping_sub(1))) {
            known.local = repr.src_port;
            known.theirs = (repr.seq_number + repr.segment_len()).0;
        }
    }

    fn segment(&mut self, step: &Step) {
        let Step::Segment { port, flags, seq_off, ack_off, ack, bytes, window } = step else { return };
        let port = u16::from(*port) % PORTS;
        let known = &mut self.known[usize::from(port)];
        let control = match flags % 5 {
            0 => TcpControl::Syn,
            1 => TcpControl::Fin,
            2 => TcpControl::Rst,
            _ => TcpControl::None,
        };
        let payload = vec![b'x'; usize::from(*bytes)];
        let tcp = TcpRepr {
            src_port: port + 1,
            dst_port: known.local,
            control,
            seq_number: TcpSeqNumber(known.next.wrapping_add(i32::from(*seq_off))),
            ack_number: ack.then_some(TcpSeqNumber(known.theirs.wrapping_add(i32::from(*ack_off)))),
            window_len: *window,
            window_scale: (control == TcpControl::Syn).then_some(flags >> 5),
            max_seg_size: (control == TcpControl::Syn).then_some(*window),
            sack_permitted: control == TcpControl::Syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &payload,
        };
        if *seq_off == 0 {
            known.next = known.next.wrapping_add(i32::try_from(tcp.segment_len()).expect("a segment is short"));
        }
        let (from, to) = (IpAddress::from(IpAddr::V4(PEER)), IpAddress::from(IpAddr::V4(OURS)));
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let checksums = ChecksumCapabilities::default();
        let mut packet = vec![0; ip.buffer_len()];
        ip.emit(&mut packet, &checksums);
        tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]), &from, &to, &checksums);
        self.cable.inject(0, packet);
    }

    fn take(&mut self, socket: u8) -> Option<Socket> {
        let count = self.sockets.len();
        (count > 0).then(|| self.sockets.swap_remove(usize::from(socket) % count))
    }

    fn with(&mut self, socket: u8, work: impl FnOnce(&mut Stack<CableEnd>, &mut Socket)) {
        let count = self.sockets.len();
        if count > 0 {
            work(&mut self.stack, &mut self.sockets[usize::from(socket) % count]);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Frame(frame) => self.cable.inject(0, frame),
            Step::Segment { .. } => self.segment(&step),
            Step::Accept => {
                if let Some(listener) = &self.listener
                    && let Ok((socket, _)) = self.stack.accept(listener)
                {
                    self.stack.watch(&socket, Tag(1)).expect("it never fails");
                    self.sockets.push(socket);
                }
            }
            Step::Dial { port } => {
                let to = Addr::Inet((PEER, 1 + u16::from(port) % PORTS).into());
                if let Ok((socket, _)) = self.stack.dial(&to, &LegOptions::default()) {
                    self.stack.watch(&socket, Tag(2)).expect("it never fails");
                    self.sockets.push(socket);
                }
            }
            Step::Recv { socket, bytes } => self.with(socket, |stack, socket| {
                stack.recv(socket, &mut vec![0; usize::from(bytes % 4096) + 1]).ok();
            }),
            Step::Peek { socket, bytes } => self.with(socket, |stack, socket| {
                stack.peek(socket, &mut vec![0; usize::from(bytes % 4096) + 1]).ok();
            }),
            Step::Send { socket, bytes, ahead } => self.with(socket, |stack, socket| {
                let bytes = vec![b'y'; usize::from(bytes % 4096) + 1];
                if ahead { stack.send_ahead(socket, &bytes) } else { stack.send(socket, &bytes) }.ok();
            }),
            Step::Push { socket } => self.with(socket, |stack, socket| stack.push(socket)),
            Step::Shutdown { socket } => self.with(socket, |stack, socket| {
                stack.shutdown(socket).ok();
            }),
            Step::Close { socket } => {
                if let Some(socket) = self.take(socket) {
                    self.stack.close(socket);
                }
            }
            Step::Reset { socket } => {
                if let Some(socket) = self.take(socket) {
                    self.stack.reset(socket);
                }
            }
            Step::Drop { socket } => drop(self.take(socket)),
            Step::Relisten => self.listen(),
            Step::Pass { ms } => self.turn(Duration::from_millis(ms.into())),
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut world = World::new();
    for step in steps.into_iter().take(STEPS_MAX) {
        world.step(step);
        world.turn(Duration::ZERO);
    }
    world.sockets.clear();
    world.listener = None;
    world.turn(Duration::ZERO);
    world.turn(END);
    assert_eq!(world.stack.gauges().flows, 0, "a connection outlives its program and its peer");
});
