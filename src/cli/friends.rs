//! The options of `midmile friends`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  midmile friends attach --cgroup /sys/fs/cgroup/system.slice/redis.service --ports 6379
  midmile friends status
  midmile friends detach --cgroup /sys/fs/cgroup/system.slice/redis.service

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

const STATUS_EXAMPLES: &str = "\
Examples:
  midmile friends status
  midmile friends status --json | jq '.attachments[].reasons'";

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
    /// Say where friends are attached, how much skips TCP, and why the rest doesn't.
    Status(FriendsStatusArgs),
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
