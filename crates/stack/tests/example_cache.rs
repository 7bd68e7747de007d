//! The parts of the cache among the examples, by their own tests.

#[path = "../examples/cache/commands.rs"]
mod commands;
#[path = "../examples/cache/resp.rs"]
mod resp;
#[path = "../examples/cache/store.rs"]
mod store;
