//! What a program has to be, before it's run.

use super::super::{Flaw, ProgramError, flawed};
use super::{Insn, REGISTERS, op};

/// # Errors
/// The first instruction that can't be run, and why.
pub(super) fn check(code: &[Insn]) -> Result<(), ProgramError> {
    let mut place = 0;
    while let Some(&insn) = code.get(place) {
        let width = check_one(insn, code, place).map_err(|flaw| flawed(place, flaw))?;
        place += width;
    }
    // A wide instruction's second half is no EXIT, as its opcode is 0.
    match code.last() {
        Some(Insn { opcode: op::EXIT, .. }) => Ok(()),
        _ => Err(flawed(code.len() - 1, Flaw::Unended)),
    }
}

/// How many places the instruction takes: 1 or 2.
fn check_one(insn: Insn, code: &[Insn], place: usize) -> Result<usize, Flaw> {
    if insn.src >= REGISTERS || insn.dst >= REGISTERS {
        return Err(Flaw::Register);
    }
    let writes = matches!(insn.class(), op::ALU | op::ALU64 | op::LDX) || insn.opcode == op::LDDW;
    if writes && insn.dst == REGISTERS - 1 {
        return Err(Flaw::Register);
    }
    match insn.class() {
        op::ALU | op::ALU64 => check_computation(insn)?,
        op::JMP | op::JMP32 => check_jump(insn, code, place)?,
        op::LD if insn.opcode == op::LDDW => return check_wide(insn, code.get(place + 1)),
        op::LD => check_packet(insn)?,
        op::LDX => check_load(insn)?,
        _ => check_store(insn)?,
    }
    Ok(1)
}

fn check_computation(insn: Insn) -> Result<(), Flaw> {
    let by_register = insn.opcode & op::X != 0;
    let wide = insn.class() == op::ALU64;
    let known = match (insn.code(), insn.offset) {
        // By its width; for ALU the bit says which order, for ALU64 it must be clear.
        (op::END, 0) => matches!(insn.imm, 16 | 32 | 64) && !(wide && by_register),
        (op::NEG, 0) => !by_register,
        (0x00..=0xc0, 0) => true,
        // Signed.
        (op::DIV | op::MOD, 1) => true,
        // With the sign extended, from so many bits.
        (op::MOV, 8 | 16) => by_register,
        (op::MOV, 32) => by_register && wide,
        _ => false,
    };
    if known { Ok(()) } else { Err(Flaw::Unknown) }
}

fn check_jump(insn: Insn, code: &[Insn], place: usize) -> Result<(), Flaw> {
    match insn.opcode {
        op::EXIT => return Ok(()),
        op::CALL | op::CALLX => return Err(Flaw::Call),
        op::JA | op::JA32 => {}
        opcode => {
            let known = matches!(opcode & op::CODE, 0x10..=0x70 | 0xa0..=0xd0);
            if !known {
                return Err(Flaw::Unknown);
            }
        }
    }
    let over = if insn.opcode == op::JA32 { insn.imm } else { i32::from(insn.offset) };
    let over = usize::try_from(over).map_err(|_| Flaw::Backward)?;
    // A wide instruction's second half, where none begins, is the only one with an opcode of 0.
    match code.get(place + 1..).and_then(|behind| behind.get(over)) {
        Some(Insn { opcode: 1.., .. }) => Ok(()),
        _ => Err(Flaw::Outside),
    }
}

fn check_wide(insn: Insn, half: Option<&Insn>) -> Result<usize, Flaw> {
    match half {
        Some(Insn { opcode: 0, dst: 0, src: 0, offset: 0, .. }) if insn.src == 0 => Ok(2),
        Some(_) if insn.src != 0 => Err(Flaw::Map),
        _ => Err(Flaw::Unknown),
    }
}

fn check_packet(insn: Insn) -> Result<(), Flaw> {
    match insn.mode() {
        _ if insn.opcode & op::SIZE == op::DW => Err(Flaw::Unknown),
        op::ABS if insn.imm < 0 => Err(Flaw::Ancillary),
        op::ABS | op::IND => Ok(()),
        _ => Err(Flaw::Unknown),
    }
}

fn check_load(insn: Insn) -> Result<(), Flaw> {
    match insn.mode() {
        op::MEM => Ok(()),
        op::MEMSX if insn.opcode & op::SIZE != op::DW => Ok(()),
        _ => Err(Flaw::Unknown),
    }
}

fn check_store(insn: Insn) -> Result<(), Flaw> {
    match (insn.class(), insn.mode()) {
        (_, op::MEM) => Ok(()),
        (op::STX, op::ATOMIC) => Err(Flaw::Atomic),
        _ => Err(Flaw::Unknown),
    }
}
