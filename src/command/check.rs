//! `midmile check`: says what is wrong with a configuration file.

use crate::cli::CheckArgs;
use crate::config::{self, Config};
use crate::exit::Outcome;
use crate::host::Host;
use crate::intercept::Rules;

pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let config = config::load(&args.config, &Host::probe())?;
    let mut text = format!("{}: ok: {}\n", args.config.display(), summary(&config));
    if let Some(rules) = Rules::of(&config) {
        text.push_str("gateway --apply sets these rules, and removes them at the end:\n");
        text.push_str(&rules.script());
    }
    super::print(text.as_bytes())
}

/// The configuration in one line.
fn summary(config: &Config) -> String {
    let backends = config.listeners.iter().map(|listener| listener.to.len()).sum();
    let admin = config.admin.as_ref().map_or_else(|| "no admin server".to_owned(), |admin| format!("admin on {admin}"));
    let mut parts = vec![count(config.listeners.len(), "listener"), count(backends, "backend")];
    if config.gateway.is_some() {
        parts.extend([count(config.peers.len(), "peer"), count(config.trunks.len(), "trunk")]);
    }
    parts.push(admin);
    parts.join(", ")
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
