//! A bar on the terminal, and nothing at all where standard error is none.

use std::io::{self, IsTerminal, Write};

/// Characters of the bar itself.
const WIDTH: u64 = 30;

/// How far a run is.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    done: u64,
    total: u64,
    step: &'static str,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        Self { shown: io::stderr().is_terminal(), done: 0, total: total.max(1), step: "" }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, step: &'static str) {
        self.step = step;
        self.show("");
    }

    /// One more visit is done.
    pub(crate) fn advance(&mut self, object: &str) {
        self.done += 1;
        self.show(object);
    }

    /// Takes the bar away, so that others can write.
    pub(crate) fn clear(&self) {
        self.write("\r\x1b[K");
    }

    fn show(&self, object: &str) {
        let full = usize::try_from(self.done.min(self.total) * WIDTH / self.total).expect("the bar is short");
        let width = usize::try_from(WIDTH).expect("the bar is short");
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(width - full));
        self.write(&format!("\r\x1b[K{bar} {}/{} {} {object}", self.done, self.total, self.step));
    }

    fn write(&self, text: &str) {
        if self.shown {
            let mut out = io::stderr().lock();
            // A terminal that went away needs no bar.
            drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
