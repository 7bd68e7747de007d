//! Logging: to standard error, for people on a terminal and as JSON lines otherwise.

use std::io::{self, IsTerminal};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use midmile_engine::Stall;
use midmile_gateway::PairReport;
use tracing_subscriber::EnvFilter;

use crate::config::Level;
use crate::exit::Failure;

/// The environment variable that wins over the configuration.
const VARIABLE: &str = "MIDMILE_LOG";

/// Begins logging. `level` is the configuration's.
///
/// # Errors
/// If the environment's filter makes no sense.
pub(crate) fn init(level: Option<Level>) -> Result<(), Failure> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            Failure::usage(format!(
                "{VARIABLE}={text}: {error}; write a level such as info, or filters such as midmile=debug"
            ))
        })?,
        _ => EnvFilter::new(word(level.unwrap_or(Level::Info))),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A fault of our own: whoever it befell may go on, so the log has to have it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let what = panic.payload_as_str().unwrap_or("something that is no text");
    tracing::error!(at, thread = thread.name(), "panicked: {what}");
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Logs pairs at their end on a thread of its own, so that a slow log never holds up the control loop; it ends with the fleet.
///
/// # Errors
/// If the thread can't be started.
pub(crate) fn spawn_pairs(reports: Receiver<PairReport>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("midmile-pairs".to_owned())
        .spawn(move || reports.iter().for_each(|report| pair(&report)))
}

/// Logs a loop that doesn't come back from something, and that it has.
pub(crate) fn stall(stall: Stall) {
    let Stall { core, upcall, conn, lasted, over } = stall;
    let conn = conn.map(|conn| format!("{:#x}", conn.to_bits()));
    let said =
        if over { "a loop goes on" } else { "a loop stands still: a fault, or a machine that doesn't let it run" };
    tracing::error!(
        core,
        upcall = upcall.name(),
        connection = conn,
        lasted_ms = lasted.as_secs_f64() * 1000.0,
        "{said}"
    );
}

fn pair(report: &PairReport) {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
    tracing::info!(
        route = &*report.route,
        client = %report.client,
        backend = &*report.backend,
        end = report.end.name(),
        lasted_ms = millis(report.lasted),
        connected_ms = report.connected_after.map(millis),
        first_byte_ms = report.first_byte_after.map(millis),
        upstream_bytes = report.upstream_bytes,
        downstream_bytes = report.downstream_bytes,
        "pair ended"
    );
}
