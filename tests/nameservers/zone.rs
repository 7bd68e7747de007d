//! A zone of hundreds of names, the same at each run, and questions about it.

use super::message::{Edns, Query, TXT};

/// The zone's name.
pub(crate) const ORIGIN: &str = "midmile.example.";
/// Names `host-0`, `host-1`, …: each has A, AAAA, TXT and MX.
pub(crate) const HOSTS: usize = 400;
/// Characters of one string of TXT (RFC 1035, 3.3.14).
const STRING_MAX: usize = 255;
/// Bytes of the longest TXT of a host, and of those of the name `large`, whose answer nearly fills a message. No record is larger
/// than 16 KiB: NSD 4.6 never ends the transfer of a zone with one that is.
const HOST_TXT_MAX: usize = 4000;
const LARGE_TXT: usize = 6000;
const LARGE_TXTS: usize = 10;
/// Types that are asked for: those that are there, those that aren't, one that nobody knows, and ANY.
const KINDS: [u16; 14] = [1, 28, 16, 15, 2, 6, 5, 48, 43, 33, 65, 257, 65_280, 255];
const FLAGS: [u16; 6] = [0, 0x0100, 0x0010, 0x0020, 0x0110, 0x0120];

/// Numbers that don't repeat for a long while (xorshift64, Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits are the worst.
        usize::try_from((self.0 >> 16) % u64::try_from(end).unwrap()).unwrap()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The zone as a master file (RFC 1035, 5).
pub(crate) fn file() -> String {
    let mut random = Random::new(5);
    let mut zone = format!(
        "$ORIGIN {ORIGIN}
$TTL 3600
@ IN SOA ns-1 hostmaster 1 3600 600 604800 300
@ IN NS ns-1
@ IN NS ns-2
@ IN MX 10 mail
ns-1 IN A 192.0.2.1
ns-1 IN AAAA 2001:db8::1
ns-2 IN A 192.0.2.2
mail IN A 192.0.2.3
*.wild IN A 192.0.2.4
*.wild IN TXT \"whoever you are\"
_dns._tcp IN SRV 0 0 53 ns-1
below IN NS ns.below
ns.below IN A 192.0.2.5
"
    );
    zone.extend((0..LARGE_TXTS).map(|_| format!("large IN TXT {}\n", strings(&mut random, LARGE_TXT))));
    for host in 0..HOSTS {
        let bytes = random.below(HOST_TXT_MAX);
        zone += &format!(
            "host-{host} IN A 198.51.100.{}
host-{host} IN A 203.0.113.{}
host-{host} IN AAAA 2001:db8::{host:x}
host-{host} IN TXT {}
host-{host} IN MX {} mail
alias-{host} IN CNAME host-{host}
",
            host % 256,
            host % 256,
            strings(&mut random, bytes),
            host % 50,
        );
    }
    zone
}

/// Its next version, in which little is different.
pub(crate) fn second() -> String {
    let first = file();
    let second =
        first.replace(" hostmaster 1 ", " hostmaster 2 ").replace("mail IN A 192.0.2.3", "mail IN A 192.0.2.33");
    assert_eq!(first.len() + 1, second.len());
    second
}

/// So many letters in as many strings as they need.
fn strings(random: &mut Random, bytes: usize) -> String {
    let letters: Vec<u8> = (0..bytes.max(1)).map(|_| random.one_of(b"abcdefghijklmnopqrstuvwxyz0123456789")).collect();
    let quoted = letters.chunks(STRING_MAX).map(|string| format!("\"{}\"", std::str::from_utf8(string).unwrap()));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A name of the zone, below it, or beside it.
fn name(random: &mut Random) -> String {
    let host = random.below(HOSTS);
    let name = match random.below(16) {
        0..8 => format!("host-{host}.{ORIGIN}"),
        8..10 => format!("alias-{host}.{ORIGIN}"),
        10 => format!("no-{host}.{ORIGIN}"),
        11 => format!("any-{host}.wild.{ORIGIN}"),
        12 => format!("host-{host}.below.{ORIGIN}"),
        13 => random.one_of(&["ns-1.", "mail.", "_dns._tcp.", "_tcp.", ""]).to_owned() + ORIGIN,
        14 => format!("a.b.host-{host}.{ORIGIN}"),
        _ => random.one_of(&["other.example.", "example.", "."]).to_owned(),
    };
    // An answer has the question's letters as they were (RFC 4343, 4.1): each is as large or small as it comes.
    let mixed = |letter: char| if random.once_in(2) { letter.to_ascii_uppercase() } else { letter };
    name.chars().map(mixed).collect()
}

/// Questions of all kinds, each under an id of its own; the ids are the same for each seed, the questions aren't.
pub(crate) fn questions(seed: u64, count: u16) -> Vec<(u16, Query)> {
    let mut random = Random::new(seed);
    // An odd factor: no id comes twice.
    let ids = (0..count).map(|index| index.wrapping_mul(40_503));
    ids.map(|id| (id, question(&mut random))).collect()
}

fn question(random: &mut Random) -> Query {
    if random.once_in(100) {
        return Query::plain(&format!("large.{ORIGIN}"), TXT);
    }
    let edns = (!random.once_in(3)).then(|| Edns {
        datagram: random.one_of(&[512, 1232, 4096]),
        dnssec: random.once_in(2),
        version: u8::from(random.once_in(20)),
        option: random.once_in(4),
        keepalive: false,
    });
    Query { name: name(random), kind: random.one_of(&KINDS), flags: random.one_of(&FLAGS), edns }
}

/// Questions for each host.
pub(crate) const QUESTIONS_PER_HOST: usize = 5;

/// Questions for dnsperf about so many hosts, which all have an answer.
pub(crate) fn for_dnsperf(hosts: usize) -> String {
    let of_host = |host| {
        format!(
            "host-{host}.{ORIGIN} A\nhost-{host}.{ORIGIN} AAAA\nhost-{host}.{ORIGIN} TXT\nhost-{host}.{ORIGIN} MX\n\
             any-{host}.wild.{ORIGIN} A\n"
        )
    };
    (0..hosts).map(of_host).collect()
}
