//! eBPF (RFC 9669): the instructions of its groups base32, base64, divmul32, divmul64 and packet, but for calls.

mod check;
mod compute;

use super::super::FrameError;
use super::{INSTRUCTION_BYTES, ProgramError, check_count, network_number};
use check::check;
use compute::{compute, compute_half, low, reorder, taken};

/// Addresses as a program sees them. All have 32 bits, as `data` and `data_end` have in `struct __sk_buff`.
const CONTEXT: u64 = 0x1000_0000;
const STACK: u64 = 0x2000_0000;
const DATA: u64 = 0x8000_0000;

const STACK_BYTES: usize = 512;
const REGISTERS: usize = 11;

/// Fields of `struct __sk_buff` (linux/bpf.h): their offsets.
const CONTEXT_LEN: u64 = 0;
const CONTEXT_DATA: u64 = 76;
const CONTEXT_DATA_END: u64 = 80;

/// Opcodes and their parts (RFC 9669, 3 to 5).
mod op {
    pub(super) const CLASS: u8 = 0x07;
    pub(super) const LD: u8 = 0x00;
    pub(super) const LDX: u8 = 0x01;
    pub(super) const ST: u8 = 0x02;
    pub(super) const STX: u8 = 0x03;
    pub(super) const ALU: u8 = 0x04;
    pub(super) const JMP: u8 = 0x05;
    pub(super) const JMP32: u8 = 0x06;
    pub(super) const ALU64: u8 = 0x07;

    /// The second operand is a register.
    pub(super) const X: u8 = 0x08;
    /// What is computed or tested.
    pub(super) const CODE: u8 = 0xf0;
    pub(super) const MODE: u8 = 0xe0;
    pub(super) const ABS: u8 = 0x20;
    pub(super) const IND: u8 = 0x40;
    pub(super) const MEM: u8 = 0x60;
    pub(super) const MEMSX: u8 = 0x80;
    pub(super) const ATOMIC: u8 = 0xc0;
    pub(super) const SIZE: u8 = 0x18;
    pub(super) const DW: u8 = 0x18;

    pub(super) const LDDW: u8 = 0x18;
    pub(super) const JA: u8 = 0x05;
    pub(super) const JA32: u8 = 0x06;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const CALLX: u8 = 0x8d;
    pub(super) const EXIT: u8 = 0x95;

    pub(super) const DIV: u8 = 0x30;
    pub(super) const NEG: u8 = 0x80;
    pub(super) const MOD: u8 = 0x90;
    pub(super) const MOV: u8 = 0xb0;
    pub(super) const END: u8 = 0xd0;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Insn {
    opcode: u8,
    dst: usize,
    src: usize,
    offset: i16,
    imm: i32,
}

impl Insn {
    fn decode(bytes: [u8; INSTRUCTION_BYTES]) -> Self {
        let [opcode, registers, offset @ .., a, b, c, d] = bytes;
        Self {
            opcode,
            dst: usize::from(registers & 0xf),
            src: usize::from(registers >> 4),
            offset: i16::from_le_bytes(offset),
            imm: i32::from_le_bytes([a, b, c, d]),
        }
    }

    fn class(self) -> u8 {
        self.opcode & op::CLASS
    }

    /// What a computation or test does.
    fn code(self) -> u8 {
        self.opcode & op::CODE
    }

    fn mode(self) -> u8 {
        self.opcode & op::MODE
    }

    /// Bytes of a load or store.
    fn width(self) -> usize {
        match self.opcode & op::SIZE {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// The constant, its sign extended.
    fn constant(self) -> u64 {
        i64::from(self.imm).cast_unsigned()
    }

    /// Instructions that a jump passes over, as `check` has made sure.
    fn over(self) -> usize {
        let over = if self.opcode == op::JA32 { self.imm } else { i32::from(self.offset) };
        usize::try_from(over).expect("no checked jump leads back")
    }
}

/// A checked program: all its registers are there, every jump leads forward to an instruction, and the last one returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extended(Box<[Insn]>);

impl Extended {
    pub(super) fn load(bytes: &[u8]) -> Result<Self, ProgramError> {
        let (instructions, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() {
            return Err(ProgramError::Cut(bytes.len()));
        }
        check_count(instructions.len())?;
        let code: Box<[Insn]> = instructions.iter().map(|&bytes| Insn::decode(bytes)).collect();
        check(&code)?;
        Ok(Self(code))
    }

    /// What the program returns: the low half of r0.
    ///
    /// # Errors
    /// [`FrameError::Fault`], for an access to what isn't there.
    pub(super) fn run(&self, bytes: &[u8]) -> Result<u32, FrameError> {
        let mut machine = Machine { registers: [0; REGISTERS], stack: [0; STACK_BYTES], bytes };
        machine.registers[1] = CONTEXT;
        machine.registers[10] = STACK + STACK_BYTES as u64;
        let mut place = 0;
        // Each step goes on behind the last one, so that there are no more than instructions.
        loop {
            let insn = self.0[place];
            place += 1;
            match insn.class() {
                op::ALU | op::ALU64 => machine.compute(insn),
                op::JMP | op::JMP32 if insn.opcode == op::EXIT => return Ok(low(machine.registers[0])),
                op::JMP | op::JMP32 => place += if machine.jumps(insn) { insn.over() } else { 0 },
                op::LDX => machine.load(insn)?,
                op::LD if insn.opcode == op::LDDW => {
                    let high = u64::from(self.0[place].imm.cast_unsigned()) << 32;
                    machine.registers[insn.dst] = high | u64::from(insn.imm.cast_unsigned());
                    place += 1;
                }
                op::LD => match machine.load_packet(insn) {
                    Some(number) => machine.registers[0] = number,
                    None => return Ok(0),
                },
                _ => machine.store(insn)?,
            }
        }
    }
}

struct Machine<'a> {
    registers: [u64; REGISTERS],
    stack: [u8; STACK_BYTES],
    bytes: &'a [u8],
}

impl Machine<'_> {
    fn operand(&self, insn: Insn) -> u64 {
        if insn.opcode & op::X == 0 { insn.constant() } else { self.registers[insn.src] }
    }

    fn compute(&mut self, insn: Insn) {
        let (a, b) = (self.registers[insn.dst], self.operand(insn));
        self.registers[insn.dst] = match insn.class() {
            _ if insn.code() == op::END => reorder(insn, a),
            op::ALU64 => compute(insn, a, b),
            _ => u64::from(compute_half(insn, low(a), low(b))),
        };
    }

    fn jumps(&self, insn: Insn) -> bool {
        if matches!(insn.opcode, op::JA | op::JA32) {
            return true;
        }
        let (a, b) = (self.registers[insn.dst], self.operand(insn));
        if insn.class() == op::JMP {
            return taken(insn.code(), a, b);
        }
        // Numbers of 32 bits are in the same order, and have a bit in common where they had, once their sign is extended.
        let wide = |number| i64::from(low(number).cast_signed()).cast_unsigned();
        taken(insn.code(), wide(a), wide(b))
    }

    fn load(&mut self, insn: Insn) -> Result<(), FrameError> {
        let address = at(self.registers[insn.src], insn.offset);
        let number = self.read(address, insn.width()).ok_or(FrameError::Fault)?;
        let unused = 64 - 8 * insn.width();
        let signed = insn.mode() == op::MEMSX;
        self.registers[insn.dst] =
            if signed { ((number << unused).cast_signed() >> unused).cast_unsigned() } else { number };
        Ok(())
    }

    fn read(&self, address: u64, width: usize) -> Option<u64> {
        if let Some(offset) = address.checked_sub(DATA) {
            return little_endian(self.bytes, offset, width);
        }
        if let Some(offset) = address.checked_sub(STACK) {
            return little_endian(&self.stack, offset, width);
        }
        match address.checked_sub(CONTEXT)? {
            CONTEXT_LEN if width == 4 => Some(self.bytes.len() as u64),
            CONTEXT_DATA if width == 4 => Some(DATA),
            CONTEXT_DATA_END if width == 4 => Some(DATA + self.bytes.len() as u64),
            _ => None,
        }
    }

    fn store(&mut self, insn: Insn) -> Result<(), FrameError> {
        let number = if insn.class() == op::ST { insn.constant() } else { self.registers[insn.src] };
        let offset = at(self.registers[insn.dst], insn.offset).wrapping_sub(STACK);
        let place = usize::try_from(offset).ok().and_then(|from| self.stack.get_mut(from..)?.get_mut(..insn.width()));
        place.ok_or(FrameError::Fault)?.copy_from_slice(&number.to_le_bytes()[..insn.width()]);
        Ok(())
    }

    /// `BPF_LD | BPF_ABS` and `BPF_IND`: a number of the message's in network order, `None` where the message isn't so long.
    fn load_packet(&self, insn: Insn) -> Option<u64> {
        let base = if insn.mode() == op::IND { low(self.registers[insn.src]) } else { 0 };
        network_number(self.bytes, base.wrapping_add_signed(insn.imm), insn.width()).map(u64::from)
    }
}

fn at(base: u64, offset: i16) -> u64 {
    base.wrapping_add_signed(i64::from(offset))
}

/// The number in `width` bytes, at most 8, of `from` at `offset`, the lowest first.
fn little_endian(from: &[u8], offset: u64, width: usize) -> Option<u64> {
    let field = from.get(usize::try_from(offset).ok()?..)?.get(..width)?;
    Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
