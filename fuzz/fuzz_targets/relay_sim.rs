//! The relay in a simulated world in which the fuzzer makes the decisions: who connects, when and how it goes, what the
//! scripts of clients and servers are. Invariants are asserted after each turn, promises at the end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|tape: &[u8]| midmile_gateway::fuzz_relay(tape));
