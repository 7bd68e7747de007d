//! `midmile friends detach`: switches off what is attached to a cgroup, or what is left over of it.

use std::thread;
use std::time::{Duration, Instant};

use midmile_kernel::{Attachment, FriendsError, Holder};

use crate::cli::FriendsDetachArgs;
use crate::exit::{Failure, Outcome};

/// How long a process may take to end once its friends are switched off.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &FriendsDetachArgs) -> Outcome {
    let told = detach(args).map_err(|error| super::failure(&error))?;
    super::super::print(told?.as_bytes())
}

/// Switches all of the cgroup off, and waits for the process that holds them; says what goes on.
fn detach(args: &FriendsDetachArgs) -> Result<Result<String, Failure>, FriendsError> {
    let path = args.cgroup.display();
    let mut found = Vec::new();
    for attachment in Attachment::all()? {
        if attachment.is_of(&args.cgroup)? {
            found.push(attachment);
        }
    }
    if found.is_empty() {
        return Ok(Err(Failure::Run(format!(
            "no friends are attached to {path}; midmile friends status lists what is"
        ))));
    }
    let mut ends = 0;
    for attachment in &mut found {
        attachment.switch_off()?;
        ends += attachment.ends();
    }
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = found.iter().find_map(holder) {
        if Instant::now() > deadline {
            return Ok(Err(Failure::Run(format!(
                "friends of {path} are switched off, but process {pid} that attached them doesn't end; end it: kill {pid}"
            ))));
        }
        thread::sleep(LOOK);
    }
    Ok(Ok(format!("detached {path}: {} go on by TCP\n", super::status::connections(ends))))
}

fn holder(attachment: &Attachment) -> Option<u32> {
    match attachment.holder() {
        Holder::Running(pid) => Some(pid),
        Holder::Gone(_) => None,
    }
}
