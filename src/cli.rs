//! The command line: one table, of which help, man pages and completions are made.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::addr::{Backend, Endpoint};
use crate::config::{BUSY_POLL_MAX, PERIOD_MAX, parse_period};

mod friends;
mod lab;

pub(crate) use friends::{
    FriendsArgs, FriendsAttachArgs, FriendsCommand, FriendsDetachArgs, FriendsRunArgs, FriendsStatusArgs,
    FriendsSwitchArgs, FriendsTapArgs,
};
pub(crate) use lab::{LabArgs, LinkDriver};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; a relay drained until no pair was left
  1  it couldn't start or go on: a port in use, an unresolvable name, too few file descriptors
  2  the command line or the configuration is wrong
  3  the drain ended with pairs still open, and they were cut

Signals (relay, gateway, mux):
  SIGTERM, SIGINT  drain: accept no more, wait for open pairs until the drain timeout;
                   a second signal cuts them at once
  SIGHUP           reload: names are resolved again, and gateway reads its file again;
                   open pairs go on

Environment:
  MIDMILE_LOG      what is logged: error, warn, info, debug, trace, or midmile=debug";

const RELAY_EXAMPLES: &str = "\
Examples:
  midmile relay --listen 0.0.0.0:8080 --to 10.0.0.5:80
  midmile relay --listen [::]:5432 --to unix:/run/postgresql/.s.PGSQL.5432 --admin 127.0.0.1:9400
  midmile relay --listen 127.0.0.1:0 --to db:5432 --listen 127.0.0.1:0 --to cache:6379

When a listener accepts, a line goes to standard output:
  ready listen=127.0.0.1:43210 to=127.0.0.1:80

midmile --help has the exit codes and the signals.";

const GATEWAY_EXAMPLES: &str = "\
Examples:
  midmile check --config /etc/midmile/midmile.toml
  midmile gateway --config /etc/midmile/midmile.toml
  midmile gateway --config /etc/midmile/midmile.toml --print-rules

The keys of the file are described in docs/configuration.md, and
packaging/midmile.example.toml is one to start from.

When a listener accepts, a line goes to standard output:
  ready listen=127.0.0.1:43210 to=10.0.0.5:80,10.0.0.6:80

midmile --help has the exit codes and the signals.";

const MUX_EXAMPLES: &str = "\
Examples:
  midmile mux --framing dns --listen 0.0.0.0:53 --to 10.0.0.5:53 --to 10.0.0.6:53
  midmile mux --framing dns --listen [::]:53 --to 10.0.0.5:53 --admin 127.0.0.1:9400
  midmile mux --framing dns --listen [::]:53 --to udp:10.0.0.5:53 --to udp:[2001:db8::5]:53
  midmile mux --framing resp --listen 127.0.0.1:6379 --to cache1:6379 --to cache2:6379

Clients' requests go on one by one, over few connections to the backends that all clients
share, each to the backend with the fewest unanswered ones. Every --listen leads to every
--to. DNS answers come as the backends give them; of other protocols each client gets its
answers in the order of its requests.

When a listener accepts, a line goes to standard output:
  ready listen=127.0.0.1:43210 to=10.0.0.5:53,10.0.0.6:53

A file (midmile gateway) has more: other framings, health checks, options of the legs.
midmile --help has the exit codes and the signals.";

const CHECK_EXAMPLES: &str = "\
Examples:
  midmile check --config midmile.toml && systemctl reload midmile

All mistakes are listed, each as file:line: key: what is wrong; how to mend it.
No socket is opened and no name resolved. Exit codes: 0 the file is right; 2 it isn't.";

const STATUS_EXAMPLES: &str = "\
Examples:
  midmile status
  midmile status --admin 127.0.0.1:9400 --watch
  midmile status --config /etc/midmile/midmile.toml --json | jq .peers

It asks the admin server of a midmile that runs: --admin of midmile relay, [admin] in a
file. Without either option the file is /etc/midmile/midmile.toml. docs/operations.md
explains each figure and each reason.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  midmile doctor
  midmile doctor --json | jq '.findings[] | select(.state == \"fallback\")'";

/// A TCP relay and accelerator for Linux.
#[derive(Debug, Parser)]
#[command(name = "midmile", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Relay connections from one address to another, without a configuration file.
    Relay(Box<RelayArgs>),
    /// Relay what a configuration file says: several backends, health checks, options for each leg.
    Gateway(GatewayArgs),
    /// Carry messages, such as DNS over TCP: many clients over few connections to the backends.
    Mux(Box<MuxArgs>),
    /// Check a configuration file and say all that is wrong with it.
    Check(CheckArgs),
    /// Say how a running midmile does: pairs, times, peers, and what went wrong.
    Status(StatusArgs),
    /// Say what this kernel and these privileges allow, and what midmile does where they don't.
    Doctor(DoctorArgs),
    /// Have connections within this host skip TCP, and say how that does.
    Friends(FriendsArgs),
    /// Build a WAN on this machine and measure what each step of midmile is worth in it.
    Lab(LabArgs),
    /// Print shell completions.
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Print a man page.
    #[command(hide = true)]
    Man(ManArgs),
    /// Print the tables of configuration keys, as the reference page has them.
    #[command(hide = true)]
    Keys,
}

/// What the process is to have, where the command line is all of its configuration.
#[derive(Args, Debug)]
pub(crate) struct ProcessArgs {
    /// Serve /metrics, /healthz, /readyz and /status.json here.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<Endpoint>,
    /// Loops, each on a thread pinned to a CPU of its own [default: all CPUs that the process may use].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cores: Option<u16>,
    /// By what the loops wait for their sockets; io_uring takes Linux 6.1.
    #[arg(long, value_name = "WAY", value_enum, default_value = "epoll")]
    pub(crate) wait_by: WaitByArg,
    /// How long after an event a loop looks for the next without sleeping; it takes its CPU for that long.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_busy_poll)]
    pub(crate) busy_poll: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitByArg {
    Epoll,
    #[value(name = "io_uring")]
    IoUring,
}

/// Kept apart from the field: rustdoc would take the brackets for a link.
const LISTEN_HELP: &str =
    "Where to listen: host:port, [v6]:port, unix:/path or unix:@name; port 0 picks one. Once for each --to";

#[derive(Args, Debug)]
#[command(after_help = RELAY_EXAMPLES)]
pub(crate) struct RelayArgs {
    #[arg(long, value_name = "ADDR", required = true, help = LISTEN_HELP)]
    pub(crate) listen: Vec<Endpoint>,
    /// Where its connections go on to; the first --to belongs to the first --listen, and so on.
    #[arg(long, value_name = "ADDR", required = true)]
    pub(crate) to: Vec<Endpoint>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    /// Pairs open at once [default: 100000, or as many as the file descriptors allow].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs_max: Option<u32>,
    /// End a pair after this long without a byte in either direction.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_timeout)]
    pub(crate) idle_timeout: Duration,
    /// Give up dialling after this long, over all attempts.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    pub(crate) dial_timeout: Duration,
    /// Require a PROXY protocol header of each client, of this version.
    #[arg(long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "any")]
    pub(crate) accept_proxy: Option<AcceptProxyArg>,
    /// Send a PROXY protocol header of this version to the server.
    #[arg(long, value_name = "VERSION")]
    pub(crate) send_proxy: Option<SendProxyArg>,
    /// Log one line for each pair at its end.
    #[arg(long)]
    pub(crate) log_pairs: bool,
    /// On SIGTERM, wait this long for open pairs before they are cut.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_drain)]
    pub(crate) drain_timeout: Duration,
    /// Congestion control of both legs, such as cubic or bbr [default: the system's].
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Both legs ask to be friends of programs that midmile friends run started: bytes between them skip TCP.
    #[arg(long)]
    pub(crate) friends: bool,
    /// Where friends find each other, the --runtime-dir of midmile friends run [default: as there].
    #[arg(long, value_name = "DIR", requires = "friends")]
    pub(crate) friends_dir: Option<PathBuf>,
}

/// Kept apart from the field: rustdoc would take the brackets for a link.
const MUX_LISTEN_HELP: &str =
    "Where to listen: host:port, [v6]:port, unix:/path or unix:@name; port 0 picks one. It may be given more than once";

#[derive(Args, Debug)]
#[command(after_help = MUX_EXAMPLES)]
pub(crate) struct MuxArgs {
    /// How messages are told apart: DNS over TCP, lines, or Redis's protocol.
    #[arg(long, value_name = "FRAMING")]
    pub(crate) framing: FramingArg,
    #[arg(long, value_name = "ADDR", required = true, help = MUX_LISTEN_HELP)]
    pub(crate) listen: Vec<Endpoint>,
    /// A backend; it may be given more than once. udp:host:port is asked over UDP, and over TCP what doesn't fit there (DNS).
    #[arg(long, value_name = "ADDR", required = true)]
    pub(crate) to: Vec<Backend>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    /// Clients at once [default: 100000, or as many as the file descriptors allow].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients_max: Option<u32>,
    /// Clients from one address at once, on all cores; more are refused; 0: without a bound.
    #[arg(long, value_name = "COUNT", default_value = "0")]
    pub(crate) clients_per_address: u32,
    /// Requests of one client that wait for their answers; beyond them it isn't read.
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) outstanding_per_client: u16,
    /// Connections that each loop keeps to each backend.
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) upstreams_per_backend: u16,
    /// Cut a client whose message takes longer than this, from its first byte to its last.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    pub(crate) message_timeout: Duration,
    /// Close a client's connection after this long without a whole message, and with none to be answered.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    pub(crate) idle_timeout: Duration,
    /// Give up waiting for an answer after this long: SERVFAIL for DNS (sooner where no backend can be reached), the client's end otherwise.
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = parse_timeout)]
    pub(crate) answer_timeout: Duration,
    /// Ask another backend as well after this long without an answer, and so again, three in all: DNS alone.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_timeout)]
    pub(crate) attempt_timeout: Duration,
    /// Log one line for each client at its end.
    #[arg(long)]
    pub(crate) log_clients: bool,
    /// On SIGTERM, wait this long for answers before clients are cut.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_drain)]
    pub(crate) drain_timeout: Duration,
    /// Congestion control of all legs, such as cubic or bbr [default: the system's].
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FramingArg {
    Dns,
    Line,
    Resp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcceptProxyArg {
    Any,
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SendProxyArg {
    V1,
    V2,
}

#[derive(Args, Debug)]
#[command(after_help = GATEWAY_EXAMPLES)]
pub(crate) struct GatewayArgs {
    /// The configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print the firewall rules and routes that transparent listeners and spoof_client need, as a shell script, and end.
    #[arg(long, conflicts_with = "apply")]
    pub(crate) print_rules: bool,
    /// Set those rules and routes at start, and remove them at the end; needs nft, ip and CAP_NET_ADMIN.
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Args, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The configuration file, TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct StatusArgs {
    /// Where the admin server is, as host:port.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub(crate) admin: Option<Endpoint>,
    /// The configuration file that says where it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the document as it came, /status.json.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,
    /// Show it anew each second, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete for.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The subcommand to describe; midmile itself if left out.
    #[arg(value_name = "SUBCOMMAND")]
    pub(crate) subcommand: Option<String>,
}

/// A duration that may be nothing: cut at once.
fn parse_drain(text: &str) -> Result<Duration, String> {
    let period = parse_period(text)?;
    if period > PERIOD_MAX {
        return Err("longer than a year; write 365days or less".to_owned());
    }
    Ok(period)
}

/// A duration that a loop may look for, which may be nothing.
fn parse_busy_poll(text: &str) -> Result<Duration, String> {
    let period = parse_drain(text)?;
    if period > BUSY_POLL_MAX {
        return Err("a loop that looks for so long keeps its CPU from all others; write 1s or less".to_owned());
    }
    Ok(period)
}

/// A duration that is neither nothing nor without end.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let period = parse_drain(text)?;
    if period.is_zero() {
        return Err("no time at all; write more than 0s".to_owned());
    }
    Ok(period)
}

#[cfg(test)]
impl Cli {
    /// The command that a line without quoting stands for; `midmile` itself isn't in it.
    pub(crate) fn command_of(line: &str) -> Command {
        Self::try_parse_from(std::iter::once("midmile").chain(line.split_whitespace())).unwrap().command
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use midmile_gateway::Timeouts;
    use midmile_mux::Bounds;

    use super::*;
    use crate::config::DRAIN_DEFAULT;

    #[test]
    fn the_table_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_shown_are_the_defaults_meant() {
        let Command::Relay(args) = Cli::command_of("relay --listen 127.0.0.1:0 --to a:1") else {
            panic!("another command")
        };
        assert_eq!(args.idle_timeout, Timeouts::default().idle);
        assert_eq!(args.dial_timeout, Timeouts::default().dial);
        assert_eq!(args.drain_timeout, DRAIN_DEFAULT);
        let Command::Mux(args) = Cli::command_of("mux --framing dns --listen 127.0.0.1:0 --to a:1") else {
            panic!("another command")
        };
        let shown = Bounds {
            message_timeout: args.message_timeout,
            idle_timeout: args.idle_timeout,
            answer_timeout: args.answer_timeout,
            attempt_timeout: args.attempt_timeout,
            outstanding_per_client: args.outstanding_per_client,
            clients_per_address: args.clients_per_address,
            upstreams_per_backend: args.upstreams_per_backend,
            ..Bounds::default()
        };
        assert_eq!((shown, args.drain_timeout), (Bounds::default(), DRAIN_DEFAULT));
    }
}
