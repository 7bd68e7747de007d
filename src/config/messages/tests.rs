//! What a listener's framing and bounds mean, and each mistake with its exact words.

use std::time::Duration;

use midmile_wire::frame::Seen;

use super::*;
use crate::config::raw::SECTIONS;
use crate::config::{Config, parse};
use crate::host::Host;

fn read(more: &str) -> Result<Config, Vec<String>> {
    let text = format!("[[listener]]\nlisten = \"127.0.0.1:53\"\nto = [\"10.0.0.1:53\", \"10.0.0.2:53\"]\n{more}\n");
    parse("f", &text, &Host { cpus: 2, congestion: None })
}

fn messages(more: &str) -> Messages {
    let config = read(more).unwrap_or_else(|mistakes| panic!("{more}: {mistakes:?}"));
    config.listeners[0].messages.clone().unwrap()
}

#[test]
fn a_listener_without_framing_carries_bytes() {
    assert_eq!(read("").unwrap().listeners[0].messages, None);
}

#[test]
fn a_framing_means_what_it_says() {
    let length = LengthPrefix { offset: 0, width: Width::Four, order: Order::Big, adjust: 0, len_max: 65_536 };
    let cases = [
        ("\"dns\"", Framing::Dns),
        ("\"line\"", Framing::Line(Line { len_max: 65_536 })),
        ("\"resp\"", Framing::Resp(Resp { side: Side::Commands, len_max: 65_536 })),
        ("{ line = { max = \"512B\" } }", Framing::Line(Line { len_max: 512 })),
        ("{ resp = { max = \"1MiB\" } }", Framing::Resp(Resp { side: Side::Commands, len_max: 1 << 20 })),
        ("{ length = {} }", Framing::Length(length)),
        (
            "{ length = { offset = 2, width = 2, endian = \"little\", adjust = -4, max = \"4KiB\" } }",
            Framing::Length(LengthPrefix {
                offset: 2,
                width: Width::Two,
                order: Order::Little,
                adjust: -4,
                len_max: 4096,
            }),
        ),
        ("{ varint = { offset = 1 } }", Framing::Varint(VarintPrefix { offset: 1, len_max: 65_536 })),
    ];
    for (text, framing) in cases {
        let messages = messages(&format!("framing = {text}"));
        assert_eq!(messages.bounds.message_max as usize, framing.len_max(), "{text}");
        assert_eq!(messages.framing, framing, "{text}");
    }
}

#[test]
fn backends_of_dns_alone_are_asked_over_udp() {
    let read = |to: &str, more: &str| {
        let text = format!("[[listener]]\nlisten = \"127.0.0.1:53\"\nto = {to}\n{more}\n");
        parse("f", &text, &Host { cpus: 2, congestion: None })
    };
    let config = read("[\"udp:10.0.0.1:53\", \"10.0.0.2:53\"]", "framing = \"dns\"").unwrap();
    let listener = &config.listeners[0];
    assert_eq!(listener.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1:53", "10.0.0.2:53"]);
    assert_eq!(listener.messages.as_ref().unwrap().udp, BTreeSet::from(["10.0.0.1:53".parse().unwrap()]));
    assert_eq!(config.sockets_max(), 16);
    let only =
        "f:3: listener.to: udp:10.0.0.1:53: only DNS is asked over UDP; set framing = \"dns\", or leave \"udp:\" out";
    for more in ["", "framing = \"resp\"", "framing = { length = {} }"] {
        assert_eq!(read("\"udp:10.0.0.1:53\"", more), Err(vec![only.to_owned()]), "{more}");
    }
    let twice = "f:3: listener.to: 10.0.0.1:53 is there twice; leave one out";
    let both = "[\"udp:10.0.0.1:53\", \"10.0.0.1:53\"]";
    assert_eq!(read(both, "framing = \"dns\""), Err(vec![twice.to_owned()]));
}

#[test]
fn a_program_is_read_and_checked() {
    let path = std::env::temp_dir().join(format!("midmile-framer-{}", std::process::id()));
    let with = |program: &str| {
        std::fs::write(&path, program).unwrap();
        read(&format!("framing = {{ program = {path:?}, max = \"2KiB\" }}"))
    };
    // DNS's: the half word at 0, and 2.
    let (good, cut) = (with("3,40 0 0 0,4 0 0 2,22 0 0 0\n"), with("3,40 0 0 0,4 0 0 2\n"));
    std::fs::remove_file(&path).unwrap();
    let messages = good.unwrap().listeners[0].messages.clone().unwrap();
    assert_eq!((messages.framing.len_max(), messages.bounds.message_max), (2048, 2048));
    assert_eq!(messages.framing.measure(&[0, 1, 9, 9], &mut Seen::default()), Ok(Some(3)));
    let told = cut.unwrap_err();
    assert!(
        told[0].starts_with("f:4: listener.framing.program: ") && told[0].contains("3 instructions, and 2 follow"),
        "{told:?}"
    );
}

/// The page's example for each protocol of its tables means what the tables say.
#[test]
fn the_examples_in_the_page_on_framing_are_taken() {
    let page = include_str!("../../../docs/framing.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let told: Vec<Framing> = examples.iter().map(|example| messages(example).framing).collect();
    let mebibyte = LengthPrefix { offset: 0, width: Width::Four, order: Order::Big, adjust: 0, len_max: 1 << 20 };
    let wanted = [
        mebibyte,
        LengthPrefix { offset: 8, adjust: 12, ..mebibyte },
        LengthPrefix { offset: 1, adjust: -4, ..mebibyte },
        LengthPrefix { width: Width::Three, adjust: 6, len_max: 9 + 16_384, ..mebibyte },
        LengthPrefix { order: Order::Little, adjust: -4, ..mebibyte },
    ];
    let wanted =
        wanted.map(Framing::Length).into_iter().chain([Framing::Varint(VarintPrefix { offset: 1, len_max: 1 << 20 })]);
    assert_eq!(told, wanted.collect::<Vec<_>>());
    for prefix in wanted_rows(page) {
        let alike = |framing: &Framing| match framing {
            Framing::Length(found) => (found.offset, found.width.bytes(), found.adjust) == prefix,
            _ => false,
        };
        assert!(told.iter().any(alike), "no example for {prefix:?}");
    }
}

/// Offset, width and adjustment of each protocol in the page's table of lengths.
fn wanted_rows(page: &str) -> Vec<(usize, usize, i64)> {
    let table = page.split("| protocol | offset").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows = table.lines().skip(2).map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let rows: Vec<_> =
        rows.map(|cells| (cells[2].parse().unwrap(), cells[3].parse().unwrap(), cells[5].parse().unwrap())).collect();
    assert_eq!(rows.len(), 6, "{rows:?}");
    rows
}

#[test]
fn bounds_mean_what_they_say() {
    let all = messages(
        "framing = \"dns\"\n[listener.messages]\nmessage_timeout = \"1s\"\nidle_timeout = \"2s\"\nanswer_timeout = \"3s\"\n\
         attempt_timeout = \"3s\"\noutstanding_per_client = 5\nclients_per_address = 6\nupstreams_per_backend = 7\n\
         outstanding_per_upstream = 8",
    );
    let wanted = Bounds {
        message_max: 65_537,
        outstanding_per_client: 5,
        clients_per_address: 6,
        message_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(3),
        attempt_timeout: Duration::from_secs(3),
        upstreams_per_backend: 7,
        outstanding_per_upstream: 8,
    };
    assert_eq!(all.bounds, wanted);
}

#[test]
fn the_defaults_in_the_reference_are_the_defaults() {
    let defaults = |header: &str| {
        let section = SECTIONS.iter().find(|section| section.header == header).unwrap();
        let keys = section.keys.iter().filter(|key| !key.default.is_empty());
        let written = keys.map(|key| match key.default.parse::<u32>() {
            Ok(number) => format!("{} = {number}\n", key.name),
            Err(_) => format!("{} = \"{}\"\n", key.name, key.default),
        });
        format!("{header}\n{}", written.collect::<String>())
    };
    assert_eq!(
        messages(&format!("framing = \"dns\"\n{}", defaults("[listener.messages]"))),
        messages("framing = \"dns\"")
    );
    for kind in ["line", "resp", "length", "varint"] {
        let written = messages(&defaults(&format!("[listener.framing.{kind}]")));
        assert_eq!(written, messages(&format!("framing = {{ {kind} = {{}} }}")), "{kind}");
    }
    assert_eq!(messages("framing = { resp = {} }"), messages("framing = \"resp\""));
}

/// What is written on line 4 and behind it, and what is said of it.
const WRONG: [(&str, &str); 31] = [
    ("framing = \"dsn\"", "f:4: listener.framing: \"dsn\" is not a choice here; write \"dns\" or \"line\" or \"resp\""),
    (
        "framing = 5",
        "f:4: listener.framing: this is an integer where `\"dns\"`, `\"line\"`, `\"resp\"` or a table belongs; write it like \
         \"dns\"",
    ),
    (
        "framing = {}",
        "f:4: listener.framing: it is empty; write one of program, line, resp, length and varint, or \"dns\" in place of the table",
    ),
    ("framing = { lenght = {} }", "f:4: listener.framing.lenght: no such key; did you mean \"length\"?"),
    (
        "framing = { line = {}, varint = {} }",
        "f:4: listener.framing.varint: contradicts framing.line; leave one of them out",
    ),
    (
        "framing = { line = {}, max = \"1KiB\" }",
        "f:4: listener.framing.max: it goes with program; write framing.line.max",
    ),
    (
        "framing = { program = \"/nowhere/at/all\" }",
        "f:4: listener.framing.program: /nowhere/at/all: can't read it: No such file or directory (os error 2); name a readable file",
    ),
    (
        "framing = { length = { width = 5 } }",
        "f:4: listener.framing.length.width: no length has 5 bytes; write 1, 2, 3, 4 or 8",
    ),
    (
        "framing = { length = { offset = 1025 } }",
        "f:4: listener.framing.length.offset: 1025 is out of range; write 0 to 1024",
    ),
    (
        "framing = { varint = { offset = 9999 } }",
        "f:4: listener.framing.varint.offset: 9999 is out of range; write 0 to 1024",
    ),
    (
        "framing = { length = { adjust = 3000000000 } }",
        "f:4: listener.framing.length.adjust: 3000000000 is out of range; write -2147483648 to 2147483647",
    ),
    (
        "framing = { length = { offset = 1000, max = \"16B\" } }",
        "f:4: listener.framing.length.offset: the length ends after 1004 bytes, and framing.length.max = 16 bytes are a whole message; \
         lower the offset, or raise that",
    ),
    (
        "framing = { length = { adjust = 1000000 } }",
        "f:4: listener.framing.length.adjust: with 1000000 more no message fits into framing.length.max = 65536 bytes; write 65532 or \
         less, or raise that",
    ),
    (
        "framing = { length = { width = 1, adjust = -256 } }",
        "f:4: listener.framing.length.adjust: a length of 1 bytes says 255 at most, so every message would end before it; write -255 \
         or more",
    ),
    (
        "framing = { varint = { offset = 1024, max = \"64B\" } }",
        "f:4: listener.framing.varint.offset: the length ends after 1025 bytes, and framing.varint.max = 64 bytes are a whole message; \
         lower the offset, or raise that",
    ),
    (
        "framing = { resp = { max = \"2MiB\" } }",
        "f:4: listener.framing.resp.max: 2097152 bytes are out of range; write 16B to 1MiB",
    ),
    (
        "[listener.messages]",
        "f:4: listener.messages: nothing is carried as messages without it: set framing, or leave `messages` out",
    ),
    (
        "framing = \"dns\"\nbalance = \"round-robin\"",
        "f:5: listener.balance: contradicts framing: each request goes to the backend with the fewest unanswered ones; leave it out",
    ),
    (
        "framing = \"dns\"\nearly_dial = true",
        "f:5: listener.early_dial: contradicts framing: connections to backends stand before a client comes; leave it out",
    ),
    (
        "framing = \"dns\"\ntransparent = true",
        "f:5: listener.transparent: contradicts framing: backends are the same for all clients; leave it out",
    ),
    (
        "framing = \"dns\"\naccept_proxy = \"v2\"",
        "f:5: listener.accept_proxy: contradicts framing: a PROXY header is no message; leave it out",
    ),
    (
        "framing = \"dns\"\nsend_proxy = \"v2\"",
        "f:5: listener.send_proxy: contradicts framing: a connection to a backend carries the messages of many clients, so there is \
         no one client to name; leave it out",
    ),
    (
        "framing = \"dns\"\nserver.spoof_client = true",
        "f:5: listener.server.spoof_client: contradicts framing: a connection to a backend carries the messages of many clients, so \
         there is no one client to name; leave it out",
    ),
    (
        "framing = \"dns\"\ntimeouts.idle = \"1m\"",
        "f:5: listener.timeouts: contradicts framing: [listener.messages] has the time limits of messages; leave it out",
    ),
    (
        "framing = \"dns\"\nmessages.idle_timeout = \"0s\"",
        "f:5: listener.messages.idle_timeout: no time at all; write more than 0s",
    ),
    (
        "framing = \"dns\"\nmessages.attempt_timeout = \"6s\"",
        "f:5: listener.messages.attempt_timeout: messages.attempt_timeout = 6s is longer than messages.answer_timeout = 4s; shorten \
         it or lengthen that",
    ),
    (
        "framing = \"dns\"\nmessages.answer_timeout = \"1s\"",
        "f:5: listener.messages.answer_timeout: messages.attempt_timeout = 2s is longer than messages.answer_timeout = 1s; shorten \
         it or lengthen that",
    ),
    (
        "framing = \"dns\"\nmessages.outstanding_per_client = 0",
        "f:5: listener.messages.outstanding_per_client: 0 is out of range; write 1 to 65535",
    ),
    (
        "framing = \"dns\"\nmessages.upstreams_per_backend = 1001",
        "f:5: listener.messages.upstreams_per_backend: 1001 is out of range; write 1 to 1000",
    ),
    (
        "framing = \"dns\"\nmessages.outstanding_per_upstream = 65536",
        "f:5: listener.messages.outstanding_per_upstream: 65536 is out of range; write 1 to 65535",
    ),
    (
        "framing = \"dns\"\nmessages.outstanding = 5",
        "f:5: listener.messages.outstanding: no such key; did you mean \"outstanding_per_client\"?",
    ),
];

#[test]
fn what_is_wrong_is_told_with_its_place_and_mend() {
    for (text, told) in WRONG {
        assert_eq!(read(text), Err(vec![told.to_owned()]), "{text}");
    }
}

#[test]
fn what_only_addresses_have_isnt_asked_of_unix_clients() {
    let text =
        "[[listener]]\nlisten = \"unix:@m\"\nto = \"unix:@b\"\nframing = \"line\"\nmessages.clients_per_address = 1\n";
    let told = parse("f", text, &Host { cpus: 2, congestion: None }).unwrap_err();
    let wanted = "f:5: listener.messages.clients_per_address: contradicts listen: the clients of a Unix-domain socket have no IP \
                  address; leave it out";
    assert_eq!(told, [wanted]);
}

#[test]
fn all_backends_together_get_the_connections_that_they_are_promised() {
    let listener = |port: u16, backends: usize| {
        let to: Vec<String> = (0..backends).map(|at| format!("10.0.0.{at}:53")).collect();
        format!(
            "[[listener]]\nlisten = \"127.0.0.1:{port}\"\nto = {to:?}\nframing = \"dns\"\nmessages.upstreams_per_backend = 1000\n"
        )
    };
    let check = |text: &str| parse("f", text, &Host { cpus: 2, congestion: None });
    assert!(check(&listener(1, 16)).is_ok());
    let told = |line: usize, total: usize| {
        format!(
            "f:{line}: listener.messages.upstreams_per_backend: the backends of all listeners with framing come to {total} connections \
             a core, and it keeps 16000; lower it"
        )
    };
    assert_eq!(check(&listener(1, 18)), Err(vec![told(1, 18_000)]));
    assert_eq!(check(&(listener(1, 9) + &listener(2, 8))), Err(vec![told(6, 17_000)]));
}

#[test]
fn messages_dont_go_through_trunks() {
    let peer = "[gateway]\nname = \"a\"\n[[peer]]\nname = \"b\"\naddress = \"127.0.0.1:7000\"\nplain = true";
    let told = read(&format!("framing = \"dns\"\nvia = \"b\"\n{peer}")).unwrap_err();
    assert_eq!(
        told,
        ["f:5: listener.via: contradicts framing: messages go to backends that are dialled from here; leave it out"]
    );
}
