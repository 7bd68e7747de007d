use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use netlink_packet_route::RouteNetlinkMessage;

use super::*;
use crate::netlink::{QDISC_FLAGS, Route, encode};
use crate::units::Rate;

/// The sequence number and the device in the requests below; both are tc's own affair.
const SEQUENCE: u32 = 0x6b01_bfdf;
const DEVICE: u32 = 3;

/// What iproute2 6.1 sends on a little-endian machine, as seen by
/// `strace -e trace=sendmsg -e write=3 -s 4096 tc qdisc add dev v0 root netem …`; the kernel needn't have netem for that.
const TC: [(&str, &str); 3] = [
    (
        "delay 109ms 1ms reorder 0.1% loss 1% limit 5283 rate 500mbit -14",
        "6c 00 00 00 24 00 05 06  df bf 01 6b 00 00 00 00
         00 00 00 00 03 00 00 00  00 00 00 00 ff ff ff ff
         00 00 00 00 0a 00 01 00  6e 65 74 65 6d 00 00 00
         3c 00 02 00 d5 fc 19 00  a3 14 00 00 29 5c 8f 02
         01 00 00 00 00 00 00 00  09 3d 00 00 0c 00 03 00
         37 89 41 00 00 00 00 00  14 00 06 00 a0 ac b9 03
         f2 ff ff ff 00 00 00 00  00 00 00 00",
    ),
    (
        "delay 20ms limit 178957 rate 40gbit -14",
        "6c 00 00 00 24 00 05 06  df bf 01 6b 00 00 00 00
         00 00 00 00 03 00 00 00  00 00 00 00 ff ff ff ff
         00 00 00 00 0a 00 01 00  6e 65 74 65 6d 00 00 00
         3c 00 02 00 b4 c4 04 00  0d bb 02 00 00 00 00 00
         00 00 00 00 00 00 00 00  00 00 00 00 0c 00 08 00
         00 f2 05 2a 01 00 00 00  14 00 06 00 ff ff ff ff
         f2 ff ff ff 00 00 00 00  00 00 00 00",
    ),
    (
        "delay 28ms limit 178957",
        "4c 00 00 00 24 00 05 06  df bf 01 6b 00 00 00 00
         00 00 00 00 03 00 00 00  00 00 00 00 ff ff ff ff
         00 00 00 00 0a 00 01 00  6e 65 74 65 6d 00 00 00
         1c 00 02 00 fc ac 06 00  0d bb 02 00 00 00 00 00
         00 00 00 00 00 00 00 00  00 00 00 00",
    ),
];

/// The shapes that those commands make.
fn shapes() -> [Shape; 3] {
    let ms = Duration::from_millis;
    let lossy = Shape {
        // netem adds and takes away up to 1 ms.
        delay: ms(108),
        jitter: ms(2),
        reorder: 0.001,
        loss: 0.01,
        rate: Rate::new(500_000_000),
        // With what is under way in 110 ms, 5283 packets.
        queue: Some(1 << 20),
        ..Shape::default()
    };
    let fast = Shape { delay: ms(20), rate: Rate::new(40_000_000_000), ..Shape::default() };
    [lossy, fast, Shape { delay: ms(28), ..Shape::default() }]
}

#[test]
#[cfg_attr(target_endian = "big", ignore = "the vectors are of a little-endian machine")]
fn requests_are_those_of_tc_byte_by_byte() {
    for ((command, text), shape) in TC.into_iter().zip(shapes()) {
        let golden: Vec<u8> = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let message = RouteNetlinkMessage::NewQueueDiscipline(message(DEVICE, &shape).unwrap());
        assert_eq!(encode(message, QDISC_FLAGS, SEQUENCE), golden, "{command}");
    }
}

#[test]
fn the_largest_shape_stays_within_the_fields() {
    let minute = Duration::from_secs(60);
    let shape = Shape {
        delay: minute,
        jitter: minute,
        rate: Rate::new(1_000_000_000_000),
        queue: Some(u64::MAX),
        loss: 1.0,
        reorder: 1.0,
        ..Shape::default()
    };
    let [latency, limit, loss, gap, duplicate, jitter] =
        std::array::from_fn(|place| u32::from_ne_bytes(options(&shape)[place * 4..][..4].try_into().unwrap()));
    assert_eq!([limit, loss, gap, duplicate], [u32::MAX, u32::MAX, 1, 0]);
    assert_eq!([latency, jitter], [1_406_250_000, 468_750_000]);
    // A rate of less than a byte a second isn't no limit.
    let slow = Shape { rate: Rate::new(1), ..Shape::default() };
    assert_eq!(options(&slow)[24..32], [[20, 0, 6, 0], 1_u32.to_ne_bytes()].concat());
}

#[test]
fn the_pair_of_a_link_carries_connections() {
    let hosts = ["near", "far"].map(Host::new);
    let [Ok(near), Ok(far)] = &hosts else {
        println!("SKIP: the lab's network isn't tried: {hosts:?}");
        return;
    };
    let addresses = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
    join([near, far], "link0", addresses).unwrap();
    for (host, mine, peer) in [(near, addresses[0], addresses[1]), (far, addresses[1], addresses[0])] {
        let set = move || -> Result<()> {
            let (mut netlink, device) = (Netlink::open()?, index("link0")?);
            netlink.add_address(device, mine)?;
            let way =
                Route { network: peer, prefix: 32, gateway: None, device, initial_window: None, congestion: None };
            netlink.add_route(way)
        };
        host.run(set).unwrap().unwrap();
    }
    let listener = far.run(move || TcpListener::bind((addresses[1], 0)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut client = near.run(move || TcpStream::connect(to).unwrap()).unwrap();
    client.write_all(b"across").unwrap();
    let mut got = [0; 6];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"across");
}

#[test]
fn a_kernel_without_netem_is_told_of_with_the_mend() {
    match probe().map_err(|error| format!("{error:#}")) {
        Ok(()) => {}
        Err(error) if error.contains("network namespace") => println!("SKIP: the lab's network isn't tried: {error}"),
        Err(error) => assert!(error.contains("no netem; load the module sch_netem"), "{error}"),
    }
}
