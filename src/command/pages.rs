//! `midmile completions`, `midmile man` and `midmile keys`: made of the tables in [`crate::cli`] and [`crate::config`].

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::config;
use crate::exit::{Failure, Outcome};

pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "midmile", &mut script);
    super::print(&script)
}

pub(crate) fn man(args: &ManArgs) -> Outcome {
    let mut command = Cli::command();
    command.build();
    if let Some(name) = &args.subcommand {
        let found = command.find_subcommand(name).cloned();
        let unknown = || Failure::usage(format!("there is no subcommand \"{name}\"; midmile --help lists them"));
        command = found.ok_or_else(unknown)?;
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut page);
    rendered.map_err(|error| Failure::Run(format!("can't make the page: {error}")))?;
    super::print(&page)
}

pub(crate) fn keys() -> Outcome {
    super::print(config::reference().as_bytes())
}
