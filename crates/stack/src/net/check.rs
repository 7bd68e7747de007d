//! What holds between any two calls. Tests and fuzzers ask after each step.

use smoltcp::socket::tcp::State;

use super::flow::Phase;
use super::{Net, is_half_open};
use crate::gauges::StackGauges;

impl Net {
    /// Looks at everything.
    ///
    /// # Panics
    /// When something doesn't hold: a mistake of ours.
    pub(crate) fn check(&self) {
        assert_eq!(self.half_open.iter().filter(|key| is_half_open(&self.flows, **key)).count(), self.half_open_len);
        assert!(self.half_open_len <= self.config.half_open_max as usize);
        assert!(self.waits.len() <= self.config.waits_max as usize);
        assert!(self.spare.len() <= self.config.spare_max as usize);
        let (mut listed, mut resting) = (0, 0);
        for slot in 0..self.config.flows_max {
            let Some((key, flow)) = self.flow_at(slot) else { continue };
            let found = self.table.find(flow.tuple.hash(&self.keys), |other| other == slot).is_some();
            assert_eq!(found, flow.listed, "a connection is listed or isn't");
            listed += usize::from(flow.listed);
            resting += usize::from(flow.rest().is_some());
            assert!(flow.rest().is_none() || (flow.phase == Phase::Held && !flow.over), "who rests is the program's");
            assert_eq!(flow.dirty, self.dirty.contains(&key), "what is dirty stands in the queue");
            assert!(!flow.news || self.news.contains(&key), "what has news stands in the queue");
            assert!(flow.over || flow.listed, "a connection that isn't over can be found");
            assert!(flow.unsent() <= flow.send_queue());
            match flow.phase {
                Phase::HalfOpen(_) => assert_eq!(flow.state(), State::SynReceived, "half-open"),
                Phase::Queued(door) => {
                    let door = self.doors[door as usize].as_ref().expect("its listener is there");
                    assert!(door.queue.contains(&key), "what is queued stands in the queue");
                }
                Phase::Resolving | Phase::Held => {}
                Phase::Orphan => assert!(flow.tag.is_none(), "nobody hears of an orphan"),
            }
        }
        assert_eq!(self.resting, resting);
        assert_eq!(self.table.len(), listed, "nothing else is listed");
        for door in self.doors.iter().flatten() {
            assert!(door.queue.len() <= door.backlog, "a queue within its bound");
        }
    }

    /// What it counts.
    pub(crate) fn gauges(&self) -> StackGauges {
        let (flows, half_open, waits) = (self.flows.len(), self.half_open_len, self.waits.len());
        StackGauges { flows, resting: self.resting, half_open, waits, ..self.gauges }
    }
}
