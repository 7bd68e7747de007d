//! Programs: what is taken, and what a run does; eBPF's arithmetic against rbpf's.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::frame::tests::{DNS_CLASSIC, DNS_PROGRAM, HTTP2_PROGRAM, MQTT_PROGRAM};

const EXIT: [u8; 8] = insn(0x95, 0, 0, 0, 0);
const LEN_MAX: usize = 1000;

/// An instruction of eBPF.
const fn insn(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), imm.to_le_bytes());
    [opcode, src << 4 | dst, a, b, c, d, e, f]
}

/// What a program's first run says.
fn run(program: &Program, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    program.measure(bytes, &mut Seen::default())
}

fn extended(code: &[[u8; 8]]) -> Result<Program, ProgramError> {
    Program::extended(code.as_flattened(), LEN_MAX)
}

fn flaw(code: &[[u8; 8]]) -> (usize, Flaw) {
    match extended(code) {
        Err(ProgramError::Instruction { place, flaw }) => (place, flaw),
        other => panic!("{other:?}"),
    }
}

fn classic(text: &str) -> Result<Program, ProgramError> {
    Program::parse(text.as_bytes(), LEN_MAX)
}

#[test]
fn what_a_program_returns_is_what_it_says() {
    let returns = |number| extended(&[insn(0xb7, 0, 0, 0, number), EXIT]).unwrap();
    assert_eq!(run(&returns(3), b"ab"), Ok(None));
    assert_eq!(run(&returns(3), b"abcd"), Ok(Some(3)));
    assert_eq!(run(&returns(0), &[0; LEN_MAX - 1]), Ok(None));
    assert_eq!(run(&returns(0), &[0; LEN_MAX]), Err(FrameError::TooLong));
    assert_eq!(run(&returns(1001), b"a"), Err(FrameError::TooLong));
    assert_eq!(run(&returns(i32::MAX), b"a"), Err(FrameError::TooLong));
    assert_eq!(run(&returns(-1), b"a"), Err(FrameError::Refused));
    assert_eq!(run(&returns(i32::MIN), b"a"), Err(FrameError::Refused));
    assert_eq!(run(&returns(-1), b""), Ok(None), "nothing is no message yet");
}

/// What it has said is kept: a program that thinks otherwise once more has come isn't asked.
#[test]
fn a_program_is_not_run_again_once_it_has_told_the_length() {
    // r0 = skb->len
    let program = extended(&[insn(0x61, 0, 1, 0, 0), insn(0x07, 0, 0, 0, 1), EXIT]).unwrap();
    let mut seen = Seen::default();
    assert_eq!(program.measure(b"ab", &mut seen), Ok(None));
    assert_eq!(program.measure(b"abcd", &mut seen), Ok(Some(3)));
}

#[test]
fn packet_loads_are_in_network_order_and_end_the_program_where_bytes_lack() {
    for (width, whole) in [(0x30, 1), (0x28, 0x0102), (0x20, 0x0102_0304)] {
        let code = [insn(width, 0, 0, 0, 1), insn(0x57, 0, 0, 0, 0x7fff_ffff), EXIT];
        let program = Program::extended(code.as_flattened(), 0x7fff_ffff).unwrap();
        let mut seen = Seen::default();
        assert_eq!(program.measure(&[0, 1, 2, 3, 4], &mut seen), Ok((whole == 1).then_some(1)));
        assert_eq!(run(&program, &[0]), Ok(None));
        // The bytes just reach.
        let bytes = if width == 0x30 { &[0, 9][..] } else { &[0, 0, 9] };
        assert_eq!(run(&program, bytes), Ok(None), "{width:#x}");
    }
    // By a register and a constant, which may be negative: r2 = 3; r0 = bytes[r2 - 1].
    let indexed = extended(&[insn(0xb7, 2, 0, 0, 3), insn(0x50, 0, 2, 0, -1), EXIT]).unwrap();
    assert_eq!(run(&indexed, &[0, 0, 2]), Ok(Some(2)));
    let beyond = extended(&[insn(0xb7, 2, 0, 0, -5), insn(0x50, 0, 2, 0, 0), EXIT]).unwrap();
    assert_eq!(run(&beyond, &[7; 9]), Ok(None));
}

#[test]
fn a_program_reaches_its_stack_and_what_it_is_lent_and_nothing_else() {
    let reads_at = |offset| [insn(0x61, 2, 1, 76, 0), insn(0x71, 0, 2, offset, 0), EXIT];
    assert_eq!(run(&extended(&reads_at(2)).unwrap(), &[9, 9, 1]), Ok(Some(1)));
    for outside in [3, -1, i16::MAX, i16::MIN] {
        assert_eq!(run(&extended(&reads_at(outside)).unwrap(), &[9, 9, 1]), Err(FrameError::Fault), "{outside}");
    }
    // A store of 8 bytes below r10, and a load of its second.
    let stacked = |at| [insn(0x7a, 10, 0, at, 0x0201), insn(0x71, 0, 10, at + 1, 0), EXIT];
    for at in [-8, -512] {
        assert_eq!(run(&extended(&stacked(at)).unwrap(), &[0; 2]), Ok(Some(2)));
    }
    for outside in [-7, 0, -513] {
        assert_eq!(run(&extended(&stacked(outside)).unwrap(), &[0; 2]), Err(FrameError::Fault), "{outside}");
    }
    // Stores into what is lent, into the context and at 0.
    let into_data = [insn(0x61, 2, 1, 76, 0), insn(0x72, 2, 0, 0, 1), EXIT];
    for code in [&into_data[..], &[insn(0x72, 1, 0, 0, 1), EXIT], &[insn(0x72, 3, 0, 0, 1), EXIT]] {
        assert_eq!(run(&extended(code).unwrap(), &[0; 9]), Err(FrameError::Fault));
    }
    // Of the context, the fields that aren't there, and parts of those that are.
    for (opcode, offset) in [(0x61, 4), (0x61, 48), (0x71, 0), (0x69, 76), (0x79, 76), (0x61, 84), (0x61, -4)] {
        assert_eq!(run(&extended(&[insn(opcode, 0, 1, offset, 0), EXIT]).unwrap(), &[0; 9]), Err(FrameError::Fault));
    }
}

/// RFC 9669, 4.1 and 4.2: those that rbpf hasn't, or does otherwise.
#[test]
fn the_arithmetic_of_the_later_versions() {
    const A: u8 = 2;
    const B: u8 = 3;
    let wide = |number: u64, register| {
        let [low, high] = [number & 0xffff_ffff, number >> 32].map(|half| u32::try_from(half).unwrap().cast_signed());
        [insn(0x18, register, 0, 0, low), insn(0, 0, 0, 0, high)]
    };
    let min = i64::MIN.cast_unsigned();
    let minus = |number: i64| (-number).cast_unsigned();
    for (name, op, a, b, result) in [
        ("neg of the least", insn(0x87, A, 0, 0, 0), min, 0, min),
        ("signed division", insn(0x3f, A, B, 1, 0), minus(13), 3, minus(4)),
        ("signed division of the least", insn(0x3f, A, B, 1, 0), min, minus(1), min),
        ("signed remainder", insn(0x9f, A, B, 1, 0), minus(13), 3, minus(1)),
        ("signed remainder of the least", insn(0x9f, A, B, 1, 0), min, minus(1), 0),
        ("signed division, 32 bits", insn(0x3c, A, B, 1, 0), minus(13), 3, 0xffff_fffc),
        ("signed remainder, 32 bits", insn(0x9c, A, B, 1, 0), minus(13), 3, 0xffff_ffff),
        ("division by 0", insn(0x3f, A, B, 0, 0), 7, 0, 0),
        ("remainder by 0", insn(0x9f, A, B, 0, 0), min, 0, min),
        ("remainder by 0, 32 bits", insn(0x9c, A, B, 0, 0), min | 7, 0, 7),
        ("move with sign, 8 bits", insn(0xbf, A, B, 8, 0), 0, 0x180, minus(128)),
        ("move with sign, 16 bits", insn(0xbf, A, B, 16, 0), 0, 0x1_8000, minus(0x8000)),
        ("move with sign, 32 bits", insn(0xbf, A, B, 32, 0), 0, 0x1_8000_0000, minus(0x8000_0000)),
        ("move with sign, 8 of 32 bits", insn(0xbc, A, B, 8, 0), 0, 0x80, 0xffff_ff80),
        ("swap", insn(0xd7, A, 0, 0, 16), 0x1_0203, 0, 0x0302),
        ("swap, 32 bits", insn(0xd7, A, 0, 0, 32), 0xff_0102_0304, 0, 0x0403_0201),
        ("swap, 64 bits", insn(0xd7, A, 0, 0, 64), 0x0102_0304_0506_0708, 0, 0x0807_0605_0403_0201),
        ("a jump equal to -1", insn(0x55, A, 0, 1, -1), minus(1), 0, minus(1)),
    ] {
        // Returns 1 if the result is in A.
        let mut code = [wide(a, A), wide(b, B)].concat();
        code.push(op);
        if op[0] == 0x55 {
            // Passed over if the jump is taken.
            code.extend([insn(0x05, 0, 0, 1, 0), insn(0xb7, A, 0, 0, 0)]);
        }
        code.extend(wide(result, 4));
        code.extend([insn(0xb7, 0, 0, 0, 1), insn(0x1d, A, 4, 1, 0), insn(0xb7, 0, 0, 0, -1), EXIT]);
        assert_eq!(run(&extended(&code).unwrap(), b"x"), Ok(Some(1)), "{name}");
    }
    // A load with sign: of the byte 0xff, and one less negative.
    let signed = [insn(0x61, 2, 1, 76, 0), insn(0x91, 0, 2, 0, 0), insn(0x07, 0, 0, 0, 2), EXIT];
    assert_eq!(run(&extended(&signed).unwrap(), &[0xff]), Ok(Some(1)));
}

#[test]
fn a_program_that_could_go_wrong_is_not_taken() {
    let back = insn(0x05, 0, 0, -1, 0);
    let wide = [insn(0x18, 0, 0, 0, 1), insn(0, 0, 0, 0, 0)];
    assert_eq!(flaw(&[back, EXIT]), (0, Flaw::Backward));
    assert_eq!(flaw(&[EXIT, insn(0x1d, 0, 0, -2, 0), EXIT]), (1, Flaw::Backward));
    assert_eq!(flaw(&[insn(0x06, 0, 0, 0, -1), EXIT]), (0, Flaw::Backward));
    assert_eq!(flaw(&[insn(0x05, 0, 0, 1, 0), EXIT]), (0, Flaw::Outside));
    assert_eq!(flaw(&[insn(0x05, 0, 0, 1, 0), wide[0], wide[1], EXIT]), (0, Flaw::Outside));
    assert_eq!(flaw(&[insn(0x85, 0, 0, 0, 1), EXIT]), (0, Flaw::Call));
    assert_eq!(flaw(&[insn(0x85, 0, 1, 0, 0), EXIT]), (0, Flaw::Call));
    assert_eq!(flaw(&[insn(0x18, 1, 1, 0, 1), wide[1], EXIT]), (0, Flaw::Map));
    assert_eq!(flaw(&[insn(0xdb, 10, 1, -8, 0), EXIT]), (0, Flaw::Atomic));
    assert_eq!(flaw(&[insn(0x30, 0, 0, 0, -1), EXIT]), (0, Flaw::Ancillary));
    assert_eq!(flaw(&[insn(0xb7, 10, 0, 0, 1), EXIT]), (0, Flaw::Register));
    assert_eq!(flaw(&[insn(0xbf, 0, 11, 0, 0), EXIT]), (0, Flaw::Register));
    assert_eq!(flaw(&[insn(0xb7, 0, 0, 0, 1)]), (0, Flaw::Unended));
    assert_eq!(flaw(&[EXIT, insn(0x05, 0, 0, 0, 0)]), (1, Flaw::Outside));
    assert_eq!(flaw(&[wide[0], EXIT]), (0, Flaw::Unknown));
    for unknown in [0x00, 0x38, 0x58, 0x99, 0xe7, 0xf4, 0x8f, 0xdf, 0xe5, 0x96, 0x0d, 0xa1, 0xe3] {
        assert_eq!(flaw(&[insn(unknown, 0, 0, 0, 16), EXIT]), (0, Flaw::Unknown), "{unknown:#x}");
    }
    assert_eq!(flaw(&[insn(0xd4, 0, 0, 0, 8), EXIT]), (0, Flaw::Unknown));
    assert_eq!(flaw(&[insn(0xb7, 0, 0, 8, 0), EXIT]), (0, Flaw::Unknown));

    assert_eq!(extended(&[]), Err(ProgramError::Count(0)));
    assert_eq!(extended(&[EXIT; 4097]), Err(ProgramError::Count(4097)));
    assert!(extended(&[EXIT; 4096]).is_ok());
    assert_eq!(Program::parse(&EXIT[..7], LEN_MAX), Err(ProgramError::Cut(7)));
    assert_eq!(Program::parse(b"", LEN_MAX), Err(ProgramError::Count(0)));
    assert_eq!(Program::parse(b"\x7fELF\x02\x01\x01\0", LEN_MAX), Err(ProgramError::Object));
    assert_eq!(Program::parse(&EXIT, 1 << 31), Err(ProgramError::LenMax(1 << 31)));
}

#[test]
fn classic_programs_are_read_as_they_are_printed() {
    // tcpdump -ddd -y RAW 'tcp port 53' | tr '\n' ',' prints such lines; this one is a length of four bytes behind a byte.
    let commas = classic("3,32 0 0 1,4 0 0 5,22 0 0 0,").unwrap();
    assert_eq!(commas, classic("3\n32 0 0 1\n4 0 0 5\r\n\n22 0 0 0\n").unwrap());
    assert_eq!(run(&commas, b"x\0\0\0\x02ab"), Ok(Some(7)));
    assert_eq!(run(&commas, b"x\0\0\0"), Ok(None));

    assert_eq!(classic("2\n6 0 0 0\n"), Err(ProgramError::Said { said: 2, found: 1 }));
    assert_eq!(classic("1\n6 0 0\n"), Err(ProgramError::Text(2)));
    assert_eq!(classic("1\n6 0 0 0 0\n"), Err(ProgramError::Text(2)));
    assert_eq!(classic("1\n\n6 256 0 0\n"), Err(ProgramError::Text(3)));
    assert_eq!(classic("6 0 0 0\n"), Err(ProgramError::Text(1)));
    assert_eq!(classic("\n"), Err(ProgramError::Text(1)));
    assert_eq!(classic("0\n"), Err(ProgramError::Count(0)));
    assert_eq!(classic("4097\n"), Err(ProgramError::Count(4097)));
}

#[test]
fn classic_programs_that_could_go_wrong_are_not_taken() {
    for (code, place, flaw) in [
        ("5 0 0 1,6 0 0 0", 0, Flaw::Outside),
        ("5 0 0 4294967295,6 0 0 0", 0, Flaw::Outside),
        ("21 0 1 0,6 0 0 0", 0, Flaw::Outside),
        ("6 0 0 0,0 0 0 0", 1, Flaw::Unended),
        ("52 0 0 0,6 0 0 0", 0, Flaw::Constant),
        ("148 0 0 0,6 0 0 0", 0, Flaw::Constant),
        ("100 0 0 32,6 0 0 0", 0, Flaw::Constant),
        ("2 0 0 16,6 0 0 0", 0, Flaw::Cell),
        ("32 0 0 4294963200,6 0 0 0", 0, Flaw::Ancillary),
        ("255 0 0 0,6 0 0 0", 0, Flaw::Unknown),
        ("65535 0 0 0,6 0 0 0", 0, Flaw::Unknown),
    ] {
        assert_eq!(classic(&format!("2,{code}")), Err(ProgramError::Instruction { place, flaw }), "{code}");
    }
}

#[test]
fn classic_instructions_do_what_they_say() {
    for (what, code, answer) in [
        ("len", "128 0 0 0,22 0 0 0", Ok(Some(4))),
        ("len by X", "129 0 0 0,135 0 0 0,22 0 0 0", Ok(Some(4))),
        ("a byte at X + k", "1 0 0 2,80 0 0 1,22 0 0 0", Ok(Some(4))),
        ("a byte beyond", "48 0 0 4,22 0 0 0", Ok(None)),
        ("a byte far beyond", "1 0 0 4294967295,80 0 0 4294967295,22 0 0 0", Ok(None)),
        ("four times a half byte", "177 0 0 0,135 0 0 0,22 0 0 0", Ok(Some(4))),
        ("cells", "0 0 0 3,2 0 0 15,0 0 0 9,97 0 0 15,3 0 0 0,96 0 0 0,22 0 0 0", Ok(Some(3))),
        ("-1", "6 0 0 4294967295", Err(FrameError::Refused)),
        ("neg", "0 0 0 4294967294,132 0 0 0,22 0 0 0", Ok(Some(2))),
        ("divided by X = 0", "0 0 0 3,60 0 0 0,4 0 0 1,22 0 0 0", Ok(None)),
        ("remainder", "0 0 0 17,148 0 0 5,22 0 0 0", Ok(Some(2))),
        ("shifts", "0 0 0 3,100 0 0 4,116 0 0 5,22 0 0 0", Ok(Some(1))),
        ("and, or, xor", "0 0 0 12,84 0 0 10,68 0 0 1,164 0 0 8,22 0 0 0", Ok(Some(1))),
        ("minus, times", "0 0 0 3,20 0 0 2,36 0 0 3,22 0 0 0", Ok(Some(3))),
        ("equal", "0 0 0 3,21 1 0 3,6 0 0 1,6 0 0 2", Ok(Some(2))),
        ("not greater than X", "0 0 0 3,1 0 0 3,45 1 0 0,6 0 0 1,6 0 0 2", Ok(Some(1))),
        ("greater or equal", "0 0 0 3,53 1 0 3,6 0 0 1,6 0 0 2", Ok(Some(2))),
        ("a bit in common", "0 0 0 3,69 1 0 4,6 0 0 1,6 0 0 2", Ok(Some(1))),
        ("jump", "5 0 0 1,6 0 0 1,6 0 0 2", Ok(Some(2))),
    ] {
        let program = classic(&format!("{},{code}", code.split(',').count())).unwrap();
        assert_eq!(run(&program, &[1, 2, 3, 4]), answer, "{what}");
    }
}

#[test]
fn programs_are_equal_if_their_instructions_and_limits_are() {
    let [dns, again, http2, mqtt, classic] = [DNS_PROGRAM, DNS_PROGRAM, HTTP2_PROGRAM, MQTT_PROGRAM, DNS_CLASSIC]
        .map(|file| Program::parse(file, LEN_MAX).unwrap());
    assert_eq!(dns, again);
    assert_ne!(dns, Program::parse(DNS_PROGRAM, LEN_MAX + 1).unwrap());
    assert!(dns != http2 && http2 != mqtt && dns != classic);
}

/// Bytes that the programs below are lent.
const LENT: [u8; 32] = *b"0123456789abcdef\xff\xfe\x80\x7f\0\0\0\0ghijklmn";

/// An instruction on r0 and r2 to r9 that both interpreters know and mean alike. r1 points at the bytes. Left to the tests above: NEG of
/// 64 bits and the remainder by a register of 32, in which rbpf panics or departs from RFC 9669, and tests of a negative constant.
fn instruction() -> impl Strategy<Value = [u8; 8]> {
    let register = || select(vec![0_u8, 2, 3, 4, 5, 6, 7, 8, 9]);
    let imm = || prop_oneof![any::<i32>(), -3..70_i32];
    let codes = select((0x00..=0xc0).step_by(16).filter(|&code| code != 0x80).collect::<Vec<u8>>());
    let compute = (codes, select(vec![4_u8, 7]), any::<bool>(), register(), register(), imm()).prop_map(
        |(code, class, by_register, dst, src, imm)| {
            let by_register = by_register && (code, class) != (0x90, 4);
            let imm = if code == 0x90 && imm == 0 { 1 } else { imm };
            if by_register { insn(code | class | 8, dst, src, 0, 0) } else { insn(code | class, dst, 0, 0, imm) }
        },
    );
    let order = (select(vec![0xd4, 0xdc]), register(), select(vec![16, 32, 64]))
        .prop_map(|(op, dst, bits)| insn(op, dst, 0, 0, bits));
    let negate = register().prop_map(|dst| insn(0x84, dst, 0, 0, 0));
    let tests = select(vec![0x10_u8, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0]);
    let jump = (tests, select(vec![5_u8, 6]), any::<bool>(), register(), register(), 0..i32::MAX, 0..4_i16).prop_map(
        |(code, class, by_register, dst, src, imm, over)| {
            if by_register { insn(code | class | 8, dst, src, over, 0) } else { insn(code | class, dst, 0, over, imm) }
        },
    );
    let load = (select(vec![0x61_u8, 0x69, 0x71, 0x79]), register(), 0..25_i16)
        .prop_map(|(op, dst, offset)| insn(op, dst, 1, offset, 0));
    let places = || -64..-7_i16;
    let store = (select(vec![0x62_u8, 0x63, 0x6a, 0x6b, 0x72, 0x73, 0x7a, 0x7b]), register(), places(), imm())
        .prop_map(|(op, src, offset, imm)| insn(op, 10, src, offset, imm));
    let load_back = (select(vec![0x61_u8, 0x69, 0x71, 0x79]), register(), places())
        .prop_map(|(op, dst, offset)| insn(op, dst, 10, offset, 0));
    prop_oneof![6 => compute, 1 => order, 1 => negate, 3 => jump, 2 => load, 1 => store, 1 => load_back]
}

proptest! {
    #[test]
    fn rbpf_comes_to_the_same(start in vec(any::<i32>(), 9), body in vec(instruction(), 0..40)) {
        let mut code: Vec<_> = (0..10).filter(|&r| r != 1).zip(start).map(|(r, imm)| insn(0xb7, r, 0, 0, imm)).collect();
        code.extend(body);
        // Whatever is jumped to is an instruction; then all registers come together in r0.
        code.extend([insn(0xa7, 0, 0, 0, 0); 4]);
        code.extend((2..10).flat_map(|register| [insn(0x27, 0, 0, 0, 31), insn(0xaf, 0, register, 0, 0)]));
        code.extend([insn(0xbf, 2, 0, 0, 0), insn(0x77, 2, 0, 0, 32), insn(0xaf, 0, 2, 0, 0), EXIT]);
        let theirs = rbpf::EbpfVmRaw::new(Some(code.as_flattened())).unwrap().execute_program(&mut LENT.clone()).unwrap();

        let entry = [&[insn(0x61, 1, 1, 76, 0)][..], &code].concat();
        let ours = Extended::load(entry.as_flattened()).unwrap().run(&LENT);
        prop_assert_eq!(u64::from(ours.unwrap()), theirs & 0xffff_ffff);
    }

    #[test]
    fn no_bytes_make_a_program_panic(
        code in vec((any::<u8>(), 0..11_u8, 0..11_u8, -2..20_i16, any::<i32>()), 1..40),
        bytes in vec(any::<u8>(), 0..40),
    ) {
        // Known opcodes are few: those that aren't taken are left out, so that programs come about.
        let mut kept = vec![];
        for (opcode, dst, src, offset, imm) in code {
            let insn = insn(opcode, dst, src, offset.min(0), imm);
            if extended(&[insn, EXIT]).is_ok() {
                kept.push(insn);
            }
        }
        kept.push(EXIT);
        let program = extended(&kept).unwrap();
        for end in 0..bytes.len() {
            let answer = run(&program, &bytes[..end]);
            prop_assert!(!matches!(answer, Ok(Some(0))));
        }
    }

    #[test]
    fn no_file_makes_parsing_panic(file in prop_oneof![vec(any::<u8>(), 0..80), "[0-9 ,\n]{0,60}".prop_map(String::into_bytes)]) {
        if let Ok(program) = Program::parse(&file, LEN_MAX) {
            prop_assert!(run(&program, &file) != Ok(Some(0)));
        }
    }
}
