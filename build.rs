//! Builds the preload library of `midmile friends`, which the binary carries.
//!
//! A library that is loaded into any program is another artefact than the binary: optimised whatever the profile, aborting instead of
//! unwinding, and a cdylib, which Cargo can't make a dependency of a binary (artifact dependencies are unstable). So Cargo is called
//! again, with a target directory of its own beneath `OUT_DIR`, as aya-build does for programs in the kernel. It needs nothing that the
//! outer build hasn't fetched, and is repeated only when the library's sources change.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the library is made of, beside the lock file.
const CRATES: [&str; 3] = ["crates/friends", "crates/friends-preload", "crates/friends-sockets"];

/// Variables of the outer build that mustn't reach the inner one: flags and wrappers that are meant for the program, such as clippy.
const OUTER: [&str; 8] = [
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_MAKEFLAGS",
    "RUSTDOCFLAGS",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    for each in CRATES {
        println!("cargo::rerun-if-changed={each}/src");
        println!("cargo::rerun-if-changed={each}/Cargo.toml");
    }
    let library = build()?;
    let name = format!("libmidmile_friends-{:016x}.so", fingerprint(&fs::read(&library)?));
    println!("cargo::rustc-env=MIDMILE_FRIENDS_LIBRARY={}", library.display());
    println!("cargo::rustc-env=MIDMILE_FRIENDS_LIBRARY_NAME={name}");
    Ok(())
}

/// Calls Cargo; where it put the library.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let (cargo, out, triple) = (env::var("CARGO")?, env::var("OUT_DIR")?, env::var("TARGET")?);
    let target = Path::new(&out).join("friends");
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--offline", "--locked", "--lib", "--package", "midmile-friends-preload"])
        .args(["--profile", "preload", "--target", &triple])
        .arg("--target-dir")
        .arg(&target);
    OUTER.iter().for_each(|name| {
        command.env_remove(name);
    });
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok(target.join(triple).join("preload").join("libmidmile_friends_preload.so"))
}

/// FNV-1a: tells one build's library from another's in a directory where several may stand.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
