//! Connections that move from core to core, with what was left over of their bytes; and those that can't.

use std::time::Duration;

use super::actor::Ending;
use super::receiving::bytes;
use super::record::{Record, Seen, Take};
use super::sending::settled_fill;
use super::stage::{PeerId, SMALL, Stage};
use super::trace::Trace;
use super::world::{Ability, Verdict, World, needs};
use crate::backend::Backend;
use crate::config::Config;
use crate::core::Core;
use crate::error::ConnError;
use crate::handler::ConnId;
use crate::mesh::{CoreId, HandOffError, Mesh, Seat};

const HERE: CoreId = CoreId(0);
const THERE: CoreId = CoreId(1);
/// Cores that keep what is left over in blocks, and ones that leave it in the transport.
const KEEPING: [Config; 2] = [SMALL, Config { blocks: 0, ..SMALL }];

type SeatOf<W> = Seat<<<W as World>::Backend as Backend>::Parcel>;

fn seats<W: World>() -> [SeatOf<W>; 2] {
    let (_, seats) = Mesh::new(2, 100).expect("the system has descriptors left");
    let mut seats = seats.into_iter();
    std::array::from_fn(|_| seats.next().expect("two seats"))
}

/// The other core, on the same thread.
struct Other<B: Backend>(Core<B, Trace<B>>);

impl<B: Backend> Other<B> {
    fn turn(&mut self) {
        self.0.parts().1.set_alarm(Duration::ZERO);
        self.0.turn().expect("the backend can wait for events");
        self.0.parts().1.check();
    }

    const fn record(&mut self) -> &mut Record {
        &mut self.0.parts().0.record
    }
}

/// Two cores; a connection accepted by the first, of whose bytes the program used four.
fn begun<W: World>(world: &mut W, config: Config) -> (Stage<'_, W>, Other<W::Backend>, ConnId, PeerId) {
    let (mut stage, other) = cores(world, [config; 2]);
    let (conn, peer) = begin(&mut stage);
    (stage, other, conn, peer)
}

fn cores<W: World>(world: &mut W, [this, that]: [Config; 2]) -> (Stage<'_, W>, Other<W::Backend>) {
    let [here, there] = seats::<W>();
    let other = Core::seated(world.backend(), that, Trace::default(), there).expect("it can be woken");
    (Stage::seated(world, this, here), Other(other))
}

fn begin<W: World>(stage: &mut Stage<'_, W>) -> (ConnId, PeerId) {
    let (conn, peer) = stage.accepted();
    stage.strangers(&[peer]);
    stage.say(peer, b"0123");
    stage.until_received(conn, 4);
    stage.take_as(conn, Take::Nothing);
    stage.say(peer, b"456789");
    stage.until("it's left over", |stage| stage.record().left_over(conn) == b"456789");
    (conn, peer)
}

/// Hands the connection over, and says what it's called there. Nothing is told of it here any more. It may come back while something of it
/// is under way; `None` when it always does.
fn handed<W: World>(stage: &mut Stage<'_, W>, other: &mut Other<W::Backend>, conn: ConnId) -> Option<ConnId> {
    sent_off(stage, other, conn, Seen::HandOff).then(|| {
        let id = other.record().conns().next().expect("it has arrived");
        other.record().set_take(id, Take::All);
        id
    })
}

/// Hands the connection over until `seen` is seen there, once, and says whether it ever was.
fn sent_off<W: World>(stage: &mut Stage<'_, W>, other: &mut Other<W::Backend>, conn: ConnId, seen: Seen) -> bool {
    let before = stage.record().count(Seen::HandOff);
    for tries in 1..=20 {
        stage.hand_off(conn, THERE).expect("it stands");
        stage.until("it arrives, or comes back", |stage| {
            other.turn();
            other.record().count(seen) == 1 || stage.record().count(Seen::HandOff) == before + tries
        });
        if other.record().count(seen) == 1 {
            assert_eq!((stage.cx().conns_open(), stage.record().count(Seen::HandOff)), (0, before + tries - 1));
            return true;
        }
        stage.settle();
    }
    false
}

/// A connection goes on on another core: what was left over comes first, then what follows, and its end; it's sent on from there.
pub fn a_connection_goes_on_on_another_core<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Travels)?;
    for config in KEEPING {
        let (mut stage, mut other, conn, peer) = begun(world, config);
        stage.send_all(conn, b"from here, ");
        let id = handed(&mut stage, &mut other, conn).expect("nothing keeps it here for long");
        stage.say(peer, b"abc");
        for _ in 0..5 {
            stage.turn();
            other.turn();
        }
        assert_eq!(other.record().order(id), [Seen::HandOff], "nothing is read before it's asked for");
        other.0.parts().1.read(id);
        stage.until("all is received there", |_| {
            other.turn();
            other.record().received(id) == b"456789abc"
        });
        let sent = other.0.parts().1.send(id, b"from there");
        stage.finish(peer);
        stage.until("its end is told there", |_| {
            other.turn();
            other.record().ended(id)
        });
        other.record().over(id);
        other.0.parts().1.close(id);
        stage.until("the peer sees the end", |stage| {
            other.turn();
            stage.ending(peer).is_some()
        });
        assert_eq!(stage.ending(peer), Some(Ending::End));
        assert_eq!(stage.heard(peer), &b"from here, from there"[..11 + sent]);
        assert_eq!(other.record().order(id), [Seen::HandOff, Seen::Data, Seen::PeerClose]);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// A connection that awaits room is told of it where it is then: there, or here if its backend doesn't let it go before.
pub fn room_is_told_of_on_the_other_core<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Travels)?;
    let much = bytes(50, 2 * world.held_max());
    let (mut stage, mut other, conn, peer) = begun(world, SMALL);
    stage.reads(peer, 0);
    settled_fill(&mut stage, conn, &much);
    let id = handed(&mut stage, &mut other, conn);
    let before = stage.record().count(Seen::Writable);
    stage.reads(peer, usize::MAX);
    stage.until("room is told of", |stage| {
        other.turn();
        match id {
            Some(id) => other.record().last(id) == Some(Seen::Writable),
            None => stage.record().count(Seen::Writable) > before,
        }
    });
    Ok(())
}

/// A connection that fails on its way or after it is told of on the other core, once.
pub fn a_failure_is_told_on_the_other_core<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Travels)?;
    needs(world, Ability::Resets)?;
    for on_the_way in [false, true] {
        let (mut stage, mut other, conn, peer) = begun(world, SMALL);
        if on_the_way {
            stage.hand_off(conn, THERE).expect("it stands");
            stage.rip(peer);
        } else {
            let id = handed(&mut stage, &mut other, conn).expect("nothing keeps it here for long");
            other.0.parts().1.read(id);
            stage.rip(peer);
        }
        stage.until("it's told", |stage| {
            other.turn();
            let told = |record: &Record| record.count(Seen::Error(ConnError::Reset));
            told(other.record()) + told(stage.record()) == 1
        });
        for _ in 0..5 {
            stage.turn();
            other.turn();
        }
        assert_eq!((stage.cx().conns_open(), other.0.parts().1.conns_open()), (0, 0));
    }
    Ok(())
}

/// Handed over to its own core, or from a backend that lets none go, a connection comes back, and goes on.
pub fn one_that_cannot_go_comes_back<W: World>(world: &mut W) -> Verdict {
    let travels = needs(world, Ability::Travels).is_ok();
    for config in KEEPING {
        for to in if travels { vec![HERE] } else { vec![HERE, THERE] } {
            let (mut stage, _other, conn, peer) = begun(world, config);
            stage.set_timer(conn, Duration::from_millis(1));
            stage.hand_off(conn, to).expect("it stands");
            stage.record().expect_timer(conn, None);
            assert_eq!(stage.cx().hand_off(conn, to), Err(HandOffError::NotStanding), "it's on its way");
            stage.until("it comes back", |stage| stage.record().count(Seen::HandOff) == 1);
            stage.expect(conn, &[Seen::Accept, Seen::Data, Seen::HandOff]);
            stage.take_as(conn, Take::All);
            stage.cx().read(conn);
            stage.until_received(conn, 10);
            stage.finish(peer);
            stage.until_seen(conn, Seen::PeerClose);
            stage.close(conn);
            stage.settle();
            stage.expect_nothing_left();
        }
    }
    Ok(())
}

/// A core that has as many as it may is told whom it lost, by their tokens; their peers see a reset, and those that it has go on.
pub fn one_that_finds_no_room_is_lost<W: World>(world: &mut W) -> Verdict {
    needs(world, Ability::Travels)?;
    let resets = needs(world, Ability::Resets).is_ok();
    for config in KEEPING {
        let (mut stage, mut other) = cores(world, [config, Config { conns_max: 1, ..config }]);
        let (first, its_peer) = begin(&mut stage);
        let id = handed(&mut stage, &mut other, first).expect("nothing keeps it here for long");
        let (second, peer) = begin(&mut stage);
        let token = stage.record().story(second).token;
        let lost = Seen::HandOffLost(ConnError::Exhausted);
        assert!(sent_off(&mut stage, &mut other, second, lost), "nothing keeps it here for long");
        assert_eq!(other.record().lost, [(HERE, token)]);
        stage.until("its peer sees the end", |stage| {
            other.turn();
            stage.ending(peer).is_some()
        });
        assert!(!resets || stage.ending(peer) == Some(Ending::Reset), "its end looks like one in order");
        let cx = other.0.parts().1;
        assert_eq!((cx.gauges().hand_offs_lost, cx.conns_open()), (1, 1));
        cx.read(id);
        stage.say(its_peer, b"abc");
        stage.until("the first goes on", |_| {
            other.turn();
            other.record().received(id) == b"456789abc"
        });
        assert_eq!(other.record().order(id), [Seen::HandOff, Seen::Data]);
        other.record().over(id);
        other.0.parts().1.close(id);
        stage.expect_nothing_left();
    }
    Ok(())
}

/// What can't be handed over says so, and stays as it is.
pub fn what_cannot_be_handed_over<W: World>(world: &mut W) -> Verdict {
    let [here, _there] = seats::<W>();
    let mut stage = Stage::seated(world, SMALL, here);
    let (a, peer) = stage.accepted();
    assert_eq!(stage.cx().hand_off(a, CoreId(2)), Err(HandOffError::NoCore));
    let to = stage.door();
    let b = stage.dial(&to).expect("a peer listens there");
    assert_eq!(stage.cx().hand_off(b, THERE), Err(HandOffError::NotStanding));
    stage.until_seen(b, Seen::Connect);
    stage.cx().forward(a, b);
    assert_eq!(stage.cx().hand_off(a, THERE), Err(HandOffError::Tied));
    assert_eq!(stage.cx().hand_off(b, THERE), Err(HandOffError::Tied));
    stage.close(b);
    assert_eq!(stage.cx().hand_off(b, THERE), Err(HandOffError::NotStanding));
    stage.cx().read(a);
    stage.say(peer, b"here");
    stage.until_received(a, 4);
    Ok(())
}
