//! A process's board, as `midmile friends status` reads it from a file that the process may have filled with anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midmile_friends::{ENTRIES, ENTRY_BYTES, EntryTold, HEAD_BYTES, HeadTold, Name};

fuzz_target!(|bytes: &[u8]| {
    if let Some(head) = HeadTold::read(bytes) {
        assert!(bytes.len() >= HEAD_BYTES && head.entries <= ENTRIES);
    }
    if let Some(entry) = EntryTold::read(bytes) {
        assert!(bytes.len() >= ENTRY_BYTES && entry.serial % 2 == 1);
        assert_eq!(Name::from_words(entry.name.to_words()), entry.name);
    }
});
