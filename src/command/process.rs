//! What `relay` and `mux` have in common: the command line is all of their configuration.

use std::sync::Arc;

use midmile_engine::LegOptions;
use midmile_gateway::WaitBy;

use crate::addr::Endpoint;
use crate::cli::{ProcessArgs, WaitByArg};
use crate::config::{Config, DRAIN_DEFAULT, Limits, Listener, WindowBy};
use crate::exit::{Failure, Outcome};
use crate::host::Host;
use crate::supervise;

/// Runs by the configuration that the command line stands for; a reload finds the same one.
pub(super) fn run(config: impl FnOnce(&Host) -> Result<Config, Vec<String>>) -> Outcome {
    let host = Host::probe();
    let config = config(&host).map_err(Failure::Usage)?;
    let same = config.clone();
    supervise::run(config, host.cpus, None, move || Ok(same.clone()))
}

/// The configuration with these listeners; what only one of the two commands has an option for is by default.
pub(super) fn config(args: &ProcessArgs, pairs_max: Option<u32>, listeners: Vec<Listener>) -> Config {
    Config {
        admin: args.admin.clone(),
        limits: Limits { cores: args.cores, pairs_max, ..Limits::default() },
        drain: DRAIN_DEFAULT,
        log_pairs: false,
        log_level: None,
        gateway: None,
        window_by: WindowBy::default(),
        wait_by: match args.wait_by {
            WaitByArg::Epoll => WaitBy::Epoll,
            WaitByArg::IoUring => WaitBy::IoUring,
        },
        busy_poll: args.busy_poll,
        friends_dir: None,
        listeners,
        peers: Vec::new(),
        trunks: Vec::new(),
    }
}

/// Names of listeners: their addresses, made different where port 0 is there more than once.
pub(super) fn names(listen: &[Endpoint]) -> Vec<String> {
    let name = |(index, at): (usize, &Endpoint)| match listen[..index].iter().filter(|other| *other == at).count() {
        0 => at.to_string(),
        others => format!("{at}#{}", others + 1),
    };
    listen.iter().enumerate().map(name).collect()
}

/// Options of a leg, to a Unix-domain socket or not: that has no congestion control.
pub(super) fn leg(congestion: Option<&str>, unix: bool) -> LegOptions {
    LegOptions { congestion: congestion.filter(|_| !unix).map(Arc::from), ..LegOptions::default() }
}

/// Mistakes in where to listen.
pub(super) fn mistakes_in_listen(listen: &[Endpoint]) -> Vec<String> {
    let taken = |(index, at): &(usize, &Endpoint)| listen[..*index].iter().any(|other| other.collides(at));
    let twice = listen.iter().enumerate().filter(taken);
    twice.map(|(_, at)| format!("--listen {at} is there twice; leave one out")).collect()
}

/// A mistake in a backend's address itself.
pub(super) fn mistake_in_to(to: &Endpoint) -> Option<String> {
    (to.port() == Some(0)).then(|| format!("--to {to}: nobody listens on port 0; write the server's port"))
}

/// Mistakes in options that go for the whole process.
pub(super) fn mistakes_of_process(args: &ProcessArgs, congestion: Option<&str>, host: &Host) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Some(admin) = args.admin.as_ref().filter(|admin| admin.is_unix()) {
        mistakes.push(format!("--admin {admin}: the admin server speaks HTTP over TCP only; write host:port"));
    }
    if let Some(Err(what)) = congestion.map(|name| host.check_congestion(name)) {
        mistakes.push(format!("--congestion: {what}"));
    }
    if let Some(cores) = args.cores.filter(|cores| *cores > host.cpus) {
        let cpus = host.cpus;
        mistakes.push(format!("--cores {cores}: the process may use {cpus} CPUs; write at most {cpus}"));
    }
    mistakes
}
