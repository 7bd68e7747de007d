//! The runtime directory of `midmile friends run`, and of legs that ask for friends: where ends find each other, and where it says whether they may.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

use crate::exit::Failure;

/// The directory, beneath one that the system gives.
const DIRECTORY: &str = "midmile-friends";
/// The longest path that the library takes.
const PATH_MAX: usize = 255;

/// The directory that was asked for, or the first in which programs may be loaded.
pub(crate) fn find(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(wanted) = wanted {
        let path = std::path::absolute(wanted).map_err(|error| failed("find", wanted, &error))?;
        return usable(&path).map(|()| path).map_err(|error| failed("use", wanted, &error));
    }
    let user = geteuid().as_raw();
    let mut places: Vec<PathBuf> = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().collect();
    places.push(if user == 0 { "/run".into() } else { format!("/run/user/{user}").into() });
    let mut paths: Vec<PathBuf> = places.iter().map(|place| place.join(DIRECTORY)).collect();
    paths.push(format!("/tmp/{DIRECTORY}-{user}").into());
    let mut last = None;
    for path in paths.iter().filter(|path| path.is_absolute()) {
        match usable(path) {
            Ok(()) => return Ok(path.clone()),
            Err(error) => last = Some(failed("use", path, &error)),
        }
    }
    Err(last.expect("there's at least one path"))
}

/// Makes the directory, or sees that it's the user's alone and that programs may be loaded from it.
fn usable(path: &Path) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not through a link: another user could have put it there.
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return refuse("it isn't a directory");
    }
    if found.uid() != geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if found.permissions().mode() & 0o7777 != 0o700 {
        return refuse("others may use it too; its mode has to be 700");
    }
    if statvfs(path)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return refuse("programs can't be loaded from there (noexec)");
    }
    if path.as_os_str().len() > PATH_MAX || path.to_str().is_none_or(|path| path.contains([':', ' '])) {
        return refuse("the loader can't take such a path: too long, or with a colon or space");
    }
    Ok(())
}

/// What went wrong with a path.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Run(format!("can't {what} {}: {error}", path.display()))
}
