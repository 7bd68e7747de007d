//! `midmile relay`: relays from the command line alone.

use std::sync::Arc;

use midmile_engine::LegOptions;
use midmile_gateway::Timeouts;
use midmile_wire::proxy;

use crate::addr::Endpoint;
use crate::cli::{AcceptProxyArg, RelayArgs, SendProxyArg};
use crate::config::{Config, Limits, Listener, WindowBy};
use crate::exit::{Failure, Outcome};
use crate::host::Host;
use crate::supervise;

pub(crate) fn run(args: &RelayArgs) -> Outcome {
    let host = Host::probe();
    let config = config(args, &host).map_err(Failure::Usage)?;
    let same = config.clone();
    supervise::run(config, host.cpus, None, move || Ok(same.clone()))
}

/// The configuration that the arguments stand for.
///
/// # Errors
/// One line for each mistake.
fn config(args: &RelayArgs, host: &Host) -> Result<Config, Vec<String>> {
    let mistakes = mistakes(args, host);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for (listen, to) in args.listen.iter().zip(&args.to) {
        let listener = listener(args, listen, to, &listeners);
        listeners.push(listener);
    }
    Ok(Config {
        admin: args.admin.clone(),
        limits: Limits { cores: args.cores, pairs_max: args.pairs_max, ..Limits::default() },
        drain: args.drain_timeout,
        log_pairs: args.log_pairs,
        log_level: None,
        gateway: None,
        window_by: WindowBy::default(),
        listeners,
        peers: Vec::new(),
        trunks: Vec::new(),
    })
}

fn listener(args: &RelayArgs, listen: &Endpoint, to: &Endpoint, earlier: &[Listener]) -> Listener {
    let options = |endpoint: &Endpoint| LegOptions {
        congestion: args.congestion.as_deref().filter(|_| !endpoint.is_unix()).map(Arc::from),
        ..LegOptions::default()
    };
    Listener {
        accept_proxy: args
            .accept_proxy
            .map(|accept| proxy::Accept { v1: accept != AcceptProxyArg::V2, v2: accept != AcceptProxyArg::V1 }),
        send_proxy: args.send_proxy.map(|send| match send {
            SendProxyArg::V1 => proxy::Version::V1,
            SendProxyArg::V2 => proxy::Version::V2,
        }),
        client: options(listen),
        server: options(to),
        timeouts: Timeouts { dial: args.dial_timeout, idle: args.idle_timeout, ..Timeouts::default() },
        ..Listener::new(&name(listen, earlier), listen.clone(), vec![to.clone()])
    }
}

/// The listener's address; made different where port 0 is there more than once.
pub(super) fn name(listen: &Endpoint, earlier: &[Listener]) -> String {
    match earlier.iter().filter(|other| other.listen == *listen).count() {
        0 => listen.to_string(),
        others => format!("{listen}#{}", others + 1),
    }
}

fn mistakes(args: &RelayArgs, host: &Host) -> Vec<String> {
    let mut mistakes = Vec::new();
    let (listens, tos) = (args.listen.len(), args.to.len());
    if listens != tos {
        mistakes.push(format!("{listens} --listen and {tos} --to; give each --listen its own --to, in the same order"));
    }
    for (index, listen) in args.listen.iter().enumerate() {
        if args.listen[..index].iter().any(|other| other.collides(listen)) {
            mistakes.push(format!("--listen {listen} is there twice; leave one out"));
        }
    }
    for to in &args.to {
        if to.port() == Some(0) {
            mistakes.push(format!("--to {to}: nobody listens on port 0; write the server's port"));
        }
    }
    for (listen, to) in args.listen.iter().zip(&args.to) {
        if listen.collides(to) {
            mistakes.push(format!(
                "--to {to} is its own --listen, so it would dial itself without end; write the server's"
            ));
        }
    }
    mistakes.extend(mistakes_of_process(args.admin.as_ref(), args.congestion.as_deref(), args.cores, host));
    mistakes
}

/// Mistakes in options that go for the whole process.
pub(super) fn mistakes_of_process(
    admin: Option<&Endpoint>,
    congestion: Option<&str>,
    cores: Option<u16>,
    host: &Host,
) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Some(admin) = admin.filter(|admin| admin.is_unix()) {
        mistakes.push(format!("--admin {admin}: the admin server speaks HTTP over TCP only; write host:port"));
    }
    if let Some(Err(what)) = congestion.map(|name| host.check_congestion(name)) {
        mistakes.push(format!("--congestion: {what}"));
    }
    if let Some(cores) = cores.filter(|cores| *cores > host.cpus) {
        let cpus = host.cpus;
        mistakes.push(format!("--cores {cores}: the process may use {cpus} CPUs; write at most {cpus}"));
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn host() -> Host {
        Host { cpus: 4, congestion: Some(vec!["reno".to_owned(), "cubic".to_owned()]) }
    }

    fn read(line: &str) -> Result<Config, Vec<String>> {
        let cli = Cli::try_parse_from(["midmile", "relay"].into_iter().chain(line.split_whitespace())).unwrap();
        let Command::Relay(args) = cli.command else { panic!("another command") };
        config(&args, &host())
    }

    #[test]
    fn listeners_and_targets_go_together_in_order() {
        let config =
            read("--listen 127.0.0.1:0 --to a:1 --listen 127.0.0.1:0 --to b:2 --accept-proxy --congestion cubic")
                .unwrap();
        let shown: Vec<_> = config.listeners.iter().map(|one| format!("{} {}", one.name, one.to[0])).collect();
        assert_eq!(shown, ["127.0.0.1:0 a:1", "127.0.0.1:0#2 b:2"]);
        assert_eq!(config.listeners[0].accept_proxy, Some(proxy::Accept { v1: true, v2: true }));
        assert_eq!(config.listeners[0].server.congestion.as_deref(), Some("cubic"));
    }

    #[test]
    fn the_file_and_the_command_line_mean_the_same() {
        let by_line = read("--listen 127.0.0.1:80 --to a:1").unwrap();
        let text = "[[listener]]\nlisten = \"127.0.0.1:80\"\nto = \"a:1\"\n";
        assert_eq!(crate::config::parse("f", text, &host()), Ok(by_line));
    }

    #[test]
    fn mistakes_are_all_told() {
        let line = "--listen a:1 --to a:1 --listen a:1 --to b:0 --to c:1 --admin unix:@x --congestion vegas --cores 9";
        let told = read(line).unwrap_err();
        let wanted = [
            "2 --listen and 3 --to; give each --listen its own --to, in the same order",
            "--listen a:1 is there twice; leave one out",
            "--to b:0: nobody listens on port 0; write the server's port",
            "--to a:1 is its own --listen, so it would dial itself without end; write the server's",
            "--admin unix:@x: the admin server speaks HTTP over TCP only; write host:port",
            "--congestion: this kernel doesn't offer \"vegas\"; choose one of reno, cubic, or load its module",
            "--cores 9: the process may use 4 CPUs; write at most 4",
        ];
        assert_eq!(told, wanted);
    }
}
