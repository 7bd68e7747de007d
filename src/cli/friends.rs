//! The options of `midmile friends`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  midmile friends attach --cgroup /sys/fs/cgroup/system.slice/redis.service --ports 6379
  midmile friends status
  midmile friends tap -w - | tshark -r -
  midmile friends detach --cgroup /sys/fs/cgroup/system.slice/redis.service
  midmile friends run -- redis-server
  midmile friends off

docs/friends.md tells which connections skip TCP, what stays TCP's, and what differs.";

const ATTACH_EXAMPLES: &str = "\
Examples:
  midmile friends attach --cgroup /sys/fs/cgroup/shop.slice
  midmile friends attach --cgroup /sys/fs/cgroup/shop.slice --ports 80,6379

Both ends of a connection have to be in the cgroup or below it, on the same host and
network namespace, with sockets that don't wait in their calls (O_NONBLOCK). All others
stay on TCP. It runs as root: it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

When connections may be friends, a line goes to standard output:
  ready cgroup=/sys/fs/cgroup/shop.slice

It stays in the foreground. SIGTERM, SIGINT or midmile friends detach end it: connections
go on by TCP, and none is cut, nor where it is killed.";

const DETACH_EXAMPLES: &str = "\
Examples:
  midmile friends detach --cgroup /sys/fs/cgroup/shop.slice

It ends what midmile friends attach began, and what one that was killed left over.
Connections go on by TCP; what has skipped TCP waits for its reader.";

const RUN_EXAMPLES: &str = "\
Examples:
  midmile friends run -- redis-server --port 6379
  midmile friends run -- redis-benchmark -p 6379 -t get
  midmile friends run --spin-us 50 --log /tmp/friends.log -- ./client

Both ends of a connection have to run this way, as the same user and with the same
runtime directory; else it stays plain TCP. docs/friends-run.md says what else does.";

const OFF_EXAMPLES: &str = "\
Examples:
  midmile friends off
  midmile friends off --runtime-dir /run/user/1000/midmile-friends

Connections go by TCP from the next call of each end on; what is in shared memory is read
first, and none is cut. It holds for programs that are started later too, until
midmile friends on. It runs as the user whose programs they are. Friends by eBPF
(attach) are switched off by midmile friends detach.";

const ON_EXAMPLES: &str = "\
Examples:
  midmile friends on

Connections that were switched off stay with TCP; others may become friends.";

const STATUS_EXAMPLES: &str = "\
Examples:
  midmile friends status
  midmile friends status --json | jq '.attachments[].reasons'
  midmile friends status --json | jq '.rings.connections[].ends[] | {from, to, way, ring_bytes}'

What is attached to cgroups is listed for root alone; programs that were started by
midmile friends run, for their user.";

const TAP_EXAMPLES: &str = "\
Examples:
  midmile friends tap
  midmile friends tap --ports 6379 -w redis.pcapng
  midmile friends tap -w - | tshark -r -
  midmile friends tap --rings -w shop.pcapng

What friends send, whether it skips TCP or goes by it: a line for each message, or packets
in a file that Wireshark and tshark read as any capture. The packets are made up, since
there are none. Connections that aren't friends are tcpdump's.

When it sees what is sent, a line goes to standard error:
  tapping cgroup=/sys/fs/cgroup/shop.slice

SIGTERM and SIGINT end it, or the end of the friends. It takes root, but for
--rings, which takes the user whose programs they are.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FriendsArgs {
    #[command(subcommand)]
    pub(crate) command: FriendsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FriendsCommand {
    /// Have connections of a cgroup skip TCP, by programs in the kernel, until a signal or detach.
    Attach(FriendsAttachArgs),
    /// Have connections of a cgroup go by TCP again, without cutting any.
    Detach(FriendsDetachArgs),
    /// Have programs that were started by run go by TCP again, and make no new friends, without cutting any connection.
    #[command(after_help = OFF_EXAMPLES)]
    Off(FriendsSwitchArgs),
    /// Let programs that were started by run have friends again.
    #[command(after_help = ON_EXAMPLES)]
    On(FriendsSwitchArgs),
    /// Run a command whose local connections go by shared memory where the other end is run so too.
    Run(FriendsRunArgs),
    /// Say which connections are friends, by either way, how much skips TCP, and why the rest doesn't.
    Status(FriendsStatusArgs),
    /// Show what friends say to each other, or write it as a capture for Wireshark.
    Tap(FriendsTapArgs),
}

#[derive(Args, Debug)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct FriendsAttachArgs {
    /// The directory of the cgroup, of version 2.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cgroup: PathBuf,
    /// Only connections to servers on these ports [default: all].
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ports: Vec<u16>,
}

#[derive(Args, Debug)]
#[command(after_help = DETACH_EXAMPLES)]
pub(crate) struct FriendsDetachArgs {
    /// The directory of the cgroup.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cgroup: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct FriendsStatusArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FriendsSwitchArgs {
    /// Where ends find each other, as with run [default: midmile-friends beneath $XDG_RUNTIME_DIR, /run or /tmp].
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) runtime_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct FriendsRunArgs {
    /// Microseconds that a call looks at the shared memory before it sleeps, which takes its CPU for that long: 0 to 10000, 0 for never; auto: up to 50,
    /// where looks of late have been worth it.
    #[arg(long, value_name = "COUNT", default_value = "auto", value_parser = spin)]
    pub(crate) spin_us: String,
    /// Where ends find each other [default: midmile-friends beneath $XDG_RUNTIME_DIR, /run or /tmp].
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Sends of a connection before its ends may become friends; those that end sooner pay for nothing.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) after: u32,
    /// Append a line of JSON to this file when a process of the command exits: what went by which way.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = TAP_EXAMPLES)]
pub(crate) struct FriendsTapArgs {
    /// The directory of the cgroup [default: the one that friends are attached to].
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cgroup: Option<PathBuf>,
    /// What programs say that were started by run, instead of those in a cgroup.
    #[arg(long, conflicts_with = "cgroup")]
    pub(crate) rings: bool,
    /// Where the ends of those find each other, as with run.
    #[arg(long, value_name = "DIRECTORY", requires = "rings")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Only connections with one of these ports at either end; at most 16 [default: all].
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ports: Vec<u16>,
    /// Write a capture (pcapng) to this file, "-" for standard output, instead of lines.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

/// A time to look before a sleep, as the library reads it.
fn spin(text: &str) -> Result<String, String> {
    let is_known = text == "auto" || text.parse().is_ok_and(|micros: u32| micros <= 10_000);
    if is_known { Ok(text.to_owned()) } else { Err("it's auto, or 0 to 10000 microseconds".to_owned()) }
}
