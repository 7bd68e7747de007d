//! Each kind of mistake with its exact words.

use super::{assert_told, listener, read};

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
