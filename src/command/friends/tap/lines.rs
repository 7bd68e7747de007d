//! A line for each thing that friends do, much as tcpdump prints packets.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use midmile_kernel::{Tapped, TappedWhat};

/// What has been said.
#[derive(Debug, Default)]
pub(super) struct Lines {
    messages: u64,
    bytes: u64,
    lost: u64,
}

impl Lines {
    pub(super) fn tell(&mut self, tapped: &Tapped<'_>, text: &mut Vec<u8>) {
        let mut line = |what: fmt::Arguments<'_>| {
            let Tapped { at, from, to, .. } = tapped;
            writeln!(text, "{} {from} > {to}: {what}", Clock(*at)).expect("writing to memory never fails");
        };
        match tapped.what {
            TappedWhat::Dialled => line(format_args!("dialled")),
            TappedWhat::Accepted => line(format_args!("accepted")),
            // It goes on: said with its beginning.
            TappedWhat::Bytes { message: 0, .. } => {}
            TappedWhat::Bytes { message, has_skipped, .. } => {
                self.messages += 1;
                self.bytes += u64::from(message);
                line(format_args!("{message} bytes {}", if has_skipped { "past TCP" } else { "by TCP" }));
            }
            TappedWhat::Ended => line(format_args!("end")),
            TappedWhat::Reset => line(format_args!("reset")),
            TappedWhat::Left => line(format_args!("goes on by TCP alone, not seen here")),
        }
    }

    /// So many records have been lost until now.
    pub(super) fn tell_lost(&mut self, lost: u64, text: &mut Vec<u8>) {
        let before = std::mem::replace(&mut self.lost, lost);
        if lost > before {
            writeln!(text, "{} records lost about here", lost - before).expect("writing to memory never fails");
        }
    }

    /// Says how much it was.
    pub(super) fn finish(&self, lost: u64) -> String {
        format!("{} messages, {} bytes; missing: {lost} records lost", self.messages, self.bytes)
    }
}

/// The time of day, in UTC.
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs() % (24 * 60 * 60);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{:06}", self.0.subsec_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_message() {
        let (mut lines, mut text) = (Lines::default(), Vec::new());
        let mut tell = |what| {
            let [from, to] = ["127.0.0.1:40000", "[::1]:6379"].map(|end| end.parse().unwrap());
            let at = Duration::new(86_400 * 3 + 3600 + 62, 7_000);
            lines.tell(&Tapped { at, namespace: 1, from, to, place: 0, what }, &mut text);
        };
        tell(TappedWhat::Dialled);
        tell(TappedWhat::Bytes { bytes: b"abc", message: 20_000, has_skipped: true });
        tell(TappedWhat::Bytes { bytes: b"def", message: 0, has_skipped: true });
        tell(TappedWhat::Bytes { bytes: b"g", message: 1, has_skipped: false });
        lines.tell_lost(0, &mut text);
        lines.tell_lost(2, &mut text);
        lines.tell_lost(2, &mut text);
        let way = "01:01:02.000007 127.0.0.1:40000 > [::1]:6379:";
        let expected =
            format!("{way} dialled\n{way} 20000 bytes past TCP\n{way} 1 bytes by TCP\n2 records lost about here\n");
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(lines.finish(2), "2 messages, 20001 bytes; missing: 2 records lost");
    }
}
