//! A capture of what friends say to each other.

use std::collections::BTreeMap;
use std::time::Duration;

use midmile_kernel::{Tapped, TappedWhat};
use midmile_wire::capture::{Capture, Event, Way, What};

/// What is being written.
pub(super) struct Packets {
    cgroup: String,
    /// None before the beginning is written.
    capture: Option<Capture>,
    /// Interfaces by network namespaces: the same addresses in two are two connections.
    interfaces: BTreeMap<u64, u32>,
    /// Events of more namespaces than there may be interfaces.
    untold: u64,
}

impl Packets {
    pub(super) fn new(cgroup: &str) -> Self {
        Self { cgroup: cgroup.to_owned(), capture: None, interfaces: BTreeMap::new(), untold: 0 }
    }

    /// Writes the file's beginning, the first time.
    pub(super) fn begin(&mut self, text: &mut Vec<u8>) {
        if self.capture.is_none() {
            self.capture = Some(Capture::begin(text));
        }
    }

    pub(super) fn tell(&mut self, tapped: &Tapped<'_>, text: &mut Vec<u8>) {
        self.begin(text);
        let capture = self.capture.as_mut().expect("it has begun");
        let Tapped { at, namespace, from, to, place, what } = *tapped;
        if !self.interfaces.contains_key(&namespace) {
            let name = format!("friends of {}, network namespace {namespace}", self.cgroup);
            let Some(interface) = capture.interface(&name, text) else {
                self.untold += 1;
                return;
            };
            self.interfaces.insert(namespace, interface);
        }
        // A side that resets the connection may have offered bytes that were never sent; nobody counts them any more.
        let place = (what != TappedWhat::Reset).then_some(place);
        let what = match what {
            TappedWhat::Dialled => What::Dialled,
            TappedWhat::Accepted => What::Accepted,
            TappedWhat::Bytes { bytes, .. } => What::Bytes(bytes),
            TappedWhat::Ended => What::Ended,
            TappedWhat::Reset => What::Reset,
            TappedWhat::Left => What::Left,
        };
        let way = Way { from, to };
        capture.tell(&Event { at, interface: self.interfaces[&namespace], way, place, what }, text);
    }

    /// Writes the end, and says how much it was.
    pub(super) fn finish(&mut self, at: Duration, lost: u64, text: &mut Vec<u8>) -> String {
        self.begin(text);
        let capture = self.capture.as_mut().expect("it has begun");
        let counts = capture.counts();
        // One ring has all: what was lost is of no interface, and said with the first.
        if self.interfaces.is_empty() {
            capture.interface(&format!("friends of {}", self.cgroup), text);
        }
        capture.finish(0, at, lost, text);
        let untold = counts.untold + self.untold;
        format!(
            "{} packets; missing: {} bytes, {lost} records lost, {untold} not followed",
            counts.packets, counts.missing
        )
    }
}
