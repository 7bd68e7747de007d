//! Mistakes in a configuration file: collected, each with its line, and told all together.

use std::fmt;
use std::ops::Range;

/// A value and the line that it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// Where a value stands: the full key, such as `listener.timeouts.idle`, and the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) line: usize,
}

impl Place {
    /// The place of `name` inside the table at this place.
    pub(super) fn inside(&self, name: &str, line: usize) -> Self {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) };
        Self { key, line }
    }
}

/// What is wrong in one file.
#[derive(Debug)]
pub(super) struct Mistakes {
    file: String,
    /// Offsets at which lines 2, 3, … begin.
    breaks: Vec<usize>,
    found: Vec<(usize, String)>,
}

impl Mistakes {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { file: file.to_owned(), breaks, found: Vec::new() }
    }

    /// The line, counted from 1, in which `span` begins.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.breaks.partition_point(|start| *start <= span.start) + 1
    }

    /// Adds `file:line: key: what`; `what` ends in the mend.
    pub(super) fn add(&mut self, place: &Place, what: impl fmt::Display) {
        self.found.push((place.line, format!("{}:{}: {}: {what}", self.file, place.line, place.key)));
    }

    /// Adds a mistake that no key can be named for: the file isn't TOML there.
    pub(super) fn add_syntax(&mut self, line: usize, what: &str) {
        let what = what.lines().collect::<Vec<_>>().join(", ");
        self.found.push((line, format!("{}:{line}: not TOML: {what}", self.file)));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The lines to show, in the order of the file.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.found.sort_by_key(|(line, _)| *line);
        self.found.into_iter().map(|(_, what)| what).collect()
    }
}
