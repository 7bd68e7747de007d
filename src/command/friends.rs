//! `midmile friends`: connections within this host that skip TCP.

use midmile_kernel::FriendsError;

use crate::cli::{FriendsArgs, FriendsCommand};
use crate::exit::{Failure, Outcome};

mod attach;
mod detach;
mod status;

pub(crate) fn run(args: &FriendsArgs) -> Outcome {
    match &args.command {
        FriendsCommand::Attach(args) => attach::run(args),
        FriendsCommand::Detach(args) => detach::run(args),
        FriendsCommand::Status(args) => status::run(args),
    }
}

/// What the user wrote is 2, what the system refuses is 1.
fn failure(error: &FriendsError) -> Failure {
    match error {
        FriendsError::Cgroup { .. } | FriendsError::NotCgroup { .. } | FriendsError::Ports { .. } => {
            Failure::usage(error.to_string())
        }
        _ => Failure::Run(error.to_string()),
    }
}
