//! Functions with arguments that can't be listed: what they need is done first, then libc's own gets all registers as they were.

use std::ffi::c_int;

use midmile_friends_sockets::lifecycle;
use midmile_friends_sockets::sys::real;

/// Functions that come here, by number.
const NAMES: [&std::ffi::CStr; 5] = [c"execl", c"execlp", c"execle", c"dprintf", c"__dprintf_chk"];
/// Those before it execute a program; the others print to a descriptor.
const PRINTING: usize = 3;

/// Does what the function of this number needs, and answers where libc has it.
extern "C" fn before(number: usize, first: usize) -> usize {
    if number < PRINTING {
        lifecycle::executing();
    } else {
        super::descriptors::given_to_stdio(c_int::try_from(first).unwrap_or(-1));
    }
    real::found(NAMES[number])
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
    execl = 0;
    execlp = 1;
    execle = 2;
    dprintf = 3;
    __dprintf_chk = 4;
}
