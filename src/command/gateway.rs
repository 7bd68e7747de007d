//! `midmile gateway`: relays what a configuration file says.

use crate::cli::GatewayArgs;
use crate::config;
use crate::exit::Outcome;
use crate::host::Host;
use crate::supervise;

pub(crate) fn run(args: &GatewayArgs) -> Outcome {
    let host = Host::probe();
    let config = config::load(&args.config, &host)?;
    let path = args.config.clone();
    // The kernel's congestion controls may have changed by the time of a reload: probe again.
    supervise::run(config, host.cpus, move || config::load(&path, &Host::probe()))
}
