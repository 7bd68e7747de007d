//! Framing by a BPF program: the contract of the kernel's KCM and of its stream parser (kernel documentation, networking/kcm.rst,
//! networking/strparser.rst).
//!
//! A program sees the bytes so far, and returns, as a 32-bit number with sign:
//!
//! | it returns | what it says |
//! | --- | --- |
//! | more than 0 | the message has so many bytes, all of it counted |
//! | 0 | more bytes are needed to tell |
//! | less than 0 | this is no message |
//!
//! Both kinds of BPF are run by interpreters of our own, in safe Rust: what comes from the network meets them, so they allocate
//! nothing, panic at nothing, and can't reach but what they are lent. (`rbpf`, against which tests hold them, allocates and may panic
//! in each run, writes into bytes that it's lent for reading, and isn't `Sync`.) Programs jump forward alone, so that a run has no more
//! steps than its program has instructions, of which there are at most [`INSTRUCTIONS_MAX`].

mod classic;
mod extended;

use super::{FrameError, Seen, unfinished, within};
use classic::Classic;
use extended::Extended;

/// Most instructions of a program: as many as the kernel allows to one of an unprivileged user, and to classic BPF.
const INSTRUCTIONS_MAX: usize = 4096;
/// Bytes of an instruction.
const INSTRUCTION_BYTES: usize = 8;
/// The longest message that the 32-bit number can say.
const LEN_MAX: usize = 0x7fff_ffff;

/// A program that measures messages, checked and ready to run. It has no state: any number of streams may share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    code: Code,
    len_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Code {
    Classic(Classic),
    Extended(Extended),
}

/// Why a program isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// An object file in place of what's in it.
    #[error(
        "this is an object file: take the instructions out, with llvm-objcopy -O binary --only-section=NAME IN OUT"
    )]
    Object,
    /// Bytes that aren't a whole number of instructions.
    #[error("{0} bytes aren't whole instructions, which have 8 each")]
    Cut(usize),
    /// No instruction, or more than are allowed.
    #[error("{0} instructions: a program has 1 to 4096")]
    Count(usize),
    /// A line of a text that isn't an instruction.
    #[error("line {0} isn't an instruction: write its code, jt, jf and k as decimal numbers, as tcpdump -ddd does")]
    Text(usize),
    /// A text whose first line says another number of instructions than there are.
    #[error("the first line says {said} instructions, and {found} follow")]
    Said {
        /// How many it says.
        said: usize,
        /// How many there are.
        found: usize,
    },
    /// An instruction that can't be run.
    #[error("instruction {place}: {flaw}")]
    Instruction {
        /// Which, counted from 0 in units of 8 bytes, as disassemblers do.
        place: usize,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// Messages that are longer than a program can say.
    #[error("messages of up to {0} bytes: a program can tell of at most 2147483647")]
    LenMax(usize),
}

/// What is wrong with an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There's no such instruction, or not with these operands.
    #[error("its code or an operand isn't known; eBPF goes in as little-endian binary, classic BPF as text")]
    Unknown,
    /// A register that doesn't exist, or a write to r10.
    #[error("there are registers r0 to r10, and r10 can't be written")]
    Register,
    /// A loop.
    #[error("it jumps back: have loops unrolled, so that each run ends (clang: #pragma unroll)")]
    Backward,
    /// A jump to where no instruction begins.
    #[error("it jumps to where no instruction begins")]
    Outside,
    /// A call of a helper, or of a function.
    #[error("it calls: no helpers are there, and functions have to be inlined (clang: __always_inline)")]
    Call,
    /// A reference to a map or another object of the kernel's.
    #[error("it refers to a map: none are there")]
    Map,
    /// An atomic operation.
    #[error("it is atomic: nothing is shared here that needs it")]
    Atomic,
    /// A read of what the kernel knows of a packet.
    #[error("it reads at a negative offset: nothing but the message's bytes is there")]
    Ancillary,
    /// A division by the constant 0, or a shift by more bits than there are.
    #[error("it divides by 0, or shifts by 32 bits or more")]
    Constant,
    /// A memory cell that doesn't exist.
    #[error("there are 16 memory cells")]
    Cell,
    /// The last one doesn't return.
    #[error("the last one has to return")]
    Unended,
}

impl Program {
    /// A program as a file has it: eBPF in its binary form as [`Program::extended`], or classic BPF as text, as `tcpdump -ddd` and
    /// `bpf_asm` print it: how many instructions, then `code jt jf k` of each as decimal numbers, all on lines or with commas between.
    /// No program is both: one of eBPF ends with bytes of 0. `len_max` bounds its messages, in bytes.
    ///
    /// # Errors
    /// With the place and the mend, when it isn't one, or may not be run.
    pub fn parse(file: &[u8], len_max: usize) -> Result<Self, ProgramError> {
        if file.starts_with(b"\x7fELF") {
            return Err(ProgramError::Object);
        }
        let is_text = !file.is_empty() && file.iter().all(|byte| byte.is_ascii_digit() || b" ,\t\r\n".contains(byte));
        if is_text { Self::new(Code::Classic(Classic::parse(file)?), len_max) } else { Self::extended(file, len_max) }
    }

    /// A program of eBPF: its instructions of 8 bytes each, little-endian (RFC 9669), without calls, maps, atomics and jumps back.
    ///
    /// It is entered as the kernel enters a socket filter or a stream parser, with a `struct __sk_buff` of which there are `len`, `data`
    /// and `data_end`. It may read the bytes from `data` up to `data_end`, or by `BPF_LD | BPF_ABS` and `BPF_IND` in network order, which
    /// beyond the last byte end the program with 0; and it has the stack of 512 bytes below r10. Anything else is a [`FrameError::Fault`].
    ///
    /// # Errors
    /// As [`Program::parse`].
    pub fn extended(code: &[u8], len_max: usize) -> Result<Self, ProgramError> {
        Self::new(Code::Extended(Extended::load(code)?), len_max)
    }

    fn new(code: Code, len_max: usize) -> Result<Self, ProgramError> {
        if len_max > LEN_MAX { Err(ProgramError::LenMax(len_max)) } else { Ok(Self { code, len_max }) }
    }

    /// The longest message, in bytes, all of it counted.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// As [`super::Framing::measure`].
    pub(super) fn measure(&self, bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, FrameError> {
        let so_far = within(bytes, self.len_max);
        if seen.at == 0 && !so_far.is_empty() {
            let answer = match &self.code {
                Code::Classic(code) => code.run(so_far),
                Code::Extended(code) => code.run(so_far)?,
            };
            seen.at = usize::try_from(answer.cast_signed()).map_err(|_| FrameError::Refused)?;
        }
        if seen.at > self.len_max {
            return Err(FrameError::TooLong);
        }
        if seen.at == 0 { unfinished(so_far, self.len_max) } else { Ok((seen.at <= bytes.len()).then_some(seen.at)) }
    }
}

fn flawed(place: usize, flaw: Flaw) -> ProgramError {
    ProgramError::Instruction { place, flaw }
}

fn check_count(instructions: usize) -> Result<(), ProgramError> {
    if (1..=INSTRUCTIONS_MAX).contains(&instructions) { Ok(()) } else { Err(ProgramError::Count(instructions)) }
}

/// The number in `bytes` bytes of `from` at `offset`, the highest first, as a packet has it; `None` where not all of them are there.
fn network_number(from: &[u8], offset: u32, bytes: usize) -> Option<u32> {
    let field = from.get(usize::try_from(offset).ok()?..)?.get(..bytes)?;
    Some(field.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

#[cfg(test)]
mod tests;
