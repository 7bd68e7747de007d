//! `midmile friends`: connections within this host that skip TCP.

use midmile_kernel::FriendsError;

use crate::cli::{FriendsArgs, FriendsCommand};
use crate::exit::{Failure, Outcome};

mod attach;
mod boards;
mod detach;
mod rings;
mod run;
mod status;
mod switch;
mod tap;

pub(crate) fn run(args: &FriendsArgs) -> Outcome {
    match &args.command {
        FriendsCommand::Attach(args) => attach::run(args),
        FriendsCommand::Detach(args) => detach::run(args),
        FriendsCommand::Off(args) => switch::off(args),
        FriendsCommand::On(args) => switch::on(args),
        FriendsCommand::Run(args) => run::run(args),
        FriendsCommand::Status(args) => status::run(args),
        FriendsCommand::Tap(args) => tap::run(args),
    }
}

/// What the user wrote is 2, what the system refuses is 1.
fn failure(error: &FriendsError) -> Failure {
    match error {
        FriendsError::Cgroup { .. }
        | FriendsError::NotCgroup { .. }
        | FriendsError::Ports { .. }
        | FriendsError::TapPorts { .. } => Failure::usage(error.to_string()),
        _ => Failure::Run(error.to_string()),
    }
}
