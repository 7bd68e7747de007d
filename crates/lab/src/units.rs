//! Quantities of a scenario and how they are written: `"14.2ms"`, `"500Mbit"`, `"2MiB"`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A rate in bits a second; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(u64);

/// A duration as it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub Duration);

/// A number of bytes as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

/// No link is longer, and no scenario waits longer.
const TIME_MAX: Duration = Duration::from_mins(1);
/// More than a link of ours can carry.
const RATE_MAX: f64 = 1e12;

impl Rate {
    /// A rate; `None` for nothing at all.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// Bits a second.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// How long `bytes` take at this rate.
    #[must_use]
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Bytes that go out in `time`, rounded down.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        u64::try_from(u128::from(self.0) * time.as_nanos() / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// This many percent of it, at least one bit a second.
    #[must_use]
    pub fn percent(self, percent: u64) -> Self {
        Self((self.0 / 100 * percent).max(1))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}Gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}Mbit", bits / 1_000_000),
            bits if bits % 1000 == 0 => write!(f, "{}kbit", bits / 1000),
            bits => write!(f, "{bits}bit"),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)];
        let bits =
            quantity(&text, &units).ok_or_else(|| format!("\"{text}\" is no rate; write it like \"500Mbit\""))?;
        if !(1.0..=RATE_MAX).contains(&bits) {
            return Err(format!("\"{text}\" is out of range; write 1bit to 1000Gbit"));
        }
        Ok(Self(whole(bits)))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
        let seconds =
            quantity(&text, &units).ok_or_else(|| format!("\"{text}\" is no duration; write it like \"14.2ms\""))?;
        let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= TIME_MAX);
        time.map(Self).ok_or_else(|| format!("\"{text}\" is out of range; write 0s to 60s"))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [
            ("GiB", 1_073_741_824.0),
            ("MiB", 1_048_576.0),
            ("KiB", 1024.0),
            ("GB", 1e9),
            ("MB", 1e6),
            ("kB", 1e3),
            ("B", 1.0),
        ];
        let bytes = quantity(&text, &units).ok_or_else(|| format!("\"{text}\" is no size; write it like \"2MiB\""))?;
        if !(1.0..=1e12).contains(&bytes) {
            return Err(format!("\"{text}\" is out of range; write 1B to 1000GB"));
        }
        Ok(Self(whole(bytes)))
    }
}

/// A number and one of the units; the longer unit stands before one that it ends in.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 1 to 10^12 before")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_they_are_written() {
        assert_eq!(Time::try_from("14.2ms".to_owned()), Ok(Time(Duration::from_micros(14_200))));
        assert_eq!(Time::try_from("0.3s".to_owned()), Ok(Time(Duration::from_millis(300))));
        assert_eq!(Rate::try_from("500Mbit".to_owned()), Ok(Rate(500_000_000)));
        assert_eq!(Size::try_from("2MiB".to_owned()), Ok(Size(2 << 20)));
        assert_eq!(Size::try_from("50MB".to_owned()), Ok(Size(50_000_000)));
        for text in ["", "ms", "-1ms", "1h", "61s", "NaNs", "infs"] {
            assert!(Time::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["0Mbit", "500", "2e3Gbit", "1 Mbyte"] {
            assert!(Rate::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_and_its_time_belong_together() {
        let rate = Rate::new(500_000_000).unwrap();
        assert_eq!(rate.time_for(50_000_000), Duration::from_millis(800));
        assert_eq!(rate.bytes_in(Duration::from_millis(800)), 50_000_000);
        assert_eq!((rate.to_string(), rate.percent(96).to_string()), ("500Mbit".to_owned(), "480Mbit".to_owned()));
    }
}
