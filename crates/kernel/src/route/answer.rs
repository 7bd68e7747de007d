//! What the kernel answers about a route (rtnetlink(7)).
//!
//! Read attribute by attribute, and kept as bytes: what is copied from one route to another needn't be understood, and may be of a
//! kind that the crate of messages has no name for, or another one.

use std::io;

use netlink_packet_core::NlasIterator;

/// Attributes of a route (linux/rtnetlink.h).
pub(super) mod kind {
    pub(crate) const DST: u16 = 1;
    pub(crate) const OIF: u16 = 4;
    pub(crate) const GATEWAY: u16 = 5;
    pub(crate) const PRIORITY: u16 = 6;
    pub(crate) const PREFSRC: u16 = 7;
    pub(crate) const METRICS: u16 = 8;
    pub(crate) const MULTIPATH: u16 = 9;
    pub(crate) const FLOW: u16 = 11;
    pub(crate) const CACHEINFO: u16 = 12;
    pub(crate) const TABLE: u16 = 15;
    pub(crate) const VIA: u16 = 18;
    pub(crate) const ENCAP: u16 = 22;
}

/// Metrics of a route: the maximum transmission unit, which may have been learnt, and the first windows.
pub(super) mod metric {
    pub(crate) const MTU: u16 = 2;
    pub(crate) const INITCWND: u16 = 11;
}

/// Bits that say that the value is nested, or in network order: no part of the kind.
const KIND_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 16;
const ROUTE_HEADER_LEN: usize = 12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
/// `RTN_UNICAST`: a neighbour takes the packets.
const UNICAST: u8 = 1;
const INET_LEN: u8 = 32;
const INET6_LEN: u8 = 128;
const INET: u8 = 2;
/// `RTNH_F_ONLINK`: the gateway is taken to be on the link.
const ONLINK: u32 = 4;

/// A route, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) family: u8,
    pub(super) prefix: u8,
    pub(super) table: u32,
    pub(super) protocol: u8,
    pub(super) scope: u8,
    kind: u8,
    flags: u32,
    /// Kinds and values.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Found {
    /// A neighbour or a gateway takes the packets.
    pub(super) const fn is_unicast(&self) -> bool {
        self.kind == UNICAST
    }

    /// It leads to one host alone.
    pub(super) const fn is_of_host(&self) -> bool {
        self.prefix == if self.family == INET { INET_LEN } else { INET6_LEN }
    }

    /// Its gateway needn't be in a network of the device's.
    pub(super) const fn is_onlink(&self) -> bool {
        self.flags & ONLINK != 0
    }

    /// The value of an attribute.
    pub(super) fn value(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| &value[..])
    }

    /// Its metrics, each a kind and a value.
    pub(super) fn metrics(&self) -> Vec<(u16, Vec<u8>)> {
        self.value(kind::METRICS).map(attributes).unwrap_or_default()
    }

    /// Some of it was learnt, and will be forgotten.
    pub(super) fn expires(&self) -> bool {
        // `struct rta_cacheinfo`: the third of eight words.
        self.value(kind::CACHEINFO).and_then(|info| info.get(8..12)).is_some_and(|expires| expires != [0; 4])
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(ROUTE_HEADER_LEN)?;
        let [family, prefix, _source, _tos, table, protocol, scope, kind, flags @ ..] = head else { return None };
        let mut found = Self {
            family: *family,
            prefix: *prefix,
            table: u32::from(*table),
            protocol: *protocol,
            scope: *scope,
            kind: *kind,
            flags: u32::from_ne_bytes(flags.try_into().ok()?),
            attributes: attributes(rest),
        };
        if let Some(table) = found.value(kind::TABLE).and_then(|table| table.try_into().ok()) {
            found.table = u32::from_ne_bytes(table);
        }
        Some(found)
    }
}

/// The attributes as far as they can be read.
fn attributes(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| (nla.kind() & KIND_MASK, nla.value().to_vec())).collect()
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A route.
    Route(Found),
    /// Done, or refused with this error.
    End(Option<i32>),
    /// Something else, which is passed over.
    Other,
}

/// The messages of a datagram to the request of this number.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> io::Result<Vec<Answer>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "netlink answered with half a message");
    let mut all = Vec::new();
    while bytes.len() >= HEADER_LEN {
        let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_ne_bytes).expect("a header has 16 bytes");
        let length = usize::try_from(word(0)).map_err(|_| short())?;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let payload = bytes.get(HEADER_LEN..length).ok_or_else(short)?;
        if word(8) == sequence {
            all.push(match kind {
                NLMSG_ERROR => {
                    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code)).ok_or_else(short)?;
                    Answer::End((code != 0).then_some(-code))
                }
                NLMSG_DONE => Answer::End(None),
                RTM_NEWROUTE => Answer::Route(Found::read(payload).ok_or_else(short)?),
                _ => Answer::Other,
            });
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 2], &sequence.to_ne_bytes(), &[0; 4]].concat();
        let mut bytes = [&head[..], payload].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_route_is_read_with_what_nobody_knows() {
        let metrics = [attribute(metric::MTU, &1400_u32.to_ne_bytes()), attribute(16, b"cubic\0")].concat();
        let payload = [
            &[INET, 24, 0, 0, 252, 4, 253, UNICAST, 4, 0, 0, 0][..],
            &attribute(kind::TABLE, &1000_u32.to_ne_bytes()),
            &attribute(kind::OIF, &7_u32.to_ne_bytes()),
            &attribute(kind::METRICS | 0x8000, &metrics),
            &attribute(999, b"xyz"),
        ]
        .concat();
        let bytes = [message(RTM_NEWROUTE, 5, &payload), message(NLMSG_DONE, 5, &[0; 4])].concat();
        let mut all = answers(&bytes, 5).unwrap();
        assert_eq!(all.pop(), Some(Answer::End(None)));
        let Some(Answer::Route(found)) = all.pop() else { panic!("no route") };
        assert_eq!((found.prefix, found.table, found.protocol), (24, 1000, 4));
        assert!(found.is_unicast() && found.is_onlink() && !found.is_of_host());
        assert_eq!(found.value(kind::OIF), Some(&7_u32.to_ne_bytes()[..]));
        assert_eq!(found.metrics()[1], (16, b"cubic\0".to_vec()));
        assert_eq!(answers(&bytes, 6).unwrap(), [], "answers to others are passed over");
    }

    #[test]
    fn an_error_is_told_and_half_a_message_is_one() {
        let refused = message(NLMSG_ERROR, 1, &(-1_i32).to_ne_bytes());
        assert_eq!(answers(&refused, 1).unwrap(), [Answer::End(Some(1))]);
        assert_eq!(answers(&message(NLMSG_ERROR, 1, &[0; 4]), 1).unwrap(), [Answer::End(None)]);
        assert!(answers(&refused[..18], 1).is_err());
        assert!(answers(&message(RTM_NEWROUTE, 1, &[INET, 24]), 1).is_err());
        assert_eq!(answers(&[], 1).unwrap(), []);
    }

    #[test]
    fn what_was_learnt_is_told_apart() {
        let with = |expires: u32| {
            let info = [&[0; 8][..], &expires.to_ne_bytes(), &[0; 20]].concat();
            Found { attributes: vec![(kind::CACHEINFO, info)], ..Found::default() }.expires()
        };
        assert!(with(600) && !with(0) && !Found::default().expires());
    }
}
