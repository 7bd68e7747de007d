//! Whether a request is well formed: of another the servers behind make what they like. Some close the connection on which it came.

use super::name::end_of_sound_name;
use super::{HEADER_LEN, Message, OPCODE_NOTIFY, OPCODE_QUERY, OPCODE_UPDATE, Record, TYPE_OPT, options};

/// Labels and pointers that are followed behind the first pointer of each name, in a message's records together. What is beyond isn't
/// looked at: a message of 64 KiB could have a million.
const STEPS_MAX: usize = 8192;

crate::named! {
    /// Why a request isn't well formed. Its answer is [`super::RCODE_FORMERR`].
    Malformed {
        /// It has more questions than one, or none where there has to be one (RFC 9619; RFC 1996, 3.7; RFC 2136, 3.1.1). A query without
        /// any asks for a cookie (RFC 7873, 5.4), which nobody needs on TCP.
        Questions => "questions",
        /// Its question isn't whole, has a label of more than 63 bytes or a pointer, or its name is longer than 255 bytes.
        Question => "question",
        /// It has fewer records than it says, or one whose name or length doesn't fit.
        Records => "records",
        /// Its OPT record's options don't fit, its name isn't the root's, or there are two (RFC 6891, 6.1).
        Edns => "edns",
    }
}

impl Message<'_> {
    /// Looks whether a request is well formed. What stands in its records isn't looked at, but for EDNS, nor what stands behind the
    /// last. Nothing is allocated; the work is bounded by the message's bytes and some thousand steps more.
    ///
    /// # Errors
    /// Why it isn't.
    pub fn well_formed(self) -> Result<(), Malformed> {
        let mut at = match (self.questions(), self.opcode()) {
            (1, _) => HEADER_LEN + self.question().ok_or(Malformed::Question)?.bytes.len(),
            (2.., _) | (0, OPCODE_QUERY | OPCODE_NOTIFY | OPCODE_UPDATE) => return Err(Malformed::Questions),
            (0, _) => HEADER_LEN,
        };
        let before = u32::from(self.answers()) + u32::from(self.authorities());
        let (mut steps, mut edns) = (STEPS_MAX, false);
        for index in 0..before + u32::from(self.additionals()) {
            let name_end = end_of_sound_name(self.bytes, at, &mut steps).ok_or(Malformed::Records)?;
            let record = Record::behind(self.bytes, name_end).ok_or(Malformed::Records)?;
            if index >= before && record.kind == TYPE_OPT {
                let whole = options(&self.bytes[record.content..record.end]).all(|option| option.is_some());
                if std::mem::replace(&mut edns, true) || name_end != at + 1 || !whole {
                    return Err(Malformed::Edns);
                }
            }
            at = record.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
