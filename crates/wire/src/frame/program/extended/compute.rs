//! Arithmetic and tests (RFC 9669, 4.1 to 4.3).

use super::{Insn, op};

/// The low half of a number.
pub(super) fn low(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Computes in the width of the operands `$a` and `$b`. Division by 0 is 0, what remains of it the dividend; shifts are by as many of
/// the low bits of `$by` as the width has a use for; `$moved` is what takes the operand's place.
macro_rules! compute {
    ($insn:ident, $a:ident, $b:ident, by: $by:expr, moved: $moved:expr) => {{
        let signed = $insn.offset != 0;
        match $insn.code() {
            0x00 => $a.wrapping_add($b),
            0x10 => $a.wrapping_sub($b),
            0x20 => $a.wrapping_mul($b),
            op::DIV if $b == 0 => 0,
            op::MOD if $b == 0 => $a,
            op::DIV if signed => $a.cast_signed().wrapping_div($b.cast_signed()).cast_unsigned(),
            op::DIV => $a / $b,
            0x40 => $a | $b,
            0x50 => $a & $b,
            0x60 => $a.wrapping_shl($by),
            0x70 => $a.wrapping_shr($by),
            op::NEG => $a.wrapping_neg(),
            op::MOD if signed => $a.cast_signed().wrapping_rem($b.cast_signed()).cast_unsigned(),
            op::MOD => $a % $b,
            0xa0 => $a ^ $b,
            op::MOV => $moved,
            _ => $a.cast_signed().wrapping_shr($by).cast_unsigned(),
        }
    }};
}

/// Computes in 64 bits.
pub(super) fn compute(insn: Insn, a: u64, b: u64) -> u64 {
    compute!(insn, a, b, by: low(b), moved: extend(insn.offset, b))
}

/// Computes in 32 bits.
pub(super) fn compute_half(insn: Insn, a: u32, b: u32) -> u32 {
    compute!(insn, a, b, by: b, moved: low(extend(insn.offset, b.into())))
}

/// A number whose sign stands in the highest of its low `bits`, which are 8, 16 or 32; with 0, the number itself.
fn extend(bits: i16, number: u64) -> u64 {
    let unused = match bits {
        8 => 56,
        16 => 48,
        32 => 32,
        _ => 0,
    };
    ((number << unused).cast_signed() >> unused).cast_unsigned()
}

/// The low bytes of a number, in the other order where the instruction wants that, and zeros above.
pub(super) fn reorder(insn: Insn, number: u64) -> u64 {
    let swapped = insn.class() == op::ALU64 || insn.opcode & op::X != 0;
    // Within a run numbers are little-endian, as in the programs.
    let unused = match insn.imm {
        16 => 48,
        32 => 32,
        _ => 0,
    };
    if swapped { number.swap_bytes() >> unused } else { number << unused >> unused }
}

/// Whether a jump with this test is taken.
pub(super) fn taken(code: u8, a: u64, b: u64) -> bool {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    match code {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => signed_a > signed_b,
        0x70 => signed_a >= signed_b,
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => signed_a < signed_b,
        _ => signed_a <= signed_b,
    }
}
