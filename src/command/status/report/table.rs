//! Columns of text, as wide as what stands in them.

/// Between two columns.
const GAP: &str = "  ";

/// Rows under headings.
#[derive(Debug)]
pub(super) struct Table {
    /// So many columns, from the left, are words; the others are figures, which stand at the right.
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one, with the headings of its words and of its figures.
    pub(super) fn new(words: &[&str], figures: &[&str]) -> Self {
        let headings = words.iter().chain(figures).map(|heading| (*heading).to_owned()).collect();
        Self { words: words.len(), rows: vec![headings] }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: impl Into<Vec<String>>) {
        self.rows.push(row.into());
    }

    /// All rows, one a line.
    pub(super) fn text(&self) -> String {
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.rows.iter().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column < self.words {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    }
}
