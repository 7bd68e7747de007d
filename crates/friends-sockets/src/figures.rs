//! What this process did, for the file that `MIDMILE_FRIENDS_LOG` names: one line of JSON when it exits.

use std::sync::atomic::Ordering;

use midmile_friends::Head;

use crate::settings::{self, PATH_MAX};
use crate::sys::{board, call, map, threads};

pub(crate) use midmile_friends::Figure;

/// Counts.
pub(crate) fn add(figure: Figure, amount: u64) {
    threads::add_figure(board::head().figure(figure), amount);
}

/// What was counted, on the board and before there was one.
pub(crate) fn count(figure: Figure) -> u64 {
    let of = |head: &Head| head.figure(figure).load(Ordering::Relaxed);
    of(board::head()).wrapping_add(board::before().map_or(0, of))
}

/// A line that is put together without allocating.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn line() -> Result<Line, std::fmt::Error> {
    use std::fmt::Write;
    let mut line = Line { bytes: [0; 1024], length: 0 };
    write!(line, "{{\"pid\":{}", call::process())?;
    for &figure in Figure::ALL {
        write!(line, ",\"{}\":{}", figure.name(), count(figure))?;
    }
    line.write_str("}\n")?;
    Ok(line)
}

/// Appends them to the file, if one is wanted. A process without friends says nothing.
pub(crate) fn write() {
    let mut path = [0; PATH_MAX];
    if settings::log(&mut path) == 0 || Figure::ALL.iter().all(|&figure| count(figure) == 0) {
        return;
    }
    let Ok(path) = std::ffi::CStr::from_bytes_until_nul(&path) else { return };
    let (Ok(line), Ok(file)) = (line(), map::open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o600)) else {
        return;
    };
    if !map::kind(&file).is_ok_and(|kind| map::may_be_as_long_as(kind.size + line.length)) {
        return;
    }
    // One write: lines of several processes don't mix. There's nobody to tell of a full disk.
    map::write(&file, &line.bytes[..line.length]).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_json_with_all_figures() {
        add(Figure::RingOut, 5);
        let line = line().unwrap();
        let text = std::str::from_utf8(&line.bytes[..line.length]).unwrap();
        assert!(text.starts_with("{\"pid\":") && text.ends_with("}\n"), "{text}");
        assert!(
            Figure::ALL.iter().all(|figure| text.contains(figure.name())) && text.contains("\"ring_out_bytes\":5"),
            "{text}"
        );
    }
}
