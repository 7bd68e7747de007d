//! The conformance of the user-space stack: each case of the engine's test program, above a TUN device and above a veth by AF_XDP.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod world;

use std::net::IpAddr;

use midmile_engine::Addr;
use midmile_engine::conformance::Ability;

/// What every user-space stack lacks.
fn lacks(ability: Ability) -> Option<&'static str> {
    match ability {
        Ability::Starving => Some("a user-space stack has no descriptor for each connection"),
        Ability::Travels => Some("a connection of a user-space stack belongs to the queue that its packets come by"),
        Ability::Absence => Some("a user-space stack heeds no ICMP"),
        Ability::DialFrom => Some("a user-space stack has its own addresses alone"),
        _ => None,
    }
}

/// The stack's other address of the family of `home`.
fn second_home(home: &Addr) -> Option<IpAddr> {
    let v4 = home.inet().unwrap().is_ipv4();
    Some(if v4 { world::STACK_V4_TOO.into() } else { world::STACK_V6_TOO.into() })
}

/// Bytes of the longest datagram that goes to `home` in one packet.
fn datagram_bytes_max(home: &Addr) -> usize {
    if home.inet().unwrap().is_ipv4() { world::DATAGRAM_V4_BYTES } else { world::DATAGRAM_V6_BYTES }
}

/// A stack above a TUN device.
mod tun {
    use std::net::{IpAddr, SocketAddr};

    use midmile_engine::Addr;
    use midmile_engine::conformance::{Ability, Home, Side, Skip, SocketWorld, Sockets};
    use midmile_stack::{Stack, Tun};

    use crate::world::{self, TunGround};

    pub(crate) struct TunSide {
        ground: TunGround,
        home: Addr,
    }

    impl Side for TunSide {
        type Backend = Stack<Tun>;

        fn name(&self) -> &'static str {
            "stack above TUN"
        }

        fn backend(&mut self) -> Stack<Tun> {
            Stack::new(self.ground.link(), world::config()).unwrap()
        }

        fn home(&self) -> Option<Addr> {
            Some(self.home.clone())
        }

        fn second_home(&self) -> Option<IpAddr> {
            crate::second_home(&self.home)
        }

        fn datagram_bytes_max(&self) -> usize {
            crate::datagram_bytes_max(&self.home)
        }

        fn dropped(&self, backend: &mut Stack<Tun>, _at: SocketAddr) -> u64 {
            backend.gauges().datagrams_full
        }

        fn lacks(&self, ability: Ability) -> Option<&'static str> {
            match ability {
                Ability::FullSockets => Some("a TUN device takes all that it's given"),
                _ => crate::lacks(ability),
            }
        }
    }

    pub(crate) fn tun_world(v4: bool) -> Result<SocketWorld<TunSide>, Skip> {
        if let Some(why) = world::lacks_network() {
            return Err(Skip(why));
        }
        let ground = TunGround::new();
        world::move_to(&ground.host);
        let (home, peers): (IpAddr, IpAddr) = if v4 {
            (world::STACK_V4.into(), world::PEER_V4.into())
        } else {
            (world::STACK_V6.into(), world::PEER_V6.into())
        };
        let side = TunSide { ground, home: Addr::Inet((home, 0).into()) };
        let open = |family, kind| {
            let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
            Ok(rustix::net::socket_with(family, kind, flags, None)?)
        };
        Ok(SocketWorld::new(side, Sockets::opened_by(Home::Inet(peers), Box::new(open))))
    }

    mod ipv4 {
        midmile_engine::conformance_tests!([crate::tun::tun_world(true)]);
    }

    mod ipv6 {
        midmile_engine::conformance_tests!([crate::tun::tun_world(false)]);
    }
}

/// A stack above a veth by AF_XDP.
mod xdp {
    use midmile_engine::Addr;
    use midmile_engine::conformance::{Ability, Home, Side, Skip, SocketWorld, Sockets};
    use midmile_kernel::XdpMode;
    use midmile_stack::{Stack, Xdp};
    use std::net::{IpAddr, SocketAddr};
    use std::rc::Rc;

    use crate::world::{self, VethGround};

    pub(crate) struct XdpSide {
        ground: Rc<VethGround>,
        home: Addr,
        mode: XdpMode,
    }

    impl Side for XdpSide {
        type Backend = Stack<Xdp>;

        fn name(&self) -> &'static str {
            match self.mode {
                XdpMode::Native => "stack above AF_XDP",
                XdpMode::Generic => "stack above AF_XDP in generic mode",
            }
        }

        fn backend(&mut self) -> Stack<Xdp> {
            let mode = Some(self.mode);
            Stack::new(self.ground.link(mode), world::config()).unwrap()
        }

        fn home(&self) -> Option<Addr> {
            Some(self.home.clone())
        }

        fn second_home(&self) -> Option<IpAddr> {
            crate::second_home(&self.home)
        }

        fn datagram_bytes_max(&self) -> usize {
            crate::datagram_bytes_max(&self.home)
        }

        fn dropped(&self, backend: &mut Stack<Xdp>, _at: SocketAddr) -> u64 {
            backend.gauges().datagrams_full
        }

        fn lacks(&self, ability: Ability) -> Option<&'static str> {
            match ability {
                Ability::FullSockets => Some("a veth takes frames as fast as AF_XDP copies them"),
                _ => crate::lacks(ability),
            }
        }
    }

    pub(crate) fn xdp_world(mode: XdpMode, v4: bool) -> Result<SocketWorld<XdpSide>, Skip> {
        if let Some(why) = world::lacks_network() {
            return Err(Skip(why));
        }
        // The one case of several cores that a backend without travel has.
        if std::thread::current().name().is_some_and(|name| name.ends_with("one_that_cannot_go_comes_back")) {
            return Err(Skip("a second stack isn't tried: the test's device has one receive queue".to_owned()));
        }
        let ground = Rc::new(VethGround::new());
        let (home, peers): (IpAddr, IpAddr) = if v4 {
            (world::STACK_V4.into(), world::PEER_V4.into())
        } else {
            (world::STACK_V6.into(), world::PEER_V6.into())
        };
        world::move_to(&ground.host);
        let there = ground.clone();
        let open = move |family, kind| Ok(world::socket_in(&there.peer, family, kind));
        let forbidden = world::forbid(&ground.host, v4);
        let side = XdpSide { ground, home: Addr::Inet((home, 0).into()), mode };
        let world = SocketWorld::new(side, Sockets::opened_by(Home::Inet(peers), Box::new(open)));
        Ok(world.forbidding(Addr::Inet((forbidden, 9).into())))
    }

    mod native_ipv4 {
        midmile_engine::conformance_tests!([crate::xdp::xdp_world(midmile_kernel::XdpMode::Native, true)]);
    }

    mod native_ipv6 {
        midmile_engine::conformance_tests!([crate::xdp::xdp_world(midmile_kernel::XdpMode::Native, false)]);
    }

    mod generic_ipv4 {
        midmile_engine::conformance_tests!([crate::xdp::xdp_world(midmile_kernel::XdpMode::Generic, true)]);
    }
}
