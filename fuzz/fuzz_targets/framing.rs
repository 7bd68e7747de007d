//! Every framer but that of `frame`, against arbitrary bytes; of programs, arbitrary ones too. None may panic, a message is never empty
//! nor longer than what has come or what is allowed, and nothing of it depends on where the stream was cut: what a framer remembers
//! of a beginning changes no answer, and an answer at a beginning is kept by every longer one.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use midmile_wire::frame::{Framing, Line, Program, Resp, Seen, Side, VarintPrefix};

/// Beginnings are measured anew each, so that the work is the square of these bytes.
const STREAM_BYTES_MAX: usize = 600;

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, low, high], rest)) = data.split_first_chunk() else { return };
    let len_max = usize::from(u16::from_le_bytes([low, high])) + 1;
    let Some((framing, stream)) = choose(kind, len_max, rest) else { return };
    let stream = &stream[..stream.len().min(STREAM_BYTES_MAX)];
    // A program may answer by how much has come: then it's itself that cuts change.
    let steady = !matches!(framing, Framing::Program(_));
    let (mut front, mut seen) = (0, Seen::default());
    for end in 0..=stream.len() {
        loop {
            let bytes = &stream[front..end];
            let answer = framing.measure(bytes, &mut seen);
            if steady {
                let measure_anew = |bytes| framing.measure(bytes, &mut Seen::default());
                assert_eq!(answer, measure_anew(bytes), "what is seen changes an answer");
                assert!(answer == Ok(None) || answer == measure_anew(&stream[front..]), "an answer isn't kept");
            }
            match answer {
                Ok(Some(len)) => {
                    assert!((1..=bytes.len().min(framing.len_max())).contains(&len), "{len} of {}", bytes.len());
                    front += len;
                    seen = Seen::default();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

/// A framer, and what of the input is its stream.
fn choose(kind: u8, len_max: usize, rest: &[u8]) -> Option<(Framing, &[u8])> {
    Some(match kind % 6 {
        0 => (Framing::Dns, rest),
        1 => {
            let (&offset, rest) = rest.split_first()?;
            (Framing::Varint(VarintPrefix { offset: offset.into(), len_max }), rest)
        }
        2 => (Framing::Line(Line { len_max }), rest),
        3 => (Framing::Resp(Resp { side: Side::Commands, len_max }), rest),
        4 => (Framing::Resp(Resp { side: Side::Answers, len_max }), rest),
        _ => {
            let (&bytes, rest) = rest.split_first_chunk()?;
            let (file, rest) = rest.split_at_checked(u16::from_le_bytes(bytes).into())?;
            (Framing::Program(Arc::new(Program::parse(file, len_max).ok()?)), rest)
        }
    })
}
