//! What is shown of a snapshot: one entry a route name.
//!
//! A reload that changes a route leaves the old one in place, retired, until its last pair ends. Both have the operator's name,
//! so they are shown as one; two series with the same labels would be an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use midmile_friends_sockets::own;
use midmile_gateway::{Limits, RouteSnapshot, Snapshot};
use midmile_kernel::{Attachment, Figures};

/// A snapshot with one entry a route name, and what the process is about.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) draining: bool,
    pub(super) limits: Limits,
    /// Friends of this host, by the cgroups that they are attached to.
    pub(super) friends: BTreeMap<String, Figures>,
    /// What this process's own legs did that asked for friends; empty where none has had any.
    pub(super) own: BTreeMap<&'static str, u64>,
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
        Self { snapshot, draining, limits, friends: BTreeMap::new(), own: BTreeMap::new() }
    }

    /// With the friends that the kernel has, by whomever they were attached; without any where this process may not ask (it takes
    /// `CAP_SYS_ADMIN`).
    pub(super) fn with_friends(mut self) -> Self {
        self.own =
            own::figures().map(|(figure, count)| (figure.name(), count)).filter(|(_, count)| *count > 0).collect();
        for attachment in Attachment::all().unwrap_or_default() {
            let Ok(figures) = attachment.figures() else { continue };
            let cgroup = attachment.path().display().to_string();
            // What is left over of one counts with the next one of the cgroup.
            match self.friends.get_mut(&cgroup) {
                Some(known) => known.absorb(&figures),
                None => drop(self.friends.insert(cgroup, figures)),
            }
        }
        self
    }
}
