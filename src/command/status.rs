//! `midmile status`: how a running midmile does, asked of its admin server and said for people.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::addr::Endpoint;
use crate::cli::StatusArgs;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::Host;
use document::Document;

mod document;
mod fetch;
mod report;

/// The file that the systemd unit reads.
const CONFIG_DEFAULT: &str = "/etc/midmile/midmile.toml";
/// Between two looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its upper left corner (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let admin = admin(args)?;
    let first = fetch::document(&admin)?;
    if args.json {
        return super::print(first.text.as_bytes());
    }
    if args.watch { watch(&admin, &first.document) } else { super::print(report::of(&first.document).as_bytes()) }
}

/// Shows it anew each second until nobody reads any more. A relay that goes away may come back, so that is no end.
fn watch(admin: &Endpoint, first: &Document) -> Outcome {
    let mut shown = report::of(first);
    while super::reaches(format!("{CLEAR}{shown}").as_bytes())? {
        thread::sleep(WATCH_PAUSE);
        shown = match fetch::document(admin) {
            Ok(fetched) => report::of(&fetched.document),
            Err(failure) => format!("{failure}\n"),
        };
    }
    Ok(Exit::Done)
}

/// Where the admin server is.
fn admin(args: &StatusArgs) -> Result<Endpoint, Failure> {
    match (&args.admin, &args.config) {
        (Some(admin), _) if admin.is_unix() => {
            Err(Failure::usage(format!("--admin {admin}: the admin server speaks HTTP over TCP only; write host:port")))
        }
        (Some(admin), _) if admin.port() == Some(0) => Err(Failure::usage(format!(
            "--admin {admin}: nobody listens on port 0; write the port that midmile's log says"
        ))),
        (Some(admin), _) => Ok(admin.clone()),
        (None, Some(file)) => admin_of(file),
        (None, None) if !Path::new(CONFIG_DEFAULT).exists() => Err(Failure::usage(format!(
            "there's no {CONFIG_DEFAULT} that says where the admin server is; give --admin ADDR or --config FILE"
        ))),
        (None, None) => admin_of(Path::new(CONFIG_DEFAULT)),
    }
}

fn admin_of(file: &Path) -> Result<Endpoint, Failure> {
    let shown = file.display();
    let admin = config::load(file, &Host::probe())?.admin.ok_or_else(|| {
        Failure::usage(format!(
            "{shown}: there's no admin server to ask; add a table [admin] with listen = \"127.0.0.1:9400\", and restart midmile"
        ))
    })?;
    if admin.port() == Some(0) {
        return Err(Failure::usage(format!(
            "{shown}: the admin server listens on a port of the system's choice; give --admin ADDR with the one that midmile's log says"
        )));
    }
    Ok(admin)
}
