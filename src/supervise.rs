//! The control loop: starts the fleet, answers signals, keeps names and health up to date, and drains at the end.
//!
//! It runs on one thread with a Tokio runtime, beside the data path and never in it. The loop itself waits for one of: a signal,
//! a reload that was prepared by a task (reading files and resolving names take time), addresses that a name has now.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use midmile_gateway::{Fleet, Limits, Listening, Plan};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::admin;
use crate::config::Config;
use crate::early::EarlyDial;
use crate::exit::{Exit, Failure, Outcome};
use crate::friends;
use crate::health;
use crate::intercept::{Applied, Rules};
use crate::limits;
use crate::logging;
use crate::notify;
use crate::resolve::{self, Names};
use crate::signals::Signals;
use crate::windows::OpenWindows;

/// How often a drain looks whether pairs are still open.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How often the loop looks whether a core has ended by itself.
const CORES_POLL: Duration = Duration::from_secs(1);
/// Events that wait for the loop at most; whoever has one more waits.
const EVENTS_MAX: usize = 16;
/// Threads that resolve names at most.
const LOOKUP_THREADS_MAX: usize = 8;

/// Relays what `config` says until a signal ends it. `reread` gives the configuration anew on SIGHUP; `cpus` is how many the
/// process may use. `applied` holds the firewall's rules, if they are to be set.
///
/// # Errors
/// What kept it from starting, or from going on.
pub(crate) fn run(
    config: Config,
    cpus: u16,
    applied: Option<Applied>,
    reread: impl Fn() -> Result<Config, Failure> + Send + Sync + 'static,
) -> Outcome {
    logging::init(config.log_level)?;
    let limits = limits::settle(&config, cpus)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUP_THREADS_MAX)
        .build()
        .map_err(|error| Failure::Run(format!("can't start the control loop: {error}")))?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let supervisor = tokio::select! {
            started = Supervisor::start(config, limits, applied, Arc::new(reread)) => started?,
            // Resolving can take a while; nobody is connected yet.
            () = signals.end.recv() => return Ok(Exit::Done),
        };
        supervisor.supervise(signals).await
    });
    // A name server that doesn't answer mustn't hold up the end.
    runtime.shutdown_background();
    outcome
}

/// What tasks tell the loop.
enum Event {
    /// A reload was read, checked and resolved.
    Prepared(Result<Box<(Config, Names)>, Failure>),
    /// Names were resolved again.
    Resolved(Names),
}

type Reread = dyn Fn() -> Result<Config, Failure> + Send + Sync;

/// Everything that runs, and what it was made of.
struct Supervisor {
    fleet: Fleet,
    windows: OpenWindows,
    /// The firewall's rules, if they are ours to set. They stay until the last pair has ended: its packets need them.
    applied: Option<Applied>,
    early: Option<EarlyDial>,
    plan: Plan,
    config: Config,
    names: Names,
    reread: Arc<Reread>,
    pair_log: thread::JoinHandle<()>,
    /// Seen by the admin server.
    draining: Arc<AtomicBool>,
    /// Listeners for which the ready line was printed: name and address.
    announced: BTreeSet<(Arc<str>, String)>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    checks: JoinSet<()>,
    lookups: JoinSet<()>,
    /// The admin server, if any, and who looks after framing programs. Dropping it ends them.
    _admin: JoinSet<()>,
    /// The reload that is being prepared, if any.
    preparing: Option<JoinHandle<()>>,
    /// Whether another SIGHUP came meanwhile.
    reload_again: bool,
}

impl Supervisor {
    async fn start(
        config: Config,
        limits: Limits,
        mut applied: Option<Applied>,
        reread: Arc<Reread>,
    ) -> Result<Self, Failure> {
        let names = resolve::resolve(resolve::names_of(&config)).await.map_err(Failure::Run)?;
        let admin = match &config.admin {
            Some(listen) => Some(admin::bind(listen, &names).await?),
            None => None,
        };
        friends::begin(&config)?;
        let plan = resolve::plan(&config, &names, limits, None);
        let mut windows = OpenWindows::new();
        // Before the first leg is dialled; those of listeners that leave their port to the kernel follow.
        windows.apply(&plan, &[], config.window_by);
        let (mut fleet, reports) = Fleet::start(plan.clone()).map_err(|error| Failure::Run(error.to_string()))?;
        let watched = fleet.watch_stalls(logging::stall);
        watched.map_err(|error| Failure::Run(format!("can't start the watchdog's thread: {error}")))?;
        let pair_log = logging::spawn_pairs(reports);
        let pair_log = pair_log.map_err(|error| Failure::Run(format!("can't start the log's thread: {error}")))?;
        windows.apply(&plan, fleet.listening(), config.window_by);
        // Whoever is handed over finds somebody who accepts.
        if let Some(applied) = &mut applied {
            applied.set(Rules::of(&config))?;
        }
        let early = EarlyDial::start(fleet.announcer());
        let draining = Arc::new(AtomicBool::new(false));
        let mut admin_task = JoinSet::new();
        if let Some(listener) = admin {
            admin_task.spawn(admin::serve(listener, fleet.observer(), Arc::clone(&draining), limits));
        }
        admin_task.spawn(crate::framers::watch(fleet.observer()));
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let (checks, lookups) = (health::watch(&plan), watch_names(&config, &tell));
        let announced = BTreeSet::new();
        let mut started = Self {
            fleet,
            windows,
            applied,
            early,
            plan,
            config,
            names,
            reread,
            pair_log,
            draining,
            announced,
            events,
            tell,
            checks,
            lookups,
            _admin: admin_task,
            preparing: None,
            reload_again: false,
        };
        started.announce();
        notify::ready();
        Ok(started)
    }

    /// Prints `ready` for each listener for which it wasn't printed yet.
    fn announce(&mut self) {
        let mut lines = String::new();
        let mut listening = BTreeSet::new();
        for listener in self.fleet.listening() {
            let key = (Arc::clone(&listener.route.name), listener.addr.to_string());
            if !self.announced.contains(&key) {
                lines.push_str(&ready_line(listener));
                lines.push('\n');
                tracing::info!(route = &*listener.route.name, listen = %listener.addr, "listening");
            }
            listening.insert(key);
        }
        self.announced = listening;
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!(%error, "can't write the ready lines to standard output");
        }
    }

    async fn supervise(mut self, mut signals: Signals) -> Outcome {
        let mut looks = interval(CORES_POLL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => if self.fleet.has_failed() { return self.stop("a core has failed").await },
                () = signals.end.recv() => break,
                _ = signals.hangup.recv() => self.prepare_reload(),
                Some(event) = self.events.recv() => self.handle(event),
            }
        }
        self.drain(signals).await
    }

    /// Reads, checks and resolves in a task: the loop goes on meanwhile.
    fn prepare_reload(&mut self) {
        if self.preparing.as_ref().is_some_and(|task| !task.is_finished()) {
            self.reload_again = true;
            return;
        }
        let (reread, tell) = (Arc::clone(&self.reread), self.tell.clone());
        self.preparing = Some(tokio::spawn(async move {
            let prepared = match reread() {
                Ok(config) => {
                    let names = resolve::resolve(resolve::names_of(&config)).await;
                    names.map(|names| Box::new((config, names))).map_err(Failure::Run)
                }
                Err(failure) => Err(failure),
            };
            // The loop is gone only when the process ends.
            drop(tell.send(Event::Prepared(prepared)).await);
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Prepared(prepared) => {
                self.handle_prepared(prepared);
                self.preparing = None;
                if std::mem::take(&mut self.reload_again) {
                    self.prepare_reload();
                }
            }
            Event::Resolved(mut found) => {
                // It may come from a listener that is gone since.
                found.retain(|name, _| self.names.contains_key(name));
                let mut names = self.names.clone();
                if resolve::update(&mut names, found) && self.reload(self.config.clone(), names) {
                    tracing::info!("names have other addresses now");
                }
            }
        }
    }

    fn handle_prepared(&mut self, prepared: Result<Box<(Config, Names)>, Failure>) {
        match prepared {
            Ok(prepared) => {
                let (config, found) = *prepared;
                self.warn_of_restart(&config);
                let mut names = self.names.clone();
                names.retain(|name, _| found.contains_key(name));
                resolve::update(&mut names, found);
                if self.reload(config, names) {
                    tracing::info!(listeners = self.plan.routes.len(), "reloaded");
                }
            }
            Err(failure) => {
                for mistake in failure.to_string().lines() {
                    tracing::error!(mistake, "not reloaded, the old configuration stays");
                }
            }
        }
    }

    /// Says which changed keys take effect only after a restart.
    fn warn_of_restart(&self, config: &Config) {
        let changed = [
            ("admin.listen", config.admin != self.config.admin),
            ("limits", config.limits != self.config.limits),
            ("gateway.wait_by", config.wait_by != self.config.wait_by),
            ("gateway.friends_dir", friends::asked(&self.config) && config.friends_dir != self.config.friends_dir),
            ("gateway.busy_poll", config.busy_poll != self.config.busy_poll),
            ("log.level", config.log_level != self.config.log_level),
            ("peer.pool_max", limits::pooled_max(config) > self.plan.limits.pooled_max),
        ];
        for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "changed, and takes effect only after a restart");
        }
        let settled = &self.plan.limits;
        if limits::message_max(config) > settled.message_max.max(limits::MESSAGE_MAX_DEFAULT) {
            tracing::warn!(max = settled.message_max, "messages longer than that are carried only after a restart");
        }
        if limits::upstreams_max(config, settled.cores) > settled.upstreams_max {
            tracing::warn!("connections to backends by which messages go may take the room of pairs until a restart");
        }
    }

    /// Hands the fleet a new plan; whether it took it.
    fn reload(&mut self, config: Config, names: Names) -> bool {
        if let Err(error) = friends::begin(&config) {
            tracing::error!(%error, "not reloaded, the old configuration stays");
            return false;
        }
        let plan = resolve::plan(&config, &names, self.plan.limits, Some(&self.plan));
        // A window must stand before its leg is dialled.
        self.windows.apply(&plan, self.fleet.listening(), config.window_by);
        if let Err(error) = self.fleet.reload(plan.clone()) {
            self.windows.apply(&self.plan, self.fleet.listening(), self.config.window_by);
            tracing::error!(%error, "not reloaded, the old configuration stays");
            return false;
        }
        self.windows.apply(&plan, self.fleet.listening(), config.window_by);
        self.apply_rules(&config);
        // Anew, so that devices that came since are heard as well. The old one has to be gone before: each SYN is told once.
        drop(self.early.take());
        self.early = EarlyDial::start(self.fleet.announcer());
        self.checks = health::watch(&plan);
        self.lookups = watch_names(&config, &self.tell);
        (self.plan, self.config, self.names) = (plan, config, names);
        self.announce();
        true
    }

    /// Sets the rules that `config` needs, where they are ours to set. It takes some milliseconds, and no core waits for it.
    fn apply_rules(&mut self, config: &Config) {
        let rules = Rules::of(config);
        match &mut self.applied {
            Some(applied) => {
                if let Err(error) = applied.set(rules) {
                    tracing::error!(%error, "nothing is intercepted");
                }
            }
            None if rules != Rules::of(&self.config) => {
                tracing::warn!("the firewall's rules have to change with this; see --print-rules, or run with --apply");
            }
            None => {}
        }
    }

    async fn drain(mut self, mut signals: Signals) -> Outcome {
        self.draining.store(true, Relaxed);
        notify::stopping();
        self.early = None;
        self.fleet.stop_accepting();
        let deadline = Instant::now() + self.config.drain;
        let timeout = humantime::format_duration(self.config.drain);
        tracing::info!(pairs_open = self.fleet.pairs_open(), %timeout, "draining: no new connections");
        let mut ticks = interval(DRAIN_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if self.fleet.is_drained() {
                        break "no pair is left";
                    }
                    if self.fleet.has_failed() {
                        break "a core has failed";
                    }
                }
                () = sleep_until(deadline) => break "the drain timeout is over",
                () = signals.end.recv() => break "a second signal came",
                _ = signals.hangup.recv() => tracing::warn!("not reloaded: draining"),
            }
        };
        self.stop(why).await
    }

    async fn stop(mut self, why: &str) -> Outcome {
        let open: Vec<_> = self.fleet.snapshot().routes.into_iter().filter(|route| route.pairs_open > 0).collect();
        self.checks.shutdown().await;
        self.lookups.shutdown().await;
        let cut = self.fleet.stop().map_err(|error| Failure::Run(error.to_string()))?;
        if self.pair_log.join().is_err() {
            tracing::error!("the pairs' log ended before its time");
        }
        if cut == 0 {
            tracing::info!(why, "drained");
            return Ok(Exit::Done);
        }
        for route in open {
            tracing::warn!(route = &*route.name, pairs = route.pairs_open, "open pairs are cut");
        }
        tracing::warn!(why, cut, "drained, and pairs were cut");
        Ok(Exit::Cut)
    }
}

fn ready_line(listening: &Listening) -> String {
    let route = &listening.route;
    if let Some(gate) = &route.gate {
        let peers: Vec<String> = gate.peers.iter().map(|peer| peer.name.to_string()).collect();
        return format!("ready trunk={} peers={}", listening.addr, peers.join(","));
    }
    let to: Vec<&str> = route.backends.backends().iter().map(|backend| &**backend.name()).collect();
    let to = if route.original { "original".to_owned() } else { to.join(",") };
    format!("ready listen={} to={to}", listening.addr)
}

/// Resolves names again for each listener and trunk that asks for it, and tells the loop what they stand for now.
fn watch_names(config: &Config, tell: &mpsc::Sender<Event>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let listeners = config.listeners.iter().filter(|listener| listener.via.is_empty());
    let of_listeners = listeners.map(|one| (&one.name, one.resolve_every, resolve::names_in(one.to.iter())));
    let of_trunks = config.trunks.iter().map(|one| (&one.name, one.resolve_every, resolve::names_allowed(one)));
    for (route, every, names) in of_listeners.chain(of_trunks) {
        let Some(every) = every else { continue };
        let (route, tell) = (Arc::clone(route), tell.clone());
        tasks.spawn(async move {
            let mut failing = false;
            loop {
                sleep(every).await;
                match resolve::resolve(names.clone()).await {
                    Ok(found) => {
                        failing = false;
                        if tell.send(Event::Resolved(found)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(route = &*route, error, "the addresses known so far stay");
                    }
                    Err(_) => {}
                }
            }
        });
    }
    tasks
}
