//! Connections that begin here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use midmile_engine::{ConnError, Key, LegOptions, Time};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::Net;
use super::flow::{self, Flow, Phase};
use super::packet::Tuple;
use crate::link::Hop;

/// How long a next hop may take to tell its address: the kernel asks three times, a second apart.
const HOP_PATIENCE: Duration = Duration::from_secs(4);
/// How often it's looked for.
pub(crate) const HOP_LOOK_EVERY: Duration = Duration::from_millis(5);

impl Net {
    /// Begins a connection to `to` by way of `hop`. Its local port is any that is free, and hard to guess (RFC 6056, 3.3.1).
    pub(crate) fn dial(
        &mut self,
        to: SocketAddr,
        hop: Hop,
        from: Option<SocketAddr>,
        options: &LegOptions,
    ) -> Result<Key, ConnError> {
        let congestion = flow::congestion(options.congestion.as_deref())
            .ok_or(ConnError::Other(rustix::io::Errno::NOENT.raw_os_error()))?;
        let source = from.map_or(hop.source, |from| from.ip());
        if source.is_ipv4() != to.is_ipv4() || !self.config.addresses.contains(&source) {
            return Err(ConnError::Unreachable);
        }
        let tuple = self.free_port(to, source, from).ok_or(ConnError::Exhausted)?;
        if !tuple.is_between_hosts() {
            return Err(ConnError::Unreachable);
        }
        if self.flows.is_full() {
            return Err(ConnError::Exhausted);
        }
        let mut cell = self.cell_for(options);
        cell.with_tcp(|tcp| flow::set_options(tcp, options, congestion));
        let patience = options.user_timeout.unwrap_or(self.config.patience);
        let flow = Flow::new(cell, tuple, Phase::Resolving, hop.link.unwrap_or_default(), self.now, patience);
        let key = self.flows.insert(flow).map_err(|_| ConnError::Exhausted)?;
        self.list(key, tuple.hash(&self.keys));
        if hop.link.is_some() {
            self.connect(key);
        } else {
            self.resolving.push((key, self.now.after(HOP_PATIENCE)));
        }
        Ok(key)
    }

    /// Sends the SYN of a dial whose next hop is known.
    fn connect(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.phase = Phase::Held;
        flow.owed_since = Some(self.now);
        let tuple = flow.tuple;
        let (local, peer) = (tuple.local(), tuple.peer());
        self.renew(&tuple);
        let Some(flow) = self.flows.get_mut(key) else { return };
        let remote = IpEndpoint { addr: peer.ip().into(), port: peer.port() };
        let endpoint = IpListenEndpoint { addr: Some(local.ip().into()), port: local.port() };
        let iface = &mut self.iface;
        let connected = flow.with_tcp(|tcp| tcp.connect(iface.context(), remote, endpoint));
        connected.transpose().expect("the socket is closed, and both ends are hosts of one family");
        self.mark(key);
    }

    fn free_port(&mut self, to: SocketAddr, source: IpAddr, from: Option<SocketAddr>) -> Option<Tuple> {
        let wanted = from.map(|from| from.port()).filter(|port| self.config.dial_ports.contains(port));
        let (first, last) = (*self.config.dial_ports.start(), *self.config.dial_ports.end());
        let count = u32::from(last.checked_sub(first)?) + 1;
        let begin = self.random.below(count);
        let drawn = (0..count).filter_map(|step| u16::try_from(u32::from(first) + (begin + step) % count).ok());
        wanted.into_iter().chain(drawn).map(|port| Tuple::new(to, SocketAddr::new(source, port))).find(|tuple| {
            let hash = tuple.hash(&self.keys);
            self.find(hash, tuple).is_none() && !self.waits.has(hash, tuple)
        })
    }

    /// Dials whose next hop is to be looked for again.
    pub(crate) fn resolving(&self) -> usize {
        self.resolving.len()
    }

    /// To whom the dial at `index` goes; `None` if the program has given it up.
    pub(crate) fn resolving_to(&self, index: usize) -> Option<IpAddr> {
        let (key, _) = self.resolving.get(index)?;
        self.flows.get(*key).map(|flow| flow.tuple.peer().ip())
    }

    /// What has been found out about the next hop of the dial at `index`. Answers whether it's looked for no more: the last one then
    /// stands at its place.
    pub(crate) fn resolved(&mut self, index: usize, hop: Result<Hop, ConnError>) -> bool {
        let Some((key, until)) = self.resolving.get(index).copied() else { return false };
        let waits = |until: Time| until > self.now;
        match hop {
            Ok(Hop { link: None, .. }) if waits(until) && self.flows.get(key).is_some() => return false,
            Ok(Hop { link: Some(link), .. }) => {
                if let Some(flow) = self.flows.get_mut(key) {
                    flow.link = link;
                }
                self.connect(key);
            }
            Ok(Hop { link: None, .. }) => self.unreachable(key, ConnError::Unreachable),
            Err(error) => self.unreachable(key, error),
        }
        self.resolving.swap_remove(index);
        true
    }

    fn unreachable(&mut self, key: Key, error: ConnError) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.phase = Phase::Held;
        }
        self.ended(key, Some(error));
    }
}
