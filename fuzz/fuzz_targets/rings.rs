//! The rings of an AF_XDP socket, against a model of the kernel at their other ends: the fuzzer says who goes on, and what with. Packets are
//! judged, and whose each frame is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|tape: &[u8]| midmile_stack::fuzz_rings(tape));
