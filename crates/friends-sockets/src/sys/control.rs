//! Structures of the program's that calls point to: control data of messages, signal actions; and the environment.

use std::ffi::CStr;

use libc::msghdr;

/// A variable of the environment. To be called before the program runs: it may change its environment later.
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the name is a string with its end, and nothing changes the environment before `main`.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: it's a string with its end, and it stays where it is while the library starts, which is all that reads it.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Calls `act` with each descriptor that a message passes on (`SCM_RIGHTS`, unix(7)).
///
/// # Safety
/// The message is valid as sendmsg(2) asks for.
pub unsafe fn each_passed(message: *const msghdr, mut act: impl FnMut(i32)) {
    // SAFETY: the caller's message is valid.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: libc found a whole header there, within the control data.
        let one = unsafe { header.read_unaligned() };
        if one.cmsg_level == libc::SOL_SOCKET && one.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the header is within the control data.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: the data begins behind the header, in the same control data.
            let before = unsafe { data.offset_from(header.cast()) };
            let length = one.cmsg_len.saturating_sub(before.unsigned_abs());
            for index in 0..length / size_of::<i32>() {
                // SAFETY: the header says that this many descriptors stand there.
                let place = unsafe { data.cast::<i32>().add(index) };
                // SAFETY: as above; they needn't be aligned.
                act(unsafe { place.read_unaligned() });
            }
        }
        // SAFETY: both are of the caller's valid message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}
