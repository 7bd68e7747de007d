//! Listeners that rest, and handles of those that are gone.
#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::time::Duration;

use midmile_engine::backend::Progress;
use midmile_engine::sim::{RemoteId, Sim};
use midmile_engine::{
    Addr, Backend, Config, ConnError, ConnId, Core, Cx, Handler, Incoming, LegOptions, ListenerId, MeterId,
};

/// Echoes, and notes what its listeners tell.
#[derive(Default)]
struct Host {
    accepted: Vec<ListenerId>,
    exhausted: usize,
}

impl<B: Backend> Handler<B> for Host {
    fn on_accept(&mut self, cx: &mut Cx<B>, listener: ListenerId, incoming: Incoming<B::Socket>) {
        self.accepted.push(listener);
        let conn = cx.admit(incoming, 0, MeterId::NONE).ok().expect("there is room for it");
        cx.read(conn);
    }
    fn on_accept_exhausted(&mut self, _: &mut Cx<B>, _: ListenerId) {
        self.exhausted += 1;
    }
    fn on_data(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64, bytes: &[u8]) -> usize {
        cx.send(conn, bytes)
    }
    fn on_peer_close(&mut self, cx: &mut Cx<B>, conn: ConnId, _: u64) {
        cx.close(conn);
    }
    fn on_error(&mut self, _: &mut Cx<B>, _: ConnId, _: u64, _: ConnError) {}
}

type Hosting = Core<Sim, Host>;

fn hosting() -> Hosting {
    let config = Config { catch_panics: false, ..Config::default() };
    Core::new(Sim::new(1, false), config, Host::default())
}

fn listen(core: &mut Hosting, port: u16) -> (ListenerId, Addr) {
    let at = Addr::Inet(([10, 0, 0, 1], port).into());
    core.parts().1.listen_at(&at, &LegOptions::default(), 16).unwrap()
}

fn world(core: &mut Hosting) -> &mut Sim {
    core.parts().1.backend()
}

/// Takes turns for so long.
fn pass(core: &mut Hosting, time: Duration) {
    let until = world(core).now().after(time);
    while world(core).now() < until {
        core.parts().1.set_alarm(Duration::from_millis(5));
        core.turn().expect("the core goes on, whatever becomes of a listener");
        core.parts().1.check();
    }
}

/// Whether a byte of the client's comes back, within a second.
fn echoes(core: &mut Hosting, client: RemoteId) -> bool {
    let (mut said, mut heard) = (false, false);
    for _ in 0..100 {
        // The world decides how much passes at once.
        said |= !said && world(core).hand_send(client, b"x") == Ok(Progress::Moved(1));
        pass(core, Duration::from_millis(10));
        heard |= world(core).hand_recv(client, &mut [0; 8]) == Ok(Progress::Moved(1));
    }
    heard
}

#[test]
fn a_listener_that_cannot_be_watched_again_rests_on_and_costs_nobody() {
    let mut core = hosting();
    let (_, at) = listen(&mut core, 80);
    let old = world(&mut core).hand_client(&at, 100);
    pass(&mut core, Duration::from_millis(20));
    assert!(echoes(&mut core, old));
    world(&mut core).starve(true);
    let new = world(&mut core).hand_client(&at, 100);
    pass(&mut core, Duration::from_millis(20));
    assert_eq!(core.parts().0.exhausted, 1);
    world(&mut core).starve(false);
    world(&mut core).refuse_listeners(true);
    pass(&mut core, Duration::from_millis(300));
    let exhausted = core.parts().0.exhausted;
    assert!((4..=8).contains(&exhausted), "it's told each time, and rests in between: {exhausted}");
    assert_eq!(core.parts().0.accepted.len(), 1);
    assert!(echoes(&mut core, old), "those that are open go on");
    world(&mut core).refuse_listeners(false);
    pass(&mut core, Duration::from_millis(100));
    assert!(echoes(&mut core, new), "it's accepted once there's memory");
}

#[test]
fn a_listener_that_rests_can_be_closed() {
    let mut core = hosting();
    let (id, at) = listen(&mut core, 80);
    world(&mut core).starve(true);
    world(&mut core).hand_client(&at, 100);
    pass(&mut core, Duration::from_millis(20));
    core.parts().1.unlisten(id);
    pass(&mut core, Duration::from_millis(200));
    assert_eq!(core.parts().0.exhausted, 1);
}

#[test]
fn a_handle_of_a_listener_that_is_gone_ends_no_other() {
    let mut core = hosting();
    let (gone, at) = listen(&mut core, 80);
    world(&mut core).hand_client(&at, 100);
    core.parts().1.unlisten(gone);
    let (id, at) = listen(&mut core, 81);
    assert_ne!(id, gone);
    core.parts().1.unlisten(gone);
    let client = world(&mut core).hand_client(&at, 100);
    pass(&mut core, Duration::from_millis(20));
    assert!(core.parts().1.take_incoming(gone).is_none());
    assert_eq!(core.parts().0.accepted, [id]);
    assert!(echoes(&mut core, client));
}

#[test]
fn no_more_than_so_many_listeners_are_taken() {
    let mut core = hosting();
    let ids: Vec<_> = (1..=4096).map(|port| listen(&mut core, port).0).collect();
    let at = Addr::Inet(([10, 0, 0, 1], 5000).into());
    assert!(core.parts().1.listen_at(&at, &LegOptions::default(), 16).is_err());
    core.parts().1.unlisten(ids[7]);
    world(&mut core).refuse_listeners(true);
    assert!(core.parts().1.listen_at(&at, &LegOptions::default(), 16).is_err());
    world(&mut core).refuse_listeners(false);
    // The one that couldn't be watched holds no place.
    listen(&mut core, 5001);
}
