//! Rules set and removed again, by the programs that every host with nftables has: `nft` and `ip`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::{Family, ROUTES, Rules, removal, rule_command};
use crate::exit::Failure;

/// Held by whoever has rules set, by a name that each network namespace has for itself (unix(7)) and that a killed process loses.
const LOCK: &[u8] = b"midmile-rules";
/// Rules of the same words that are removed at most: a host has one, unless somebody added more by hand.
const SAME_MAX: usize = 16;
/// Where the programs are that aren't on the search path of every user.
const BEYOND_PATH: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Rules that are removed when this goes.
#[derive(Debug)]
pub(crate) struct Applied {
    _lock: std::os::fd::OwnedFd,
    rules: Option<Rules>,
}

impl Applied {
    /// Takes the rules' names for this process, and removes what a killed one has left there.
    ///
    /// # Errors
    /// Another process has set its rules in this network namespace.
    pub(crate) fn claim() -> Result<Self, Failure> {
        let why = |error: rustix::io::Errno| match error {
            rustix::io::Errno::ADDRINUSE => {
                "another midmile has set its rules here; end it, or give one process all the listeners".to_owned()
            }
            error => format!("can't reserve the rules' name: {error}"),
        };
        let claimed = (|| {
            let lock = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            bind(&lock, &SocketAddrUnix::new_abstract_name(LOCK)?)?;
            Ok(lock)
        })();
        let lock = claimed.map_err(|error| Failure::Run(format!("--apply: {}", why(error))))?;
        remove();
        Ok(Self { _lock: lock, rules: None })
    }

    /// Sets these rules in place of those set before. What can't be set whole is removed whole.
    ///
    /// # Errors
    /// A program that isn't there, or what it said.
    pub(crate) fn set(&mut self, rules: Option<Rules>) -> Result<(), Failure> {
        if self.rules == rules {
            return Ok(());
        }
        let Some(new) = &rules else {
            remove();
            self.rules = None;
            return Ok(());
        };
        let done = set(new).map_err(|what| Failure::Run(format!("--apply: {what}")));
        match &done {
            Ok(()) => self.rules = rules,
            Err(_) => {
                remove();
                self.rules = None;
            }
        }
        done
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if self.rules.is_some() {
            remove();
        }
    }
}

fn set(rules: &Rules) -> Result<(), String> {
    let (nft, ip) = (find("nft")?, find("ip")?);
    for family in &rules.families {
        remove_routes(&ip, *family);
    }
    for command in rules.routes() {
        // A host without IPv6 has none to keep.
        if command.first() == Some(&Family::V6.option()) && !has_ipv6() {
            continue;
        }
        succeeded("ip", run(&ip, &command, ""))?;
    }
    // The table last: what it marks finds its routes.
    succeeded("nft", run(&nft, &["-f", "-"], &rules.nft()))
}

/// Removes all that may have been set. What isn't there is no failure, nor is a program that isn't: it has set nothing either.
fn remove() {
    if let Ok(nft) = find("nft")
        && let Err(what) = succeeded("nft", run(&nft, &["-f", "-"], &removal()))
    {
        tracing::debug!(what, "no table was removed");
    }
    if let Ok(ip) = find("ip") {
        remove_routes(&ip, Family::V4);
        remove_routes(&ip, Family::V6);
    }
}

fn remove_routes(ip: &Path, family: Family) {
    let removes = || run(ip, &rule_command(family, "del"), "").is_ok_and(|output| output.status.success());
    let removed = (0..SAME_MAX).take_while(|_| removes()).count();
    // It fails where the table was never there.
    let flushed = run(ip, &[family.option(), "route", "flush", "table", ROUTES], "");
    tracing::trace!(removed, flushed = flushed.is_ok(), "routes removed");
}

/// Whether the kernel takes the rules' expressions: they are handed over to be checked, and not set.
///
/// # Errors
/// What is missing, in one line.
pub(crate) fn can_tproxy() -> Result<(), String> {
    let text = "table inet midmile-try {\nchain try {\ntype filter hook prerouting priority mangle;\nsocket wildcard 0 socket transparent 1 \
                accept\nip daddr 192.0.2.1 tcp dport 1 tproxy ip to :1 accept\n}\n}\n";
    succeeded("nft", run(&find("nft")?, &["-c", "-f", "-"], text))
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(BEYOND_PATH.map(PathBuf::from));
    let found = { dirs }.map(|dir| dir.join(program)).find(|path| path.is_file());
    let package = if program == "nft" { "nftables" } else { "iproute2" };
    found.ok_or_else(|| format!("the program {program} isn't there; install it (package {package})"))
}

/// Runs a program with `input`, and waits for its end.
fn run(program: &Path, args: &[&str], input: &str) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended before it read this says why itself.
        stdin.write_all(input.as_bytes()).ok();
    }
    child.wait_with_output()
}

/// What went wrong, if anything did: the program's first line, and the mend where it's known.
fn succeeded(program: &str, output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("can't run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
    let mend = if first.contains("not permitted") { "; run as root, or give CAP_NET_ADMIN" } else { "" };
    Err(format!("{program}: {first}{mend}"))
}
