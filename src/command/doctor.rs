//! `midmile doctor`: says what this host allows.

use crate::cli::DoctorArgs;
use crate::doctor;
use crate::exit::{Failure, Outcome};

pub(crate) fn run(args: &DoctorArgs) -> Outcome {
    let findings = doctor::examine();
    let text = if args.json {
        doctor::json(&findings).map_err(|error| Failure::Run(format!("can't write JSON: {error}")))?
    } else {
        doctor::table(&findings)
    };
    super::print(text.as_bytes())
}
