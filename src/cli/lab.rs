//! The options of `midmile lab`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use midmile_lab::steps::Step;
use midmile_lab::windows::WindowsBy;

use crate::config::parse_period;

/// Of a wait in the lab.
const IDLE_MAX: Duration = Duration::from_mins(3);

const LAB_EXAMPLES: &str = "\
Examples:
  midmile lab
  midmile lab satellite --steps end-to-end,split --html report.html
  midmile lab my.toml --json figures.json
  midmile lab --compare --html report.html
  midmile lab --with 'curl -s -o /dev/null -w \"%{time_total}\\n\" http://{target}/1000000'
  midmile lab --shell oregon -- ping -c 3 10.2.0.2

Hosts are network namespaces without names, links are emulated. Nothing of this
machine's own network is touched, and all is gone when the lab ends, however it ends.
It runs as root, or where user namespaces are allowed; it needs /dev/net/tun.
docs/lab.md has the scenarios and the form of a scenario file.";

/// Kept apart from the field: the braces are literal.
const WITH_HELP: &str =
    "Run this shell command in the client's host on each step instead of measuring; {target} stands for address:port";

#[derive(Args, Debug)]
#[command(after_help = LAB_EXAMPLES)]
pub(crate) struct LabArgs {
    /// A built-in scenario, or a file that ends in .toml.
    #[arg(value_name = "SCENARIO", default_value = "pathway")]
    pub(crate) scenario: String,
    /// List the built-in scenarios and the steps.
    #[arg(long, conflicts_with_all = ["steps", "compare", "objects", "repetitions", "idle", "json", "html", "shell", "with"])]
    pub(crate) list: bool,
    /// Only these steps, in this order.
    #[arg(long, value_name = "STEP,…", value_delimiter = ',', value_parser = parse_step)]
    pub(crate) steps: Option<Vec<Step>>,
    /// Run end-to-end-bbr, haproxy and nginx as well, where they are installed.
    #[arg(long)]
    pub(crate) compare: bool,
    /// Only these objects of the scenario.
    #[arg(long, value_name = "OBJECT,…", value_delimiter = ',')]
    pub(crate) objects: Option<Vec<String>>,
    /// Fetch each object this often [default: what the scenario says].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repetitions: Option<u32>,
    /// Wait this long before each visit, with gateways and pools up; then the time one way is told as well.
    #[arg(long, value_name = "DURATION", value_parser = parse_idle)]
    pub(crate) idle: Option<Duration>,
    /// What links are made of: TUN devices and the lab's own emulator, or veth pairs and the kernel's netem.
    #[arg(long, value_name = "DRIVER", value_enum, default_value_t)]
    pub(crate) links: LinkDriver,
    /// By what gateways open windows: auto, ebpf, route or traffic.
    #[arg(long, value_name = "WAY", default_value = "auto", value_parser = parse_windows)]
    pub(crate) windows: WindowsBy,
    /// Leave net.ipv4.tcp_slow_start_after_idle of the gateways' hosts at 1: windows of idle connections close.
    #[arg(long)]
    pub(crate) windows_close: bool,
    /// Congestion control of the gateways' legs [default: cubic, or what the kernel has that goes by losses].
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with table and pictures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Run a command in this host, with the first of the steps up [default command: $SHELL].
    #[arg(long, value_name = "HOST", conflicts_with_all = ["compare", "json", "html", "with", "objects", "repetitions", "idle"])]
    pub(crate) shell: Option<String>,
    #[arg(long, value_name = "COMMAND", help = WITH_HELP, conflicts_with_all = ["json", "html", "objects", "repetitions", "idle"])]
    pub(crate) with: Option<String>,
    /// What --shell runs.
    #[arg(last = true, value_name = "COMMAND", requires = "shell")]
    pub(crate) command: Vec<String>,
}

/// What the lab's links are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LinkDriver {
    /// TUN devices and the lab's own emulator.
    #[default]
    Tun,
    /// veth pairs and the kernel's netem; not with --html, which draws what the emulator sees.
    Netem,
}

/// A step by its name.
fn parse_step(text: &str) -> Result<Step, String> {
    Step::named(text).ok_or_else(|| {
        format!(
            "no such step; there are: {}",
            Step::ALL.into_iter().chain(Step::COMPARED).map(Step::name).collect::<Vec<_>>().join(", ")
        )
    })
}

/// A way to open windows by its name.
fn parse_windows(text: &str) -> Result<WindowsBy, String> {
    let named = WindowsBy::ALL.into_iter().find(|by| by.name() == text);
    named.ok_or_else(|| format!("no such way; there are: {}", WindowsBy::ALL.map(WindowsBy::name).join(", ")))
}

/// A pool connection is retired after some minutes: a longer wait would find another one.
fn parse_idle(text: &str) -> Result<Duration, String> {
    let period = parse_period(text)?;
    if period > IDLE_MAX {
        return Err("pool connections are replaced by then; write 3m or less".to_owned());
    }
    Ok(period)
}
