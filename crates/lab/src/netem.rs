//! Links by the kernel's own emulator: a veth pair with a netem queueing discipline at each end (tc-netem(8)).
//!
//! ```text
//!  host A ─ veth ─ netem (towards the server) ──► veth ─ host B
//!           veth ◄── (towards the client) netem ─ veth
//! ```
//! What netem can't do as [`crate::direction`] does is in `docs/lab.md`. Many kernels come without it, so it is asked for first.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::direction::Shape;
use crate::netlink::{Netlink, VethEnd, index};
use crate::netns::Host;
use crate::scenario::Span;

/// The discipline's name to the kernel.
const KIND: &str = "netem";
/// TCA_OPTIONS of linux/rtnetlink.h.
const OPTIONS: u16 = 2;
/// TCA_NETEM_REORDER, TCA_NETEM_RATE and TCA_NETEM_RATE64 of linux/pkt_sched.h (RATE: Linux 3.3, RATE64: 3.14).
const REORDER: u16 = 3;
const RATE: u16 = 6;
const RATE64: u16 = 8;
/// Nanoseconds of a tick of the packet scheduler: PSCHED_SHIFT of the kernel's net/pkt_sched.h is 6, and `/proc/net/psched` says so.
const TICK_NS: u128 = 64;
/// Bytes before an IP packet on a veth device, which the kernel counts with it.
const ETHERNET_HEADER: i32 = 14;
/// Bytes of a full packet, by which a queue's bytes are counted in packets.
const PACKET: u64 = 1500;
/// Bytes that a direction may hold in all, as with the lab's own links.
const HELD_MAX: u64 = 256 << 20;
/// What to do about a kernel without it.
const MEND: &str = "load the module sch_netem (modprobe sch_netem; some systems have it in a package such as \
                    kernel-modules-extra), or use --links tun";

/// Whether this kernel has netem: tried on the loopback of a network namespace of its own.
///
/// # Errors
/// It hasn't, or there may be no such namespace; said with what mends it.
pub fn probe() -> Result<()> {
    let host = Host::new("probe")?;
    host.run(|| -> Result<()> {
        let mut netlink = Netlink::open()?;
        add(&mut netlink, index("lo")?, &Shape::default())
    })?
}

/// Makes a link: the device `name` in both hosts, with these addresses.
pub(crate) fn connect(hosts: [&Host; 2], name: &str, addresses: [Ipv4Addr; 2], span: &Span) -> Result<()> {
    join(hosts, name, addresses)?;
    for (host, shape) in hosts.into_iter().zip([span.to_server, span.to_client]) {
        let device = name.to_owned();
        let added = host.run(move || add(&mut Netlink::open()?, index(&device)?, &shape))?;
        added.with_context(|| format!("link {name} in host {}", host.name()))?;
    }
    Ok(())
}

/// Makes the veth pair of a link, which nothing slows down. Each end knows the other's Ethernet address, so that no packet waits for
/// one to be asked for.
fn join([near, far]: [&Host; 2], name: &str, addresses: [Ipv4Addr; 2]) -> Result<()> {
    let [mine, theirs] = addresses.map(|address| VethEnd { name: name.to_owned(), mac: mac(address) });
    let there = far.namespace().try_clone_to_owned().context("can't copy a descriptor")?;
    let made = near.run(move || Netlink::open()?.add_veth(&mine, &theirs, &there))?;
    made.with_context(|| format!("can't make the veth pair {name}; the kernel needs the module veth"))?;
    for (host, peer) in [(near, addresses[1]), (far, addresses[0])] {
        let device = name.to_owned();
        let told = host.run(move || -> Result<()> {
            let mut netlink = Netlink::open()?;
            let device = index(&device)?;
            netlink.bring_up(device, Vec::new())?;
            netlink.add_neighbour(device, peer, mac(peer))
        })?;
        told.with_context(|| format!("link {name} in host {}", host.name()))?;
    }
    Ok(())
}

/// A locally administered Ethernet address for the only host that has this address.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

/// Gives a device of the calling thread's namespace the discipline.
fn add(netlink: &mut Netlink, device: u32, shape: &Shape) -> Result<()> {
    netlink.add_qdisc(message(device, shape)?).map_err(|error| {
        let unknown = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
        if unknown { error.context(format!("this kernel has no netem; {MEND}")) } else { error.context("netem") }
    })
}

/// The request, as tc sends it.
fn message(device: u32, shape: &Shape) -> Result<TcMessage> {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(device).context("the kernel numbers devices from 1")?;
    message.header.parent = TcHandle::ROOT;
    message.attributes =
        vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Other(DefaultNla::new(OPTIONS, options(shape)))];
    Ok(message)
}

/// `struct tc_netem_qopt`, and behind it the attributes that the shape needs; all in this machine's byte order.
fn options(shape: &Shape) -> Vec<u8> {
    // netem's jitter goes both ways, ours only adds.
    let half = shape.jitter / 2;
    let reorder = probability(shape.reorder);
    let words = [
        ticks(shape.delay + half),
        limit(shape),
        probability(shape.loss),
        // The gap: each packet may be the one that overtakes.
        u32::from(reorder > 0),
        // None is sent twice.
        0,
        ticks(half),
    ];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    if reorder > 0 {
        // The correlation is none.
        attribute(&mut bytes, REORDER, &[reorder, 0].map(u32::to_ne_bytes).concat());
    }
    if let Some(rate) = shape.rate {
        // None at all would be no limit.
        let per_second = (rate.bits() / 8).max(1);
        let short = u32::try_from(per_second).unwrap_or(u32::MAX);
        if u64::from(short) != per_second {
            attribute(&mut bytes, RATE64, &per_second.to_ne_bytes());
        }
        // IP packets are what our rates count; no cells.
        let words = [short.to_ne_bytes(), (-ETHERNET_HEADER).to_ne_bytes(), [0; 4], [0; 4]];
        attribute(&mut bytes, RATE, &words.concat());
    }
    bytes
}

/// Appends an attribute (netlink(7)) whose value is a whole number of words.
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(size_of::<[u16; 2]>() + value.len()).expect("values are short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
}

/// A time in ticks of the packet scheduler; 4 min at most.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / TICK_NS).unwrap_or(u32::MAX)
}

/// A share of all packets as the kernel's random numbers are compared with it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float's cast to an integer stops at its ends"
)]
fn probability(share: f64) -> u32 {
    (share * f64::from(u32::MAX)).round() as u32
}

/// Packets that it may hold: those that wait for the line, and those that are under way, which netem counts as well.
fn limit(shape: &Shape) -> u32 {
    let held = match (shape.rate, shape.queue) {
        (Some(rate), Some(queue)) => queue.saturating_add(rate.bytes_in(shape.delay + shape.jitter)),
        _ => HELD_MAX,
    };
    u32::try_from(held.div_ceil(PACKET)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
