//! Both ends of a connection between friends, over a model of its TCP connection, in which the fuzzer makes the decisions: who goes on,
//! how much is sent and received, when a way is switched. Bytes, readiness and ends are judged.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|tape: &[u8]| midmile_friends::fuzz_friends(tape));
