//! `midmile-bench-friends`: two processes on this host and the bytes between them, by plain TCP, by a Unix-domain socket, and by TCP
//! whose ends are friends. Prints a table of medians, and of ratios to plain TCP.
//!
//! Each round measures every way of every row once, one after the other; a ratio is one of medians over rounds. The two processes are
//! pinned: to two CPUs, or both to one, and then perhaps a relay between them to the other.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

mod cgroup;
mod far;
mod programs;
mod ratios;
mod relay;
mod usage;
mod work;

use programs::{Measured, Program, Side};
use relay::Relay;

/// Local TCP beside friends and Unix-domain sockets.
#[derive(Debug, Parser)]
#[command(name = "midmile-bench-friends")]
struct Options {
    /// The binary under test.
    #[arg(long, value_name = "FILE", default_value = "target/release/midmile")]
    midmile: PathBuf,
    /// Measurements of each figure.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    milliseconds: u64,
    /// Both processes on one CPU.
    #[arg(long)]
    one_cpu: bool,
    /// Leave Nagle's algorithm on.
    #[arg(long)]
    nagle: bool,
    /// Connections that aren't local: programs in two network namespaces, with the library at neither end, at the near one, at both, and with
    /// `midmile friends attach` for both. Needs root.
    #[arg(long, conflicts_with_all = ["nagle", "milliseconds"])]
    far: bool,
    /// Friends by eBPF: programs in a cgroup of this bench's own, without and with `midmile friends attach`. Needs root.
    #[arg(long, conflicts_with_all = ["nagle", "milliseconds", "far", "relay"])]
    cgroup: bool,
    /// A relay of midmile's between the two, alone on its CPU, whose legs ask for friends where the programs do.
    #[arg(long, conflicts_with_all = ["one_cpu", "far"])]
    relay: bool,
    /// Only these rows: parts of their names.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// What this program runs of itself.
    #[command(subcommand)]
    work: Option<work::Work>,
}

/// How the two processes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Way {
    Tcp,
    Unix,
    Friends,
    Sleeping,
    Spinning,
}

impl Way {
    const ALL: [Self; 5] = [Self::Tcp, Self::Unix, Self::Friends, Self::Sleeping, Self::Spinning];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unix => "AF_UNIX",
            Self::Friends => "friends",
            Self::Sleeping => "friends, no spin",
            Self::Spinning => "friends, 50 µs spin",
        }
    }

    /// The command that runs a program this way.
    fn command(self, midmile: &Path, directory: &Path, program: &OsStr) -> Command {
        let spin = match self {
            Self::Tcp | Self::Unix => return Command::new(program),
            Self::Friends => "auto",
            Self::Sleeping => "0",
            Self::Spinning => "50",
        };
        let mut command = Command::new(midmile);
        command.args(["friends", "run", "--spin-us", spin, "--runtime-dir"]).arg(directory).arg("--").arg(program);
        command
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    /// Bytes one way, in writes of this size.
    Stream(usize),
    /// Round trips of 64 bytes, blocking, or waiting by epoll.
    Trip { by_epoll: bool },
    /// Requests of programs that know nothing of it.
    Program(Program),
}

impl Row {
    const ALL: [Self; 11] = [
        Self::Stream(256),
        Self::Stream(4 << 10),
        Self::Stream(64 << 10),
        Self::Stream(1 << 20),
        Self::Trip { by_epoll: false },
        Self::Trip { by_epoll: true },
        Self::Program(Program::Redis { clients: 1 }),
        Self::Program(Program::Redis { clients: 50 }),
        Self::Program(Program::Nginx { kept: 1 }),
        Self::Program(Program::Nginx { kept: 20 }),
        Self::Program(Program::NginxVisits),
    ];

    fn name(self) -> String {
        match self {
            Self::Stream(size) => format!("stream {size} B, MB/s"),
            Self::Trip { by_epoll: false } => "round trip 64 B, blocking, µs".to_owned(),
            Self::Trip { by_epoll: true } => "round trip 64 B, epoll, µs".to_owned(),
            Self::Program(program) => program.name(),
        }
    }

    /// Whether it can be had that way.
    fn goes(self, way: Way) -> bool {
        way != Way::Unix || !matches!(self, Self::Program(_))
    }

    fn work(self) -> Vec<String> {
        match self {
            Self::Stream(size) => vec!["--stream".to_owned(), size.to_string()],
            Self::Trip { by_epoll: false } | Self::Program(_) => vec![],
            Self::Trip { by_epoll: true } => vec!["--epoll".to_owned()],
        }
    }
}

/// A process that is ended with what it's part of.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Figures by row and way, one a round; of programs with the CPU time of a request, in microseconds.
type Figures = BTreeMap<(Row, Way), Vec<Measured>>;

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(work) = &options.work {
        return work.run();
    }
    let midmile = std::path::absolute(&options.midmile)?;
    ensure!(midmile.exists(), "there is no {}; build it: cargo build --release", midmile.display());
    let wanted = |row: &Row| options.rows.is_empty() || options.rows.iter().any(|part| row.name().contains(part));
    if options.far {
        return far::run(&options, &midmile, wanted);
    }
    if options.cgroup {
        return cgroup::run(&options, &midmile, wanted);
    }
    let mut figures = Figures::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for row in Row::ALL.into_iter().filter(wanted) {
            if let Row::Program(program) = row
                && let Some(lacking) = program.lacks()
            {
                eprintln!("{}: skipped, {lacking} isn't installed", row.name());
                continue;
            }
            for way in Way::ALL.into_iter().filter(|way| row.goes(*way) && !(options.relay && *way == Way::Unix)) {
                figures.entry((row, way)).or_default().push(measure(&options, &midmile, row, way)?);
            }
        }
    }
    table(&figures);
    Ok(())
}

/// One measurement.
fn measure(options: &Options, midmile: &Path, row: Row, way: Way) -> Result<Measured> {
    let directory = std::env::temp_dir().join(format!("midmile-bench-friends-{}", std::process::id()));
    let cpus = if options.one_cpu || options.relay { ["0", "0"] } else { ["0", "1"] };
    let meeting = directory.join("run");
    let relay = |to: &str| -> Result<Option<Relay>> {
        let friends = (way != Way::Tcp).then_some(&*meeting);
        options.relay.then(|| Relay::start(midmile, to, friends)).transpose()
    };
    let through = |program: &OsStr| way.command(midmile, &meeting, program);
    std::fs::create_dir_all(&directory)?;
    let figure = match row {
        Row::Program(program) => programs::free_addr().and_then(|addr| {
            let pinned = |words: &[String], side| {
                let mut command = through(OsStr::new("taskset"));
                command.args(["-c", cpus[usize::from(side == Side::Server)]]).args(words).stdin(Stdio::null());
                command
            };
            let relay = relay(&addr.to_string())?;
            let asked = relay.as_ref().map_or(addr, Relay::addr);
            program.measure(&directory, addr, asked, pinned)
        }),
        _ => measure_own(options, row, way, cpus, through, relay).map(|rate| Measured { rate, cpu_us: 0.0 }),
    };
    std::fs::remove_dir_all(&directory).ok();
    std::thread::sleep(Duration::from_millis(10));
    figure.with_context(|| format!("{} {}", row.name(), way.name()))
}

/// A measurement by this program: a server, then a client; one of them says the figure.
fn measure_own(
    options: &Options,
    row: Row,
    way: Way,
    cpus: [&str; 2],
    through: impl Fn(&OsStr) -> Command,
    relay: impl Fn(&str) -> Result<Option<Relay>>,
) -> Result<f64> {
    let command = |role: &[&str], cpu: &str| -> Result<Command> {
        let mut command = through(std::env::current_exe()?.as_os_str());
        command.args(role).args(["--cpu", cpu]).args(row.work()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.args(["--milliseconds", &options.milliseconds.to_string()]);
        if options.nagle {
            command.arg("--nagle");
        }
        Ok(command)
    };
    let family = if way == Way::Unix { "unix" } else { "tcp" };
    let mut server = Running(command(&["serve", family], cpus[1])?.spawn().context("can't start the server")?);
    let mut said = BufReader::new(server.0.stdout.take().context("a pipe was asked for")?).lines();
    let place = said.next().context("the server ended")??;
    let relay = relay(&place)?;
    let place = relay.as_ref().map_or(place, |relay| relay.addr().to_string());
    let mut client = Running(command(&["ask", family, &place], cpus[0])?.spawn().context("can't start the client")?);
    let mut answers = BufReader::new(client.0.stdout.take().context("a pipe was asked for")?).lines();
    let figure = match row {
        Row::Trip { .. } => answers.next().context("the client ended")??,
        Row::Stream(_) | Row::Program(_) => said.next().context("the server ended")??,
    };
    for process in [&mut client, &mut server] {
        let status = process.0.wait()?;
        ensure!(status.success(), "a process ended with {status}");
    }
    Ok(figure.parse()?)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn table(figures: &Figures) {
    let names: Vec<String> = Way::ALL.iter().map(|way| way.name().to_owned()).collect();
    println!("| | {} |", names.join(" | "));
    println!("|{}", " --- |".repeat(names.len() + 1));
    for row in Row::ALL {
        let middle = |way, of: fn(&Measured) -> f64| {
            figures.get(&(row, way)).map(|all| median(&all.iter().map(of).collect::<Vec<_>>()))
        };
        let both = |way| Some((middle(way, |one| one.rate)?, middle(way, |one| one.cpu_us)?));
        let Some((plain, plain_cpu)) = both(Way::Tcp) else { continue };
        let cells = Way::ALL.map(|way| {
            let Some((figure, cpu)) = both(way) else { return "–".to_owned() };
            let ratio = if matches!(row, Row::Trip { .. }) { plain / figure } else { figure / plain };
            let beside = if plain_cpu > 0.0 { format!(", CPU {:.2} ×", cpu / plain_cpu) } else { String::new() };
            format!("{figure:.1} ({ratio:.2} ×{beside})")
        });
        println!("| {} | {} |", row.name(), cells.join(" | "));
    }
}
