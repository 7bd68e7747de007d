//! Congestion windows by routes: for whom may change routes and may not load programs.
//!
//! A route can say with how many segments connections to its hosts begin (`initcwnd` of ip-route(8), Linux 2.6.30), and that is as
//! far as their window closes when they are idle (the kernel's `tcp_cwnd_restart`). So each host gets a route of its own, which leads
//! where its packets go anyhow.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

mod answer;
mod netlink;

use netlink::{HostRoute, Netlink};

/// Routes of ours have this number as their protocol (`rtm_protocol` of rtnetlink(7), `proto` of ip-route(8)): none that
/// iproute2's list of routing daemons has.
pub const ROUTE_PROTOCOL: u8 = 109;
/// Hosts that have routes at most.
pub const ROUTES_MAX: usize = 1024;
/// Who holds this abstract name sets the routes of its network namespace: the kernel lets go of it with the process.
const OWNER: &[u8] = b"midmile-routes";

/// Routes that open windows, as long as it lives.
#[derive(Debug)]
pub struct Routes {
    netlink: Netlink,
    set: BTreeMap<IpAddr, (u32, HostRoute)>,
    _owner: OwnedFd,
}

/// Why a host gets no route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The process may not change routes.
    #[error("changing routes needs CAP_NET_ADMIN; run as root or grant it (systemd: AmbientCapabilities=)")]
    Privilege,
    /// Another process sets them in this network namespace.
    #[error("another midmile sets routes in this network namespace; give each a namespace of its own")]
    Owned,
    /// Somebody else has made a route for this very host.
    #[error("there is a route to {0} that isn't ours; write initcwnd into that one (ip route change)")]
    Taken(IpAddr),
    /// The host is this one, or can't be reached.
    #[error("packets to {0} don't leave this host by a route")]
    NoRoute(IpAddr),
    /// What leads there isn't one neighbour on one device.
    #[error("the route to {0} encapsulates packets, or another one goes before ours; write initcwnd into that one")]
    Special(IpAddr),
    /// There are too many.
    #[error("{ROUTES_MAX} hosts have routes, and no more can")]
    Full,
    /// The system's.
    #[error("routes can't be changed: {0}")]
    System(#[from] io::Error),
}

impl Routes {
    /// Becomes the one that sets routes in the calling thread's network namespace, and removes those that a killed process has left
    /// behind.
    ///
    /// # Errors
    /// Why not, and the mend.
    pub fn open() -> Result<Self, RouteError> {
        let mut netlink = Netlink::open()?;
        may_change(&mut netlink)?;
        let owner = own()?;
        for route in netlink.left_behind()? {
            netlink.remove(&route)?;
        }
        Ok(Self { netlink, set: BTreeMap::new(), _owner: owner })
    }

    /// Has connections to `host` begin with a window of `segments`. To be called before there are any: while routes change, the
    /// kernel forgets what it knows of their paths, and their next flight is small.
    ///
    /// The route is a copy of what the kernel would use now. If the way there changes, it stays as it is until it is cleared; the
    /// kernel removes it with its device or its source address.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn set(&mut self, host: IpAddr, segments: u32) -> Result<(), RouteError> {
        let host = host.to_canonical();
        if self.set.get(&host).is_some_and(|(set, _)| *set == segments) {
            return Ok(());
        }
        self.clear(host)?;
        if self.set.len() == ROUTES_MAX {
            return Err(RouteError::Full);
        }
        let matched = self.netlink.look_up(host, true)?.ok_or(RouteError::NoRoute(host))?;
        if !matched.is_unicast() {
            return Err(RouteError::NoRoute(host));
        }
        if matched.is_of_host() {
            return Err(RouteError::Taken(host));
        }
        let now = self.netlink.look_up(host, false)?.ok_or(RouteError::NoRoute(host))?;
        let route = HostRoute::copied(host, &matched, &now, segments).ok_or(RouteError::Special(host))?;
        self.netlink.add(&route).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => RouteError::Taken(host),
            _ => RouteError::System(error),
        })?;
        // A rule may lead past the table, or another route go before.
        let is_used = self.netlink.look_up(host, true)?.is_some_and(|found| found.protocol == ROUTE_PROTOCOL);
        if !is_used {
            self.netlink.remove(&route)?;
            return Err(RouteError::Special(host));
        }
        self.set.insert(host, (segments, route));
        Ok(())
    }

    /// Removes the route to `host`. One that wasn't set, or that is gone, is no error.
    ///
    /// # Errors
    /// The system's; they aren't known to happen.
    pub fn clear(&mut self, host: IpAddr) -> Result<(), RouteError> {
        if let Some((_, route)) = self.set.remove(&host.to_canonical()) {
            self.netlink.remove(&route)?;
        }
        Ok(())
    }

    /// The hosts that have routes.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.set.keys().copied()
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        for (_, route) in std::mem::take(&mut self.set).into_values() {
            // What can't be removed is removed at the next start.
            self.netlink.remove(&route).ok();
        }
    }
}

/// Whether routes may be changed here: one that can't be there is removed.
pub(crate) fn probe() -> Result<(), RouteError> {
    may_change(&mut Netlink::open()?)
}

fn may_change(netlink: &mut Netlink) -> Result<(), RouteError> {
    netlink.remove(&HostRoute::of_nobody()).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => RouteError::Privilege,
        _ => RouteError::System(error),
    })
}

/// Takes the name that one process in a network namespace can have.
fn own() -> Result<OwnedFd, RouteError> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(io::Error::from)?;
    let name = SocketAddrUnix::new_abstract_name(OWNER).map_err(io::Error::from)?;
    match rustix::net::bind(&socket, &name) {
        Ok(()) => Ok(socket),
        Err(Errno::ADDRINUSE) => Err(RouteError::Owned),
        Err(error) => Err(RouteError::System(error.into())),
    }
}
