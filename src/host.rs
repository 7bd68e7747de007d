//! What this host is, as far as a configuration must fit it.

use midmile_engine::kernel;

/// Facts that a configuration is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// CPUs that the process may run on; at least 1.
    pub(crate) cpus: u16,
    /// Congestion controls that the kernel offers; `None` if it doesn't say.
    pub(crate) congestion: Option<Vec<String>>,
}

impl Host {
    /// This host.
    pub(crate) fn probe() -> Self {
        let listed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").ok();
        Self { cpus: cpus(), congestion: listed.map(|words| words.split_whitespace().map(str::to_owned).collect()) }
    }

    /// Whether the kernel offers the congestion control `name`.
    ///
    /// # Errors
    /// What is wrong with it, and which ones there are.
    pub(crate) fn check_congestion(&self, name: &str) -> Result<(), String> {
        match &self.congestion {
            Some(known) if !known.iter().any(|one| one == name) => {
                let known = known.join(", ");
                Err(format!("this kernel doesn't offer \"{name}\"; choose one of {known}, or load its module"))
            }
            _ => Ok(()),
        }
    }
}

/// CPUs in the affinity mask, whatever a cgroup's quota says: a loop is pinned to a CPU, and a quota is time, not CPUs.
fn cpus() -> u16 {
    let allowed = kernel::allowed_cpus().map_or(1, |cpus| cpus.len());
    u16::try_from(allowed).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
impl Host {
    /// One of four CPUs, whose kernel offers reno and cubic.
    pub(crate) fn sample() -> Self {
        Self { cpus: 4, congestion: Some(vec!["reno".to_owned(), "cubic".to_owned()]) }
    }
}
