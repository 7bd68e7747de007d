//! Each kind of mistake with its exact words, and the agreement of the reader, the example and the reference page.

use std::collections::BTreeSet;

use super::raw::SECTIONS;
use super::*;

fn host() -> Host {
    Host { cpus: 4, congestion: Some(vec!["reno".to_owned(), "cubic".to_owned()]) }
}

fn read(text: &str) -> Result<Config, Vec<String>> {
    parse("f.toml", text, &host())
}

/// A file with one listener, whose last lines are `more`: they begin on line 4.
fn listener(more: &str) -> String {
    format!("[[listener]]\nlisten = \"127.0.0.1:80\"\nto = [\"10.0.0.1:80\", \"db:80\"]\n{more}\n")
}

/// Each text has one mistake, told in these words.
fn assert_told(cases: &[(String, &str)]) {
    for (text, told) in cases {
        assert_eq!(read(text), Err(vec![(*told).to_owned()]), "{text}");
    }
}

#[test]
fn the_least_file_gets_every_default() {
    let config = read(&listener("")).unwrap();
    assert_eq!((config.drain, config.log_pairs, config.log_level), (DRAIN_DEFAULT, false, None));
    let to = ["10.0.0.1:80", "db:80"].map(|text| text.parse().unwrap());
    let wanted = Listener::new("127.0.0.1:80", "127.0.0.1:80".parse().unwrap(), to.into());
    assert_eq!(config.listeners, [wanted]);
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn a_full_file_means_what_it_says() {
    let config = read(&listener(
        "name = \"web\"\nbalance = \"least-connections\"\naccept_proxy = \"v2\"\nsend_proxy = \"v1\"\nallow = [\"10.0.0.0/8\", \
         \"::1\"]\npairs_max = 7\nresolve_every = \"30s\"\nclient = { keepalive = \"off\", nodelay = false }\n[listener.server]\n\
         congestion = \"cubic\"\nsend_buffer = \"1MiB\"\nuser_timeout = \"30s\"\nunsent_max = \"128KiB\"\n[listener.timeouts]\n\
         header = \"1s\"\n[listener.health]\nevery = \"1s\"\ntimeout = \"500ms\"\nfall = 1",
    ))
    .unwrap();
    let listener = &config.listeners[0];
    assert_eq!((&*listener.name, listener.balance, listener.pairs_max), ("web", Balance::LeastConnections, Some(7)));
    assert_eq!(listener.accept_proxy, Some(proxy::Accept { v1: false, v2: true }));
    assert_eq!(listener.send_proxy, Some(proxy::Version::V1));
    assert_eq!(listener.allow, ["10.0.0.0/8".parse::<IpNet>().unwrap(), "::1/128".parse().unwrap()]);
    assert_eq!(listener.resolve_every, Some(Duration::from_secs(30)));
    assert_eq!(listener.client, LegOptions { keepalive: None, nodelay: false, ..LegOptions::default() });
    let server = &listener.server;
    assert_eq!(
        (server.congestion.as_deref(), server.send_buffer, server.unsent_max),
        (Some("cubic"), Some(1 << 20), Some(131_072))
    );
    assert_eq!(listener.timeouts, Timeouts { header: Duration::from_secs(1), ..Timeouts::default() });
    let (every, timeout) = (Duration::from_secs(1), Duration::from_millis(500));
    assert_eq!(listener.health, Some(HealthCheck { every, timeout, rise: 2, fall: 1 }));
}

#[test]
fn what_is_not_understood() {
    assert_told(&[
        (listener("blance = \"x\""), "f.toml:4: listener.blance: no such key; did you mean \"balance\"?"),
        (listener("[limts]\ncores = 1"), "f.toml:4: limts: no such key; did you mean \"limits\"?"),
        (listener("[drain]\nzzz = 1"), "f.toml:5: drain.zzz: no such key; the keys here are timeout"),
        (listener("timeouts.dail = \"5s\""), "f.toml:4: listener.timeouts.dail: no such key; did you mean \"dial\"?"),
        (
            listener("timeouts.idle = 5"),
            "f.toml:4: listener.timeouts.idle: this is an integer where a duration belongs; write it like \"5s\"",
        ),
        (
            listener("timeouts.idle = \"5\""),
            "f.toml:4: listener.timeouts.idle: \"5\" is not a duration; write a number with its unit (ms, s, m, h), such as 5s or \
             1m30s",
        ),
        (
            listener("client.nodelay = \"yes\""),
            "f.toml:4: listener.client.nodelay: this is a string where `true` or `false` belongs; write it like true",
        ),
        (
            listener("server.recv_buffer = \"1 furlong\""),
            "f.toml:4: listener.server.recv_buffer: \"1 furlong\" is not a size; write a number with its unit (B, KiB, MiB, GiB), \
             such as 64KiB or 1MiB",
        ),
        (listener("pairs_max = -1"), "f.toml:4: listener.pairs_max: -1 is out of range; write 0 to 4294967295"),
        (
            listener("balance = \"random\""),
            "f.toml:4: listener.balance: \"random\" is not a choice here; write \"round-robin\" or \"least-connections\"",
        ),
        (
            listener("allow = [\n\"10.0.0.0/8\",\n\"10.0.0.1/8\"]"),
            "f.toml:6: listener.allow: 10.0.0.1/8 has bits set beyond its prefix; write 10.0.0.0/8, or 10.0.0.1 for that host alone",
        ),
        (
            listener("allow = [\"lan\"]"),
            "f.toml:4: listener.allow: \"lan\" is not a network; write address/bits, such as 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            listener("allow = \"10.0.0.0/8\""),
            "f.toml:4: listener.allow: this is a string where a list belongs; write it like [\"10.0.0.0/8\"]",
        ),
        (
            "[listener]\nlisten = \"a:1\"".to_owned(),
            "f.toml:1: listener: this is a table where a list belongs; write it like [[listener]]",
        ),
        (
            listener("zzz = 5"),
            "f.toml:4: listener.zzz: no such key; the keys here are name, listen, to, via, framing, balance, early_dial, transparent, intercept, \
             accept_proxy, send_proxy, allow, pairs_max, resolve_every, client, server, timeouts, health, messages",
        ),
        (
            "limits = 5\n".to_owned() + &listener(""),
            "f.toml:1: limits: this is an integer where a table belongs; write it like [limits]",
        ),
    ]);
}

#[test]
fn what_is_out_of_range() {
    assert_told(&[
        (
            listener("[limits]\ncores = 0"),
            "f.toml:5: limits.cores: 0 loops serve nobody; write 1 or more, or leave it out for all CPUs",
        ),
        (
            listener("[limits]\ncores = 5"),
            "f.toml:5: limits.cores: 5 loops and 4 CPUs that the process may use; write at most 4",
        ),
        (listener("[limits]\npairs_max = 0"), "f.toml:5: limits.pairs_max: 0 pairs serve nobody; write 1 or more"),
        (listener("pairs_max = 0"), "f.toml:4: listener.pairs_max: 0 pairs serve nobody; write 1 or more"),
        (
            listener("[limits]\npipe_size = \"1KiB\""),
            "f.toml:5: limits.pipe_size: 1024 bytes are out of range; write 4KiB to 1GiB",
        ),
        (
            listener("server.send_buffer = \"2GiB\""),
            "f.toml:4: listener.server.send_buffer: 2147483648 bytes are out of range; write 4KiB to 1GiB",
        ),
        (
            listener("[drain]\ntimeout = \"2years\""),
            "f.toml:5: drain.timeout: longer than a year; write 365days or less",
        ),
        (listener("timeouts.dial = \"0s\""), "f.toml:4: listener.timeouts.dial: no time at all; write more than 0s"),
        (
            listener("client.keepalive = \"1500ms\""),
            "f.toml:4: listener.client.keepalive: it takes whole seconds; write 1s to 32767s, or \"off\"",
        ),
        (
            listener("server.keepalive = \"10h\""),
            "f.toml:4: listener.server.keepalive: it takes whole seconds; write 1s to 32767s, or \"off\"",
        ),
        (
            listener("server.user_timeout = \"25days\""),
            "f.toml:4: listener.server.user_timeout: out of range; write 1ms to 24days",
        ),
        (
            listener("resolve_every = \"10ms\""),
            "f.toml:4: listener.resolve_every: names are resolved once a second at most; write 1s or more",
        ),
        (
            listener("health.rise = 0"),
            "f.toml:4: listener.health.rise: 0 checks in a row never happen; write 1 or more",
        ),
        (
            listener("name = \"\""),
            "f.toml:4: listener.name: a name has 1 to 64 bytes without spaces, as it is a label; choose another",
        ),
    ]);
}

#[test]
fn what_contradicts() {
    let unix = "[[listener]]\nlisten = \"unix:/run/a.sock\"\nto = \"unix:@b\"\n";
    assert_told(&[
        (
            listener("[listener.timeouts]\nheader = \"1s\""),
            "f.toml:5: listener.timeouts.header: contradicts accept_proxy = \"off\": no header is awaited; set accept_proxy or leave \
             `header` out",
        ),
        (
            listener("[listener.health]\nevery = \"1s\"\ntimeout = \"3s\""),
            "f.toml:6: listener.health.timeout: health.timeout = 3s is longer than health.every = 1s; shorten it or lengthen that",
        ),
        (
            listener("[listener.health]\nevery = \"1s\""),
            "f.toml:5: listener.health.every: health.timeout = 2s is longer than health.every = 1s; shorten it or lengthen that",
        ),
        (
            listener("pairs_max = 11\n[limits]\npairs_max = 10"),
            "f.toml:4: listener.pairs_max: 11 is more than limits.pairs_max = 10; lower it or raise that",
        ),
        (
            listener("[log]\npairs = true\nlevel = \"warn\""),
            "f.toml:5: log.pairs: contradicts log.level: pairs are logged at \"info\"; write level = \"info\" or pairs = false",
        ),
        (
            listener("[admin]\nlisten = \"unix:/run/admin.sock\""),
            "f.toml:5: admin.listen: the admin server speaks HTTP over TCP only; write host:port, such as 127.0.0.1:9400",
        ),
        (
            listener("server.congestion = \"vegas\""),
            "f.toml:4: listener.server.congestion: this kernel doesn't offer \"vegas\"; choose one of reno, cubic, or load its module",
        ),
        (
            format!("{unix}client.nodelay = true"),
            "f.toml:4: listener.client.nodelay: contradicts listen: a Unix-domain socket has no TCP options; leave it out",
        ),
        (
            format!("{unix}server.congestion = \"reno\""),
            "f.toml:4: listener.server.congestion: contradicts to: a Unix-domain socket has no TCP options; leave it out",
        ),
        (
            format!("{unix}resolve_every = \"5s\""),
            "f.toml:4: listener.resolve_every: contradicts to: there is no host name in it to resolve; leave `resolve_every` out",
        ),
        (
            format!("{unix}allow = [\"10.0.0.0/8\"]"),
            "f.toml:4: listener.allow: contradicts listen: the clients of a Unix-domain socket have no IP address; leave `allow` out \
             and set the mode of the socket's directory",
        ),
    ]);
}

#[test]
fn what_is_missing_or_there_twice() {
    let many =
        format!("[[listener]]\nlisten = \"a:1\"\nto = {:?}", (1..66).map(|n| format!("b:{n}")).collect::<Vec<_>>());
    assert_told(&[
        (String::new(), "f.toml:1: listener: there is none; add a [[listener]] table with `listen` and `to`"),
        (
            "\nlistener = []".to_owned(),
            "f.toml:2: listener: there is none; add a [[listener]] table with `listen` and `to`",
        ),
        (
            "[[listener]]\nlisten = \"a:1\"\nto = [\"b\"]".to_owned(),
            "f.toml:3: listener.to: \"b\": no port; write host:port, such as b:80",
        ),
        (
            "[[listener]]\nto = \"a:1\"".to_owned(),
            "f.toml:1: listener.listen: it is missing; write where to listen, such as listen = \"0.0.0.0:8080\"",
        ),
        (
            "\n[[listener]]\nlisten = \"a:1\"".to_owned(),
            "f.toml:2: listener.to: it is missing; write where connections go, such as to = \"10.0.0.1:80\"",
        ),
        (
            "[[listener]]\nlisten = \"a:1\"\nto = []".to_owned(),
            "f.toml:3: listener.to: no backend; write at least one address",
        ),
        (many, "f.toml:3: listener.to: 65 backends; write at most 64"),
        (
            "[[listener]]\nlisten = \"a:1\"\nto = [\"b:1\",\n\"b:1\"]".to_owned(),
            "f.toml:4: listener.to: b:1 is there twice; leave one out",
        ),
        (
            "[[listener]]\nlisten = \"a:1\"\nto = \"b:0\"".to_owned(),
            "f.toml:3: listener.to: b:0: nobody listens on port 0; write the server's port",
        ),
        (
            "[[listener]]\nlisten = \"a:1\"\nto = \"a:1\"".to_owned(),
            "f.toml:3: listener.to: a:1 is this listener itself, so it would dial itself without end; write the server's",
        ),
        (
            listener("[[listener]]\nname = \"x\"\nlisten = \"127.0.0.1:80\"\nto = \"b:1\""),
            "f.toml:6: listener.listen: 127.0.0.1:80 is taken by the listener on line 2; choose another",
        ),
        (
            listener("name = \"x\"\n[[listener]]\nname = \"x\"\nlisten = \"127.0.0.1:81\"\nto = \"b:1\""),
            "f.toml:6: listener.name: \"x\" is the name of the listener on line 4 too; give each its own `name`",
        ),
        (
            "[[listener]]\nlisten = \"localhost\"\nto = \"b:1\"".to_owned(),
            "f.toml:2: listener.listen: \"localhost\": no port; write host:port, such as localhost:80",
        ),
    ]);
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "[drain]\ntimout = \"5s\"\n[[listener]]\nlisten = \"a\"\nto = \"b:1\"\ntimeouts.idle = 1\n[[listener]]\nto = \"c:1\"\n";
    let told = read(text).unwrap_err();
    let heads: Vec<_> = told.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let wanted = [
        "f.toml:2 drain.timout",
        "f.toml:4 listener.listen",
        "f.toml:6 listener.timeouts.idle",
        "f.toml:7 listener.listen",
    ];
    assert_eq!(heads, wanted);
}

#[test]
fn what_is_not_toml() {
    let told = read("[admin]\nlisten = \n\n[drain\n").unwrap_err();
    assert!(told.len() >= 2 && told[0].starts_with("f.toml:2: not TOML: "), "{told:?}");
    let told = read("[admin]\nlisten = \"a:1\"\nlisten = \"a:1\"\n").unwrap_err();
    assert_eq!(told, ["f.toml:3: not TOML: duplicate key"]);
}

#[test]
fn the_defaults_in_the_reference_are_the_defaults() {
    let value = |default: &str| match default.parse::<u32>().is_ok() || default.parse::<bool>().is_ok() {
        true => default.to_owned(),
        false => format!("\"{default}\""),
    };
    let mut text = String::new();
    for section in SECTIONS {
        if section.header == "[[listener]]" {
            text.push_str(&listener(""));
        } else if section.header == "[listener.timeouts]"
            || section.header == "[listener.messages]"
            || section.header.starts_with("[listener.framing")
            || TRUNK_HEADERS.contains(&section.header)
        {
            // The header's timeout goes with accept_proxy only; it's compared below, as is what a trunk needs. What goes with `framing`
            // has a test of its own.
            continue;
        } else {
            text.push_str(&format!("{}\n", section.header));
        }
        for key in section.keys.iter().filter(|key| !key.default.is_empty()) {
            // `name` would be a second default of its own.
            text.push_str(&format!("{} = {}\n", key.name, value(key.default)));
        }
    }
    let config = read(&text).unwrap();
    let least = read(&listener("")).unwrap();
    let health = Some(HealthCheck::default());
    assert_eq!(config.listeners, [Listener { health, ..least.listeners[0].clone() }]);
    let known = Config { listeners: config.listeners.clone(), log_level: Some(Level::Info), ..least };
    assert_eq!(config, known);
    let section = SECTIONS.iter().find(|section| section.header == "[listener.timeouts]").unwrap();
    let keys: String =
        section.keys.iter().map(|key| format!("timeouts.{} = \"{}\"\n", key.name, key.default)).collect();
    let config = read(&listener(&format!("accept_proxy = \"any\"\n{keys}"))).unwrap();
    assert_eq!(config.listeners[0].timeouts, Timeouts::default());
}

/// Tables of gateways that have peers.
const TRUNK_HEADERS: [&str; 7] =
    ["[gateway]", "[[peer]]", "[peer.leg]", "[[trunk]]", "[trunk.leg]", "[trunk.server]", "[trunk.timeouts]"];

/// A file with a peer and a trunk on loopback, whose tables end in what `more` says of them.
fn trunk(more: impl Fn(&str) -> String) -> String {
    let tables = TRUNK_HEADERS.map(|header| {
        let needed = match header {
            "[gateway]" => "name = \"a\"\n",
            "[[peer]]" => "name = \"b\"\naddress = \"127.0.0.1:7000\"\nplain = true\n",
            "[[trunk]]" => "listen = \"127.0.0.1:7001\"\npeers = \"b\"\n",
            _ => "",
        };
        format!("{header}\n{needed}{}", more(header))
    });
    tables.concat()
}

#[test]
fn the_defaults_of_peers_and_trunks_are_those_in_the_reference() {
    let keys = |header: &str| {
        let section = SECTIONS.iter().find(|section| section.header == header).unwrap();
        let keys = section.keys.iter().filter(|key| !key.default.is_empty() && key.name != "plain");
        let quoted = |text: &str| text.parse::<u32>().is_err() && text.parse::<bool>().is_err();
        keys.map(|key| match quoted(key.default) {
            true => format!("{} = \"{}\"\n", key.name, key.default),
            false => format!("{} = {}\n", key.name, key.default),
        })
        .collect()
    };
    let all = read(&trunk(keys)).unwrap();
    assert_eq!(all, read(&trunk(|_| String::new())).unwrap());
    assert_eq!(all.peers[0].pool, PoolLimits::default());
    assert_eq!(all.trunks[0].timeouts, Timeouts::default());
}

#[test]
fn what_is_wrong_with_peers_and_trunks() {
    let with = |header: &'static str, more: &'static str| {
        trunk(|at| if at == header { format!("{more}\n") } else { String::new() })
    };
    let told = |text: &str, wanted: &str| {
        let told = read(text).unwrap_err();
        assert!(told.iter().any(|line| line.contains(wanted)), "{wanted}: {told:?}");
    };
    told(&with("[[peer]]", "pool_min = 600"), "peer.pool_min: 600 is more than pool_max = 512; lower it or raise that");
    told(&with("[[peer]]", "pool_max = 0"), "peer.pool_max: out of range; write 1 to 65536");
    told(&with("[[peer]]", "key_file = \"/nowhere\""), "peer.plain: contradicts key_file");
    told(&with("[[trunk]]", "allow = [\"10.0.0.0/8\"]"), "trunk.allow: \"10.0.0.0/8\" has no port; write network:port");
    told(&with("[[trunk]]", "onward = \"c\""), "trunk.onward: no [[peer]] is called \"c\"; add one");
    told(&with("[[trunk]]", "name = \"a b\""), "trunk.name: a name has 1 to 64 bytes without spaces");
    for header in ["[peer.leg]", "[trunk.leg]"] {
        let key = header.trim_matches(['[', ']']);
        for period in ["1999ms", "3601s"] {
            let text = trunk(|at| if at == header { format!("dead_after = \"{period}\"\n") } else { String::new() });
            told(&text, &format!("{key}.dead_after: out of range; write 2s to 1h, or \"off\""));
        }
    }
    let off =
        read(&trunk(|at| if at.ends_with(".leg]") { "dead_after = \"off\"\n".to_owned() } else { String::new() }));
    let off = off.unwrap();
    assert_eq!((off.peers[0].dead_after, off.trunks[0].dead_after), (None, None));
    told(&with("[peer.leg]", "pacing = \"fast\""), "peer.leg.pacing: \"fast\" is not a rate; write bits a second");
    told(
        &trunk(|_| String::new()).replace("[gateway]\nname = \"a\"\n", ""),
        "gateway.name: it is missing; add a [gateway] table",
    );
    told(
        &trunk(|_| String::new()).replace("\"a\"", "\"b\""),
        "peer.name: \"b\" is this gateway's own name; write the peer's",
    );
    told(
        &trunk(|_| String::new()).replace("127.0.0.1:7000", "10.0.0.1:7000"),
        "peer.plain: contradicts address: 10.0.0.1:7000 isn't a loopback",
    );
    told(
        &trunk(|_| String::new()).replace("127.0.0.1:7001", "0.0.0.0:7001"),
        "trunk.peers: \"b\" is plain, and this isn't a loopback address",
    );
    told(
        &trunk(|_| String::new()).replace("plain = true\n", ""),
        "peer.key_file: it is missing; write the file with the key",
    );
    let via = |more: &str| format!("{}{}", trunk(|_| String::new()), listener(more));
    assert!(read(&via("via = \"b\"")).is_ok());
    assert!(read(&via("via = []\nsend_proxy = \"v1\"")).is_ok(), "dialled from here");
    told(&via("via = \"c\""), "listener.via: no [[peer]] is called \"c\"; add one");
    told(
        &via("via = \"b\"\nsend_proxy = \"v1\""),
        "listener.send_proxy: contradicts via: the last gateway dials the backend",
    );
    told(&via("via = \"b\"\nhealth = {}"), "listener.health: contradicts via");
    told(
        &via("via = \"b\"").replace("10.0.0.1:80", "0.0.0.0:80"),
        "listener.to: contradicts via: 0.0.0.0 can't be dialled",
    );
    told(&via("via = \"b\"").replace("10.0.0.1:80", "unix:/a"), "listener.to: contradicts via: a Unix-domain socket");
    told(&via("").replace("127.0.0.1:80", "127.0.0.1:7001"), "listen: 127.0.0.1:7001 is taken by the");
}

#[test]
fn wide_windows_are_for_legs_that_are_ones_own() {
    assert!(read(&listener("client.initial_window = \"14KiB\"")).is_ok());
    assert!(read(&listener("client = { initial_window = \"90KiB\", own = true }")).is_ok());
    assert_told(&[(
        listener("client.initial_window = \"90KiB\""),
        "f.toml:4: listener.client.initial_window: more than ten segments (14480 bytes, RFC 6928) at once are for legs that are one's \
         own from end to end; write own = true if this one is, or leave `initial_window` out",
    )]);
    let wide =
        trunk(|header| if header == "[peer.leg]" { "initial_window = \"8MiB\"\n".to_owned() } else { String::new() });
    assert_eq!(read(&wide).unwrap().peers[0].leg.initial_window, Some(8 << 20));
}

#[test]
fn early_dial_goes_with_what_is_known_at_the_syn() {
    assert!(read(&listener("early_dial = true")).unwrap().listeners[0].early_dial);
    assert_told(&[(
        listener("early_dial = true\naccept_proxy = \"v2\""),
        "f.toml:4: listener.early_dial: contradicts accept_proxy: who the client is isn't known before its header; leave one of them out",
    )]);
}

#[test]
fn a_key_is_read_from_a_file_that_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("midmile-key-{}", std::process::id()));
    let text = trunk(|_| String::new()).replace("plain = true", &format!("key_file = \"{}\"", path.display()));
    let told = |mode: u32, key: &str| {
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read(&text)
    };
    let good = "5a".repeat(32) + "\n";
    let (fine, open, short) = (told(0o600, &good), told(0o644, &good), told(0o600, "5a5a\n"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(fine.unwrap().peers[0].key, "5a".repeat(32).parse().unwrap());
    assert!(open.unwrap_err()[0].ends_with("anybody can read it (mode 644); chmod 600 it"));
    let short = short.unwrap_err();
    assert!(short[0].contains("key_file") && !short[0].contains("5a5a"), "{short:?}");
}

fn project_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_reference_page_has_every_key_as_the_table_says_it() {
    let page = project_file("docs/configuration.md");
    let lines: BTreeSet<&str> = page.lines().collect();
    let missing: Vec<_> = reference().lines().filter(|line| !lines.contains(line)).map(str::to_owned).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks what `midmile keys` prints:\n{}", missing.join("\n"));
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows(&page), rows(&reference()), "docs/configuration.md has keys that are no more");
}

#[test]
fn the_example_is_right_and_shows_every_key() {
    let text = project_file("packaging/midmile.example.toml");
    if let Err(mistakes) = parse("midmile.example.toml", &text, &Host { cpus: 64, congestion: None }) {
        panic!("{}", mistakes.join("\n"));
    }
    for section in SECTIONS {
        assert!(text.contains(section.header), "{} isn't in the example", section.header);
        for key in section.keys.iter().filter(|key| key.kind != "a table") {
            assert!(
                text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{} = ", key.name))),
                "{key:?}"
            );
        }
    }
}
