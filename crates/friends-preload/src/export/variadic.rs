//! Functions whose number of arguments the caller chooses. Those that print do first what they need, and then libc's own gets all registers as they
//! were. Those that execute a program have their arguments put into a list, for libc's function that takes one: it may come back.

use std::ffi::{c_char, c_int};

use midmile_friends_sockets::sys::{real, set_errno};

use super::program::becoming;

/// Does what the function of this number that prints to a descriptor needs, and answers where libc has it.
extern "C" fn before(number: usize, first: usize) -> usize {
    super::descriptors::given_to_stdio(c_int::try_from(first).unwrap_or(-1));
    real::printing(number)
}

/// Functions that execute a program, by number.
const EXECL: usize = 0;
const EXECLP: usize = 1;
/// Arguments that come in registers.
const REGISTERS: usize = if cfg!(target_arch = "x86_64") { 6 } else { 8 };
/// Most arguments of a program so executed. No source lists as many; they stand on the stack.
const LISTED_MAX: usize = 1024;

/// Executes a program by the function of this number. The arguments are those in `registers`, and then those on the `stack`.
///
/// # Safety
/// As execl(3) asks for: they end with a null pointer, behind which execle's environment follows.
unsafe extern "C" fn execute(number: usize, registers: *const *const c_char, stack: *const *const c_char) -> c_int {
    let argument = |index: usize| {
        let (from, place) = if index < REGISTERS { (registers, index) } else { (stack, index - REGISTERS) };
        // SAFETY: it isn't beyond the last argument.
        let place = unsafe { from.add(place) };
        // SAFETY: as above.
        unsafe { place.read() }
    };
    let path = argument(0);
    let mut list = [std::ptr::null(); LISTED_MAX + 1];
    for (place, index) in list.iter_mut().zip(1..) {
        *place = argument(index);
        if place.is_null() {
            return becoming(|| match number {
                // SAFETY: the program's path and arguments, in a list that ends with a null pointer.
                EXECL => unsafe { real::execv(path, list.as_ptr()) },
                // SAFETY: as above.
                EXECLP => unsafe { real::execvp(path, list.as_ptr()) },
                // SAFETY: as above, and the environment is the argument behind.
                _ => unsafe { real::execve(path, list.as_ptr(), argument(index + 1).cast()) },
            });
        }
    }
    set_errno(libc::E2BIG);
    -1
}

macro_rules! executing {
    ($($name:ident = $number:literal;)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
                // Arguments' registers (System V ABI, 3.2.3) stand in a row then; behind them and the return address are the others.
                std::arch::naked_asm!(
                    "push r9", "push r8", "push rcx", "push rdx", "push rsi", "push rdi",
                    "mov edi, {number}",
                    "mov rsi, rsp",
                    "lea rdx, [rsp + 56]",
                    "sub rsp, 8",
                    "call {execute}",
                    "add rsp, 56",
                    "ret",
                    number = const $number,
                    execute = sym execute,
                )
            }

            #[cfg(target_arch = "aarch64")]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
                // Arguments' registers (AAPCS64, 6.8.2) stand in a row then; behind them are the others.
                std::arch::naked_asm!(
                    "stp x29, x30, [sp, #-80]!",
                    "stp x0, x1, [sp, #16]", "stp x2, x3, [sp, #32]", "stp x4, x5, [sp, #48]", "stp x6, x7, [sp, #64]",
                    "add x1, sp, #16",
                    "add x2, sp, #80",
                    "mov x0, {number}",
                    "bl {execute}",
                    "ldp x29, x30, [sp], #80",
                    "ret",
                    number = const $number,
                    execute = sym execute,
                )
            }
        )*
    };
}

executing! {
    execl = 0;
    execlp = 1;
    execle = 2;
}

macro_rules! variadic {
    ($($name:ident = $number:literal;)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
                // The registers of arguments (System V ABI, 3.2.3), and %al, which says how many are in vector registers.
                std::arch::naked_asm!(
                    "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "push rax",
                    "sub rsp, 128",
                    "movups [rsp], xmm0", "movups [rsp + 16], xmm1", "movups [rsp + 32], xmm2", "movups [rsp + 48], xmm3",
                    "movups [rsp + 64], xmm4", "movups [rsp + 80], xmm5", "movups [rsp + 96], xmm6", "movups [rsp + 112], xmm7",
                    "mov rsi, rdi",
                    "mov edi, {number}",
                    "call {before}",
                    "mov r11, rax",
                    "movups xmm0, [rsp]", "movups xmm1, [rsp + 16]", "movups xmm2, [rsp + 32]", "movups xmm3, [rsp + 48]",
                    "movups xmm4, [rsp + 64]", "movups xmm5, [rsp + 80]", "movups xmm6, [rsp + 96]", "movups xmm7, [rsp + 112]",
                    "add rsp, 128",
                    "pop rax", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                    "jmp r11",
                    number = const $number,
                    before = sym before,
                )
            }

            #[cfg(target_arch = "aarch64")]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() {
                // The registers of arguments (AAPCS64, 6.8.2), and the return address.
                std::arch::naked_asm!(
                    "sub sp, sp, #208",
                    "stp x0, x1, [sp]", "stp x2, x3, [sp, #16]", "stp x4, x5, [sp, #32]", "stp x6, x7, [sp, #48]",
                    "stp q0, q1, [sp, #64]", "stp q2, q3, [sp, #96]", "stp q4, q5, [sp, #128]", "stp q6, q7, [sp, #160]",
                    "str x30, [sp, #192]",
                    "mov x1, x0",
                    "mov x0, {number}",
                    "bl {before}",
                    "mov x16, x0",
                    "ldr x30, [sp, #192]",
                    "ldp x0, x1, [sp]", "ldp x2, x3, [sp, #16]", "ldp x4, x5, [sp, #32]", "ldp x6, x7, [sp, #48]",
                    "ldp q0, q1, [sp, #64]", "ldp q2, q3, [sp, #96]", "ldp q4, q5, [sp, #128]", "ldp q6, q7, [sp, #160]",
                    "add sp, sp, #208",
                    "br x16",
                    number = const $number,
                    before = sym before,
                )
            }
        )*
    };
}

variadic! {
    dprintf = 0;
    __dprintf_chk = 1;
}
