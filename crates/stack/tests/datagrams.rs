//! Datagrams of two stacks at the ends of a cable, with the engine above each.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use midmile_engine::{Backend, Config, ConnError, ConnId, Core, Cx, DatagramId, DatagramOptions, Flow, Handler};
use midmile_stack::cable::{Cable, CableEnd};
use midmile_stack::{Stack, StackConfig};

const MTU: usize = 1500;

/// Keeps what comes, and sends it back if it's to.
#[derive(Default)]
struct Keeper {
    echoes: bool,
    came: Vec<(Flow, Vec<u8>)>,
}

impl<B: Backend> Handler<B> for Keeper {
    fn on_data(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_peer_close(&mut self, _: &mut Cx<B>, _: ConnId, _: u64) {}
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}

    fn on_datagram(&mut self, cx: &mut Cx<B>, socket: DatagramId, flow: Flow, bytes: &[u8]) {
        self.came.push((flow, bytes.to_vec()));
        if self.echoes {
            cx.send_to(socket, flow, bytes).unwrap();
        }
    }
}

type End = Core<Stack<CableEnd>, Keeper>;

struct Ground {
    cable: Cable,
    ends: [End; 2],
    v4: bool,
}

fn addresses(side: u8, v4: bool) -> Vec<IpAddr> {
    let text = if v4 { format!("10.9.0.{}", side + 1) } else { format!("fd09::{}", side + 1) };
    vec![text.parse().unwrap()]
}

impl Ground {
    fn new(v4: bool) -> Self {
        let cable = Cable::new(Duration::from_millis(1));
        let links = cable.ends(MTU, true, [addresses(0, v4), addresses(1, v4)]);
        let mut side = 0;
        let ends = links.map(|link| {
            let config = StackConfig {
                addresses: addresses(side, v4),
                datagram_ports: vec![50..=59],
                flows_max: 4,
                half_open_max: 2,
                waits_max: 2,
                ..StackConfig::default()
            };
            side += 1;
            let stack = Stack::with_seed(link, config, 7).unwrap();
            let program = Keeper { echoes: side == 2, came: Vec::new() };
            Core::new(stack, Config { conns_max: 4, catch_panics: false, ..Config::default() }, program)
        });
        Self { cable, ends, v4 }
    }

    /// Binds a socket at each end: any port at the first, port 53 at all addresses of the second.
    fn bind(&mut self, options: &DatagramOptions) -> (DatagramId, DatagramId, SocketAddr) {
        let at = addresses(0, self.is_v4())[0];
        let near = self.ends[0].parts().1.bind(SocketAddr::new(at, 0), options).unwrap();
        let to = addresses(1, self.is_v4())[0];
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let far = self.ends[1].parts().1.bind(SocketAddr::new(any, 53), options).unwrap();
        (near, far, SocketAddr::new(to, 53))
    }

    const fn is_v4(&self) -> bool {
        self.v4
    }

    /// Goes on until nothing is on its way.
    fn settle(&mut self) {
        loop {
            for end in &mut self.ends {
                end.turn().unwrap();
                end.parts().1.check();
            }
            if !self.cable.advance() {
                return;
            }
        }
    }
}

#[test]
fn datagrams_of_all_lengths_that_fit_come_back() {
    for (v4, most) in [(true, MTU - 28), (false, MTU - 48)] {
        let mut ground = Ground::new(v4);
        let (near, far, to) = ground.bind(&DatagramOptions::default());
        let mut said = Vec::new();
        for len in (0..=most).step_by(23).chain([most]) {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at + len) % 251).unwrap()).collect();
            ground.ends[0].parts().1.send_to(near, Flow::to(to), &bytes).unwrap();
            said.push(bytes);
            ground.settle();
        }
        let came = std::mem::take(&mut ground.ends[0].parts().0.came);
        assert!(came.iter().all(|(flow, _)| flow.peer == to), "an answer came from elsewhere");
        assert!(came.into_iter().map(|(_, bytes)| bytes).eq(said));
        let counts = ground.ends[1].parts().1.datagram_counts(far);
        assert_eq!((counts.received, counts.failed, counts.refused), (counts.sent, 0, 0));
        // One byte more is one too many.
        ground.ends[0].parts().1.send_to(near, Flow::to(to), &vec![0; most + 1]).unwrap();
        ground.settle();
        assert_eq!(ground.ends[0].parts().1.datagram_counts(near).failed, 1);
    }
}

#[test]
fn a_full_queue_drops_what_comes_and_counts_it() {
    const SENT: u64 = 100;
    let mut ground = Ground::new(true);
    let small = DatagramOptions { recv_buffer: Some(1), ..DatagramOptions::default() };
    let (near, far, to) = ground.bind(&small);
    for number in 0..SENT {
        ground.ends[0].parts().1.send_to(near, Flow::to(to), &number.to_be_bytes()).unwrap();
    }
    ground.settle();
    let cx = ground.ends[1].parts().1;
    let (told, dropped) = (cx.datagram_counts(far).received, cx.backend().gauges().datagrams_full);
    assert!(dropped > 0 && told + dropped == SENT, "{told} told, {dropped} dropped");
    // The first ones are those that were kept.
    assert_eq!(ground.ends[1].parts().0.came[0].1, 0_u64.to_be_bytes());
}

#[test]
fn only_ports_and_addresses_that_were_given_are_bound_and_once() {
    let mut ground = Ground::new(true);
    let cx = ground.ends[0].parts().1;
    let mut bind = |at: &str| cx.bind(at.parse().unwrap(), &DatagramOptions::default()).map_err(|error| error.kind());
    assert_eq!(bind("10.9.0.1:60"), Err(ErrorKind::InvalidInput));
    assert_eq!(bind("10.9.0.7:50"), Err(ErrorKind::InvalidInput));
    let first = bind("10.9.0.1:50").unwrap();
    assert_eq!(bind("10.9.0.1:50"), Err(ErrorKind::AddrInUse));
    // Any port but the one that's taken.
    let second = bind("10.9.0.1:0").unwrap();
    assert_eq!(cx.datagram_addr(second), Some("10.9.0.1:51".parse().unwrap()));
    cx.unbind(first);
    assert!(cx.bind("10.9.0.1:50".parse().unwrap(), &DatagramOptions::default()).is_ok());
}

#[test]
fn what_nobody_has_bound_and_what_goes_nowhere_is_counted() {
    let mut ground = Ground::new(true);
    let (near, _, to) = ground.bind(&DatagramOptions::default());
    let cx = ground.ends[0].parts().1;
    cx.send_to(near, Flow::to(SocketAddr::new(to.ip(), 54)), b"nobody").unwrap();
    cx.send_to(near, Flow::to("[fd09::2]:53".parse().unwrap()), b"another family").unwrap();
    cx.send_to(near, Flow { local: Some("10.9.0.9".parse().unwrap()), ..Flow::to(to) }, b"mine").unwrap();
    cx.send_to(near, Flow::to("255.255.255.255:53".parse().unwrap()), b"all").unwrap();
    ground.settle();
    assert_eq!(ground.ends[1].parts().1.backend().gauges().strangers, 1);
    let counts = ground.ends[0].parts().1.datagram_counts(near);
    // A socket that is bound to an address sends from it, whatever the flow says.
    assert_eq!((counts.sent, counts.failed), (2, 2));
    assert_eq!(ground.ends[0].parts().0.came.len(), 1);
}
