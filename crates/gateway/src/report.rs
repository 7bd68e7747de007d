//! What is said of a pair when it ends, for the log.

use std::sync::Arc;
use std::time::Duration;

use midmile_engine::Addr;

use crate::reason::End;

/// One pair, at its end.
#[derive(Clone, Debug)]
pub struct PairReport {
    /// The route's name.
    pub route: Arc<str>,
    /// The client: from the PROXY header where one was accepted.
    pub client: Addr,
    /// The backend's name; empty if none was chosen.
    pub backend: Arc<str>,
    /// Why it ended.
    pub end: End,
    /// From acceptance to the end.
    pub lasted: Duration,
    /// From acceptance to an established server leg, if it came to that.
    pub connected_after: Option<Duration>,
    /// From acceptance to the first byte from the server that was handed on, if there was one.
    pub first_byte_after: Option<Duration>,
    /// Bytes from the client to the server; `None` where messages are carried, which are counted by the route.
    pub upstream_bytes: Option<u64>,
    /// Bytes from the server to the client; likewise.
    pub downstream_bytes: Option<u64>,
}
