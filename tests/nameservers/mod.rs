//! Name servers, a zone, and questions about it.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

pub(crate) mod clients;
pub(crate) mod message;
pub(crate) mod servers;
pub(crate) mod zone;
