//! `midmile gateway`: relays what a configuration file says.

use crate::cli::GatewayArgs;
use crate::config;
use crate::exit::Outcome;
use crate::host::Host;
use crate::intercept::{Applied, Rules};
use crate::supervise;

pub(crate) fn run(args: &GatewayArgs) -> Outcome {
    let host = Host::probe();
    let config = config::load(&args.config, &host)?;
    if args.print_rules {
        let script = Rules::of(&config).map_or_else(|| NO_RULES.to_owned(), |rules| rules.script());
        return super::print(script.as_bytes());
    }
    let applied = if args.apply { Some(Applied::claim()?) } else { None };
    let path = args.config.clone();
    // The kernel's congestion controls may have changed by the time of a reload: probe again.
    supervise::run(config, host.cpus, applied, move || config::load(&path, &Host::probe()))
}

/// What is printed where nothing is intercepted.
const NO_RULES: &str = "# No listener is transparent and no leg has its client's address: no rules are needed.\n";
