//! A silent peer is asked, at rest or not, and given up when nothing answers.

use midmile_engine::Probing;

use super::*;

/// When the peer is asked within the next `seconds`, which it never answers, and why the connection failed; times are the stack's.
fn asked(world: &mut World, seconds: u64) -> (Vec<u64>, Option<ConnError>) {
    let mut times = Vec::new();
    for _ in 0..seconds {
        for said in world.passes(Duration::from_secs(1)) {
            if said.flags.rst() {
                continue;
            }
            assert_eq!((said.seq, said.ack), (world.ours.wrapping_sub(1), world.theirs));
            assert!(said.flags.ack() && said.payload == 0 && said.window > 0, "{said:?}");
            times.push(world.net.now.as_millis() / 1000);
        }
    }
    (times, world.net.take_error(world.key))
}

/// A connection whose program hasn't read what came.
fn unread() -> World {
    let mut world = at_rest();
    world.hears(TcpControl::Psh, None, b"unread");
    world.passes(Duration::from_millis(10));
    assert!(!world.rests());
    world
}

#[test]
fn it_asks_three_times_and_gives_up() {
    // The peer was heard as the stack began, and a second later.
    for (mut world, begin) in [(at_rest(), 0), (unread(), 1)] {
        let rests = world.rests();
        assert_eq!(asked(&mut world, 110), (vec![begin + 60, begin + 80, begin + 100], None));
        assert_eq!(world.rests(), rests, "a question takes no socket");
        assert_eq!(asked(&mut world, 30), (vec![], Some(ConnError::TimedOut)));
    }
}

#[test]
fn an_answer_has_it_begin_anew() {
    let mut world = at_rest();
    assert_eq!(asked(&mut world, 90), (vec![60, 80], None));
    assert_eq!(world.hears(TcpControl::None, None, &[]), []);
    assert!(world.rests(), "and takes no socket");
    assert_eq!(asked(&mut world, 110), (vec![151, 171, 191], None));
    // A window that a woken socket mustn't take for a large one.
    let small = Said { window: WINDOW_MIN - 1, ..world.next() };
    world.takes(&small.frame(world.ends, THEIRS));
    world.settles();
    world.passes(3 * REST_AFTER);
    assert!(!world.rests());
    assert_eq!(asked(&mut world, 110), (vec![261, 281, 301], None));
}

#[test]
fn one_lost_question_does_not_end_who_waits_for_the_peers_end() {
    let mut world = at_rest();
    world.net.shutdown(world.key).unwrap();
    assert!(world.settles()[0].flags.fin());
    world.ours = world.ours.wrapping_add(1);
    world.hears(TcpControl::None, None, &[]);
    assert_eq!(asked(&mut world, 90), (vec![61, 81], None));
    world.hears(TcpControl::None, None, &[]);
    assert_eq!(asked(&mut world, 140), (vec![151, 171, 191], Some(ConnError::TimedOut)));
}

#[test]
fn whoever_was_silent_before_is_asked_before_it_is_given_up() {
    let options = LegOptions { keepalive: None, ..LegOptions::default() };
    let mut world = World::new(true, hellos()[1], &options);
    assert_eq!(asked(&mut world, 1000), (vec![], None));
    let probing = Probing { after: Duration::from_secs(5), every: Duration::from_secs(2), count: 3 };
    world.net.set_probing(world.key, Some(&probing));
    assert_eq!(world.settles().len(), 1, "at once");
    assert_eq!(asked(&mut world, 5), (vec![1002, 1004], None));
    world.net.set_probing(world.key, None);
    assert_eq!(asked(&mut world, 100), (vec![], None));
    world.net.set_keepalive(world.key, &LegOptions::default());
    assert_eq!(world.settles().len(), 1);
    assert_eq!(asked(&mut world, 70), (vec![1125, 1145], Some(ConnError::TimedOut)));
}

#[test]
fn what_has_to_be_acknowledged_is_no_question_of_keepalives() {
    let mut world = at_rest();
    world.net.send(world.key, b"there?", false).unwrap();
    let mut seen = 0;
    for _ in 0..300 {
        let said = world.passes(Duration::from_secs(1));
        assert!(said.iter().all(|said| said.seq == world.ours && said.payload == 6), "{said:?}");
        seen += said.len();
    }
    assert!(seen > 5 && world.net.take_error(world.key).is_none());
}

/// The news of a peer's room was lost; its own question has it as well.
#[test]
fn a_peers_question_tells_of_its_window() {
    let mut world = at_rest();
    let small = Said { window: 1, payload: b"x", ..world.next() };
    world.takes(&small.frame(world.ends, THEIRS));
    world.theirs = world.theirs.wrapping_add(1);
    world.net.recv(world.key, &mut [0; 9]).unwrap();
    world.settles();
    world.passes(3 * REST_AFTER);
    assert!(!world.rests());
    let question = Said { seq: world.theirs.wrapping_sub(1), ..world.next() };
    world.takes(&question.frame(world.ends, THEIRS));
    assert_eq!(world.settles().len(), 1);
    world.passes(REST_AFTER);
    assert!(world.rests());
}
