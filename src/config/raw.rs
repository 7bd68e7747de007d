//! The configuration as typed, and the one table of its keys: the reader, the nearest-key suggestions and the reference page
//! all come from the `section!` calls below.
//!
//! DEVIATION: the file is read from toml's tree of spanned values, not through serde. Serde stops at the first mistake;
//! here an operator sees all of them at once.

use std::path::PathBuf;

use ipnet::IpNet;
use midmile_gateway::{Balance, WaitBy};
use midmile_wire::frame::Order;
use midmile_wire::trunk::Name;
use toml::de::{DeTable, DeValue};

use super::allowed::{Allowed, Intercepted};
use super::messages::Framed;
use super::mistake::{At, Mistakes, Place};
use super::value::{
    AcceptProxy, Count, Level, List, OneOrList, OrOff, Period, Rate, SendProxy, Size, Target, Value, Whole, WindowBy,
    wrong_type,
};
use crate::addr::Endpoint;

/// One key, as the reference page shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What may be written.
    pub(super) kind: &'static str,
    /// The default as it would be written; empty if there is none.
    pub(super) default: &'static str,
    /// What it is for.
    pub(super) about: &'static str,
}

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    /// Its header in the file; empty for the file itself.
    pub(super) header: &'static str,
    pub(super) keys: &'static [Key],
}

macro_rules! section {
    ($name:ident $header:literal $(required $required:ident $mend:literal)* {
        $(#[doc = $about:literal] $key:ident: $type:ty = $default:literal,)*
    }) => {
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name { $(#[doc = $about] pub(super) $key: Option<At<$type>>,)* }

        impl $name {
            pub(super) const SECTION: Section = Section {
                header: $header,
                keys: &[$(Key {
                    name: stringify!($key),
                    kind: <$type as Value>::KIND,
                    default: $default,
                    about: $about.trim_ascii(),
                },)*],
            };
        }

        impl Value for $name {
            const KIND: &'static str = "a table";
            const EXAMPLE: &'static str = $header;

            fn read(value: &DeValue<'_>, place: &Place, mistakes: &mut Mistakes) -> Option<Self> {
                let fields = Fields::open(value, place, $header, mistakes)?;
                fields.refuse_unknown(Self::SECTION.keys, mistakes);
                $(fields.require(stringify!($required), $mend, mistakes);)*
                Some(Self { $($key: fields.take(stringify!($key), mistakes),)* })
            }
        }
    };
}

section! { RawAdmin "[admin]" {
    #[doc = " Where `/metrics`, `/healthz`, `/readyz` and `/status.json` are served; nowhere if left out."]
    listen: Endpoint = "",
} }

section! { RawLimits "[limits]" {
    #[doc = " Loops, each on a thread pinned to a CPU of its own. Default: all CPUs that the process may use."]
    cores: Count = "",
    #[doc = " Pairs open at once in the whole process. Default: 100000, or as many as the file descriptors allow."]
    pairs_max: Count = "",
    #[doc = " Pipes that bulk directions may hold at once; a direction that finds none is copied. Default: 1024, or as many as the file descriptors allow."]
    pipes_max: Count = "",
    #[doc = " Capacity asked for each pipe, 4KiB to 1GiB; the kernel caps it for unprivileged users."]
    pipe_size: Size = "1MiB",
} }

section! { RawDrain "[drain]" {
    #[doc = " How long open pairs may go on after SIGTERM before they are cut."]
    timeout: Period = "30s",
} }

section! { RawLog "[log]" {
    #[doc = " Whether one line is logged for each pair at its end."]
    pairs: bool = "false",
    #[doc = " The least important level that is logged; the environment's `MIDMILE_LOG` wins over it."]
    level: Level = "info",
} }

section! { RawGateway "[gateway]" {
    #[doc = " This gateway's name towards its peers; required with `[[peer]]` or `[[trunk]]`."]
    name: Name = "",
    #[doc = " By what windows are opened that `initial_window` asks for: `auto` takes the first that can be had. See the operations page."]
    window_by: WindowBy = "auto",
    #[doc = " By what the loops wait for their sockets: `epoll`, or `io_uring` (Linux 6.1), where a turn's small transfers are one system call together. See the operations page."]
    wait_by: WaitBy = "epoll",
    #[doc = " How long after an event a loop looks for the next without sleeping, up to 1s. It answers sooner, and takes its CPU for that long."]
    busy_poll: Period = "0s",
    #[doc = " Where legs with `friends` and programs of `midmile friends run` find each other, its `--runtime-dir`. Default: as there."]
    friends_dir: PathBuf = "",
} }

section! { RawListener "[[listener]]"
required listen "it is missing; write where to listen, such as listen = \"0.0.0.0:8080\""
required to "it is missing; write where connections go, such as to = \"10.0.0.1:80\"" {
    #[doc = " Its name in metrics and log; unique. Default: the address it listens on."]
    name: String = "",
    #[doc = " Where it listens; required. Port 0 lets the kernel choose. Of a name that stands for several addresses the first is taken."]
    listen: Endpoint = "",
    #[doc = " The backends that connections go on to, 1 to 64; required. Or `\"original\"`, with `transparent`: each goes on to where its client wanted to go. With `framing = \"dns\"`, `\"udp:10.0.0.5:53\"` is asked over UDP, and over TCP where an answer doesn't fit."]
    to: OneOrList<Target> = "",
    #[doc = " The peers to go through, in order; the last of them dials the backend. Default: it's dialled from here."]
    via: OneOrList<Name> = "",
    #[doc = " Set where messages are carried in place of bytes: how they're told apart. Each request goes to the backend that has most room, over connections that all clients share. `\"dns\"`: DNS over TCP; `\"line\"`: lines; `\"resp\"`: Redis; or a table `[listener.framing]`."]
    framing: Framed = "",
    #[doc = " How a backend is chosen for a new pair."]
    balance: Balance = "round-robin",
    #[doc = " Whether the onward connection is begun at the client's SYN, one round trip before it is accepted. Needs the SYN program (`midmile doctor`); without it, it's begun at acceptance."]
    early_dial: bool = "false",
    #[doc = " Whether connections to other hosts are accepted here when the firewall hands them over (TPROXY). `listen` must be an address then. Needs `CAP_NET_ADMIN` and rules: see `midmile gateway --apply`."]
    transparent: bool = "false",
    #[doc = " Destinations whose connections are handed over, such as `[\"203.0.113.0/24:443\"]`: the rules are made of them. Only with `transparent`."]
    intercept: List<Intercepted> = "",
    #[doc = " The PROXY protocol header that each client must send first; without it, it is refused."]
    accept_proxy: AcceptProxy = "off",
    #[doc = " The PROXY protocol header sent to the backend before the client's first byte."]
    send_proxy: SendProxy = "off",
    #[doc = " Networks whose clients are let in, such as `[\"10.0.0.0/8\"]`. Default: all clients."]
    allow: List<IpNet> = "",
    #[doc = " Pairs that this listener may hold at once. Default: the process's `pairs_max`."]
    pairs_max: Count = "",
    #[doc = " How often the names in `to` are resolved again, at least every second; they always are on SIGHUP."]
    resolve_every: OrOff<Period> = "off",
    #[doc = " Socket options of the clients' legs."]
    client: RawClient = "",
    #[doc = " Socket options of the servers' legs."]
    server: RawServer = "",
    #[doc = " Time limits of each pair."]
    timeouts: RawTimeouts = "",
    #[doc = " Health checks of the backends; none if left out, all defaults if empty."]
    health: RawHealth = "",
    #[doc = " Bounds of clients and backends whose messages are carried; only with `framing`."]
    messages: RawMessages = "",
} }

macro_rules! leg_section {
    ($name:ident $header:literal $({ $(#[doc = $about:literal] $key:ident: $type:ty = $default:literal,)* })?) => {
        section! { $name $header {
            #[doc = " Congestion control, one that `net.ipv4.tcp_available_congestion_control` lists. Default: the system's."]
            congestion: String = "",
            #[doc = " `TCP_NODELAY`: small segments are sent without waiting for an acknowledgement."]
            nodelay: bool = "true",
            #[doc = " `SO_RCVBUF`, 4KiB to 1GiB; the kernel doubles it, caps it at `net.core.rmem_max` and stops sizing by itself. Default: the kernel sizes it."]
            recv_buffer: Size = "",
            #[doc = " `SO_SNDBUF`, 4KiB to 1GiB; as `recv_buffer`, capped at `net.core.wmem_max`. Default: the kernel sizes it."]
            send_buffer: Size = "",
            #[doc = " Idle time before a keepalive probe, whole seconds, 1s to 32767s; then a probe every third of it, and 3 unanswered ones end the pair."]
            keepalive: OrOff<Period> = "1m",
            #[doc = " `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged, 1ms to 24 days. Default: the system's."]
            user_timeout: Period = "",
            #[doc = " `TCP_NOTSENT_LOWAT`: bytes that may wait unsent in the kernel, 4KiB to 1GiB; bounds what a slow receiver can hold. Default: the system's."]
            unsent_max: Size = "",
            #[doc = " `SO_MAX_PACING_RATE`: the most that the leg sends a second, spread evenly. Default: without a bound."]
            pacing: Rate = "",
            #[doc = " Bytes that may be sent before the first acknowledgement, 4KiB to 1GiB; `gateway.window_by` says by what. Default: the system's, ten segments (RFC 6928)."]
            initial_window: Size = "",
            #[doc = " TCP Fast Open (RFC 7413): data travels with the SYN; `net.ipv4.tcp_fastopen` has to allow it."]
            fast_open: bool = "false",
            $($(#[doc = $about] $key: $type = $default,)*)?
        } }
    };
}

leg_section! { RawClient "[listener.client]" {
    #[doc = " Whether both ends of this leg and what lies between are one's own: without it, no more than ten segments are let out at once."]
    own: bool = "false",
    #[doc = " Whether this leg asks to be a friend of a program of this host that `midmile friends run` started: bytes between them then skip TCP. All others stay plain."]
    friends: bool = "false",
} }
leg_section! { RawServer "[listener.server]" {
    #[doc = " Whether the server sees the client's address and port instead of the gateway's. What it answers must come back through this host, and rules lead it to midmile: see `midmile gateway --apply`. Needs `CAP_NET_ADMIN`."]
    spoof_client: bool = "false",
    #[doc = " Whether both ends of this leg and what lies between are one's own: without it, no more than ten segments are let out at once."]
    own: bool = "false",
    #[doc = " Whether this leg asks to be a friend of a program of this host that `midmile friends run` started: bytes between them then skip TCP. All others stay plain."]
    friends: bool = "false",
} }

section! { RawTimeouts "[listener.timeouts]" {
    #[doc = " From the client's acceptance to an established server leg, over all attempts."]
    dial: Period = "5s",
    #[doc = " Without a byte in either direction."]
    idle: Period = "1h",
    #[doc = " Without a byte, once one side has finished sending."]
    half_closed: Period = "1m",
    #[doc = " For the whole PROXY header to arrive; only with `accept_proxy`."]
    header: Period = "5s",
} }

section! { RawHealth "[listener.health]" {
    #[doc = " Between two checks; a check is a connection that is closed again at once, also to a backend that is asked over UDP."]
    every: Period = "5s",
    #[doc = " For a check to succeed; not longer than `every`."]
    timeout: Period = "2s",
    #[doc = " Successes in a row that bring a backend back."]
    rise: Count = "2",
    #[doc = " Failures in a row that take a backend out."]
    fall: Count = "3",
} }

section! { RawMessages "[listener.messages]" {
    #[doc = " From a message's first byte to its last: a client that takes longer is cut."]
    message_timeout: Period = "10s",
    #[doc = " Without a whole message, and with none that is to be answered; then the client's connection is closed."]
    idle_timeout: Period = "10s",
    #[doc = " For a request's answer, over all attempts. Then a DNS client gets SERVFAIL, sooner where no backend can be reached; another client's connection ends."]
    answer_timeout: Period = "4s",
    #[doc = " For a backend to answer; then a DNS query goes to another one as well, and so again when that has had as long, to three in all while `answer_timeout` lasts. Not longer than that. A datagram is sent once more after a quarter of it."]
    attempt_timeout: Period = "2s",
    #[doc = " Requests of one client that wait for their answers, 1 to 65535. Beyond them it isn't read."]
    outstanding_per_client: Count = "256",
    #[doc = " Clients from one address at once, on all cores together; an IPv6 address counts by its first 64 bits. More are refused. 0: without a bound."]
    clients_per_address: Count = "0",
    #[doc = " Connections that each core keeps to each backend, 1 to 1000; to all backends of all listeners 16000 at most."]
    upstreams_per_backend: Count = "2",
    #[doc = " Requests that wait for their answers on one connection to a backend, 1 to 65535. Over UDP as many as on all connections to it together, 32768 at most."]
    outstanding_per_upstream: Count = "4096",
} }

section! { RawFraming "[listener.framing]" {
    #[doc = " A file with a BPF program that measures messages, of the form that the page on framing has."]
    program: PathBuf = "",
    #[doc = " The longest message, with `program`."]
    max: Size = "64KiB",
    #[doc = " Lines, as `framing = \"line\"`, and how long they may be."]
    line: RawLine = "",
    #[doc = " Redis."]
    resp: RawResp = "",
    #[doc = " A length at a fixed place."]
    length: RawLength = "",
    #[doc = " A length in groups of seven bits."]
    varint: RawVarint = "",
} }

section! { RawLine "[listener.framing.line]" {
    #[doc = " The longest message, its line break counted."]
    max: Size = "64KiB",
} }

section! { RawResp "[listener.framing.resp]" {
    #[doc = " The longest message: a command or a reply with all of its parts."]
    max: Size = "64KiB",
} }

section! { RawLength "[listener.framing.length]" {
    #[doc = " Bytes in front of the length."]
    offset: Count = "0",
    #[doc = " Bytes of the length: 1, 2, 3, 4 or 8."]
    width: Count = "4",
    #[doc = " The order of its bytes: the highest first, or the lowest."]
    endian: Order = "big",
    #[doc = " Added to the length to get the bytes behind it: 0 where it counts those; `-(offset + width)` where it counts the whole message."]
    adjust: Whole = "0",
    #[doc = " The longest message, all of it counted."]
    max: Size = "64KiB",
} }

section! { RawVarint "[listener.framing.varint]" {
    #[doc = " Bytes in front of the length: 1 for MQTT."]
    offset: Count = "0",
    #[doc = " The longest message, all of it counted."]
    max: Size = "64KiB",
} }

section! { RawPeer "[[peer]]"
required name "it is missing; write the peer's name, such as name = \"mumbai\"" {
    #[doc = " The peer's name, as its own `gateway.name` says it; required."]
    name: Name = "",
    #[doc = " Where its trunk listener is; left out for a peer that only comes to us. Of a name that stands for several addresses each is tried."]
    address: Endpoint = "",
    #[doc = " A file with the key that both hold: 64 hexadecimal digits, readable by nobody else."]
    key_file: PathBuf = "",
    #[doc = " Set in place of a key: anybody who comes is taken for the peer. For loopback addresses only."]
    plain: bool = "false",
    #[doc = " Trunk connections that wait ready though nobody comes."]
    pool_min: Count = "8",
    #[doc = " The most that wait ready, or are on the way there."]
    pool_max: Count = "512",
    #[doc = " Socket options of the trunk connections that we dial."]
    leg: RawPeerLeg = "",
} }

section! { RawTrunk "[[trunk]]"
required listen "it is missing; write where peers come in, such as listen = \"0.0.0.0:7000\""
required peers "it is missing; write who may come, such as peers = [\"oregon\"]" {
    #[doc = " Its name in metrics and log; unique. Default: the address it listens on."]
    name: String = "",
    #[doc = " Where peers come in; required."]
    listen: Endpoint = "",
    #[doc = " The peers that may come; required."]
    peers: OneOrList<Name> = "",
    #[doc = " What may be dialled for them: `\"10.3.0.0/24:80\"`, `\"[2001:db8::/32]:1-1024\"`, `\"db.internal:5432\"`. Empty: nothing. Loopback, link-local and metadata addresses must be named exactly."]
    allow: List<Allowed> = "",
    #[doc = " The peers that pairs may be passed on to. Empty: none."]
    onward: OneOrList<Name> = "",
    #[doc = " The PROXY protocol header sent to the server before the client's first byte: with the client's own address."]
    send_proxy: SendProxy = "off",
    #[doc = " Trunk connections and pairs that this listener may hold at once. Default: the process's `pairs_max`."]
    pairs_max: Count = "",
    #[doc = " How often the names in `allow` are resolved again, at least every second; they always are on SIGHUP."]
    resolve_every: OrOff<Period> = "off",
    #[doc = " Socket options of the accepted trunk connections."]
    leg: RawTrunkLeg = "",
    #[doc = " Socket options of the servers' legs."]
    server: RawTrunkServer = "",
    #[doc = " Time limits of each pair, and of the handshake."]
    timeouts: RawTrunkTimeouts = "",
} }

leg_section! { RawPeerLeg "[peer.leg]" {
    #[doc = " How long the peer may leave bytes unanswered that are sent again and again, 2s to 1h; then the pair ends as `trunk-dead`. A peer that acknowledges lives, also with a closed window."]
    dead_after: OrOff<Period> = "20s",
} }
leg_section! { RawTrunkLeg "[trunk.leg]" {
    #[doc = " How long the peer may leave bytes unanswered that are sent again and again, 2s to 1h; then the pair ends as `trunk-dead`. A peer that acknowledges lives, also with a closed window."]
    dead_after: OrOff<Period> = "20s",
} }
leg_section! { RawTrunkServer "[trunk.server]" {
    #[doc = " Whether the server sees the client's address and port, as the hello says them, instead of the gateway's; as `listener.server.spoof_client`."]
    spoof_client: bool = "false",
    #[doc = " Whether both ends of this leg and what lies between are one's own: without it, no more than ten segments are let out at once."]
    own: bool = "false",
    #[doc = " Whether this leg asks to be a friend of a program of this host that `midmile friends run` started: bytes between them then skip TCP. All others stay plain."]
    friends: bool = "false",
} }

section! { RawTrunkTimeouts "[trunk.timeouts]" {
    #[doc = " From the hello to an established server leg, over all attempts; the peer's own limit holds as well."]
    dial: Period = "5s",
    #[doc = " Without a byte in either direction; an unused trunk connection as well."]
    idle: Period = "1h",
    #[doc = " Without a byte, once one side has finished sending."]
    half_closed: Period = "1m",
    #[doc = " For a trunk connection to prove who it is."]
    handshake: Period = "5s",
} }

section! { RawConfig "" {
    #[doc = " The admin server."]
    admin: RawAdmin = "",
    #[doc = " Limits of the whole process."]
    limits: RawLimits = "",
    #[doc = " What happens on SIGTERM."]
    drain: RawDrain = "",
    #[doc = " What is logged."]
    log: RawLog = "",
    #[doc = " This gateway."]
    gateway: RawGateway = "",
    #[doc = " The listeners: at least one, or a trunk."]
    listener: List<RawListener> = "",
    #[doc = " The other gateways."]
    peer: List<RawPeer> = "",
    #[doc = " Where peers come in."]
    trunk: List<RawTrunk> = "",
} }

/// Every table of the file, for the reference page.
pub(super) const SECTIONS: [Section; 22] = [
    RawAdmin::SECTION,
    RawLimits::SECTION,
    RawDrain::SECTION,
    RawLog::SECTION,
    RawListener::SECTION,
    RawClient::SECTION,
    RawServer::SECTION,
    RawTimeouts::SECTION,
    RawHealth::SECTION,
    RawMessages::SECTION,
    RawFraming::SECTION,
    RawLine::SECTION,
    RawResp::SECTION,
    RawLength::SECTION,
    RawVarint::SECTION,
    RawGateway::SECTION,
    RawPeer::SECTION,
    RawPeerLeg::SECTION,
    RawTrunk::SECTION,
    RawTrunkLeg::SECTION,
    RawTrunkServer::SECTION,
    RawTrunkTimeouts::SECTION,
];

/// Reads a whole file. What couldn't be read is left out, after a mistake was noted.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes) -> RawConfig {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| mistakes.line(&span));
        mistakes.add_syntax(line, error.message());
    }
    if !mistakes.is_empty() {
        return RawConfig::default();
    }
    let root = Place { key: String::new(), line: 1 };
    RawConfig::read(&DeValue::Table(document.into_inner()), &root, mistakes).unwrap_or_default()
}

/// The fields of one table.
struct Fields<'v, 'i> {
    table: &'v DeTable<'i>,
    place: &'v Place,
}

impl<'v, 'i> Fields<'v, 'i> {
    fn open(value: &'v DeValue<'i>, place: &'v Place, header: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let table = value.as_table();
        if table.is_none() {
            mistakes.add(place, wrong_type(value, "a table", header));
        }
        table.map(|table| Self { table, place })
    }

    fn take<T: Value>(&self, name: &str, mistakes: &mut Mistakes) -> Option<At<T>> {
        let (key, value) = self.table.get_key_value(name)?;
        let line = mistakes.line(&key.span());
        T::read(value.get_ref(), &self.place.inside(name, line), mistakes).map(|value| At { value, line })
    }

    /// Notes a mistake if `name` isn't there; one that is there and can't be read has its own.
    fn require(&self, name: &str, mend: &str, mistakes: &mut Mistakes) {
        if !self.table.contains_key(name) {
            mistakes.add(&self.place.inside(name, self.place.line), mend);
        }
    }

    fn refuse_unknown(&self, known: &[Key], mistakes: &mut Mistakes) {
        for (name, _) in self.table.iter() {
            if known.iter().any(|key| key.name == name.get_ref().as_ref()) {
                continue;
            }
            let line = mistakes.line(&name.span());
            mistakes.add(&self.place.inside(name.get_ref(), line), unknown(name.get_ref(), known));
        }
    }
}

/// Least likeness, of 1, at which a known key is taken for what was meant.
const LIKENESS_MIN: f64 = 0.75;

fn unknown(name: &str, known: &[Key]) -> String {
    let like = |key: &Key| strsim::jaro_winkler(name, key.name);
    let nearest = known.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
    match nearest {
        Some(key) if like(key) >= LIKENESS_MIN => {
            format!("no such key; did you mean \"{}\"?", key.name)
        }
        _ => {
            let names: Vec<_> = known.iter().map(|key| key.name).collect();
            format!("no such key; the keys here are {}", names.join(", "))
        }
    }
}
