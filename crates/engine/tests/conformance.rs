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
