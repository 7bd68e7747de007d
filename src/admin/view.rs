//! What is shown of a snapshot: one entry a route name.
//!
//! A reload that changes a route leaves the old one in place, retired, until its last pair ends. Both have the operator's name,
//! so they are shown as one; two series with the same labels would be an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use midmile_gateway::{Limits, RouteSnapshot, Snapshot};

/// A snapshot with one entry a route name, and what the process is about.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) draining: bool,
    pub(super) limits: Limits,
}

impl View {
    pub(super) fn new(mut snapshot: Snapshot, draining: bool, limits: Limits) -> Self {
        let mut routes: BTreeMap<Arc<str>, RouteSnapshot> = BTreeMap::new();
        // The live ones first: what an operator sees of listener and backends is theirs.
        snapshot.routes.sort_by_key(|route| route.retired);
        for route in snapshot.routes {
            match routes.get_mut(&route.name) {
                Some(merged) => merged.absorb(&route),
                None => drop(routes.insert(Arc::clone(&route.name), route)),
            }
        }
        snapshot.routes = routes.into_values().collect();
        Self { snapshot, draining, limits }
    }
}
