//! Many connections at once, and those that begin here.

use super::*;
use crate::link::Hop;

#[test]
fn those_that_came_together_rest_one_after_another() {
    const CROWD: u32 = 5 * RESTS / 2;
    let ends = ends(true);
    let (mut net, mut link) = (net(ends, CROWD), Kept::default());
    let (door, _) = net.listen(ends[1], &LegOptions::default(), CROWD).unwrap();
    let hello = Some(hellos()[1]);
    for index in 0..CROWD {
        let ends = [SocketAddr::new(ends[0].ip(), 1000 + u16::try_from(index).unwrap()), ends[1]];
        let syn = Said { control: TcpControl::Syn, hello, ..SAID };
        net.handle_frame(&syn.frame(ends, THEIRS), &mut link);
        net.settle(&mut link);
        let (_, answer) = link.take().pop().unwrap();
        let last = Said { seq: 1, ack: Some(answer.end()), ..SAID };
        net.handle_frame(&last.frame(ends, THEIRS), &mut link);
        assert!(matches!(net.accept(door), Accepted::One(..)));
    }
    net.settle(&mut link);
    net.now = net.now.after(REST_AFTER);
    let mut resting = 0;
    for _ in 0..CROWD.div_ceil(RESTS) {
        net.handle_timers();
        net.settle(&mut link);
        net.check();
        let gauges = net.gauges();
        assert!(gauges.resting > resting && gauges.resting - resting <= RESTS as usize, "{gauges:?}");
        resting = gauges.resting;
        assert!(net.next_ms().is_some() || resting == CROWD as usize, "the others have their time");
        net.now = net.now.after(Duration::from_millis(1));
    }
    assert_eq!(resting, CROWD as usize);
}

#[test]
fn a_dial_that_nothing_has_come_on_rests() {
    let ends = ends(true);
    for (window, rests) in [(WINDOW_MIN, true), (WINDOW_MIN - 1, false)] {
        let (mut net, mut link) = (net(ends, 4), Kept::default());
        let hop = Hop { source: ends[1].ip(), link: Some(THEIRS) };
        let options = LegOptions { keepalive: None, ..LegOptions::default() };
        let key = net.dial(ends[0], hop, None, &options).unwrap();
        net.settle(&mut link);
        let (_, syn) = link.take().pop().unwrap();
        let hello = Some(Hello { mss: Some(1400), scale: Some(7), sack: true });
        let answer = Said { control: TcpControl::Syn, ack: Some(syn.end()), hello, window, ..SAID };
        // It came from here: whom it's from is our end.
        net.handle_frame(&answer.frame([ends[0], syn.tuple.peer()], THEIRS), &mut link);
        net.settle(&mut link);
        net.gather();
        net.now = net.now.after(REST_AFTER);
        net.handle_timers();
        net.settle(&mut link);
        assert_eq!(net.flows.get(key).unwrap().rest().is_some(), rests, "{window}");
    }
}
