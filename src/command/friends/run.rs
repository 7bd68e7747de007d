//! `midmile friends run`: puts the preload library where the loader finds it, and becomes the command.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use rustix::process::geteuid;

use crate::cli::FriendsRunArgs;
use crate::exit::{Failure, Outcome};
use crate::friends::directory::{self, failed};

/// The library, as build.rs made it.
const LIBRARY: &[u8] = include_bytes!(env!("MIDMILE_FRIENDS_LIBRARY"));
/// Another build's library has another name: programs that run keep theirs.
const LIBRARY_NAME: &str = env!("MIDMILE_FRIENDS_LIBRARY_NAME");
/// First bytes of an offer of the library's.
const OFFER: &[u8] = b"1elimdim";

pub(crate) fn run(args: &FriendsRunArgs) -> Outcome {
    let directory = directory::find(args.runtime_dir.as_deref())?;
    clean(&directory);
    let library = install(&directory).map_err(|error| failed("write the library to", &directory, &error))?;
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::usage("no command"));
    };
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("LD_PRELOAD", preload(&library))
        .env("MIDMILE_FRIENDS_DIR", &directory)
        .env("MIDMILE_FRIENDS_SPIN_US", &args.spin_us)
        .env("MIDMILE_FRIENDS_AFTER", args.after.to_string());
    if let Some(log) = &args.log {
        command.env("MIDMILE_FRIENDS_LOG", std::path::absolute(log).map_err(|error| failed("find", log, &error))?);
    }
    let error = command.exec();
    Err(Failure::Run(format!("can't run {}: {error}", program.display())))
}

/// What the loader is to load: what was asked for before, then the library. Libraries that want to be the first (sanitizers') can be, and
/// those that stand in front of calls too find ours behind them.
fn preload(library: &Path) -> OsString {
    let before = env::var_os("LD_PRELOAD").unwrap_or_default();
    let ours = |each: &str| Path::new(each).parent() == library.parent() && each.contains("libmidmile_friends");
    let mut all = OsString::new();
    for each in before.to_string_lossy().split([':', ' ']).filter(|each| !each.is_empty() && !ours(each)) {
        all.push(each);
        all.push(":");
    }
    all.push(library);
    all
}

/// Puts the library there, if it isn't there yet: whole or not at all.
fn install(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(LIBRARY_NAME);
    if is_installed(&path) {
        return Ok(path);
    }
    let draft = directory.join(format!(".{}.library", process::id()));
    // One that was left behind is of a process that is gone.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&draft)?;
    file.write_all(LIBRARY)?;
    drop(file);
    fs::rename(&draft, &path)?;
    Ok(path)
}

fn is_installed(path: &Path) -> bool {
    let of_ours = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0);
    of_ours && fs::read(path).is_ok_and(|bytes| bytes == LIBRARY)
}

/// Removes what processes that were killed left in the directory. What can't be read or removed stays: it does no harm.
fn clean(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let left_by = match name.strip_prefix('.') {
            Some(draft) => draft.split('.').next().and_then(|number| number.parse().ok()),
            // To open a pipe would wait for its other end.
            None if entry.file_type().is_ok_and(|kind| kind.is_file()) => offered_by(&entry.path()),
            None => None,
        };
        if left_by.is_some_and(|process: u32| !Path::new("/proc").join(process.to_string()).exists()) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// The process whose offer a file holds, if it holds one.
fn offered_by(path: &Path) -> Option<u32> {
    let mut words = [0; 16];
    File::open(path).ok()?.read_exact(&mut words).ok()?;
    let pair = u64::from_ne_bytes(words[8..].try_into().ok()?);
    if cfg!(target_endian = "little") && words.starts_with(OFFER) { u32::try_from(pair >> 32).ok() } else { None }
}
