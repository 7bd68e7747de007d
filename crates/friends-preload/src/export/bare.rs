//! System calls that a program makes by number, as libuv closes its descriptors: those that concern ends do what libc's functions of
//! their names do here.

use std::ffi::{c_int, c_long, c_uint, c_ulong, c_void};

use libc::{epoll_event, iovec, mmsghdr, msghdr, nfds_t, pollfd, sockaddr, socklen_t, ssize_t};

use super::{descriptors, program, readiness, receiving, selecting, sending};
use midmile_friends_sockets::sys::{real, set_errno};
use midmile_friends_sockets::{lifecycle, table};

/// The arguments of a system call.
type Words = [usize; 6];

/// An `int` among the arguments: the kernel looks at the low 32 bits.
fn int(word: usize) -> c_int {
    uint(word).cast_signed()
}

fn uint(word: usize) -> c_uint {
    c_uint::try_from(word & 0xffff_ffff).unwrap_or(0)
}

/// A count of descriptors among the arguments.
fn nfds(word: usize) -> nfds_t {
    nfds_t::try_from(word).unwrap_or(nfds_t::MAX)
}

/// An address among the arguments.
fn at<T>(word: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(word)
}

/// What a call answers that counts bytes.
fn long(answer: ssize_t) -> c_long {
    c_long::try_from(answer).expect("a long is as wide")
}

/// What a call answers that counts descriptors.
fn short(answer: c_long) -> c_int {
    c_int::try_from(answer).unwrap_or(-1)
}

/// Whether a clone has memory of its own.
///
/// # Safety
/// What the system call asks for.
unsafe fn is_copy(number: c_long, first: usize) -> bool {
    // SAFETY: the flags are the first word of clone3's arguments.
    let flags = if number == libc::SYS_clone { first } else { unsafe { at::<usize>(first).read() } };
    flags & usize::try_from(libc::CLONE_VM).unwrap_or(0) == 0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    let words = [a, b, c, d, e, f];
    // SAFETY: the program's arguments go on as they came.
    let own = || unsafe { (real::syscall())(number, a, b, c, d, e, f) };
    // SAFETY: as above.
    let stood_in = || unsafe { opening(number, words) };
    // SAFETY: as above.
    let known = || unsafe { of_known(number, words) };
    match number {
        libc::SYS_close if table::is_ours(int(a)) => {
            set_errno(libc::EBADF);
            -1
        }
        libc::SYS_close => descriptors::ended(int(a), own),
        libc::SYS_execve | libc::SYS_execveat => program::becoming(own),
        // To set what is allowed, not to ask for it.
        libc::SYS_seccomp if uint(a) <= libc::SECCOMP_SET_MODE_FILTER => {
            lifecycle::confining();
            own()
        }
        // SAFETY: as above.
        libc::SYS_clone | libc::SYS_clone3 if unsafe { is_copy(number, a) } => program::copying(own),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork => program::copying(own),
        libc::SYS_exit_group => {
            lifecycle::exiting();
            own()
        }
        libc::SYS_splice if table::knows(int(c)) => known().unwrap_or_else(own),
        libc::SYS_dup3 if table::knows(int(b)) => known().unwrap_or_else(own),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 if table::knows(int(b)) => known().unwrap_or_else(own),
        _ if table::knows(int(a)) => known().or_else(stood_in).unwrap_or_else(own),
        _ => stood_in().unwrap_or_else(own),
    }
}

/// A call that has to do with ends though its first argument isn't one.
///
/// # Safety
/// What the system call asks for.
unsafe fn opening(number: c_long, [a, b, c, d, e, f]: Words) -> Option<c_long> {
    let fd = int(a);
    // SAFETY: the program's arguments go on as they came, in each of them.
    Some(match number {
        // SAFETY: as above.
        libc::SYS_socket => unsafe { descriptors::socket(fd, int(b), int(c)) }.into(),
        // SAFETY: as above.
        libc::SYS_connect => unsafe { descriptors::connect(fd, at::<sockaddr>(b), uint(c)) }.into(),
        // SAFETY: as above.
        libc::SYS_accept => unsafe { descriptors::accept(fd, at::<sockaddr>(b), at::<socklen_t>(c)) }.into(),
        // SAFETY: as above.
        libc::SYS_accept4 => unsafe { descriptors::accept4(fd, at::<sockaddr>(b), at::<socklen_t>(c), int(d)) }.into(),
        // SAFETY: as above.
        libc::SYS_close_range => unsafe { descriptors::close_range(uint(a), uint(b), int(c)) }.into(),
        // SAFETY: as above.
        libc::SYS_epoll_ctl => unsafe { readiness::epoll_ctl(fd, int(b), int(c), at::<epoll_event>(d)) }.into(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        libc::SYS_epoll_wait => unsafe { readiness::epoll_wait(fd, at::<epoll_event>(b), int(c), int(d)) }.into(),
        libc::SYS_epoll_pwait => {
            let (into, most, limit) = (at::<epoll_event>(b), int(c), int(d));
            // SAFETY: as above.
            unsafe { readiness::epoll_pwait(fd, into, most, limit, at(e)) }.into()
        }
        libc::SYS_epoll_pwait2 => {
            let (into, most) = (at::<epoll_event>(b), int(c));
            // SAFETY: as above.
            unsafe { readiness::epoll_pwait2(fd, into, most, at(d), at(e)) }.into()
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        libc::SYS_poll => unsafe { readiness::poll(at::<pollfd>(a), nfds(b), int(c)) }.into(),
        libc::SYS_ppoll => {
            // SAFETY: as above.
            let wait = || unsafe { (real::syscall())(number, a, b, c, d, e) };
            // SAFETY: as above.
            unsafe { readiness::ppoll_bare(at::<pollfd>(a), nfds(b), at(c), || short(wait())) }?.into()
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        libc::SYS_select => unsafe { selecting::select(fd, at(b), at(c), at(d), at(e)) }.into(),
        libc::SYS_pselect6 => {
            // SAFETY: as above.
            let wait = || unsafe { (real::syscall())(number, a, b, c, d, e, f) };
            // SAFETY: as above.
            unsafe { selecting::pselect_bare(fd, [at(b), at(c), at(d)], at(e), || short(wait())) }?.into()
        }
        // SAFETY: as above.
        libc::SYS_prctl => unsafe { program::prctl(fd, b as c_ulong, c as c_ulong, d as c_ulong, e as c_ulong) }.into(),
        // A descriptor may be passed on.
        // SAFETY: as above.
        libc::SYS_sendmsg => long(unsafe { sending::sendmsg(fd, at::<msghdr>(b), int(c)) }),
        // SAFETY: as above.
        libc::SYS_sendmmsg => unsafe { sending::sendmmsg(fd, at::<mmsghdr>(b), uint(c), int(d)) }.into(),
        _ => return None,
    })
}

/// A call on a descriptor that the table knows.
///
/// # Safety
/// What the system call asks for.
unsafe fn of_known(number: c_long, [a, b, c, d, e, f]: Words) -> Option<c_long> {
    let fd = int(a);
    Some(match number {
        // SAFETY: the program's arguments go on as they came, here and below.
        libc::SYS_read => long(unsafe { receiving::read(fd, at::<c_void>(b), c) }),
        // SAFETY: as above.
        libc::SYS_readv => long(unsafe { receiving::readv(fd, at::<iovec>(b), int(c)) }),
        // SAFETY: as above.
        libc::SYS_recvfrom => long(unsafe { receiving::recvfrom(fd, at::<c_void>(b), c, int(d), at(e), at(f)) }),
        // SAFETY: as above.
        libc::SYS_recvmsg => long(unsafe { receiving::recvmsg(fd, at::<msghdr>(b), int(c)) }),
        // SAFETY: as above.
        libc::SYS_recvmmsg => unsafe { receiving::recvmmsg(fd, at::<mmsghdr>(b), uint(c), int(d), at(e)) }.into(),
        // SAFETY: as above.
        libc::SYS_splice => long(unsafe { receiving::splice(fd, at(b), int(c), at(d), e, uint(f)) }),
        // SAFETY: as above.
        libc::SYS_write => long(unsafe { sending::write(fd, at::<c_void>(b), c) }),
        // SAFETY: as above.
        libc::SYS_writev => long(unsafe { sending::writev(fd, at::<iovec>(b), int(c)) }),
        // SAFETY: as above.
        libc::SYS_sendto => long(unsafe { sending::sendto(fd, at::<c_void>(b), c, int(d), at(e), uint(f)) }),
        // SAFETY: as above.
        libc::SYS_sendfile => long(unsafe { sending::sendfile(fd, int(b), at(c), d) }),
        // SAFETY: as above.
        libc::SYS_shutdown => unsafe { descriptors::shutdown(fd, int(b)) }.into(),
        // SAFETY: as above.
        libc::SYS_dup => unsafe { descriptors::dup(fd) }.into(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        libc::SYS_dup2 => unsafe { descriptors::dup2(fd, int(b)) }.into(),
        // SAFETY: as above.
        libc::SYS_dup3 => unsafe { descriptors::dup3(fd, int(b), int(c)) }.into(),
        // SAFETY: as above.
        libc::SYS_fcntl => unsafe { descriptors::fcntl(fd, int(b), c) }.into(),
        // SAFETY: as above.
        libc::SYS_ioctl => unsafe { descriptors::ioctl(fd, b as c_ulong, c) }.into(),
        // SAFETY: as above.
        libc::SYS_setsockopt => unsafe { descriptors::setsockopt(fd, int(b), int(c), at(d), uint(e)) }.into(),
        // SAFETY: as above.
        libc::SYS_getsockopt => unsafe { descriptors::getsockopt(fd, int(b), int(c), at(d), at(e)) }.into(),
        _ => return None,
    })
}
