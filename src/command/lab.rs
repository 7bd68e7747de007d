//! `midmile lab`: measures in a WAN of its own making.

use std::env;
use std::fmt::Display;
use std::path::Path;

use midmile_lab::interrupt::Interrupt;
use midmile_lab::netns;
use midmile_lab::report::Report;
use midmile_lab::run::{self, Plan};
use midmile_lab::scenario::Scenario;
use midmile_lab::steps::Step;

use crate::cli::LabArgs;
use crate::exit::{Exit, Failure, Outcome};

pub(crate) fn run(args: &LabArgs) -> Outcome {
    if args.list {
        return super::print(list().as_bytes());
    }
    let plan = plan(args)?;
    // Before any other thread: a user namespace is entered by a process that has one.
    let lesser = netns::acquire_privileges().map_err(failed)?;
    if lesser {
        eprintln!("midmile: without root: in a user namespace; what needs eBPF is left out there");
    }
    if let Some(host) = &args.shell {
        return shell(&plan, host, &args.command);
    }
    let interrupt = Interrupt::install().map_err(failed)?;
    let report = run::run(&plan, &interrupt).map_err(failed)?;
    if plan.with.is_some() {
        return Ok(Exit::Done);
    }
    write_files(args, &report)?;
    super::print(report.table().as_bytes())
}

fn plan(args: &LabArgs) -> Result<Plan, Failure> {
    let mut scenario = Scenario::load(&args.scenario).map_err(|error| Failure::usage(format!("{error:#}")))?;
    if let Some(names) = &args.objects {
        choose_objects(&mut scenario, names)?;
    }
    for object in &mut scenario.objects {
        object.repetitions = args.repetitions.unwrap_or(object.repetitions);
    }
    let steps = args.steps.clone().unwrap_or_else(|| scenario.steps.clone());
    let program =
        env::current_exe().map_err(|error| Failure::Run(format!("can't find this program's file: {error}")))?;
    Ok(Plan { scenario, steps, program, with: args.with.clone(), trace: args.html.is_some() })
}

fn choose_objects(scenario: &mut Scenario, names: &[String]) -> Result<(), Failure> {
    let known: Vec<_> = scenario.objects.iter().map(|object| object.name.clone()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let (scenario, known) = (&scenario.name, known.join(", "));
        return Err(Failure::usage(format!("{scenario} has no object \"{unknown}\"; there are: {known}")));
    }
    scenario.objects.retain(|object| names.contains(&object.name));
    Ok(())
}

fn shell(plan: &Plan, host: &str, command: &[String]) -> Outcome {
    let command = if command.is_empty() {
        vec![env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())]
    } else {
        command.to_vec()
    };
    let step = plan.steps.first().copied().unwrap_or(Step::EndToEnd);
    match run::shell(plan, step, host, &command).map_err(failed)? {
        0 => Ok(Exit::Done),
        code => Err(Failure::Run(format!("the command in host {host} ended with exit code {code}"))),
    }
}

fn write_files(args: &LabArgs, report: &Report) -> Result<(), Failure> {
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| Failure::Run(format!("can't write {}: {error}", path.display())))
    };
    if let Some(path) = &args.json {
        let text = report.json().map_err(|error| Failure::Run(format!("can't write JSON: {error}")))?;
        write(path, &text)?;
    }
    args.html.as_deref().map_or(Ok(()), |path| write(path, &report.html()))
}

fn list() -> String {
    let scenarios = Scenario::list().into_iter().map(|(name, title)| format!("{name:<14} {title}\n"));
    let steps = Step::ALL.into_iter().map(|step| format!("{:<14} {}\n", step.name(), step.about()));
    scenarios.chain(["\n".to_owned()]).chain(steps).collect()
}

/// An error with its causes.
fn failed(error: impl Display) -> Failure {
    Failure::Run(format!("{error:#}"))
}
