//! `midmile mux`: carries messages, from the command line alone.

use midmile_gateway::BACKENDS_MAX;
use midmile_mux::Bounds;

use super::process::{self, leg};
use crate::addr::{Backend, Endpoint};
use crate::cli::{FramingArg, MuxArgs};
use crate::config::{Config, Listener, Messages, Protocol, framing_of};
use crate::exit::Outcome;
use crate::host::Host;

pub(crate) fn run(args: &MuxArgs) -> Outcome {
    process::run(|host| config(args, host))
}

/// The configuration that the arguments stand for.
///
/// # Errors
/// One line for each mistake.
fn config(args: &MuxArgs, host: &Host) -> Result<Config, Vec<String>> {
    let mistakes = mistakes(args, host);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let names = process::names(&args.listen);
    let listeners = names.iter().zip(&args.listen).map(|(name, listen)| listener(args, name, listen)).collect();
    Ok(Config {
        drain: args.drain_timeout,
        log_pairs: args.log_clients,
        ..process::config(&args.process, args.clients_max, listeners)
    })
}

fn listener(args: &MuxArgs, name: &str, listen: &Endpoint) -> Listener {
    let congestion = args.congestion.as_deref();
    Listener {
        client: leg(congestion, listen.is_unix()),
        server: leg(congestion, args.to.iter().all(|to| to.endpoint.is_unix())),
        messages: Some(messages(args)),
        ..Listener::new(name, listen.clone(), args.to.iter().map(|to| to.endpoint.clone()).collect())
    }
}

fn messages(args: &MuxArgs) -> Messages {
    let framing = framing_of(match args.framing {
        FramingArg::Dns => Protocol::Dns,
        FramingArg::Line => Protocol::Line,
        FramingArg::Resp => Protocol::Resp,
    });
    let bounds = Bounds {
        message_max: u32::try_from(framing.len_max()).expect("no framing with a name has more"),
        outstanding_per_client: args.outstanding_per_client,
        clients_per_address: args.clients_per_address,
        message_timeout: args.message_timeout,
        idle_timeout: args.idle_timeout,
        answer_timeout: args.answer_timeout,
        attempt_timeout: args.attempt_timeout,
        upstreams_per_backend: args.upstreams_per_backend,
        ..Bounds::default()
    };
    let udp = args.to.iter().filter(|to| to.udp).map(|to| to.endpoint.clone()).collect();
    Messages { framing, bounds, udp }
}

fn mistakes(args: &MuxArgs, host: &Host) -> Vec<String> {
    let mut mistakes = process::mistakes_in_listen(&args.listen);
    if args.to.len() > BACKENDS_MAX {
        mistakes.push(format!("{} --to; write at most {BACKENDS_MAX}", args.to.len()));
    }
    for (index, to) in args.to.iter().enumerate() {
        let same = |other: &Backend| other.endpoint == to.endpoint;
        if to.udp && args.framing != FramingArg::Dns {
            mistakes.push(format!("--to {to}: only DNS is asked over UDP; write --framing dns, or leave \"udp:\" out"));
        }
        if let Some(mistake) = process::mistake_in_to(&to.endpoint) {
            mistakes.push(mistake);
        } else if args.to[..index].iter().any(same) {
            mistakes.push(format!("--to {to} is there twice; leave one out"));
        } else if args.listen.iter().any(|listen| listen.collides(&to.endpoint)) {
            mistakes
                .push(format!("--to {to} is a --listen too, so it would dial itself without end; write the server's"));
        }
    }
    if args.attempt_timeout > args.answer_timeout {
        let [attempt, answer] = [args.attempt_timeout, args.answer_timeout].map(humantime::format_duration);
        mistakes.push(format!(
            "--attempt-timeout {attempt} is longer than --answer-timeout {answer}; shorten it or lengthen that"
        ));
    }
    mistakes.extend(process::mistakes_of_process(&args.process, args.congestion.as_deref(), host));
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn read(line: &str) -> Result<Config, Vec<String>> {
        let Command::Mux(args) = Cli::command_of(&format!("mux {line}")) else { panic!("another command") };
        config(&args, &Host::sample())
    }

    #[test]
    fn every_listener_leads_to_every_backend() {
        let line = "--framing dns --listen 127.0.0.1:0 --listen 127.0.0.1:0 --to a:53 --to b:53 --congestion reno --idle-timeout 1m";
        let config = read(line).unwrap();
        let shown: Vec<_> =
            config.listeners.iter().map(|one| format!("{} {} {}", one.name, one.to[0], one.to[1])).collect();
        assert_eq!(shown, ["127.0.0.1:0 a:53 b:53", "127.0.0.1:0#2 a:53 b:53"]);
        let messages = config.listeners[1].messages.as_ref().unwrap();
        assert_eq!((messages.bounds.idle_timeout.as_secs(), messages.bounds.message_max), (60, 65_537));
        assert_eq!(config.listeners[1].server.congestion.as_deref(), Some("reno"));
    }

    #[test]
    fn the_file_and_the_command_line_mean_the_same() {
        for (framing, second) in [("dns", "b:53"), ("line", "b:53"), ("resp", "b:53"), ("dns", "udp:b:53")] {
            let by_line = read(&format!("--framing {framing} --listen 127.0.0.1:53 --to a:53 --to {second}")).unwrap();
            let text = format!(
                "[[listener]]\nlisten = \"127.0.0.1:53\"\nto = [\"a:53\", \"{second}\"]\nframing = \"{framing}\"\n"
            );
            assert_eq!(crate::config::parse("f", &text, &Host::sample()), Ok(by_line));
        }
    }

    #[test]
    fn mistakes_are_all_told() {
        let line = "--framing dns --listen a:1 --listen a:1 --to b:0 --to c:1 --to c:1 --to a:1 --attempt-timeout 6s --admin unix:@x \
                    --congestion vegas --cores 9";
        let told = read(line).unwrap_err();
        let wanted = [
            "--listen a:1 is there twice; leave one out",
            "--to b:0: nobody listens on port 0; write the server's port",
            "--to c:1 is there twice; leave one out",
            "--to a:1 is a --listen too, so it would dial itself without end; write the server's",
            "--attempt-timeout 6s is longer than --answer-timeout 4s; shorten it or lengthen that",
            "--admin unix:@x: the admin server speaks HTTP over TCP only; write host:port",
            "--congestion: this kernel doesn't offer \"vegas\"; choose one of reno, cubic, or load its module",
            "--cores 9: the process may use 4 CPUs; write at most 4",
        ];
        assert_eq!(told, wanted);
        let told = read("--framing resp --listen a:1 --to udp:b:1 --to b:1").unwrap_err();
        let wanted = [
            "--to udp:b:1: only DNS is asked over UDP; write --framing dns, or leave \"udp:\" out",
            "--to b:1 is there twice; leave one out",
        ];
        assert_eq!(told, wanted);
    }
}
