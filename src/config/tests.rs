//! What a file means. `mistakes` has what is wrong with one, in exact words; `reference` compares the reader with what we say of it.

mod mistakes;
mod reference;
mod trunk;

use super::*;

fn read(text: &str) -> Result<Config, Vec<String>> {
    parse("f.toml", text, &Host::sample())
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
fn legs_ask_for_friends_where_that_can_be() {
    let text = "client.friends = true\nserver.friends = true\n[gateway]\nfriends_dir = \"/run/x\"";
    let config = read(&listener(text)).unwrap();
    assert!(config.listeners[0].client.friend && config.listeners[0].server.friend);
    assert_eq!(config.friends_dir.as_deref(), Some(std::path::Path::new("/run/x")));
    assert_told(&[
        (
            listener("client.friends = true\n[gateway]\nwait_by = \"io_uring\""),
            "f.toml:4: listener.client.friends: contradicts gateway.wait_by = \"io_uring\": legs have friends by epoll alone; leave one of \
             them out",
        ),
        (
            listener("server = { friends = true, fast_open = true }"),
            "f.toml:4: listener.server.friends: contradicts fast_open: a connection whose first bytes went with its SYN has no friend; leave \
             one of them out",
        ),
    ]);
}

#[test]
fn early_dial_goes_with_what_is_known_at_the_syn() {
    assert!(read(&listener("early_dial = true")).unwrap().listeners[0].early_dial);
    assert_told(&[(
        listener("early_dial = true\naccept_proxy = \"v2\""),
        "f.toml:4: listener.early_dial: contradicts accept_proxy: who the client is isn't known before its header; leave one of them out",
    )]);
}
