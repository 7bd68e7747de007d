//! The PROXY protocol on both sides of a pair: read from the client before anything else, written to the server likewise.

use midmile_engine::{Addr, Backend, Cx, Key};
use midmile_wire::proxy::{self, Header};

use super::Relay;
use crate::pair::{Pair, State};
use crate::reason::End;

impl<L> Relay<L> {
    /// Reads the client's header; answers how many bytes it took.
    pub(super) fn read_header<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key, bytes: &[u8]) -> usize {
        let Some(pair) = self.pairs.get_mut(key) else { return 0 };
        let Some(serving) = self.servings.get(pair.serving) else { return 0 };
        let Some(accept) = serving.route.accept_proxy else { return 0 };
        if pair.state != State::Header {
            return 0;
        }
        let decoded = match proxy::decode(bytes, accept) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return 0,
            Err(_) => {
                self.end(cx, key, End::HeaderInvalid);
                return 0;
            }
        };
        if let Header::Inet { source, destination } = decoded.header {
            pair.peer = Addr::Inet(source);
            pair.destination = Some(destination);
        }
        cx.pause(pair.client);
        self.begin_dialling(cx, key);
        decoded.len
    }

    /// Writes our header to the server, or what of it hasn't gone out yet; then the bytes flow.
    pub(super) fn greet<B: Backend>(&mut self, cx: &mut Cx<B>, key: Key) {
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let State::Greeting { sent } = pair.state else { return };
        let Some(serving) = self.servings.get(pair.serving) else { return };
        let Some(version) = serving.route.send_proxy else { return };
        let header = proxy::encode(version, &header_of(cx, pair));
        let rest = &header.as_bytes()[usize::from(sent)..];
        let now_sent = cx.send(pair.server, rest);
        if now_sent == rest.len() {
            self.flow(cx, key);
        } else {
            // A header is far shorter than 64 KiB.
            pair.state = State::Greeting { sent: sent + u16::try_from(now_sent).unwrap_or(0) };
        }
    }
}

/// Who the pair's client is and where it went.
pub(super) fn header_of<B: Backend>(cx: &Cx<B>, pair: &Pair) -> Header {
    let Some(source) = pair.peer.inet() else { return Header::Local };
    let destination = pair.destination.or_else(|| cx.local_addr(pair.client)?.inet());
    destination.map_or(Header::Local, |destination| Header::inet(source, destination))
}
