//! Connections that begin at a listener.
//!
//! A flood of SYNs meets bounds alone: so many half-open connections, each with its buffers, and beyond them the oldest goes. smoltcp
//! needs a socket for each, so there are no SYN cookies (RFC 4987, 3.6).

use std::net::SocketAddr;

use midmile_engine::Key;
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpListenEndpoint;

use super::flow::{self, Flow, Phase};
use super::keepalive::Keepalive;
use super::packet::Segment;
use super::{Net, is_half_open};
use crate::link::{LinkAddress, Transmit};

impl Net {
    /// The listener for connections to `local`: that of the very address goes before a wildcard.
    pub(super) fn door_for(&self, local: SocketAddr) -> Option<u32> {
        let doors = (0..).zip(&self.doors).filter_map(|(index, door)| Some((index, door.as_ref()?.fits(local))));
        doors.filter(|(_, fits)| *fits > 0).max_by_key(|(_, fits)| *fits).map(|(index, _)| index)
    }

    /// The first segment of a connection to a listener.
    pub(super) fn open<T: Transmit>(
        &mut self,
        index: u32,
        hash: u64,
        link: LinkAddress,
        packet: &[u8],
        segment: &Segment,
        tx: &mut T,
    ) {
        let Some(Some(door)) = self.doors.get(index as usize) else { return };
        if door.is_full() {
            self.gauges.backlog_full += 1;
            return;
        }
        let (options, congestion) = (door.options.clone(), door.congestion);
        if self.half_open_len >= self.config.half_open_max as usize {
            self.evict_half_open();
        }
        if self.flows.is_full() {
            self.gauges.flows_full += 1;
            return;
        }
        let mut cell = self.cell_for(&options);
        self.renew(&segment.tuple);
        let local = segment.tuple.local();
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        let listens = cell.with_tcp(|tcp| {
            flow::set_options(tcp, &options, congestion);
            tcp.listen(endpoint)
        });
        listens.expect("the socket is closed, and the port isn't zero");
        let patience = options.user_timeout.unwrap_or(self.config.patience);
        let mut flow = Flow::new(cell, segment.tuple, Phase::HalfOpen(index), link, self.now, patience);
        flow.keepalive = Keepalive::of(&options);
        let key = self.flows.insert(flow).unwrap_or(Key::NONE);
        self.list(key, hash);
        self.note_half_open(key);
        self.ingress(key, link, packet, tx);
        if let Some(flow) = self.flows.get_mut(key)
            && flow.state() == State::SynReceived
        {
            flow.meet(packet, segment);
            self.gauges.syns += 1;
            self.mark(key);
        } else {
            // Its checksum is wrong, or its options are.
            self.release(key);
        }
    }

    fn note_half_open(&mut self, key: Key) {
        if self.half_open.len() == self.half_open.capacity() {
            let flows = &self.flows;
            self.half_open.retain(|key| is_half_open(flows, *key));
        }
        self.half_open.push_back(key);
        self.half_open_len += 1;
    }

    fn evict_half_open(&mut self) {
        while let Some(key) = self.half_open.pop_front() {
            if is_half_open(&self.flows, key) {
                self.gauges.half_open_evicted += 1;
                self.release(key);
                return;
            }
        }
    }
}
