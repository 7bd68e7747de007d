//! `midmile relay`: relays from the command line alone.

use midmile_engine::LegOptions;
use midmile_gateway::Timeouts;
use midmile_wire::proxy;

use super::process::{self, leg};
use crate::addr::Endpoint;
use crate::cli::{AcceptProxyArg, RelayArgs, SendProxyArg, WaitByArg};
use crate::config::{Config, Listener};
use crate::exit::Outcome;
use crate::host::Host;

pub(crate) fn run(args: &RelayArgs) -> Outcome {
    process::run(|host| config(args, host))
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
    let names = process::names(&args.listen);
    let listeners = names.iter().zip(&args.listen).zip(&args.to);
    let listeners = listeners.map(|((name, listen), to)| listener(args, name, listen, to)).collect();
    Ok(Config {
        drain: args.drain_timeout,
        log_pairs: args.log_pairs,
        friends_dir: args.friends_dir.clone(),
        ..process::config(&args.process, args.pairs_max, listeners)
    })
}

fn listener(args: &RelayArgs, name: &str, listen: &Endpoint, to: &Endpoint) -> Listener {
    let congestion = args.congestion.as_deref();
    Listener {
        accept_proxy: args
            .accept_proxy
            .map(|accept| proxy::Accept { v1: accept != AcceptProxyArg::V2, v2: accept != AcceptProxyArg::V1 }),
        send_proxy: args.send_proxy.map(|send| match send {
            SendProxyArg::V1 => proxy::Version::V1,
            SendProxyArg::V2 => proxy::Version::V2,
        }),
        client: LegOptions { friend: args.friends && !listen.is_unix(), ..leg(congestion, listen.is_unix()) },
        server: LegOptions { friend: args.friends && !to.is_unix(), ..leg(congestion, to.is_unix()) },
        timeouts: Timeouts { dial: args.dial_timeout, idle: args.idle_timeout, ..Timeouts::default() },
        ..Listener::new(name, listen.clone(), vec![to.clone()])
    }
}

fn mistakes(args: &RelayArgs, host: &Host) -> Vec<String> {
    let mut mistakes = Vec::new();
    let (listens, tos) = (args.listen.len(), args.to.len());
    if listens != tos {
        mistakes.push(format!("{listens} --listen and {tos} --to; give each --listen its own --to, in the same order"));
    }
    mistakes.extend(process::mistakes_in_listen(&args.listen));
    mistakes.extend(args.to.iter().filter_map(process::mistake_in_to));
    for (listen, to) in args.listen.iter().zip(&args.to) {
        if listen.collides(to) {
            mistakes.push(format!(
                "--to {to} is its own --listen, so it would dial itself without end; write the server's"
            ));
        }
    }
    if args.friends && args.process.wait_by == WaitByArg::IoUring {
        mistakes.push("--friends: legs have friends by epoll alone; leave --wait-by io_uring out".to_owned());
    }
    mistakes.extend(process::mistakes_of_process(&args.process, args.congestion.as_deref(), host));
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn read(line: &str) -> Result<Config, Vec<String>> {
        let Command::Relay(args) = Cli::command_of(&format!("relay {line}")) else { panic!("another command") };
        config(&args, &Host::sample())
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
        assert_eq!(crate::config::parse("f", text, &Host::sample()), Ok(by_line));
    }

    #[test]
    fn legs_that_can_be_friends_ask_for_it() {
        let config = read("--listen 127.0.0.1:0 --to unix:@a --friends --friends-dir /run/x").unwrap();
        assert_eq!((config.listeners[0].client.friend, config.listeners[0].server.friend), (true, false));
        assert_eq!(config.friends_dir, Some("/run/x".into()));
        let told = read("--listen 127.0.0.1:0 --to a:1 --friends --wait-by io_uring").unwrap_err();
        assert_eq!(told, ["--friends: legs have friends by epoll alone; leave --wait-by io_uring out"]);
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
