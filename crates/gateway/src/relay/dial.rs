//! Dialling: which backend, which of its addresses, and what comes next when one doesn't answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use midmile_engine::{Backend, ConnError, Cx, Key};

use super::Relay;
use super::measure::nanos;
use crate::backend::BackendSet;
use crate::pair::{Pair, Side, State, Token};
use crate::plan::Route;
use crate::reason::End;
use crate::serving::Serving;

/// How soon a full queue is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// Why the pair ends when the last thing that could be dialled failed so.
const fn end_by(error: ConnError) -> End {
    match error {
        ConnError::Refused | ConnError::Reset => End::DialRefused,
        ConnError::TimedOut => End::DialTimeout,
        ConnError::Exhausted | ConnError::Busy => End::DialExhausted,
        ConnError::Unreachable | ConnError::Denied | ConnError::Other(_) => End::DialUnreachable,
        // The relay reads no messages.
        ConnError::Broken | ConnError::TooLong => End::DialRefused,
        ConnError::Panicked => End::Panicked,
    }
}

/// The address to try after the one that was tried last; moves on to the next backend when one has no more.
fn next_address(core: usize, pair: &mut Pair, set: &BackendSet, turn: &mut usize) -> bool {
    if let Some(given) = &mut pair.given {
        return given.advance();
    }
    // A name may stand for more addresses than we count; those beyond the 256th aren't tried.
    if let (Some(current), Some(next)) = (pair.backend, pair.addr_index.checked_add(1))
        && usize::from(next) < set.backends()[usize::from(current)].addrs().len()
    {
        pair.addr_index = next;
        return true;
    }
    let chosen = set.choose(turn, pair.tried);
    let Some((index, number)) = chosen.and_then(|index| Some((index, u8::try_from(index).ok()?))) else { return false };
    if let Some(before) = pair.backend.replace(number) {
        set.backends()[usize::from(before)].ended(core);
    }
    set.backends()[index].opened(core);
    pair.tried.mark(index);
    pair.addr_index = 0;
    true
}

/// Whose address the server is to see; `None`: our own, where a hello names no client.
///
/// # Errors
/// An address that no client on another host has, from somebody who could have said anything: it would be taken for this host's.
fn source(route: &Route, pair: &Pair) -> Result<Option<SocketAddr>, ConnError> {
    let (by_hello, by_header) = (route.gate.is_some(), route.accept_proxy.is_some());
    if by_hello && pair.destination.is_none() {
        return Ok(None);
    }
    let source = pair.peer.inet();
    let ip = source.map(|source| source.ip().to_canonical());
    if (by_hello || by_header) && ip.is_some_and(is_nobody_elses) {
        return Err(ConnError::Denied);
    }
    Ok(source)
}

fn is_nobody_elses(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast
}

/// Dials the pair's present address. A full queue isn't a failure: the pair's timer comes back to it.
fn dial<B: Backend>(cx: &mut Cx<B>, key: Key, pair: &mut Pair, serving: &Serving) -> Result<(), ConnError> {
    let of_backend = || {
        let backend = serving.route.backends.backends().get(usize::from(pair.backend?))?;
        backend.addrs().get(usize::from(pair.addr_index))
    };
    let to = pair.given.as_ref().map_or_else(of_backend, |given| given.addr()).ok_or(ConnError::Unreachable)?;
    let token = Token::leg(key, Side::Server).to_bits();
    let left = pair.dial_deadline.since(cx.now());
    let source = if serving.route.spoof_client { source(&serving.route, pair)? } else { None };
    match cx.dial_from(to, source, &serving.route.server, token, serving.meters.downstream) {
        Ok(server) => {
            pair.server = server;
            cx.set_timer(pair.client, left);
            Ok(())
        }
        Err(ConnError::Busy) => {
            cx.set_timer(pair.client, left.min(BUSY_WAIT));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl<L> Relay<L> {
    /// Dials for a pair for the first time; its dial timeout begins.
    pub(super) fn begin_dialling<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        pair.state = State::Dialling;
        pair.dial_deadline = cx.now().after(serving.route.timeouts.dial);
        self.go_onward(cx, key);
    }

    /// Sends a pair on: through a trunk, to where its hello says, or to a backend.
    pub(super) fn go_onward<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get_mut(pair.serving) else { return };
        if pair.hello != Key::NONE {
            self.take_trunk(cx, key);
        } else if serving.route.via.is_some() {
            if pair.given.is_none()
                && pair.backend.is_none()
                && !next_address(self.core, pair, &serving.route.backends, &mut serving.turn)
            {
                return self.end(cx, key, End::NoBackend);
            }
            self.take_trunk(cx, key);
        } else if pair.given.is_some() {
            self.dial_again(cx, key);
        } else {
            self.dial_next(cx, key, None);
        }
    }

    /// Dials whatever hasn't been tried yet; ends the pair when there's nothing left.
    pub(super) fn dial_next<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, failed: Option<ConnError>) {
        let mut failed = failed;
        loop {
            let Some(pair) = self.pairs.get_mut(key) else { return };
            let Some(serving) = self.servings.get_mut(pair.serving) else { return };
            if !next_address(self.core, pair, &serving.route.backends, &mut serving.turn) {
                return self.end(cx, key, failed.map_or(End::NoBackend, end_by));
            }
            if failed.is_some() {
                serving.counters.dial_retries.add(1);
            }
            match dial(cx, key, pair, serving) {
                Ok(()) => return,
                Err(error) => failed = Some(error),
            }
        }
    }

    /// Dials the pair's present address: the first that a hello gave, or again one that had no room in its queue, where a TCP
    /// server's host would have had our SYN again by now.
    pub(super) fn dial_again<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        if let Err(error) = dial(cx, key, pair, serving) {
            self.dial_next(cx, key, Some(error));
        }
    }

    /// The server leg stands.
    pub(super) fn connected<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let through_trunk = self.pairs.get(key).is_some_and(|pair| self.trunk_of(pair).is_some());
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        // A pair that was given another trunk connection comes here twice, and is counted once.
        if pair.connected_after.is_none() {
            serving.counters.connected.add(1);
        }
        if pair.connected_after.is_none() && !pair.unclaimed {
            let took = cx.now().since(pair.opened);
            pair.connected_after = nanos(took);
            serving.counters.connect.observe(took);
        }
        if through_trunk {
            // The next gateway's answer comes before the server's bytes.
            pair.awaits_answer = true;
            return self.flow(cx, key);
        }
        if !self.answer_stands(cx, key) {
            return;
        }
        let Some(pair) = self.pairs.get_mut(key) else { return };
        // The server may speak first, even before our header is out.
        cx.forward(pair.server, pair.client);
        let Some(serving) = self.servings.get(pair.serving) else { return };
        if serving.route.send_proxy.is_some() {
            pair.state = State::Greeting { sent: 0 };
            self.greet(cx, key);
        } else {
            self.flow(cx, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use midmile_engine::{Addr, Time};

    use super::*;
    use crate::backend::{Backend as Destination, Balance};

    #[test]
    fn nobody_is_shown_to_a_server_as_its_own_host() {
        for ip in ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "::", "ff02::1"] {
            assert!(is_nobody_elses(ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_nobody_elses("10.0.0.1".parse().unwrap()) && !is_nobody_elses("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_backend_with_more_addresses_than_are_counted_comes_to_an_end() {
        let addr = Addr::Inet(([127, 0, 0, 1], 1).into());
        let backend = Arc::new(Destination::new("many", vec![addr.clone(); 300], 1));
        let set = BackendSet::new(vec![backend], Balance::RoundRobin, None);
        let mut pair = Pair::new(Key::NONE, addr, State::Dialling, Time::ZERO);
        let mut turn = 0;
        let tried = (0..1000).take_while(|_| next_address(0, &mut pair, &set, &mut turn)).count();
        assert_eq!(tried, 256);
    }
}
