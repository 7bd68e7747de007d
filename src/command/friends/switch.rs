//! `midmile friends off` and `on`: whether programs that were started by `midmile friends run` may be friends.
//!
//! A file in the runtime directory says so to processes that begin later, and a word on the board of each that runs. The file comes first:
//! a process that puts its board up looks for the file after that, so it sees one or the other.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use midmile_friends::Wish;

use super::boards::{Board, Use};
use crate::cli::FriendsSwitchArgs;
use crate::exit::{Failure, Outcome};
use crate::friends::directory::{self, failed};

/// The file that says that friends are off.
const FILE: &str = "off";

pub(crate) fn off(args: &FriendsSwitchArgs) -> Outcome {
    let directory = directory::find(args.runtime_dir.as_deref())?;
    let file = directory.join(FILE);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    said(made.map(drop), ErrorKind::AlreadyExists, &file, "write")?;
    let told = tell(&directory, Wish::Off)?;
    print(&format!("off in {}: {told} go by TCP from their next call on; new ones stay plain", directory.display()))
}

pub(crate) fn on(args: &FriendsSwitchArgs) -> Outcome {
    let directory = directory::find(args.runtime_dir.as_deref())?;
    let file = directory.join(FILE);
    said(fs::remove_file(&file), ErrorKind::NotFound, &file, "remove")?;
    let told = tell(&directory, Wish::On)?;
    print(&format!("on in {}: {told} may have friends again", directory.display()))
}

/// Nothing is wrong where all was so before.
fn said(done: io::Result<()>, already: ErrorKind, file: &Path, what: &str) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() != already => Err(failed(what, file, &error)),
        _ => Ok(()),
    }
}

/// Tells all processes of the directory; how many those are.
fn tell(directory: &Path, wish: Wish) -> Result<String, Failure> {
    let found = fs::metadata(directory).map_err(|error| failed("find", directory, &error))?;
    let boards = Board::of(&found, Use::Tell).map_err(|error| failed("look into", Path::new("/proc"), &error))?;
    let (mut told, mut failed) = (0, None);
    for board in &boards {
        match board.tell(wish) {
            Ok(()) => told += 1,
            // The others are told all the same.
            Err(error) => failed = failed.or(Some(format!("can't tell process {}: {error}", board.pid))),
        }
    }
    if let Some(failed) = failed {
        return Err(Failure::Run(format!("{failed}; {told} others were told")));
    }
    Ok(if told == 1 { "1 process".to_owned() } else { format!("{told} processes") })
}

fn print(line: &str) -> Outcome {
    super::super::print(format!("{line}\n").as_bytes())
}
