//! Legs that ask to be their peers' friends: what they need beside the engine.

use midmile_friends_sockets::own::{self, Refused};

use crate::config::Config;
use crate::exit::Failure;

pub(crate) mod directory;

/// Whether any leg asks.
pub(crate) fn asked(config: &Config) -> bool {
    let listeners = config.listeners.iter().any(|listener| listener.client.friend || listener.server.friend);
    listeners || config.trunks.iter().any(|trunk| trunk.server.friend)
}

/// Lets legs become friends, if any asks. Once begun it goes on, whatever a reload says.
///
/// # Errors
/// When the directory can't be used.
pub(crate) fn begin(config: &Config) -> Result<(), Failure> {
    if !asked(config) {
        return Ok(());
    }
    let directory = directory::find(config.friends_dir.as_deref())?;
    match own::begin(&directory) {
        Ok(()) => tracing::info!(directory = %directory.display(), "legs that ask for friends meet here"),
        Err(Refused::Filtered) => {
            tracing::warn!("legs stay plain TCP: this process runs under a system call filter (seccomp)");
        }
        Err(Refused::Directory) => {
            return Err(Failure::Run(format!("friends can't meet in {}: the path is too long", directory.display())));
        }
    }
    Ok(())
}
