//! The process's limits, as the configuration asks for them and its descriptors allow.

use midmile_engine::probe;
use midmile_friends_sockets::own;
use midmile_gateway::{Limits, WaitBy};

use crate::config::{Config, Listener};
use crate::descriptors::{self, Needs};
use crate::exit::Failure;
use crate::friends;

/// Descriptors of a loop itself: what it waits with, and what wakes it.
const PER_CORE: u64 = 3;
/// Trunk connections that a gateway has room for, however few its pools ask for.
const POOLED_SPARE: u32 = 64;
/// What every buffer holds, or all but a byte of it: DNS's longest message.
pub(crate) const MESSAGE_MAX_DEFAULT: u32 = 65_537;

/// Settles the process's limits and raises the descriptor limit to match.
///
/// # Errors
/// What the operator asked for doesn't fit, or isn't to be had.
pub(crate) fn settle(config: &Config, cpus: u16) -> Result<Limits, Failure> {
    let cores = config.limits.cores.unwrap_or(cpus);
    let listeners = u64::try_from(config.listeners.len() + config.trunks.len()).unwrap_or(u64::MAX);
    let (pooled_max, upstreams_max) = (pooled_max(config), upstreams_max(config, cores));
    let connections = u64::from(pooled_max) + u64::from(upstreams_max);
    let a_core = listeners.saturating_add(PER_CORE).saturating_add(config.sockets_max());
    let friends = if friends::asked(config) { own::DESCRIPTORS_MAX } else { 0 };
    let standing = a_core.saturating_mul(u64::from(cores)) + connections + friends;
    let needs = Needs { standing, per_pair: if only_messages(config) { 1 } else { 2 } };
    let settled = descriptors::settle(config.limits, needs, descriptors::raise).map_err(Failure::Run)?;
    if settled.lowered {
        tracing::warn!(
            pairs_max = settled.pairs_max,
            pipes_max = settled.pipes_max,
            descriptors = settled.needed,
            "limits lowered to the file descriptors allowed; raise the hard limit (ulimit -Hn, LimitNOFILE=) for more"
        );
    }
    let (pairs_max, pipes_max) = (settled.pairs_max, settled.pipes_max);
    let (message_max, pipe_bytes) = (message_max(config), config.limits.pipe_bytes);
    let (wait_by, busy_poll) = (wait_by(config)?, config.busy_poll);
    Ok(Limits { cores, wait_by, busy_poll, pairs_max, pooled_max, upstreams_max, message_max, pipes_max, pipe_bytes })
}

/// By what the loops wait, if it can be had.
fn wait_by(config: &Config) -> Result<WaitBy, Failure> {
    if config.wait_by == WaitBy::IoUring
        && let Err(error) = probe::io_uring()
    {
        return Err(Failure::Run(format!("wait_by io_uring: {error}; or wait by epoll")));
    }
    Ok(config.wait_by)
}

/// Whether no connection is relayed: each client takes one descriptor then.
fn only_messages(config: &Config) -> bool {
    config.trunks.is_empty() && config.listeners.iter().all(|listener| listener.messages.is_some())
}

/// Room for connections to backends by which messages go: twice what stands, so that a reload can dial others beside them.
pub(crate) fn upstreams_max(config: &Config, cores: u16) -> u32 {
    let of = |listener: &Listener| {
        let each = listener.messages.as_ref().map_or(0, |messages| u32::from(messages.bounds.upstreams_per_backend));
        each.saturating_mul(u32::try_from(listener.to.len()).unwrap_or(u32::MAX))
    };
    let a_core = config.listeners.iter().map(of).fold(0, u32::saturating_add);
    a_core.saturating_mul(cores.into()).saturating_mul(2)
}

/// The longest message that any listener carries; 0 if none does.
pub(crate) fn message_max(config: &Config) -> u32 {
    let messages = config.listeners.iter().filter_map(|listener| listener.messages.as_ref());
    messages.map(|messages| messages.bounds.message_max).max().unwrap_or(0)
}

/// Room for trunk connections, set aside at start: what the pools may hold, and some for peers that a reload adds.
pub(crate) fn pooled_max(config: &Config) -> u32 {
    let asked = config.peers.iter().filter(|peer| peer.address.is_some()).map(|peer| peer.pool.max);
    if config.gateway.is_some() { asked.sum::<u32>().max(POOLED_SPARE) } else { 0 }
}
