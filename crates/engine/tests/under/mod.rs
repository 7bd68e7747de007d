//! The backends on the kernel's sockets, one as the other.

use midmile_engine::Backend;
use midmile_engine::kernel::{Kernel, Listener};
use midmile_engine::uring::{Unavailable, Uring, UringConfig};

/// A backend that a test runs on.
pub(crate) trait Under: Backend<Listener = Listener, Parcel: 'static> + Sized {
    /// One, or why there's none to be had here.
    fn made() -> Result<Self, Unavailable>;
}

impl Under for Kernel {
    fn made() -> Result<Self, Unavailable> {
        Ok(Self::new()?)
    }
}

impl Under for Uring {
    fn made() -> Result<Self, Unavailable> {
        Self::new(UringConfig::default())
    }
}

/// Makes a test of each function, for each backend.
#[macro_export]
macro_rules! on_each {
    ($($test:ident),* $(,)?) => {
        mod by_epoll {
            $(#[test]
            fn $test() {
                super::$test::<midmile_engine::kernel::Kernel>();
            })*
        }

        mod by_uring {
            use midmile_engine::uring::Uring;

            use super::under::Under;

            $(#[test]
            fn $test() {
                match Uring::made() {
                    Ok(_) => super::$test::<Uring>(),
                    Err(error) => println!("SKIP: {error}"),
                }
            })*
        }
    };
}
