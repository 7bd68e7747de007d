//! Connections that aren't local, which friends can only cost something: client and server in two network namespaces that a veth pair
//! joins, and the library at neither end, at the client's, at both, and the programs of friends by eBPF at both.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cgroup::{Attached, Cgroup};
use crate::programs::{Measured, Program, Side};
use crate::{Options, Row, Running, Way, ratios};

/// Where the library is, and whether programs in the kernel are.
const ENDS: [(&str, &[Side], bool); 4] = [
    ("neither", &[], false),
    ("the library at the client's end", &[Side::Client], false),
    ("at both", &[Side::Client, Side::Server], false),
    ("both by eBPF", &[], true),
];

const PROGRAMS: [Program; 4] =
    [Program::Redis { clients: 1 }, Program::Redis { clients: 50 }, Program::Nginx { kept: 20 }, Program::NginxVisits];

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 2), 7000);

/// A network namespace, which is there as long as a process that was started in it.
struct Namespace(Running);

impl Namespace {
    fn new() -> Result<Self> {
        let mut keeper = Command::new("unshare");
        let keeper = keeper.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut keeper = Running(keeper.context("can't run unshare")?);
        // Once it answers it's in its namespace.
        keeper.0.stdin.as_mut().context("a pipe was asked for")?.write_all(b"?")?;
        let answered = keeper.0.stdout.as_mut().context("a pipe was asked for")?.read_exact(&mut [0]);
        answered.context("can't have a network namespace; it needs root")?;
        Ok(Self(keeper))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.0.id())
    }

    /// A command that runs in it.
    fn within(&self, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    fn ip(&self, line: &str) -> Result<()> {
        let output = self.within(OsStr::new("ip")).args(line.split(' ')).output().context("can't run nsenter")?;
        ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

/// Two namespaces and the pair between them. This process, and what it starts, is in the near one from here on.
fn join() -> Result<[Namespace; 2]> {
    let [near, far] = [Namespace::new()?, Namespace::new()?];
    near.ip(&format!("link add near type veth peer name far netns {}", far.0.0.id()))?;
    for (namespace, device, address) in [(&near, "near", NEAR), (&far, "far", *FAR.ip())] {
        namespace.ip(&format!("addr add {address}/24 dev {device}"))?;
        namespace.ip(&format!("link set {device} up"))?;
    }
    let file = File::open(near.path())?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok([near, far])
}

/// Measures all programs and prints a table.
pub(crate) fn run(options: &Options, midmile: &Path, wanted: impl Fn(&Row) -> bool) -> Result<()> {
    let [_near, far] = join()?;
    let cgroup = Cgroup::new()?;
    let names = ENDS.map(|(name, ..)| name);
    ratios::run(options, (names, &PROGRAMS), wanted, |way, program| {
        let (name, library, attached) = ENDS[way];
        let attached = attached.then(|| Attached::to(midmile, &cgroup)).transpose()?;
        let measured = measure(options, midmile, (&far, &cgroup), program, library);
        attached.map_or(Ok(()), Attached::end)?;
        measured.with_context(|| format!("{}, {name}", program.name()))
    })
}

/// All ways in the cgroup, so that it makes no difference.
fn measure(
    options: &Options,
    midmile: &Path,
    (far, cgroup): (&Namespace, &Cgroup),
    program: Program,
    library: &[Side],
) -> Result<Measured> {
    let directory = std::env::temp_dir().join(format!("midmile-bench-friends-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = program.measure(&directory, FAR, FAR, |words, side| {
        let way = if library.contains(&side) { Way::Friends } else { Way::Tcp };
        let inner = way.command(midmile, &directory.join("run"), OsStr::new("taskset"));
        let mut command = match side {
            Side::Server => far.within(inner.get_program()),
            Side::Client => Command::new(inner.get_program()),
        };
        let cpu = if side == Side::Server && !options.one_cpu { "1" } else { "0" };
        command.args(inner.get_args()).args(["-c", cpu]).args(words);
        cgroup.within(command.get_program(), command.get_args())
    });
    std::fs::remove_dir_all(&directory).ok();
    measured
}
