//! A word in the log when a framing program misbehaves: that is the operator's to mend, unlike what peers send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use midmile_gateway::{MessagesSnapshot, Observer};
use midmile_wire::frame::FrameError;
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked; a route has one line a look at most.
const LOOK: Duration = Duration::from_secs(2);

/// Logs each route whose framing program has reached where it may not since the last look. It never ends.
pub(crate) async fn watch(observer: Observer) {
    let mut told: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut now: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for route in observer.snapshot().routes {
            let faults = route.messages.as_ref().map_or(0, faults);
            *now.entry(route.name).or_default() += faults;
        }
        for (route, faults) in &now {
            let new = faults.saturating_sub(told.get(route).copied().unwrap_or(0));
            if new > 0 {
                tracing::error!(
                    route = &**route,
                    connections = new,
                    "the framing program left its memory, and connections ended by it: mend the program"
                );
            }
        }
        told = now;
    }
}

fn faults(messages: &MessagesSnapshot) -> u64 {
    let fault = FrameError::Fault.index();
    messages.requests_misframed[fault] + messages.answers_misframed[fault]
}
