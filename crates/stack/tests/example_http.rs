//! The parts of the HTTP server among the examples, by their own tests.

#[path = "../examples/http/date.rs"]
mod date;
#[path = "../examples/http/request.rs"]
#[expect(dead_code, reason = "statuses are written elsewhere")]
mod request;
