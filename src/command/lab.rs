//! `midmile lab`: measures in a WAN of its own making.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use midmile_lab::interrupt::Interrupt;
use midmile_lab::run::{self, Plan};
use midmile_lab::scenario::Scenario;
use midmile_lab::steps::Step;
use midmile_lab::topology::Links;
use midmile_lab::windows::Windows;
use midmile_lab::{netem, netns};

use crate::cli::{LabArgs, LinkDriver};
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
    if plan.links == Links::Netem {
        netem::probe().map_err(failed)?;
    }
    if let Some(host) = &args.shell {
        return shell(&plan, host, &args.command);
    }
    let (json, html) = (Output::create(args.json.as_deref())?, Output::create(args.html.as_deref())?);
    let interrupt = Interrupt::install().map_err(failed)?;
    let report = run::run(&plan, &interrupt).map_err(failed)?;
    if plan.with.is_some() {
        return Ok(Exit::Done);
    }
    if let Some(json) = json {
        let text = report.json().map_err(|error| Failure::Run(format!("can't write JSON: {error}")))?;
        json.write(&text)?;
    }
    if let Some(html) = html {
        html.write(&report.html())?;
    }
    super::print(report.table().as_bytes())
}

fn plan(args: &LabArgs) -> Result<Plan, Failure> {
    let links = match args.links {
        LinkDriver::Tun => Links::Tun,
        LinkDriver::Netem if args.html.is_some() => {
            return Err(Failure::usage(
                "--html draws what the links of --links tun see; leave one of both out".to_owned(),
            ));
        }
        LinkDriver::Netem => Links::Netem,
    };
    let mut scenario = Scenario::load(&args.scenario).map_err(|error| Failure::usage(format!("{error:#}")))?;
    if let Some(names) = &args.objects {
        choose_objects(&mut scenario, names)?;
    }
    if let Some(unknown) = args.shell.as_ref().filter(|host| !scenario.hosts.contains(host)) {
        let (scenario, known) = (&scenario.name, scenario.hosts.join(", "));
        return Err(Failure::usage(format!("{scenario} has no host \"{unknown}\"; there are: {known}")));
    }
    for object in &mut scenario.objects {
        object.repetitions = args.repetitions.unwrap_or(object.repetitions);
    }
    let mut steps = args.steps.clone().unwrap_or_else(|| scenario.steps.clone());
    if args.compare {
        let more: Vec<_> = Step::COMPARED.into_iter().filter(|step| !steps.contains(step)).collect();
        steps.extend(more);
    }
    let program =
        env::current_exe().map_err(|error| Failure::Run(format!("can't find this program's file: {error}")))?;
    Ok(Plan {
        scenario,
        steps,
        program,
        with: args.with.clone(),
        idle: args.idle.unwrap_or_default(),
        trace: args.html.is_some(),
        links,
        windows: Windows { by: args.windows, close: args.windows_close, congestion: args.congestion.clone() },
    })
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

/// A file of the user's, made before the run: what can't be written is said before two minutes are spent.
struct Output<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Output<'a> {
    fn create(path: Option<&'a Path>) -> Result<Option<Self>, Failure> {
        let create = |path: &'a Path| File::create(path).map(|file| Self { path, file });
        path.map(|path| create(path).map_err(|error| unwritten(path, &error))).transpose()
    }

    fn write(mut self, text: &str) -> Result<(), Failure> {
        self.file.write_all(text.as_bytes()).map_err(|error| unwritten(self.path, &error))
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Run(format!("can't write {}: {error}", path.display()))
}

fn list() -> String {
    let scenarios = Scenario::list().into_iter().map(|(name, title)| format!("{name:<14} {title}\n"));
    let steps =
        Step::ALL.into_iter().chain(Step::COMPARED).map(|step| format!("{:<14} {}\n", step.name(), step.about()));
    scenarios.chain(["\n".to_owned()]).chain(steps).collect()
}

/// An error with its causes.
fn failed(error: impl Display) -> Failure {
    Failure::Run(format!("{error:#}"))
}
