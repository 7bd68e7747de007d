//! The conformance of the backends that are here: each case on each.

#[path = "../../../tests/netns/host.rs"]
mod host;

/// Seeds of the simulation for each case.
#[cfg(test)]
const SEEDS: u64 = 40;

mod kernel_ipv4 {
    use midmile_engine::conformance::{Home, kernel_world};

    midmile_engine::conformance_tests!([kernel_world(Home::V4)]);
}

mod kernel_ipv6 {
    use midmile_engine::conformance::{Home, kernel_world};

    midmile_engine::conformance_tests!([kernel_world(Home::V6)]);
}

mod kernel_unix {
    use midmile_engine::conformance::{Home, kernel_world};

    midmile_engine::conformance_tests!([kernel_world(Home::Unix)]);
}

mod uring_ipv4 {
    use midmile_engine::conformance::{Home, uring_world};

    midmile_engine::conformance_tests!([uring_world(Home::V4)]);
}

mod uring_ipv6 {
    use midmile_engine::conformance::{Home, uring_world};

    midmile_engine::conformance_tests!([uring_world(Home::V6)]);
}

mod uring_unix {
    use midmile_engine::conformance::{Home, uring_world};

    midmile_engine::conformance_tests!([uring_world(Home::Unix)]);
}

mod simulation {
    use midmile_engine::conformance::SimWorld;

    midmile_engine::conformance_tests!(SimWorld::seeds(crate::SEEDS));
}

/// Cases that take the process's descriptors away run in processes of their own: this program, called anew for one test.
mod alone {
    use std::process::Command;

    use midmile_engine::conformance::{Home, Side, Skip, SocketWorld, kernel_world, listening, run, uring_world};

    /// Set for the process that does nothing but this test.
    const ALONE: &str = "MIDMILE_CONFORMANCE_ALONE";

    fn by_itself(name: &str, test: impl Fn()) {
        if std::env::var_os(ALONE).is_some() {
            return test();
        }
        let me = std::env::current_exe().expect("a test program has a name");
        let child =
            Command::new(me).args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ALONE, "1").output();
        let child = child.expect("a test program can be called");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
        assert!(said.contains("1 passed") && !said.contains("SKIP"), "{said}");
    }

    fn without_descriptors<S: Side>(made: impl Fn(Home) -> Result<SocketWorld<S>, Skip>) {
        for home in [Home::V4, Home::Unix] {
            let world = || [made(home).map(SocketWorld::alone)];
            run("without_descriptors_a_listener_rests", world(), listening::without_descriptors_a_listener_rests);
            run("a_resting_listener_is_closed", world(), listening::a_resting_listener_is_closed);
        }
    }

    #[test]
    fn kernel_without_descriptors() {
        by_itself("alone::kernel_without_descriptors", || without_descriptors(kernel_world));
    }

    #[test]
    fn uring_without_descriptors() {
        if let Err(skip) = uring_world(Home::V4) {
            println!("SKIP: conformance: {skip}");
            return;
        }
        by_itself("alone::uring_without_descriptors", || without_descriptors(uring_world));
    }
}

/// Hosts of their own, whose routes forbid a way: ways are the host's.
mod forbidding {
    use std::process::Command;

    use midmile_engine::Addr;
    use midmile_engine::conformance::{Home, Side, Skip, SocketWorld, dialling, kernel_world, run, uring_world};

    /// Nobody's addresses (RFC 5737, RFC 3849).
    const PROHIBITED: [(Home, &str, &str); 2] = [
        (Home::V4, "ip route add prohibit 198.51.100.1", "198.51.100.1:9"),
        (Home::V6, "ip -6 route add prohibit 2001:db8::1", "[2001:db8::1]:9"),
    ];

    fn denied<S: Side>(made: impl Fn(Home) -> Result<SocketWorld<S>, Skip> + Sync) {
        let can = Command::new("unshare").args(["--net", "true"]).status();
        if !can.is_ok_and(|status| status.success()) {
            println!("SKIP: conformance: a dial that is denied isn't tried: network namespaces need root");
            return;
        }
        for (home, forbid, to) in PROHIBITED {
            let host = crate::host::Host::new();
            host.command(forbid);
            host.run(|| {
                let to = Addr::Inet(to.parse().expect("well-formed"));
                run("a_dial_is_denied", [made(home).map(|world| world.forbidding(to))], dialling::a_dial_is_denied);
            });
        }
    }

    #[test]
    fn kernel_dials_are_denied() {
        denied(kernel_world);
    }

    #[test]
    fn uring_dials_are_denied() {
        denied(uring_world);
    }
}
