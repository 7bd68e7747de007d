//! The command line as a user meets it: what is said, where, and with which exit code.

mod process;

use std::net::TcpListener;
use std::process::{Command, Output};

use process::{Running, Scratch, echo, midmile, run, text};
use rustix::process::Signal;

/// Asserts the exit code and that standard error says `said`, in one line a mistake and nothing else.
fn assert_fails(output: &Output, code: i32, said: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(lines.len(), said.len(), "{stderr}");
    for (line, said) in lines.iter().zip(said) {
        assert!(line.starts_with("midmile: ") && line.contains(said), "{line}");
    }
}

#[test]
fn help_has_examples_exit_codes_and_signals() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for word in [
        "Exit codes:",
        "SIGHUP",
        "MIDMILE_LOG",
        "relay",
        "gateway",
        "mux",
        "check",
        "status",
        "doctor",
        "lab",
        "friends",
    ] {
        assert!(help.contains(word), "{word} isn't in\n{help}");
    }
    assert!(!help.contains("completions"), "{help}");
    for command in ["relay", "gateway", "mux", "check", "status", "doctor", "lab", "friends"] {
        let help = run(&[command, "--help"]);
        assert!(help.status.success() && text(&help.stdout).contains("Examples:"), "{command}");
    }
    assert!(text(&run(&["--version"]).stdout).starts_with("midmile "));
}

/// Command lines that make no sense, and what is said of them.
const NONSENSE: [(&str, &str); 14] = [
    ("", "Usage: midmile"),
    ("relay", "--listen <ADDR>"),
    ("relay --listen a:1", "--to <ADDR>"),
    ("relay --listen localhost --to a:1", "no port; write host:port, such as localhost:80"),
    ("relay --listen a:1 --to b:1 --idle-timeout 5", "write a number with its unit"),
    ("relay --listen a:1 --to b:1 --idle-timeout 0s", "write more than 0s"),
    ("relay --listen a:1 --to b:1 --send-proxy v3", "possible values: v1, v2"),
    ("relay --listen a:1 --to b:1 --cores 0", "0 is not in 1.."),
    ("mux --listen a:1 --to b:1", "--framing <FRAMING>"),
    ("mux --framing http --listen a:1 --to b:1", "possible values: dns, line, resp"),
    ("mux --framing dns --listen a:1 --to b:1 --message-timeout 0s", "write more than 0s"),
    ("mux --framing dns --listen a:1 --to b:1 --upstreams-per-backend 1001", "1001 is not in 1..=1000"),
    ("frobnicate", "unrecognized subcommand"),
    ("man frobnicate", "there is no subcommand \"frobnicate\""),
];

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    for (line, said) in NONSENSE {
        let output = run(&line.split_whitespace().collect::<Vec<_>>());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(said), "{line}: {stderr}");
    }
    let output = run(&["relay", "--listen", "127.0.0.1:0", "--to", "a:1", "--to", "b:1"]);
    let said = "1 --listen and 2 --to; give each --listen its own --to, in the same order";
    assert_fails(&output, 2, &[said]);
    let mut command = midmile(&["relay", "--listen", "127.0.0.1:0", "--to", "a:1"]);
    let output = command.env("MIDMILE_LOG", "=loud=").output().unwrap();
    assert_fails(&output, 2, &["MIDMILE_LOG==loud=: "]);
}

#[test]
fn pages_and_completions_are_made() {
    for (args, said) in [
        (["man", "relay"], "midmile\\-relay"),
        (["completions", "bash"], "complete -F _midmile"),
        (["completions", "zsh"], "#compdef midmile"),
        (["completions", "fish"], "complete -c midmile"),
    ] {
        let output = run(&args);
        assert!(output.status.success() && text(&output.stdout).contains(said), "{args:?}");
    }
    assert!(text(&run(&["man"]).stdout).contains("Exit codes:"));
}

#[test]
fn check_says_ok_in_one_line_or_lists_every_mistake() {
    let scratch = Scratch::new("check");
    let good = scratch.write("good.toml", "[[listener]]\nlisten = \"127.0.0.1:0\"\nto = [\"a:1\", \"b:1\"]\n");
    let output = run(&["check", "--config", &good]);
    assert_eq!(text(&output.stdout), format!("{good}: ok: 1 listener, 2 backends, no admin server\n"));
    assert!(output.status.success());
    let bad =
        scratch.write("bad.toml", "[drain]\ntimout = \"5s\"\n[[listener]]\nlisten = \"127.0.0.1\"\nto = \"a:1\"\n");
    let (unknown, address) =
        (format!("{bad}:2: drain.timout: no such key"), format!("{bad}:4: listener.listen: \"127.0.0.1\""));
    assert_fails(&run(&["check", "--config", &bad]), 2, &[&unknown, &address]);
    assert_fails(&run(&["gateway", "--config", &bad]), 2, &[&unknown, &address]);
    let missing = scratch.path("missing.toml");
    assert_fails(&run(&["check", "--config", &missing]), 2, &["missing.toml: can't read it: No such file"]);
}

#[test]
fn doctor_examines_any_host() {
    let table = run(&["doctor"]);
    assert!(table.status.success());
    assert!(text(&table.stdout).contains("descriptors"));
    let json = run(&["doctor", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.len() > 10);
    for finding in findings {
        for key in ["feature", "state", "found", "effect"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = run(&["relay", "--listen", &addr, "--to", "127.0.0.1:1"]);
    assert_fails(&output, 1, &[&format!("can't listen on {addr}: ")]);
    let output = run(&["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--admin", &addr]);
    assert_fails(&output, 1, &[&format!("the admin server can't listen on {addr}: ")]);
}

#[test]
fn a_port_that_another_midmile_has_is_in_use_too() {
    let target = echo(b'a').to_string();
    let first = Running::start(&["relay", "--listen", "127.0.0.1:0", "--to", &target]);
    let addr = first.ready().to_string();
    let output = run(&["relay", "--listen", &addr, "--to", &target]);
    assert_fails(&output, 1, &[&format!("can't listen on {addr}: ")]);
}

#[test]
fn an_unresolvable_name_is_one_clear_line() {
    let output = run(&["relay", "--listen", "127.0.0.1:0", "--to", "nosuch.invalid:80"]);
    assert_fails(&output, 1, &["can't resolve nosuch.invalid:80: "]);
}

#[test]
fn a_name_to_listen_on_is_resolved() {
    let target = echo(b'a');
    let to = format!("localhost:{}", target.port());
    let relay = Running::start(&["relay", "--listen", "localhost:0", "--to", &to]);
    let line = relay.line();
    let listen = line.strip_prefix("ready listen=").unwrap().strip_suffix(&format!(" to={to}")).unwrap();
    assert!(
        listen.parse::<std::net::SocketAddr>().is_ok_and(|addr| addr.port() != 0 && addr.ip().is_loopback()),
        "{line}"
    );
}

/// Whether this process may raise hard limits (`CAP_SYS_RESOURCE`, bit 24 of capabilities(7)).
fn may_raise() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 24 & 1 == 1)
}

/// `midmile` below a limit of 256 descriptors, soft and hard.
fn below_256(args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_midmile")]).args(args);
    command.env_remove("MIDMILE_LOG");
    command
}

#[test]
fn pairs_that_no_system_has_descriptors_for_are_one_clear_line() {
    let args = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--cores", "1", "--pairs-max", "4000000000"];
    let said = "too few file descriptors: pairs_max = 4000000000 needs 8000000068, ";
    assert_fails(&run(&args), 1, &[said]);
}

#[test]
fn pairs_asked_for_beyond_the_descriptors_are_an_error_and_the_default_is_lowered() {
    let args = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--cores", "1"];
    let asked = [&args[..], &["--pairs-max", "1000"]].concat();
    if may_raise() {
        // Then the limit isn't one: it's raised, and all is as asked.
        Running::spawn(below_256(&asked)).ready();
        let relay = Running::spawn(below_256(&args));
        relay.ready();
        assert!(!relay.log().contains("limits lowered"), "{}", relay.log());
        return;
    }
    let said = "too few file descriptors: pairs_max = 1000 needs 2068, 256 are allowed; raise the hard limit (ulimit -Hn 2068, or \
                LimitNOFILE=2068";
    assert_fails(&below_256(&asked).output().unwrap(), 1, &[said]);
    let mut relay = Running::spawn(below_256(&args));
    relay.ready();
    let line: serde_json::Value =
        serde_json::from_str(&relay.logged("limits lowered to the file descriptors allowed")).unwrap();
    assert!(line["pairs_max"].as_u64().is_some_and(|pairs| (50..100).contains(&pairs)), "{line}");
    relay.signal(Signal::TERM);
    assert_eq!(relay.code(), Some(0));
}

#[test]
fn the_soft_limit_is_raised_without_a_word() {
    let args = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--cores", "1", "--pairs-max", "100"];
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_midmile")]).args(args);
    let relay = Running::spawn(command);
    relay.ready();
    assert!(!relay.log().contains("limits lowered"), "{}", relay.log());
}
