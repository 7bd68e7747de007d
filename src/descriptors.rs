//! File descriptors: how many the limits need, whether the process may have them, and what fits if not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Limits, PAIRS_MAX_DEFAULT, PIPES_MAX_DEFAULT};

/// Descriptors beside pairs, pipes, listeners and loops: the admin server's, the health checks', the log's.
const SPARE: u64 = 64;
/// Descriptors of a pipe: its two ends.
const PER_PIPE: u64 = 2;

/// The limits that were settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) pairs_max: u32,
    pub(crate) pipes_max: u32,
    /// How many descriptors they need.
    pub(crate) needed: u64,
    /// Whether the default was lowered because of descriptors.
    pub(crate) lowered: bool,
}

/// What takes descriptors besides pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Open all the time: listening sockets, one a core, the loops' own, trunk connections in pools, and those to backends by which
    /// messages go.
    pub(crate) standing: u64,
    /// Of a pair: its two legs; or one, where only messages are carried.
    pub(crate) per_pair: u64,
}

impl Needs {
    /// Descriptors needed in all.
    const fn with(self, pairs: u32, pipes: u32) -> u64 {
        self.per_pair * pairs as u64 + PER_PIPE * pipes as u64 + self.standing + SPARE
    }
}

/// Settles the limits: what the operator asked for, or else the defaults, or else what fits. `allow` is asked for a number of descriptors
/// and answers how many there may be.
///
/// # Errors
/// One line, if what the operator asked for doesn't fit.
pub(crate) fn settle(asked: Limits, needs: Needs, mut allow: impl FnMut(u64) -> u64) -> Result<Settled, String> {
    let pairs = asked.pairs_max.unwrap_or(PAIRS_MAX_DEFAULT);
    let pipes = asked.pipes_max.unwrap_or_else(|| PIPES_MAX_DEFAULT.min(pairs.saturating_mul(2)));
    let wanted = needs.with(pairs, pipes);
    let allowed = allow(wanted);
    if wanted <= allowed {
        return Ok(Settled { pairs_max: pairs, pipes_max: pipes, needed: wanted, lowered: false });
    }
    fit(asked, needs, allowed).ok_or_else(|| too_few(asked, needs.per_pair, (pairs, pipes), wanted, allowed))
}

/// The largest limits within `allowed` descriptors that leave alone what the operator set.
fn fit(asked: Limits, needs: Needs, allowed: u64) -> Option<Settled> {
    let free = allowed.checked_sub(SPARE + needs.standing)?;
    let per_pair = needs.per_pair;
    let fits = |descriptors: u64, each: u64| u32::try_from(descriptors / each).unwrap_or(u32::MAX);
    let (pairs, pipes) = match (asked.pairs_max, asked.pipes_max) {
        (Some(_), Some(_)) => return None,
        (Some(pairs), None) => {
            let rest = free.checked_sub(per_pair * u64::from(pairs))?;
            (pairs, fits(rest, PER_PIPE).min(PIPES_MAX_DEFAULT))
        }
        (None, Some(pipes)) => {
            let rest = free.checked_sub(PER_PIPE * u64::from(pipes))?;
            (fits(rest, per_pair).min(PAIRS_MAX_DEFAULT), pipes)
        }
        (None, None) => {
            // A quarter for pipes: most pairs are never bulk.
            let pipes = fits(free / 4, PER_PIPE).min(PIPES_MAX_DEFAULT);
            let rest = free - PER_PIPE * u64::from(pipes);
            (fits(rest, per_pair).min(PAIRS_MAX_DEFAULT), pipes)
        }
    };
    let needed = needs.with(pairs, pipes);
    (pairs > 0).then_some(Settled { pairs_max: pairs, pipes_max: pipes, needed, lowered: true })
}

fn too_few(asked: Limits, per_pair: u64, (pairs, pipes): (u32, u32), wanted: u64, allowed: u64) -> String {
    let cause = match (asked.pairs_max, asked.pipes_max) {
        (Some(_), Some(_)) => format!("pairs_max = {pairs} and pipes_max = {pipes}"),
        (Some(_), None) => format!("pairs_max = {pairs}"),
        (None, Some(_)) => format!("pipes_max = {pipes}"),
        (None, None) => "even one pair".to_owned(),
    };
    // Without an operator's number, say what the least useful thing needs, not what the defaults would like.
    let least = match (asked.pairs_max, asked.pipes_max) {
        (Some(_), _) => wanted - if asked.pipes_max.is_none() { PER_PIPE * u64::from(pipes) } else { 0 },
        (None, set) => {
            wanted - per_pair * u64::from(pairs - 1) - if set.is_none() { PER_PIPE * u64::from(pipes) } else { 0 }
        }
    };
    format!(
        "too few file descriptors: {cause} needs {least}, {allowed} are allowed; raise the hard limit (ulimit -Hn {least}, or \
         LimitNOFILE={least} in the systemd unit) or lower the limits"
    )
}

/// Raises the limit of this process towards `wanted`, never lowers it, and says how many descriptors it may have now.
pub(crate) fn raise(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let (Some(soft), hard) = (now.current, now.maximum) else {
        return u64::MAX;
    };
    if wanted <= soft {
        return soft;
    }
    // Above the hard limit it takes CAP_SYS_RESOURCE, and nobody may go above fs.nr_open. Whoever can't gets what the hard limit
    // gives.
    let highest = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let above = wanted.min(highest.unwrap_or(wanted));
    let tries = [hard.filter(|hard| above > *hard).map(|_| above), Some(hard.map_or(wanted, |hard| wanted.min(hard)))];
    for reached in tries.into_iter().flatten() {
        let maximum = hard.map(|hard| hard.max(reached));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(reached), maximum }).is_ok() {
            return reached;
        }
    }
    soft
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs_max: Option<u32>, pipes_max: Option<u32>) -> Limits {
        Limits { pairs_max, pipes_max, ..Limits::default() }
    }

    fn standing(standing: u64) -> Needs {
        Needs { standing, per_pair: 2 }
    }

    #[test]
    fn the_defaults_are_taken_where_they_fit() {
        let mut told = 0;
        let settled = settle(asked(None, None), standing(4), |wanted| {
            told = wanted;
            u64::MAX
        });
        let needed = 2 * 100_000 + 2 * 1024 + 4 + 64;
        assert_eq!(settled, Ok(Settled { pairs_max: 100_000, pipes_max: 1024, needed, lowered: false }));
        assert_eq!(told, needed);
        let few = settle(asked(Some(10), None), standing(1), |_| 1000);
        assert_eq!(few, Ok(Settled { pairs_max: 10, pipes_max: 20, needed: 125, lowered: false }));
    }

    #[test]
    fn the_defaults_are_lowered_to_what_fits() {
        for allowed in [68, 70, 256, 1024, 20_000, 200_000] {
            let settled = settle(asked(None, None), standing(2), |_| allowed).unwrap();
            assert!(settled.lowered && settled.needed <= allowed, "{allowed}: {settled:?}");
            assert!(settled.needed + 2 > allowed, "nothing is left over of {allowed}: {settled:?}");
        }
        let settled = settle(asked(Some(400), None), standing(2), |_| 1000).unwrap();
        assert_eq!((settled.pairs_max, settled.pipes_max), (400, 67));
        let settled = settle(asked(None, Some(100)), standing(2), |_| 1000).unwrap();
        assert_eq!((settled.pairs_max, settled.pipes_max), (367, 100));
    }

    #[test]
    fn what_was_asked_for_and_does_not_fit_is_an_error_with_the_numbers() {
        let cases = [
            (asked(Some(1000), None), "pairs_max = 1000 needs 2066, 256 are allowed", 2066),
            (asked(Some(1000), Some(50)), "pairs_max = 1000 and pipes_max = 50 needs 2166, 256 are allowed", 2166),
            (asked(None, Some(500)), "pipes_max = 500 needs 1068, 256 are allowed", 1068),
        ];
        for (asked, said, number) in cases {
            let mend = format!(
                "too few file descriptors: {said}; raise the hard limit (ulimit -Hn {number}, or LimitNOFILE={number} in the \
                 systemd unit) or lower the limits"
            );
            assert_eq!(settle(asked, standing(2), |_| 256), Err(mend));
        }
        assert!(
            settle(asked(None, None), standing(2), |_| 67)
                .unwrap_err()
                .contains("even one pair needs 68, 67 are allowed")
        );
    }

    #[test]
    fn a_client_of_messages_takes_one() {
        let needs = Needs { standing: 10, per_pair: 1 };
        let settled = settle(asked(Some(500), Some(0)), needs, |_| 574).unwrap();
        assert_eq!((settled.pairs_max, settled.needed, settled.lowered), (500, 574, false));
        assert!(settle(asked(Some(500), Some(0)), needs, |_| 573).unwrap_err().contains("needs 574, 573 are allowed"));
        assert_eq!(settle(asked(None, Some(0)), needs, |_| 574).unwrap().pairs_max, 500);
    }

    #[test]
    fn raising_never_lowers() {
        let before = getrlimit(Resource::Nofile).current;
        assert!(raise(1) >= 1);
        assert_eq!(getrlimit(Resource::Nofile).current, before);
    }
}
