//! An address that is in use, and is let go in time or isn't.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use midmile_engine::{Addr, LegOptions, ListenError, UnixAddr, kernel};

/// A path for a socket, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("midmile-{name}-{}.sock", std::process::id())))
    }

    fn listen(&self) -> Result<(), ListenError> {
        let at = Addr::Unix(UnixAddr::Path(self.0.as_path().into()));
        kernel::listen(&at, &LegOptions::default(), &[0], false).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn one_that_is_let_go_is_had() {
    let place = Place::new("let-go");
    let holder = UnixListener::bind(&place.0).unwrap();
    thread::scope(|scope| {
        let asking = scope.spawn(|| place.listen());
        // It has asked, and heard that somebody answers there.
        drop(holder.accept().unwrap());
        drop(holder);
        asking.join().unwrap().unwrap();
    });
}

#[test]
fn one_that_is_kept_is_in_use() {
    let place = Place::new("kept");
    let _holder = UnixListener::bind(&place.0).unwrap();
    assert!(matches!(place.listen(), Err(ListenError::InUse)));
}
