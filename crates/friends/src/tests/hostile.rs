//! A peer that writes anything anywhere at any time: each call ends, inside the ring, with an answer or with [`Broken`].

use crate::model::Dice;
use crate::{Broken, Heap, Plain, Reader, Segment, Side, Step, Writer};

/// What has broken, by kind, so that the test knows what it has met.
fn note(met: &mut Vec<Broken>, broken: Broken) {
    if !met.contains(&broken) {
        met.push(broken);
    }
}

/// One call of the writer's.
fn write(writer: Writer<'_>, dice: &mut Dice<'_>) -> Result<(), Broken> {
    match dice.below(8) {
        0 => writer.way().map(drop),
        1 => writer.back_to_tcp(Plain::Full).checked_add(0).map_or(Err(Broken::Gate), |_| Ok(())),
        2 => writer.wait_for_room().map(drop),
        3 => writer.unread().map(drop),
        4 => {
            writer.begin_tcp();
            assert_eq!(writer.sent(3).bells, 0);
            Ok(())
        }
        5 => {
            writer.taken_over();
            writer.has_sent(dice.below(10) as u64)
        }
        _ => {
            let put = writer.put(&[5; 300][..dice.below(300)])?;
            assert!(put.taken <= 64, "no more than the ring holds, in one go");
            writer.rang(put.wake.bells);
            Ok(())
        }
    }
}

/// One call of the reader's.
fn read(reader: Reader<'_>, dice: &mut Dice<'_>) -> Result<(), Broken> {
    let mut buffer = [0; 300];
    let wanted = dice.below(300);
    match dice.below(9) {
        0 => reader.take(&mut buffer[..wanted]).map(|take| assert!(take.count <= wanted)),
        1 => reader.peek(dice.below(100), &mut buffer[..wanted]).map(|count| assert!(count <= 64)),
        2 => reader.doze().map(drop),
        3 => reader.sleep_by_bell().map(|slept| {
            if slept {
                reader.woke()
            }
        }),
        4 => reader.watch_edges().map(drop),
        5 => reader.unannounced(),
        6 => reader.is_plain().map(drop),
        7 => {
            reader.taken_over();
            let (received, announced) = (dice.below(100) as u64, reader.pipe_announced().unwrap_or(1));
            reader.has_received(Some(received)).map(drop).and_then(|()| reader.pipe_holds(0, announced))
        }
        _ => match reader.step()? {
            Step::Ring(count) => reader.skip(count).map(drop),
            Step::Bells(count) => reader.swallowed(&vec![1; count.min(2)]),
            Step::Tcp => {
                reader.leave_tcp(1);
                Ok(())
            }
            Step::Empty => Ok(()),
        },
    }
}

#[test]
fn a_peer_that_scribbles_breaks_its_own_connection_and_nothing_else() {
    let mut met = Vec::new();
    for seed in 0..300 {
        let mut dice = Dice::new(seed, &[]);
        let heap = Heap::new(64);
        let segment: Segment<'_> = heap.create();
        let (writer, reader) = super::ends(&segment);
        for _ in 0..400 {
            if dice.one_in(4) {
                let byte = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)];
                heap.scribble(dice.below(2500), byte);
            }
            let result = if dice.one_in(2) { write(writer, &mut dice) } else { read(reader, &mut dice) };
            if let Err(broken) = result {
                note(&mut met, broken);
            }
            assert!(segment.capacity() == 64 && segment.tally(Side::Offering).returns(Plain::Full) < u64::MAX);
        }
    }
    for broken in [Broken::Positions, Broken::Gate, Broken::Bell, Broken::Stray, Broken::Abandoned] {
        assert!(met.contains(&broken), "{broken:?} never came: {met:?}");
    }
}
