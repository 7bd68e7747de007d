//! A run: each step in a topology of its own, each object fetched as often as the scenario says.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::emulator::LinkCounters;
use crate::gateway_config;
use crate::interrupt::Interrupt;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::peers::{Peer, RunningPeer};
use crate::process::Gateway;
use crate::progress::Progress;
use crate::report::{LeftOut, Report, Row, Spread, TracedVisit};
use crate::scenario::{Object, Scenario};
use crate::server::Server;
use crate::socket;
use crate::steps::Step;
use crate::topology::{HostOptions, Links, Topology};
use crate::visit::{Visit, visit};
use crate::windows::{Windows, WindowsBy};

/// Between two visits: what the last one left behind must not meet the next.
const GAP: Duration = Duration::from_millis(60);
/// Round trips of the path after which a pool has filled: its connections are dialled one after another.
const POOL_ROUND_TRIPS: u32 = 12;
/// The same where each of them is warmed with padding before the next is dialled.
const WARM_POOL_ROUND_TRIPS: u32 = 100;
/// Between two looks for an interrupt.
const LOOK: Duration = Duration::from_millis(50);
/// The congestion control of one of the steps that are compared.
const BBR: &str = "bbr";
/// What `--with` has in place of the address.
const TARGET: &str = "{target}";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub scenario: Scenario,
    /// What of.
    pub steps: Vec<Step>,
    /// The program that has the `gateway` subcommand.
    pub program: PathBuf,
    /// A shell command that stands in for the lab's own client.
    pub with: Option<String>,
    /// How long nothing happens before each visit, with everything up.
    pub idle: Duration,
    /// Whether one visit of each step is traced; the kernel's links can't be.
    pub trace: bool,
    /// What links are made of.
    pub links: Links,
    /// What is asked of the gateways' windows.
    pub windows: Windows,
}

/// A step's world, up and running.
struct Stage<'a> {
    // Dropped in this order: programs first, then what they stand on.
    gateways: Vec<Gateway>,
    peers: Vec<RunningPeer>,
    server: Server,
    topology: Topology,
    /// Gateways may read it again.
    key: Option<Key>,
    step: Step,
    congestion: &'static str,
    pattern: Arc<Pattern>,
    interrupt: &'a Interrupt,
}

/// Runs all steps that the scenario has the hosts for.
///
/// # Errors
/// The user interrupted it, the host lacks something, or bytes were lost: everything is taken down before it returns.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<Report> {
    let (steps, left_out) = possible(plan)?;
    let visits = plan.scenario.objects.iter().map(|object| u64::from(object.repetitions)).sum::<u64>();
    let count = u64::try_from(steps.len()).expect("there are few steps");
    let mut progress = Progress::new(visits * count);
    let mut report = Report {
        scenario: plan.scenario.clone(),
        rows: Vec::new(),
        traces: Vec::new(),
        links: Vec::new(),
        left_out,
        idle: (!plan.idle.is_zero()).then_some(plan.idle),
    };
    for step in steps {
        progress.begin(step.name());
        let stage = Stage::build(plan, step, interrupt).with_context(|| format!("step {step}"))?;
        let measured = match &plan.with {
            Some(command) => stage.run_client(command, &mut progress),
            None => stage.measure(plan, &mut report, &mut progress),
        };
        measured.with_context(|| format!("step {step}"))?;
        report.links.push((step, stage.close()?));
    }
    Ok(report)
}

/// Runs a command in a host of the scenario with everything up for `step`, and answers its exit code.
///
/// # Errors
/// There is no such host or command, or the host lacks something.
pub fn shell(plan: &Plan, step: Step, host: &str, command: &[String]) -> Result<i32> {
    let names = plan.scenario.hosts.join(", ");
    ensure!(plan.scenario.hosts.iter().any(|name| name == host), "there is no host \"{host}\"; there are: {names}");
    let interrupt = Interrupt::default();
    Interrupt::ignore()?;
    let stage = Stage::build(plan, step, &interrupt)?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).env("MIDMILE_LAB_HOST", host).env("MIDMILE_LAB_TARGET", step.target().to_string());
    let host = stage.topology.host(host).context("the host is gone")?;
    let status = host.spawn(command)?.wait().context("can't wait for the command")?;
    Ok(status.code().unwrap_or(1))
}

/// How long an object was on its way over the gateways: from the moment when its first byte must have left the server, which is
/// the time light takes before that byte was here.
fn one_way(scenario: &Scenario, visit: Visit) -> Duration {
    visit.download.saturating_sub(visit.ttfb) + scenario.chain_to_client()
}

/// The steps that can be had here; and those that can't, and why.
fn possible(plan: &Plan) -> Result<(Vec<Step>, LeftOut)> {
    let (mut steps, mut left_out) = (Vec::new(), LeftOut::new());
    for step in plan.steps.iter().copied() {
        match lacking(step, &plan.scenario)? {
            Some(why) => left_out.push((step, why)),
            None => steps.push(step),
        }
    }
    Ok((steps, left_out))
}

/// Why a step can't be had, if so.
fn lacking(step: Step, scenario: &Scenario) -> Result<Option<String>> {
    if !step.fits(scenario) {
        return Ok(Some("it needs two gateways".to_owned()));
    }
    if step == Step::EndToEndBbr && !socket::has_congestion_control(BBR)? {
        return Ok(Some("the kernel has no BBR; load tcp_bbr".to_owned()));
    }
    Ok(Peer::of(step).and_then(|peer| peer.program().err()))
}

impl<'a> Stage<'a> {
    fn build(plan: &Plan, step: Step, interrupt: &'a Interrupt) -> Result<Self> {
        let scenario = &plan.scenario;
        let loss_based = socket::congestion_control()?;
        let congestion = if step == Step::EndToEndBbr { BBR } else { loss_based };
        let options = HostOptions {
            server_window: step.server_window(scenario),
            client_buffer: step.client_buffer(scenario),
            gateway_congestion: Peer::of(step).map(|_| congestion),
            links: plan.links,
            gateway_windows_close: plan.windows.close,
        };
        let topology = Topology::build(scenario, options)?;
        let server = Server::start(topology.server(), congestion)?;
        let pattern = Arc::new(Pattern::new());
        let mut stage = Self {
            gateways: Vec::new(),
            peers: Vec::new(),
            server,
            topology,
            key: None,
            step,
            congestion,
            pattern,
            interrupt,
        };
        match Peer::of(step) {
            Some(peer) => stage.start_peers(peer, plan)?,
            None if step.direct() => {}
            None => stage.start_gateways(plan)?,
        }
        Ok(stage)
    }

    /// Another program in the gateways' hosts.
    fn start_peers(&mut self, peer: Peer, plan: &Plan) -> Result<()> {
        let program = peer.program().map_err(|lacking| anyhow!(lacking))?;
        for (place, host) in self.topology.gateways().iter().enumerate().rev() {
            let mut running = peer.start(&program, host, &plan.scenario, place)?;
            running.gateway.wait_listening(host, running.port, self.interrupt)?;
            self.peers.push(running);
        }
        Ok(())
    }

    /// From the server's on: each finds the next one listening.
    fn start_gateways(&mut self, plan: &Plan) -> Result<()> {
        let key = Key::new()?;
        let congestion = plan.windows.congestion.as_deref().unwrap_or(self.congestion);
        let files = gateway_config::files(self.step, &plan.scenario, congestion, key.path(), plan.windows.by);
        for (host, file) in self.topology.gateways().iter().zip(&files).rev() {
            let mut gateway = Gateway::start(host, &plan.program, file)?;
            gateway.wait_ready(self.interrupt)?;
            self.gateways.push(gateway);
        }
        self.key = Some(key);
        if self.step.trunk() {
            let warmed = self.step >= Step::Window && plan.windows.by == WindowsBy::Traffic;
            let round_trips = if warmed { WARM_POOL_ROUND_TRIPS } else { POOL_ROUND_TRIPS };
            self.interrupt.pause(plan.scenario.chain_round_trip() * round_trips)?;
        }
        Ok(())
    }

    fn measure(&self, plan: &Plan, report: &mut Report, progress: &mut Progress) -> Result<()> {
        // The first visit finds caches cold, and fetches the cookie of Fast Open.
        self.visit(1)?;
        self.interrupt.pause(GAP)?;
        for object in &plan.scenario.objects {
            let mut visits = Vec::new();
            for _ in 0..object.repetitions {
                self.interrupt.pause(plan.idle)?;
                visits.push(self.visit(object.bytes).with_context(|| format!("object {}", object.name))?);
                progress.advance(&object.name);
                self.interrupt.pause(GAP)?;
            }
            report.rows.push(self.row(&plan.scenario, object, &visits));
        }
        if let (true, Some(object)) = (plan.trace, plan.scenario.objects.first()) {
            report.traces.push(self.trace(object)?);
        }
        Ok(())
    }

    fn row(&self, scenario: &Scenario, object: &Object, visits: &[Visit]) -> Row {
        Row {
            step: self.step,
            object: object.name.clone(),
            connect: Spread::of(visits.iter().map(|visit| visit.connect)),
            ttfb: Spread::of(visits.iter().map(|visit| visit.ttfb)),
            download: Spread::of(visits.iter().map(|visit| visit.download)),
            one_way: (!self.step.direct()).then(|| Spread::of(visits.iter().map(|visit| one_way(scenario, *visit)))),
            limit: scenario.limit(object.bytes, self.step.fast_open()),
        }
    }

    /// One more visit, whose packets are remembered.
    fn trace(&self, object: &Object) -> Result<TracedVisit> {
        let emulator = self.topology.emulator();
        emulator.begin_trace();
        let visit = self.visit(object.bytes);
        let sightings = emulator.end_trace();
        Ok(TracedVisit { step: self.step, object: object.name.clone(), visit: visit?, sightings })
    }

    /// Fetches an object from the client's host.
    fn visit(&self, bytes: u64) -> Result<Visit> {
        let (target, congestion, fast_open) = (self.step.target(), self.congestion, self.step.fast_open());
        let pattern = Arc::clone(&self.pattern);
        let (done, answer) = channel();
        let thread = self.topology.client().start(move || {
            // Nobody listens any more if the lab was interrupted.
            drop(done.send(visit(target, bytes, congestion, fast_open, &pattern)));
        })?;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(visit) => return visit,
                Err(RecvTimeoutError::Timeout) => self.interrupt.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    thread.join().map_err(|_| anyhow!("the client's thread panicked"))??;
                    return Err(anyhow!("the client's thread ended without a result"));
                }
            }
        }
    }

    /// Runs the user's client once, in the client's host.
    fn run_client(&self, command: &str, progress: &mut Progress) -> Result<()> {
        progress.clear();
        let target = self.step.target().to_string();
        println!("{}: {}", self.step, self.step.about());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command.replace(TARGET, &target)]).env("MIDMILE_LAB_TARGET", &target);
        // A group of its own, so that all of it can be ended.
        shell.process_group(0);
        let mut child = self.topology.client().spawn(shell)?;
        loop {
            if let Some(status) = child.try_wait().context("can't wait for the client")? {
                ensure!(status.success(), "the client failed: {status}");
                return Ok(());
            }
            if let Err(interrupted) = self.interrupt.pause(LOOK) {
                let group = Pid::from_child(&child);
                kill_process_group(group, Signal::KILL).context("can't end the client")?;
                child.wait().context("can't wait for the client")?;
                return Err(interrupted);
            }
        }
    }

    fn close(self) -> Result<Vec<LinkCounters>> {
        let Self { gateways, peers, server, topology, key, .. } = self;
        drop(gateways);
        drop(peers);
        drop(key);
        drop(server);
        topology.close()
    }
}
