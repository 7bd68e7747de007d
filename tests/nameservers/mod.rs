//! Name servers, a zone, and questions about it.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

pub(crate) mod message;
pub(crate) mod servers;
pub(crate) mod zone;
