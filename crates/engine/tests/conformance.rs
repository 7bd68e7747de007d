//! The conformance of the backends that are here: each case on each.

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
