//! A network namespace of a lab.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::janitor::{self, Janitor, NETNS_DIR};

/// A namespace; deleted when dropped, with the processes in it; by the janitor if that fails.
pub(crate) struct Namespace {
    /// As `ip netns` knows it.
    pub(crate) name: String,
}

impl Namespace {
    /// Makes it, and tells the janitor before it exists.
    pub(crate) fn make(janitor: &mut Janitor, name: String) -> Result<Self> {
        janitor.owns_netns(&name)?;
        run(&format!("ip netns add {name}"))?;
        Ok(Self { name })
    }

    /// Runs `ip` on what is in it, by a command line without quoting.
    pub(crate) fn ip(&self, line: &str) -> Result<()> {
        run(&format!("ip -n {} {line}", self.name))
    }

    /// Runs a command line without quoting inside.
    pub(crate) fn run(&self, line: &str) -> Result<()> {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Sets what sysctl(8) is told, such as `net.ipv4.ip_forward=1`.
    pub(crate) fn set(&self, settings: &[&str]) -> Result<()> {
        output(Command::new("ip").args(["netns", "exec", &self.name, "sysctl", "-qw"]).args(settings)).context("sysctl")
    }

    /// Writes `value` to a file of a device, such as `threaded`. /sys shows the devices of the namespace it was mounted in, and
    /// `ip netns exec` mounts it anew.
    pub(crate) fn write(&self, device: &str, file: &str, value: &str) -> Result<()> {
        let write = format!("echo {value} > /sys/class/net/{device}/{file}");
        output(Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", &write]))
    }

    /// Gives a device a queue for its packets: veth's ring holds 256 frames, and 1,000 connections would drop some.
    pub(crate) fn queue(&self, device: &str, packets: u32) -> Result<()> {
        run(&format!("tc -n {} qdisc add dev {device} root pfifo limit {packets}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = janitor::remove_netns(&self.name) {
            eprintln!("clean up: {error:#}");
        }
    }
}

/// Takes this thread into a namespace.
pub(crate) fn enter(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    let namespace = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {name}"))
}

/// Runs a command line without quoting to its end.
pub(crate) fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    output(Command::new(program).args(words)).with_context(|| line.to_owned())
}

/// Runs a command to its end; what it says when it fails is the error.
fn output(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().to_string_lossy()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
