//! Connections that were on their way elsewhere: the firewall handed them over (TPROXY), and they go on to where they were going.

use std::net::SocketAddr;

use midmile_engine::{Addr, Backend, Cx, Incoming};

use super::Relay;
use crate::pair::Given;
use crate::plan::Route;
use crate::reason::Refusal;

/// IPv4 as itself, however the listener sees it (RFC 4291, 2.5.5.2).
pub(super) fn canonical(addr: &Addr) -> Option<SocketAddr> {
    addr.inet().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

/// What a pair of `route` is given to dial, if that is where its client wanted to go.
pub(super) fn original(route: &Route, destination: SocketAddr) -> Option<Given> {
    let to = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    route.original.then_some(Given::One(Addr::Inet(to)))
}

impl<L> Relay<L> {
    /// Where the connection was going, if its route goes by that.
    ///
    /// # Errors
    /// The refusal of one that wasn't intercepted: passed on to its destination, it would come here again without end.
    pub(super) fn destination_of<B: Backend>(
        cx: &Cx<B>,
        route: &Route,
        incoming: &Incoming<B::Socket>,
    ) -> Result<Option<SocketAddr>, Refusal> {
        if !route.original {
            return Ok(None);
        }
        let local = cx.incoming_addr(incoming).as_ref().and_then(canonical);
        local.filter(|local| route.is_intercepted(*local)).map(Some).ok_or(Refusal::NotIntercepted)
    }
}
