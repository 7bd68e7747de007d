//! A zone, from a file in the master format (RFC 1035, section 5): SOA, NS, A, AAAA, CNAME and TXT records, of class IN.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail, ensure};

use crate::name::{self, parent};

pub(crate) const A: u16 = 1;
pub(crate) const NS: u16 = 2;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;

/// Records of one name and one type.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    /// As they stand in messages; names aren't compressed.
    pub(crate) data: Vec<Vec<u8>>,
}

/// All records of a name. A name between others may have none.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) sets: Vec<Set>,
}

impl Node {
    /// The records of a type.
    pub(crate) fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.kind == kind)
    }
}

/// A zone.
#[derive(Debug)]
pub(crate) struct Zone {
    origin: Vec<u8>,
    nodes: HashMap<Vec<u8>, Node>,
}

impl Zone {
    /// The zone's own name.
    pub(crate) fn origin(&self) -> &[u8] {
        &self.origin
    }

    /// What is known of a name within the zone.
    pub(crate) fn node(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The record that says how long what isn't there may be taken for that, and for how many seconds (RFC 2308, section 3).
    pub(crate) fn soa(&self) -> (&[u8], u32) {
        let set = self.node(&self.origin).and_then(|node| node.set(SOA)).expect("a zone is read with one");
        let data = &set.data[0];
        let minimum = data.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        (data, set.ttl.min(minimum))
    }

    /// Reads a file's text. `origin` is where names begin that don't say; the file may say it itself.
    pub(crate) fn parse(text: &str, origin: Option<&str>) -> anyhow::Result<Self> {
        let mut reader = Reader { nodes: HashMap::new(), origin: None, ttl: None, owner: None, soa: None };
        if let Some(origin) = origin {
            reader.origin = Some(name::parse(origin, &[0]).map_err(anyhow::Error::msg)?);
        }
        let mut entry = Vec::new();
        let mut tokens = Tokens { text, line: 1 };
        loop {
            let line = tokens.line;
            let more = tokens.entry(&mut entry)?;
            reader.add(&entry).with_context(|| format!("line {line}"))?;
            if !more {
                return reader.finish();
            }
        }
    }
}

/// A word of an entry. The first of a line that begins with a blank is empty: the owner is the one before.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// It stood in quotes.
    quoted: bool,
}

/// Takes a file's text apart.
struct Tokens<'a> {
    text: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.text.chars().next()?;
        self.text = &self.text[next.len_utf8()..];
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// Puts the words of the next entry, which is a line unless parentheses make it longer, into `words`. False at the end.
    fn entry(&mut self, words: &mut Vec<Word>) -> anyhow::Result<bool> {
        words.clear();
        let mut depth = 0_u32;
        if self.text.starts_with([' ', '\t']) {
            words.push(Word { text: String::new(), quoted: false });
        }
        loop {
            match self.next() {
                None => {
                    ensure!(depth == 0, "a parenthesis isn't closed");
                    return Ok(false);
                }
                Some('\n') if depth == 0 => return Ok(true),
                Some('(') => depth += 1,
                Some(')') => depth = depth.checked_sub(1).context("a parenthesis is closed that wasn't opened")?,
                Some(';') => {
                    let end = self.text.find('\n').unwrap_or(self.text.len());
                    self.text = &self.text[end..];
                }
                Some('"') => words.push(self.quoted()?),
                Some(blank) if blank.is_whitespace() => {}
                Some(first) => {
                    let mut text = String::from(first);
                    while let Some(next) = self.text.chars().next()
                        && !(next.is_whitespace() || ";()\"".contains(next))
                    {
                        text.extend(self.next());
                        if next == '\\' {
                            text.extend(self.next());
                        }
                    }
                    words.push(Word { text, quoted: false });
                }
            }
        }
    }

    /// A string whose first quotation mark has been read.
    fn quoted(&mut self) -> anyhow::Result<Word> {
        let mut text = String::new();
        loop {
            match self.next().context("a string isn't closed")? {
                '"' => return Ok(Word { text, quoted: true }),
                '\\' => text.push(self.next().context("a string isn't closed")?),
                other => text.push(other),
            }
        }
    }
}

/// What has been read of a zone.
struct Reader {
    nodes: HashMap<Vec<u8>, Node>,
    origin: Option<Vec<u8>>,
    ttl: Option<u32>,
    owner: Option<Vec<u8>>,
    soa: Option<Vec<u8>>,
}

impl Reader {
    fn add(&mut self, words: &[Word]) -> anyhow::Result<()> {
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        match texts[..] {
            [] | [""] => return Ok(()),
            ["$ORIGIN", origin] => self.origin = Some(self.name(origin)?),
            ["$TTL", ttl] => self.ttl = Some(seconds(ttl)?),
            [directive, ..] if directive.starts_with('$') => bail!("{directive} isn't known, or has other words"),
            [owner, ref rest @ ..] => return self.add_record(owner, rest),
        }
        Ok(())
    }

    fn name(&self, text: &str) -> anyhow::Result<Vec<u8>> {
        let origin = match &self.origin {
            Some(origin) => origin.as_slice(),
            None if text.ends_with('.') => &[0],
            None => bail!("'{text}' has no dot at its end, and there's no $ORIGIN yet"),
        };
        name::parse(text, origin).map_err(anyhow::Error::msg)
    }

    /// A record: an owner; a time to live and a class, in either order and left out at will; a type; data.
    fn add_record(&mut self, owner: &str, rest: &[&str]) -> anyhow::Result<()> {
        ensure!(!owner.starts_with('*'), "wildcards aren't known here");
        let owner = if owner.is_empty() {
            self.owner.clone().context("the first record has no owner")?
        } else {
            self.name(owner)?
        };
        self.owner = Some(owner.clone());
        let (mut rest, mut ttl) = (rest, None);
        while let [word, more @ ..] = rest {
            if word.eq_ignore_ascii_case("IN") {
                rest = more;
            } else if word.starts_with(|first: char| first.is_ascii_digit()) && ttl.is_none() {
                (ttl, rest) = (Some(seconds(word)?), more);
            } else {
                break;
            }
        }
        let [kind, data @ ..] = rest else { bail!("a record has no type") };
        let (kind, data) = self.data(kind, data)?;
        if kind == SOA {
            ensure!(self.soa.replace(owner.clone()).is_none(), "there's a second SOA record");
            // Where nothing else is said, the last number says how long records live (RFC 1035, section 5.1).
            let minimum = data.last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            self.ttl = self.ttl.or(minimum);
        }
        let ttl = ttl.or(self.ttl).context("a record has no time to live, and there's no $TTL")?;
        let sets = &mut self.nodes.entry(owner).or_default().sets;
        match sets.iter_mut().find(|set| set.kind == kind) {
            Some(set) => set.data.push(data),
            None => sets.push(Set { kind, ttl, data: vec![data] }),
        }
        Ok(())
    }

    fn data(&self, kind: &str, words: &[&str]) -> anyhow::Result<(u16, Vec<u8>)> {
        Ok(match (kind.to_ascii_uppercase().as_str(), words) {
            ("A", [address]) => (A, address.parse::<Ipv4Addr>()?.octets().to_vec()),
            ("AAAA", [address]) => (AAAA, address.parse::<Ipv6Addr>()?.octets().to_vec()),
            ("NS", [host]) => (NS, self.name(host)?),
            ("CNAME", [target]) => (CNAME, self.name(target)?),
            ("TXT", strings @ [_, ..]) => {
                let mut data = Vec::new();
                for string in strings {
                    data.push(u8::try_from(string.len()).context("a string is longer than 255 bytes")?);
                    data.extend_from_slice(string.as_bytes());
                }
                (TXT, data)
            }
            ("SOA", [host, mailbox, numbers @ ..]) if numbers.len() == 5 => {
                let mut data = [self.name(host)?, self.name(mailbox)?].concat();
                data.extend_from_slice(&numbers[0].parse::<u32>().context("the serial is no number")?.to_be_bytes());
                for number in &numbers[1..] {
                    data.extend_from_slice(&seconds(number)?.to_be_bytes());
                }
                (SOA, data)
            }
            (kind, _) => bail!("{kind} isn't known, or its data are wrong"),
        })
    }

    fn finish(mut self) -> anyhow::Result<Zone> {
        let origin = self.soa.context("there's no SOA record")?;
        for (owner, node) in &self.nodes {
            ensure!(name::is_within(owner, &origin), "a record isn't within the zone");
            let is_alone = node.set(CNAME).is_none_or(|set| node.sets.len() == 1 && set.data.len() == 1);
            ensure!(is_alone, "a CNAME record isn't alone at its name (RFC 1034, section 3.6.2)");
        }
        // A name above another one exists, though it has no records (RFC 8020).
        let owners: Vec<Vec<u8>> = self.nodes.keys().cloned().collect();
        for owner in owners {
            let mut above = owner.as_slice();
            while above != origin
                && let Some(next) = parent(above)
            {
                above = next;
                self.nodes.entry(above.to_vec()).or_default();
            }
        }
        Ok(Zone { origin, nodes: self.nodes })
    }
}

/// A time in seconds, or with units as `1h30m`.
fn seconds(text: &str) -> anyhow::Result<u32> {
    let (mut total, mut number) = (0_u32, None::<u32>);
    for letter in text.chars() {
        let unit = match letter.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            digit => {
                let digit = digit.to_digit(10).with_context(|| format!("'{text}' is no time"))?;
                let next = number.unwrap_or(0).checked_mul(10).and_then(|tens| tens.checked_add(digit));
                number = Some(next.context("a time is too long")?);
                continue;
            }
        };
        let more = number.take().and_then(|number| number.checked_mul(unit)).context("a time is wrong or too long")?;
        total = total.checked_add(more).context("a time is too long")?;
    }
    total.checked_add(number.unwrap_or(0)).context("a time is too long")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TEXT: &str = r#"
$ORIGIN example.
$TTL 1h
@       IN SOA ns hostmaster ( 1 ; serial
                3600 600 1w 5m )
        IN NS ns
ns      A 192.0.2.1
        AAAA 2001:db8::1
www     300 IN CNAME web
web     A 192.0.2.2
        A 192.0.2.3
away    CNAME www.other.
loop    CNAME loop
text    TXT "two; strings" plain
a.b.c   A 192.0.2.4
child   NS ns.child
ns.child A 192.0.2.5
"#;

    #[test]
    fn a_master_file_is_read() {
        let zone = Zone::parse(TEXT, None).unwrap();
        assert_eq!(zone.origin(), b"\x07example\0");
        assert_eq!(zone.soa().1, 300);
        let node = |text: &str| zone.node(&name::parse(text, zone.origin()).unwrap());
        assert_eq!(node("web").unwrap().set(A).unwrap().data, [[192, 0, 2, 2], [192, 0, 2, 3]]);
        assert_eq!(node("www").unwrap().set(CNAME).unwrap().ttl, 300);
        assert_eq!(node("ns").unwrap().set(AAAA).unwrap().ttl, 3600);
        assert_eq!(node("text").unwrap().set(TXT).unwrap().data, [b"\x0ctwo; strings\x05plain"]);
        assert!(node("b.c").unwrap().sets.is_empty() && node("c").unwrap().sets.is_empty());
        assert!(node("x.b.c").is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        const SOA: &str = "@ 60 SOA ns host 1 2 3 4 5\n";
        for (more, said) in [
            ("a 60 A 1.2.3", "line 2"),
            ("\n\na 60 MX 1 b", "line 4: MX isn't known"),
            ("a A 192.0.2.1\n* A 192.0.2.1", "line 3: wildcards"),
            ("a.other. A 192.0.2.1", "isn't within"),
            ("a CNAME b\na A 192.0.2.1", "isn't alone"),
            ("@ 60 SOA ns host 1 2 3 4 5", "second SOA"),
            ("a ( A 192.0.2.1", "isn't closed"),
            ("a TXT \"x", "isn't closed"),
            ("$INCLUDE x", "$INCLUDE"),
        ] {
            let error = Zone::parse(&format!("{SOA}{more}\n"), Some("example.")).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{more}: {error:#}");
        }
        assert!(Zone::parse("a 60 A 192.0.2.1\n", Some("example.")).is_err());
        assert!(Zone::parse(SOA, None).is_err());
    }
}
