//! The parts of the DNS server among the examples, by their own tests.

#[path = "../examples/dns/answer.rs"]
mod answer;
#[path = "../examples/dns/name.rs"]
mod name;
#[path = "../examples/dns/zone.rs"]
mod zone;
