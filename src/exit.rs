//! How the process ends: one code for each kind of ending, the same for every subcommand.

use std::fmt;
use std::process::ExitCode;

/// An ending that isn't the fault of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done; a relay drained until no pair was left.
    Done,
    /// 3: the drain ended, by its deadline or a second signal, with pairs still open.
    Cut,
}

/// An ending that somebody has to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// 2: what was asked for makes no sense: the command line or the configuration. One line a mistake.
    Usage(Vec<String>),
    /// 1: it made sense and couldn't be done: a port in use, an unresolvable name, too few descriptors.
    Run(String),
}

impl Failure {
    /// One mistake on the command line.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(vec![what.into()])
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(mistakes) => f.write_str(&mistakes.join("\n")),
            Self::Run(what) => f.write_str(what),
        }
    }
}

/// What a subcommand comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

/// The exit code of an outcome; a failure is first printed to standard error.
pub(crate) fn code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Cut) => ExitCode::from(3),
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("midmile: {line}");
            }
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}
