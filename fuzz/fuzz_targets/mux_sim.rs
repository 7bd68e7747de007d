//! The multiplexor in a simulated world in which the fuzzer makes the decisions: who connects, what is asked, when and how backends
//! answer or are lost. Invariants are asserted after each turn, promises at the end. The tape's first byte says how answers are matched.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|tape: &[u8]| midmile_mux::fuzz_mux(tape));
