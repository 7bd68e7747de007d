//! Any steps of both sides; and what no kernel does.

use proptest::prelude::*;

use super::model::{BEGIN, LEN_MAX, MEMORY, RX, Step, TX, pair, run};
use super::*;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..=LEN_MAX, 0..=1024_u16).prop_map(|(len, room)| Step::Deliver { len, room }),
        2 => Just(Step::Publish),
        2 => (1..=TX).prop_map(Step::Transmit),
        2 => (1..=TX, any::<bool>()).prop_map(|(most, newest_first)| Step::Complete { most, newest_first }),
        3 => (1..=RX).prop_map(Step::Receive),
        4 => (0..=LEN_MAX).prop_map(Step::Send),
        2 => Just(Step::Flush),
    ]
}

proptest! {
    #[test]
    fn packets_cross_whole_and_in_order_whatever_the_order_of_steps(
        steps in prop::collection::vec(step(), 1..200),
        counter in prop_oneof![Just(0), Just(u32::MAX - 5), any::<u32>()],
    ) {
        run(steps, counter);
    }
}

/// Puts a packet into each of its frames.
fn send_all(sends: &mut TxHalf) {
    for _ in 0..TX {
        assert!(sends.has_room());
        sends.send(1, |frame| frame.fill(1));
    }
}

#[test]
fn without_a_free_frame_there_is_no_room_until_the_kernel_gives_one_back() {
    let (mut kernel, _, mut sends) = pair(7);
    send_all(&mut sends);
    assert!(!sends.has_room() && sends.is_stalled() && sends.is_leaving());
    kernel.transmit(1);
    assert!(!sends.has_room(), "the kernel still reads it");
    kernel.complete(1, false);
    assert!(sends.has_room());
}

/// virtio_net's driver, for one, takes frames at once and looks what has been sent when it's called again.
#[test]
fn a_driver_that_has_all_frames_is_called_to_give_some_back() {
    let (mut kernel, _, mut sends) = pair(0);
    send_all(&mut sends);
    sends.flush();
    kernel.transmit(TX);
    kernel.calls();
    assert!(!sends.has_room());
    assert!(kernel.calls() > 0, "it would never look");
    kernel.complete(1, false);
    assert!(sends.has_room());
    assert_eq!(kernel.calls(), 0, "there's room");
}

#[test]
fn shared_frames_are_leaving_until_the_device_has_sent_them_and_copied_ones_until_they_are_copied() {
    for zero_copy in [false, true] {
        let (mut kernel, _, mut sends) = pair(0);
        sends.zero_copy = zero_copy;
        assert!(!sends.is_leaving() && kernel.calls() == 0);
        assert!(sends.has_room());
        sends.send(1, |frame| frame.fill(1));
        sends.flush();
        assert!(sends.is_leaving());
        kernel.transmit(1);
        kernel.calls();
        assert_eq!(sends.is_leaving(), zero_copy);
        assert_eq!(kernel.calls() > 0, zero_copy, "the driver is called to look");
        kernel.complete(1, false);
        assert!(!sends.is_leaving());
    }
}

#[test]
fn a_checksum_is_left_to_the_kernel_where_it_finishes_them() {
    let unfinished = Unfinished { start: 34, at: 16 };
    let (mut whole, mut metadata) = (vec![7; 90], [0; METADATA_BYTES]);
    unfinished.finish(&mut whole);
    // `flags`, of which the second is `XDP_TXMD_FLAGS_CHECKSUM`, then `csum_start` and `csum_offset`.
    (metadata[0], metadata[8], metadata[10]) = (2, 34, 16);
    if cfg!(target_endian = "big") {
        return;
    }
    for finishes in [false, true] {
        let (mut kernel, _, mut sends) = pair(0);
        sends.finishes = finishes;
        for left in [Some(unfinished), None] {
            sends.send_unfinished(90, |frame| (frame.fill(7), left));
        }
        sends.flush();
        kernel.transmit(2);
        if finishes {
            assert_eq!((&kernel.left[0], &kernel.metadata[..]), (&vec![7; 90], &[metadata][..]));
        } else {
            assert_eq!((&kernel.left[0], kernel.metadata.len()), (&whole, 0));
        }
        assert_eq!(kernel.left[1], vec![7; 90]);
    }
}

/// What no kernel gives: frames of the other half, of none, beyond the end of one.
#[test]
fn descriptors_that_lead_elsewhere_are_not_followed() {
    let frame = FRAME_BYTES as u64;
    let descriptors = [(BEGIN, 1), (MEMORY as u64, 1), (u64::MAX - 10, 64), (frame - 1, 2), (256, 3841), (0, u32::MAX)];
    for (addr, len) in descriptors {
        let (mut kernel, mut receives, _) = pair(0);
        kernel.rx.push(Descriptor { addr, len, options: 0 });
        kernel.rx.publish();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| receives.next_frame().map(<[u8]>::len)));
        assert!(outcome.is_err(), "{addr} {len}: {outcome:?}");
    }
    for addr in [0, BEGIN - 1, MEMORY as u64, u64::MAX] {
        let (mut kernel, _, mut sends) = pair(0);
        kernel.completion.push(addr);
        kernel.completion.publish();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sends.reclaim()));
        assert!(outcome.is_err(), "{addr}");
    }
}
