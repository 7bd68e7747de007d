//! The routes that a core serves now, and those that only finish what they have.

use std::rc::Rc;
use std::sync::Arc;

use midmile_engine::{Backend, Cx, Key, ListenerId, MeterId, Slab};
use midmile_mux::{Census, ServiceId};

use crate::counters::RouteCounters;
use crate::plan::Route;
use crate::room::Room;

/// Routes of a plan, and ones replaced by reloads that still have pairs.
const SERVINGS_MAX: u32 = 65_536;

/// A listener's place in the whole process: it outlives replacements of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DoorId(pub(crate) u32);

/// Where a door's bytes are counted.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) upstream: MeterId,
    pub(crate) downstream: MeterId,
}

/// A route on this core.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) route: Arc<Route>,
    pub(crate) counters: Arc<RouteCounters>,
    /// Whence clients are whose messages are carried, for all cores and versions of the route.
    pub(crate) census: Arc<Census>,
    pub(crate) meters: Rc<Meters>,
    /// What the multiplexor knows it by, where messages are carried.
    pub(crate) service: Option<ServiceId>,
    /// This core's place in the round of backends.
    pub(crate) turn: usize,
    /// Pairs of this route on this core.
    open: u32,
    /// For those of all cores.
    room: Room,
    /// No new pairs come: it goes when the last one ends.
    retired: bool,
}

impl Serving {
    /// Whether no more pairs or guests may come.
    pub(crate) fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// Counts a pair or a guest in, if there's room; [`Servings::pair_ended`] counts it out.
    #[must_use]
    pub(crate) fn let_in(&mut self) -> bool {
        let room = self.room.take();
        self.open += u32::from(room);
        room
    }
}

/// A way in: a listener, or where one was, and the route behind it.
#[derive(Debug)]
struct Door {
    id: DoorId,
    listener: Option<ListenerId>,
    serving: Key,
}

/// The routes of one core.
#[derive(Debug)]
pub(crate) struct Servings {
    table: Slab<Serving>,
    doors: Vec<Door>,
    spare_meters: Vec<Meters>,
}

impl Servings {
    pub(crate) fn new() -> Self {
        Self { table: Slab::with_capacity(SERVINGS_MAX), doors: Vec::new(), spare_meters: Vec::new() }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Serving> {
        self.table.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Serving> {
        self.table.get_mut(key)
    }

    /// The route behind a listener.
    pub(crate) fn behind(&self, listener: ListenerId) -> Option<Key> {
        self.doors.iter().find(|door| door.listener == Some(listener)).map(|door| door.serving)
    }

    /// The route behind a way in.
    pub(crate) fn at(&self, id: DoorId) -> Option<Key> {
        self.doors.iter().find(|door| door.id == id).map(|door| door.serving)
    }

    /// Bytes that this core's pairs have moved, both ways, by the ways in that there are now.
    pub(crate) fn moved(&self) -> u64 {
        let serving = self.doors.iter().filter_map(|door| self.table.get(door.serving));
        let meters = serving.flat_map(|serving| [&serving.counters.upstream, &serving.counters.downstream]);
        meters.fold(0, |sum: u64, meter| sum.wrapping_add(meter.copied_bytes()).wrapping_add(meter.spliced_bytes()))
    }

    /// The listeners of a way in, or of all.
    pub(crate) fn listeners(&self, only: Option<DoorId>) -> Vec<ListenerId> {
        let chosen = self.doors.iter().filter(|door| only.is_none_or(|id| door.id == id));
        chosen.filter_map(|door| door.listener).collect()
    }

    /// Opens a way in.
    pub(crate) fn open<B: Backend>(
        &mut self,
        cx: &mut Cx<B>,
        id: DoorId,
        listener: B::Listener,
        (route, counters, census): (Arc<Route>, Arc<RouteCounters>, Arc<Census>),
        room: Room,
    ) -> std::io::Result<()> {
        let listener = cx.listen(listener)?;
        let (upstream, downstream) = (counters.upstream.clone(), counters.downstream.clone());
        let meters = match self.spare_meters.pop() {
            Some(meters) => {
                cx.replace_meter(meters.upstream, upstream);
                cx.replace_meter(meters.downstream, downstream);
                meters
            }
            None => Meters { upstream: cx.add_meter(upstream), downstream: cx.add_meter(downstream) },
        };
        let serving = Serving {
            route,
            counters,
            census,
            meters: Rc::new(meters),
            service: None,
            turn: 0,
            open: 0,
            room,
            retired: false,
        };
        let serving = self.table.insert(serving).expect("far fewer routes than places");
        self.doors.push(Door { id, listener: Some(listener), serving });
        Ok(())
    }

    /// Puts another route behind a way in. Pairs of the one before go on.
    pub(crate) fn swap(&mut self, id: DoorId, route: Arc<Route>, room: Room) {
        let Some(door) = self.doors.iter_mut().find(|door| door.id == id) else { return };
        let Some(old) = self.table.get(door.serving) else { return };
        let (counters, census, meters) = (old.counters.clone(), old.census.clone(), old.meters.clone());
        let serving =
            Serving { route, counters, census, meters, service: None, turn: 0, open: 0, room, retired: false };
        let Ok(key) = self.table.insert(serving) else { return };
        let old = std::mem::replace(&mut door.serving, key);
        self.retire(old);
    }

    /// Stops accepting there, and keeps the pairs.
    pub(crate) fn close<B: Backend>(&mut self, cx: &mut Cx<B>, id: DoorId) {
        if let Some(at) = self.doors.iter().position(|door| door.id == id) {
            let door = self.doors.swap_remove(at);
            if let Some(listener) = door.listener {
                cx.unlisten(listener);
            }
            self.retire(door.serving);
        }
    }

    /// Stops accepting everywhere.
    pub(crate) fn close_all<B: Backend>(&mut self, cx: &mut Cx<B>) {
        while let Some(door) = self.doors.first() {
            let id = door.id;
            self.close(cx, id);
        }
    }

    /// Counts a pair that ended.
    pub(crate) fn pair_ended(&mut self, key: Key) {
        if let Some(serving) = self.table.get_mut(key) {
            serving.open -= 1;
            serving.room.give();
            if serving.retired && serving.open == 0 {
                self.forget(key);
            }
        }
    }

    fn retire(&mut self, key: Key) {
        if let Some(serving) = self.table.get_mut(key) {
            serving.retired = true;
            if serving.open == 0 {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(serving) = self.table.remove(key)
            && let Ok(meters) = Rc::try_unwrap(serving.meters)
        {
            self.spare_meters.push(meters);
        }
    }
}
