//! Classic BPF, as socket filters have it (kernel documentation, networking/filter.rst).

use std::str::{self, FromStr};

use super::{Flaw, ProgramError, check_count, flawed, network_number};

/// Cells of scratch memory.
const CELLS: u32 = 16;

/// A checked program: jumps lead forward to an instruction, and the last one returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Classic(Box<[Insn]>);

/// What an instruction's second operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Constant(u32),
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// A and X are the machine's two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insn {
    /// A is so many bytes of the message at an offset, which X may be added to.
    LoadBytes {
        bytes: usize,
        offset: u32,
        indexed: bool,
    },
    /// X is four times the low half of a byte: an IPv4 header's length.
    LoadHeaderLen {
        offset: u32,
    },
    LoadA(u32),
    LoadX(u32),
    LoadLenA,
    LoadLenX,
    LoadCellA(usize),
    LoadCellX(usize),
    StoreA(usize),
    StoreX(usize),
    Compute(Arithmetic, Operand),
    Negate,
    /// Passes over so many instructions.
    Jump(usize),
    Branch {
        test: Test,
        operand: Operand,
        yes: usize,
        no: usize,
    },
    ReturnConstant(u32),
    ReturnA,
    CopyToX,
    CopyToA,
}

impl Classic {
    /// Reads a program as `tcpdump -ddd` prints it, or with commas in place of its line ends.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ProgramError> {
        let text = str::from_utf8(text).map_err(|_| ProgramError::Text(1))?;
        let mut lines = text.split(['\n', ',']).map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let said = lines.next().and_then(|(_, line)| line.parse().ok()).ok_or(ProgramError::Text(1))?;
        check_count(said)?;
        let raw: Vec<Raw> = lines
            .map(|(index, line)| line.parse().map_err(|NotAnInstruction| ProgramError::Text(index + 1)))
            .collect::<Result<_, _>>()?;
        if raw.len() != said {
            return Err(ProgramError::Said { said, found: raw.len() });
        }
        let code: Box<[Insn]> = raw
            .iter()
            .enumerate()
            .map(|(place, raw)| raw.check(said - 1 - place).map_err(|flaw| flawed(place, flaw)))
            .collect::<Result<_, _>>()?;
        match code.last() {
            Some(Insn::ReturnA | Insn::ReturnConstant(_)) => Ok(Self(code)),
            _ => Err(flawed(said - 1, Flaw::Unended)),
        }
    }

    /// What the program returns. A read beyond the last byte ends it with 0, and so does a division by 0.
    pub(super) fn run(&self, bytes: &[u8]) -> u32 {
        self.run_to_end(bytes).unwrap_or(0)
    }

    fn run_to_end(&self, bytes: &[u8]) -> Option<u32> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut cells = [0_u32; CELLS as usize];
        let (mut a, mut x, mut place) = (0_u32, 0_u32, 0);
        loop {
            let insn = self.0[place];
            place += 1;
            match insn {
                Insn::LoadBytes { bytes: count, offset, indexed } => {
                    let offset = if indexed { offset.wrapping_add(x) } else { offset };
                    a = network_number(bytes, offset, count)?;
                }
                Insn::LoadHeaderLen { offset } => x = (network_number(bytes, offset, 1)? & 0xf) * 4,
                Insn::LoadA(constant) => a = constant,
                Insn::LoadX(constant) => x = constant,
                Insn::LoadLenA => a = len,
                Insn::LoadLenX => x = len,
                Insn::LoadCellA(cell) => a = cells[cell],
                Insn::LoadCellX(cell) => x = cells[cell],
                Insn::StoreA(cell) => cells[cell] = a,
                Insn::StoreX(cell) => cells[cell] = x,
                Insn::Compute(what, operand) => a = what.compute(a, operand.value(x))?,
                Insn::Negate => a = a.wrapping_neg(),
                Insn::Jump(over) => place += over,
                Insn::Branch { test, operand, yes, no } => {
                    place += if test.holds(a, operand.value(x)) { yes } else { no }
                }
                Insn::ReturnConstant(constant) => return Some(constant),
                Insn::ReturnA => return Some(a),
                Insn::CopyToX => x = a,
                Insn::CopyToA => a = x,
            }
        }
    }
}

impl Operand {
    fn value(self, x: u32) -> u32 {
        match self {
            Self::Constant(constant) => constant,
            Self::X => x,
        }
    }
}

impl Arithmetic {
    /// `None` where it's divided by 0.
    fn compute(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Subtract => a.wrapping_sub(b),
            Self::Multiply => a.wrapping_mul(b),
            Self::Divide => a.checked_div(b)?,
            Self::Remainder => a.checked_rem(b)?,
            Self::Or => a | b,
            Self::And => a & b,
            Self::Xor => a ^ b,
            Self::ShiftLeft => a.wrapping_shl(b),
            Self::ShiftRight => a.wrapping_shr(b),
        })
    }
}

impl Test {
    fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::AnyBit => a & b != 0,
        }
    }
}

/// An instruction as it's written: `struct sock_filter`.
struct Raw {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

struct NotAnInstruction;

impl FromStr for Raw {
    type Err = NotAnInstruction;

    fn from_str(line: &str) -> Result<Self, NotAnInstruction> {
        let mut numbers = line.split_ascii_whitespace().map(u32::from_str);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(NotAnInstruction);
        let (code, jt, jf, k) = (next()?, next()?, next()?, next()?);
        let nothing_more = next().is_err() && line.split_ascii_whitespace().count() == 4;
        match (u16::try_from(code), u8::try_from(jt), u8::try_from(jf)) {
            (Ok(code), Ok(jt), Ok(jf)) if nothing_more => Ok(Self { code, jt, jf, k }),
            _ => Err(NotAnInstruction),
        }
    }
}

impl Raw {
    /// What it does, where `behind` instructions stand behind it.
    fn check(&self, behind: usize) -> Result<Insn, Flaw> {
        let k = self.k;
        Ok(match self.code {
            0x20 | 0x28 | 0x30 => Insn::LoadBytes { bytes: width(self.code), offset: offset(k)?, indexed: false },
            0x40 | 0x48 | 0x50 => Insn::LoadBytes { bytes: width(self.code), offset: k, indexed: true },
            0xb1 => Insn::LoadHeaderLen { offset: offset(k)? },
            0x00 => Insn::LoadA(k),
            0x01 => Insn::LoadX(k),
            0x80 => Insn::LoadLenA,
            0x81 => Insn::LoadLenX,
            0x60 => Insn::LoadCellA(cell(k)?),
            0x61 => Insn::LoadCellX(cell(k)?),
            0x02 => Insn::StoreA(cell(k)?),
            0x03 => Insn::StoreX(cell(k)?),
            0x84 => Insn::Negate,
            0x05 => {
                let over = usize::try_from(k).map_err(|_| Flaw::Outside)?;
                Insn::Jump(if over < behind { over } else { return Err(Flaw::Outside) })
            }
            0x06 => Insn::ReturnConstant(k),
            0x16 => Insn::ReturnA,
            0x07 => Insn::CopyToX,
            0x87 => Insn::CopyToA,
            code if code & 0xff07 == 0x04 => self.compute()?,
            code if code & 0xff07 == 0x05 => self.branch(behind)?,
            _ => return Err(Flaw::Unknown),
        })
    }

    fn compute(&self) -> Result<Insn, Flaw> {
        let what = match self.code & 0xf0 {
            0x00 => Arithmetic::Add,
            0x10 => Arithmetic::Subtract,
            0x20 => Arithmetic::Multiply,
            0x30 => Arithmetic::Divide,
            0x40 => Arithmetic::Or,
            0x50 => Arithmetic::And,
            0x60 => Arithmetic::ShiftLeft,
            0x70 => Arithmetic::ShiftRight,
            0x90 => Arithmetic::Remainder,
            0xa0 => Arithmetic::Xor,
            _ => return Err(Flaw::Unknown),
        };
        let operand = self.operand();
        let divides = matches!(what, Arithmetic::Divide | Arithmetic::Remainder);
        let shifts = matches!(what, Arithmetic::ShiftLeft | Arithmetic::ShiftRight);
        match operand {
            Operand::Constant(0) if divides => Err(Flaw::Constant),
            Operand::Constant(32..) if shifts => Err(Flaw::Constant),
            _ => Ok(Insn::Compute(what, operand)),
        }
    }

    fn branch(&self, behind: usize) -> Result<Insn, Flaw> {
        let test = match self.code & 0xf0 {
            0x10 => Test::Equal,
            0x20 => Test::Greater,
            0x30 => Test::GreaterOrEqual,
            0x40 => Test::AnyBit,
            _ => return Err(Flaw::Unknown),
        };
        let (yes, no) = (usize::from(self.jt), usize::from(self.jf));
        if yes.max(no) >= behind {
            return Err(Flaw::Outside);
        }
        Ok(Insn::Branch { test, operand: self.operand(), yes, no })
    }

    fn operand(&self) -> Operand {
        if self.code & 0x08 == 0 { Operand::Constant(self.k) } else { Operand::X }
    }
}

/// Bytes that a load takes: a word, a half of one, a byte.
fn width(code: u16) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        _ => 1,
    }
}

fn offset(k: u32) -> Result<u32, Flaw> {
    if k.cast_signed() < 0 { Err(Flaw::Ancillary) } else { Ok(k) }
}

fn cell(k: u32) -> Result<usize, Flaw> {
    if k < CELLS { usize::try_from(k).map_err(|_| Flaw::Cell) } else { Err(Flaw::Cell) }
}
