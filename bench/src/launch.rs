//! Processes inside a network namespace, pinned to a CPU.
//!
//! `in-ns` enters the namespace by `setns` and execs; `ip netns exec` would also remount /sys, which hides cgroups from
//! the program under test.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, set_parent_process_death_signal, setrlimit,
};

use crate::cpus::{self, LOAD_CPU};
use crate::load::Counters;
use crate::namespace::{self, Namespace};

/// Open files wanted: 10,000 pairs are 20,000 sockets, and up to 40,000 pipe ends.
const OPEN_FILES: u64 = 131_072;
/// How long a load process may take to answer; 10,000 connections through a slow proxy take seconds.
const ANSWER_WAIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Arguments of the hidden `in-ns` subcommand.
#[derive(Debug, Args)]
pub(crate) struct InNs {
    /// Name of the network namespace.
    name: String,
    /// CPU to run on.
    #[arg(long)]
    cpu: usize,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Enters the namespace, pins, and becomes the command.
pub(crate) fn enter_and_exec(args: &InNs) -> Result<()> {
    // The kernel ends this process with its parent, even if the parent is killed.
    set_parent_process_death_signal(Some(Signal::KILL)).context("set the parent-death signal")?;
    namespace::enter(&args.name)?;
    cpus::pin(None, args.cpu).with_context(|| format!("pin to CPU {}", args.cpu))?;
    let [program, rest @ ..] = args.command.as_slice() else { bail!("no command") };
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("run {}", program.to_string_lossy()))
}

/// Raises this process's limit of open files, which its children inherit, as far as the host allows; returns it.
pub(crate) fn raise_open_files() -> Result<u64> {
    let wanted = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    if setrlimit(Resource::Nofile, wanted).is_ok() {
        return Ok(OPEN_FILES);
    }
    // Root without CAP_SYS_RESOURCE, as in many containers, keeps the hard limit it was started with.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")?;
    Ok(maximum.unwrap_or(OPEN_FILES))
}

/// What to start and where.
pub(crate) struct Launch<'a> {
    /// What to call it in errors.
    pub(crate) name: &'a str,
    /// The namespace.
    pub(crate) netns: &'a Namespace,
    /// The CPU it's pinned to.
    pub(crate) cpu: usize,
    /// Where its standard error goes (and standard output, unless it answers the bench).
    pub(crate) log: PathBuf,
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
}

/// A command line of this same program.
pub(crate) fn this_program(args: &[&str]) -> Result<Vec<OsString>> {
    let mut command = vec![std::env::current_exe()?.into_os_string()];
    command.extend(args.iter().map(OsString::from));
    Ok(command)
}

impl<'a> Launch<'a> {
    /// One of this program's loads, with its address and more arguments; `dir` is for its log.
    pub(crate) fn load(
        kind: &'a str,
        netns: &'a Namespace,
        dir: &Path,
        at: SocketAddrV4,
        more: &[&str],
    ) -> Result<Self> {
        let command = this_program(&[&["load", kind, &at.to_string()], more].concat())?;
        Ok(Self { name: kind, netns, cpu: LOAD_CPU, log: dir.join(format!("load-{kind}.log")), command })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("in-ns").arg(&self.netns.name).arg("--cpu").arg(self.cpu.to_string()).arg("--").args(&self.command);
        // A process group of its own: the bench can then count and end the processes it forks.
        command.process_group(0);
        Ok(command)
    }

    /// Starts a program that takes no orders.
    pub(crate) fn spawn(&self) -> Result<Process> {
        let log = File::create(&self.log).with_context(|| format!("create {}", self.log.display()))?;
        let child = self.command()?.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Process { name: self.name.to_owned(), child, log: self.log.clone() })
    }

    /// Starts a load process, which answers a newline with its counters.
    pub(crate) fn spawn_load(&self) -> Result<LoadProcess> {
        let log = File::create(&self.log).with_context(|| format!("create {}", self.log.display()))?;
        let mut child = self.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let orders = child.stdin.take().context("no pipe to the load process")?;
        let answers = BufReader::new(child.stdout.take().context("no pipe from the load process")?);
        let process = Process { name: self.name.to_owned(), child, log: self.log.clone() };
        Ok(LoadProcess { orders, answers, process })
    }

    /// Runs a command to its end and fails if it does.
    pub(crate) fn run(&self) -> Result<()> {
        let output = self.command()?.stdin(Stdio::null()).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {} {}", self.name, output.status, stderr.trim());
        Ok(())
    }
}

/// A running process group; ended when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// The process group, which is the leader's process id.
    pub(crate) fn group(&self) -> u32 {
        self.child.id()
    }

    /// Whether the leader still runs; else an error with the last line it wrote.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
        }
    }

    /// Waits until `probe` succeeds. If the process has ended, that is the error: it tells more.
    pub(crate) fn ready_by(&mut self, probe: &Launch<'_>) -> Result<()> {
        let ready = probe.run();
        self.check_alive()?;
        ready.with_context(|| format!("{} isn't ready", self.name))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it wrote nothing").trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            match kill_process_group(group, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => eprintln!("kill {}: {error}", self.name),
            }
        }
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.name);
        }
    }
}

/// A load process: a newline in, its counters out, end of file ends it.
pub(crate) struct LoadProcess {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    process: Process,
}

impl LoadProcess {
    /// The process group, which is the process itself.
    pub(crate) fn group(&self) -> u32 {
        self.process.group()
    }

    /// Asks again and again until the counters say what is waited for.
    pub(crate) fn mark_until(&mut self, reached: impl Fn(&Counters) -> bool, patience: Duration) -> Result<Counters> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let counters = self.mark()?;
            if reached(&counters) {
                return Ok(counters);
            }
            if std::time::Instant::now() > deadline {
                bail!(self.failure("doesn't get there"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks for the counters; also resets the process's latency histogram.
    pub(crate) fn mark(&mut self) -> Result<Counters> {
        self.orders.write_all(b"\n").with_context(|| self.failure("takes no orders"))?;
        let mut ready = [PollFd::new(self.answers.get_ref(), PollFlags::IN)];
        if poll(&mut ready, Some(&ANSWER_WAIT))? == 0 {
            bail!(self.failure("didn't answer in a minute"));
        }
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!(self.failure("ended"));
        }
        Counters::from_json(&line)
    }

    fn failure(&self, what: &str) -> String {
        format!("load {} {what}: {}", self.process.name, self.process.last_words())
    }
}

impl LoadProcess {
    /// Lets the process end in its own way (connections reset, not leaked into the next measurement).
    pub(crate) fn finish(self) -> Result<()> {
        let Self { orders, answers, mut process } = self;
        drop(orders);
        drop(answers);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while process.child.try_wait()?.is_none() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}
