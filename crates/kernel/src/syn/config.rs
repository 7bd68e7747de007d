//! What the program is told.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::Hook;
use crate::address;

/// `struct config` of `bpf/syn.bpf.c`: fields of 8 bytes in this machine's byte order.
pub(super) type Words = [u64; 6];
/// The word that switches it on.
pub(super) const ENABLED: usize = 0;

/// `struct listener` of `bpf/syn.bpf.c`: the address, the port in this machine's byte order, two bytes of padding.
pub(super) type ListenerKey = [u8; 20];

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Which SYNs are announced, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynConfig {
    /// The listeners; see [`super::SynWatch::set_listeners`].
    pub listeners: Vec<SocketAddr>,
    /// Whether wildcard listeners also take connections to addresses that aren't this host's (TPROXY).
    pub transparent: bool,
    /// The bound of each source: a /24 of IPv4, a /48 of IPv6.
    pub source: Bound,
    /// The bound of all sources together. It alone holds a flood from many forged sources.
    pub all: Bound,
    /// How it is attached; `None`: the best that the kernel has.
    pub hook: Option<Hook>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Tokens that come in a second.
    pub per_second: NonZeroU32,
    /// Tokens that a full bucket has.
    pub burst: NonZeroU32,
}

impl Bound {
    /// A bucket of `burst` tokens, of which `per_second` come back in a second; each at least 1.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        const fn at_least_one(number: u32) -> NonZeroU32 {
            match NonZeroU32::new(number) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }

    /// `struct bound` of `bpf/bucket.h`: nanoseconds that a token takes to come back, and that all of them take.
    fn words(self) -> [u64; 2] {
        let interval_ns = (NS_PER_SECOND / u64::from(self.per_second.get())).max(1);
        [interval_ns, interval_ns * u64::from(self.burst.get())]
    }
}

impl Default for SynConfig {
    /// No listener; 50 a second of one source and 1,000 of all, after bursts of twice that.
    fn default() -> Self {
        let (source, all) = (Bound::new(50, 100), Bound::new(1000, 2000));
        Self { listeners: Vec::new(), transparent: false, source, all, hook: None }
    }
}

impl SynConfig {
    /// As the program reads it, switched off.
    pub(super) fn words(&self) -> Words {
        let ([source_interval, source_depth], [all_interval, all_depth]) = (self.source.words(), self.all.words());
        [0, u64::from(self.transparent), source_interval, source_depth, all_interval, all_depth]
    }
}

/// As the program looks it up.
pub(super) fn listener_key(listener: SocketAddr) -> ListenerKey {
    let mut key = [0; 20];
    key[..address::BYTES].copy_from_slice(&address::to_bytes(listener.ip()));
    key[16..18].copy_from_slice(&listener.port().to_ne_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_program() {
        assert_eq!((size_of::<Words>(), size_of::<ListenerKey>()), (48, 20));
        let key = listener_key("10.0.0.1:80".parse().unwrap());
        assert_eq!(key[10..16], [0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!((u16::from_ne_bytes([key[16], key[17]]), &key[18..]), (80, &[0, 0][..]));
        let config =
            SynConfig { transparent: true, source: Bound::new(2, 3), all: Bound::new(5, 7), ..Default::default() };
        assert_eq!(config.words(), [0, 1, 500_000_000, 1_500_000_000, 200_000_000, 1_400_000_000]);
    }

    #[test]
    fn no_bound_is_without_limit_and_none_overflows() {
        assert_eq!(Bound::new(0, 0), Bound::new(1, 1));
        assert_eq!(Bound::new(u32::MAX, 1).words(), [1, 1]);
        assert_eq!(Bound::new(1, u32::MAX).words()[1], NS_PER_SECOND * u64::from(u32::MAX));
    }
}
