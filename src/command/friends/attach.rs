//! `midmile friends attach`: attaches, and stays until somebody ends it.
//!
//! It stays in the foreground, and nothing is pinned in a file system: the kernel takes the programs off the cgroup when the process
//! ends, however it ends, so none can be forgotten there.

use std::time::Duration;

use midmile_kernel::{Friends, FriendsError};
use tokio::time::sleep;

use crate::cli::FriendsAttachArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::signals::Signals;

/// How often it looks whether it has been switched off by `midmile friends detach`.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &FriendsAttachArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("can't wait for signals: {error}")))?;
    runtime.block_on(async {
        // Before it is ready: who was told so may end it at once.
        let mut signals = Signals::listen()?;
        let mut friends = Friends::attach(&args.cgroup, &args.ports).map_err(|error| super::failure(&error))?;
        let cgroup = friends.attachment().path().display().to_string();
        if !crate::command::reaches(format!("ready cgroup={cgroup}\n").as_bytes())? {
            return Ok(Exit::Done);
        }
        let is_there = tokio::select! {
            () = signals.end.recv() => true,
            looked = switched_off(&friends) => looked.map_err(|error| super::failure(&error))?,
        };
        friends.switch_off().map_err(|error| super::failure(&error))?;
        if is_there {
            return Ok(Exit::Done);
        }
        Err(Failure::Run(format!("the cgroup {cgroup} was removed; attach to one that is made in its place anew")))
    })
}

/// Waits until somebody has switched it off, or the cgroup is gone; whether it's there.
async fn switched_off(friends: &Friends) -> Result<bool, FriendsError> {
    let attachment = friends.attachment();
    while attachment.is_on()? {
        // Where it can't be found it isn't there, or another has its place.
        if !attachment.is_of(attachment.path()).unwrap_or(false) {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
    Ok(true)
}
