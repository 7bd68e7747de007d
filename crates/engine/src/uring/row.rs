//! Rows of slots, chained through the slots themselves, in the order in which they came.
//!
//! A slot stands in one row at most, and leaves it when its connection ends: so no row outgrows the table, however many connections
//! come and go.

use super::socket::{NO_SLOT, Table};

/// What the slots of a row wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Buffers to receive into.
    Starved,
    /// Closed connections, for room to send what is left.
    Lingering,
}

/// A row's first slot and its last, or [`NO_SLOT`] twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    first: u32,
    last: u32,
}

impl Ends {
    pub(super) const EMPTY: Self = Self { first: NO_SLOT, last: NO_SLOT };
}

impl Table {
    pub(super) fn first(&self, row: Row) -> Option<u32> {
        let first = self.rows[row as usize].first;
        (first != NO_SLOT).then_some(first)
    }

    /// Puts a slot at the end of `row`; it leaves the one that it stands in.
    pub(super) fn join_row(&mut self, row: Row, index: u32) {
        self.leave_row(index);
        let ends = &mut self.rows[row as usize];
        let before = std::mem::replace(&mut ends.last, index);
        if before == NO_SLOT {
            ends.first = index;
        } else {
            self[before].next = index;
        }
        let slot = &mut self[index];
        (slot.row, slot.before, slot.next) = (Some(row), before, NO_SLOT);
    }

    /// Takes a slot out of the row that it stands in, if it does.
    pub(super) fn leave_row(&mut self, index: u32) {
        let slot = &mut self[index];
        let Some(row) = slot.row.take() else { return };
        let (before, next) = (slot.before, slot.next);
        if before == NO_SLOT {
            self.rows[row as usize].first = next;
        } else {
            self[before].next = next;
        }
        if next == NO_SLOT {
            self.rows[row as usize].last = before;
        } else {
            self[next].before = before;
        }
    }

    /// The slots of a row, in their order.
    pub(super) fn row(&self, row: Row) -> impl Iterator<Item = u32> {
        std::iter::successors(self.first(row), |index| Some(self[*index].next).filter(|next| *next != NO_SLOT))
    }

    /// Asserts that the rows and the slots agree.
    pub(super) fn check_rows(&mut self) {
        for row in [Row::Starved, Row::Lingering] {
            let stand = self.iter_mut().filter(|slot| slot.row == Some(row)).count();
            assert_eq!(self.row(row).count(), stand, "a slot is missing from its row");
        }
    }
}
