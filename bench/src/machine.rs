//! The machine a run was made on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// What a reader needs to judge the numbers.
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    date: String,
    cycles: bool,
}

impl Machine {
    /// Looks around; what can't be found out is "unknown".
    pub(crate) fn look(cycles: bool) -> Self {
        let uname = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
        Self {
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            date: date.map_or_else(
                |_| "unknown date".to_owned(),
                |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
            ),
            cycles,
        }
    }

    /// CPUs this process may use.
    pub(crate) const fn cores(&self) -> usize {
        self.cores
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let cycles = if self.cycles { "cycles by perf" } else { "no cycle counter: CPU time stands in for cycles" };
        format!("{} · {} · {} CPUs · {} · {cycles}", self.kernel, self.cpu, self.cores, self.date)
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        json!({ "kernel": self.kernel, "cpu": self.cpu, "cores": self.cores, "date": self.date, "cycles": self.cycles })
    }
}
