//! Peers, trunks, and what listeners have to do with them.

use super::*;
use crate::config::raw::SECTIONS;

/// Tables of gateways that have peers.
pub(super) const TRUNK_HEADERS: [&str; 7] =
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
