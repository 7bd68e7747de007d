//! Names as they're compared: whole, and in small letters.

use super::{HEADER_LEN, NAME_LEN_MAX, word};

/// The two bits that make a pointer of two bytes (RFC 1035, 4.1.4); the other fourteen say where to.
const POINTER_TARGET: u16 = 0x3fff;
/// Pointers in a name: one before each label, and a name has no more labels.
const POINTERS_MAX: usize = 127;

/// A name with what its pointers stand for, in small letters (RFC 4343): equal names have equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; NAME_LEN_MAX],
    len: usize,
}

impl Name {
    /// The name at a place of a message; `None` if it isn't whole, is too long, or a pointer leads to what isn't before it.
    pub(super) fn at(message: &[u8], mut at: usize) -> Option<Self> {
        let mut name = Self { bytes: [0; NAME_LEN_MAX], len: 0 };
        let mut pointers = 0;
        loop {
            match *message.get(at)? {
                0 => break,
                len @ 1..64 => {
                    let end = at + 1 + usize::from(len);
                    name.push(message.get(at..end)?)?;
                    at = end;
                }
                192.. => {
                    let target = usize::from(word(message, at)? & POINTER_TARGET);
                    pointers += 1;
                    if target >= at || pointers > POINTERS_MAX {
                        return None;
                    }
                    at = target;
                }
                64..192 => return None,
            }
        }
        name.push(&[0])?;
        // Lengths of labels are below 64 and have no case.
        name.bytes.make_ascii_lowercase();
        Some(name)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

/// Where the name at a place of a message ends, in its place; `None` if it isn't whole, is too long, or a pointer leads to what isn't
/// before it. Labels behind pointers are followed as long as there are `steps`, of which each takes one.
pub(super) fn end_of_sound_name(message: &[u8], mut at: usize, steps: &mut usize) -> Option<usize> {
    let (mut len, mut begin, mut end) = (0, at, None);
    loop {
        if let Some(end) = end {
            let Some(left) = steps.checked_sub(1) else { return Some(end) };
            *steps = left;
        }
        match *message.get(at)? {
            0 => return Some(end.unwrap_or(at + 1)),
            label @ 1..64 => {
                let whole = 1 + usize::from(label);
                (at, len) = (at + whole, len + whole);
                if len >= NAME_LEN_MAX {
                    return None;
                }
            }
            192.. => {
                let target = usize::from(word(message, at)? & POINTER_TARGET);
                if !(HEADER_LEN..begin).contains(&target) {
                    return None;
                }
                end.get_or_insert(at + 2);
                (at, begin) = (target, target);
            }
            64..192 => return None,
        }
    }
}
