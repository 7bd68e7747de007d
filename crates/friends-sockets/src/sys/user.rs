//! The buffers that the program gave to a call.

use std::io::IoSlice;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::ptr;

use libc::{c_int, iovec};

use super::Errno;

/// The most buffers of one call (`UIO_MAXIOV`, linux/uio.h).
const PARTS_MAX: usize = 1024;

/// Most bytes of one call (`MAX_RW_COUNT`, linux/fs.h): the kernel takes no more, and answers so.
const BYTES_MAX: usize = 0x7fff_f000;

/// How many buffers go into one system call of ours. A call with more is carried on in the next.
pub(super) const BATCH: usize = 64;

/// Buffers of one call of the program's, and how far they are used.
pub struct Buffers<'a> {
    /// Where the program's list stands; unused for a single buffer.
    list: *const iovec,
    count: usize,
    single: iovec,
    /// The buffer that is used, from where on, and how much of it remains.
    part: usize,
    start: *mut u8,
    length: usize,
    /// Bytes that remain in all.
    left: usize,
    call: PhantomData<&'a ()>,
}

impl<'a> Buffers<'a> {
    /// Room of ours, for what is received.
    pub(crate) fn room(room: &'a mut [u8]) -> Self {
        // SAFETY: the room is valid for writing; the caller's borrow of it outlives this.
        unsafe { Self::one(room.as_mut_ptr().cast(), room.len()) }
    }

    /// Several slices of ours, to be sent.
    ///
    /// # Errors
    /// As [`Buffers::list`].
    pub(crate) fn slices(parts: &'a [IoSlice<'_>]) -> Result<Self, Errno> {
        if let [one] = parts {
            return Ok(Self::of(one));
        }
        // SAFETY: an `IoSlice` is an iovec in memory, as its documentation promises; the slices are valid for reading, and the caller's borrow
        // of them outlives this.
        unsafe { Self::list(parts.as_ptr().cast(), parts.len()) }
    }
}

impl Buffers<'_> {
    /// One buffer.
    ///
    /// # Safety
    /// The buffer is valid for the direction that it's used in, as the call asks of the program, until the call returns.
    pub unsafe fn one(start: *const libc::c_void, length: usize) -> Self {
        let length = length.min(BYTES_MAX);
        let single = iovec { iov_base: start.cast_mut(), iov_len: length };
        let (list, start) = (ptr::null(), start.cast_mut().cast());
        Self { list, count: 1, single, part: 0, start, length, left: length, call: PhantomData }
    }

    /// Bytes of ours, to be sent.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        // SAFETY: the bytes are valid for reading; the caller's borrow of them outlives the call that it makes with this.
        unsafe { Self::one(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// A list of buffers.
    ///
    /// # Errors
    /// EINVAL as the kernel says it: too many buffers, or more bytes than fit into the answer.
    ///
    /// # Safety
    /// The list and its buffers are valid for the direction that they're used in, as the call asks of the program, until the call returns.
    pub unsafe fn list(list: *const iovec, count: usize) -> Result<Self, Errno> {
        if count > PARTS_MAX {
            return Err(Errno(libc::EINVAL));
        }
        let single = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let (start, length) = (ptr::null_mut(), 0);
        let mut all = Self { list, count, single, part: 0, start, length, left: 0, call: PhantomData };
        for index in 0..count {
            all.left = all.left.checked_add(all.at(index).iov_len).ok_or(Errno(libc::EINVAL))?;
        }
        if isize::try_from(all.left).is_err() {
            return Err(Errno(libc::EINVAL));
        }
        all.left = all.left.min(BYTES_MAX);
        all.use_part(0);
        Ok(all)
    }

    fn at(&self, index: usize) -> iovec {
        if self.list.is_null() {
            return self.single;
        }
        // SAFETY: `index` is below `count`, and the program's list has that many (`Buffers::list`).
        let place = unsafe { self.list.add(index) };
        // SAFETY: as above; the list isn't written while the call runs.
        unsafe { place.read() }
    }

    /// Bytes that remain.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Uses this buffer from its start on; none if there's none.
    fn use_part(&mut self, part: usize) {
        let none = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let buffer = if part < self.count { self.at(part) } else { none };
        self.part = part;
        (self.start, self.length) = (buffer.iov_base.cast(), buffer.iov_len);
    }

    /// Goes on by `bytes`, of those that remain.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        let mut bytes = bytes.min(self.left);
        self.left -= bytes;
        while bytes > self.length && self.part < self.count {
            bytes -= self.length;
            self.use_part(self.part + 1);
        }
        let last = bytes.min(self.length);
        self.start = self.start.wrapping_add(last);
        self.length -= last;
    }

    /// The next buffer that isn't used up.
    #[inline]
    fn next(&mut self) -> Option<(*mut u8, usize)> {
        while self.length == 0 && self.part + 1 < self.count {
            self.use_part(self.part + 1);
        }
        (self.length > 0 && self.left > 0).then_some((self.start, self.length.min(self.left)))
    }

    /// What is to be sent next.
    #[inline]
    pub(crate) fn outgoing(&mut self) -> Option<&[u8]> {
        let (start, length) = self.next()?;
        // SAFETY: the buffer is the program's, valid for reading while the call runs (`one`, `list`).
        Some(unsafe { std::slice::from_raw_parts(start, length) })
    }

    /// Where what is received next belongs.
    pub(crate) fn incoming(&mut self) -> Option<&mut [u8]> {
        let (start, length) = self.next()?;
        // SAFETY: the buffer is the program's, valid for writing while the call runs (`one`, `list`).
        Some(unsafe { std::slice::from_raw_parts_mut(start, length) })
    }

    /// Whether what remains may be in more than one buffer.
    pub(crate) fn are_several(&self) -> bool {
        self.part + 1 < self.count
    }

    /// Copies what remains, if it's in several buffers and all of it fits into `into`; how much that is. They stand where they stood.
    pub(crate) fn gather(&self, into: &mut [u8]) -> Option<usize> {
        if !self.are_several() || self.left > into.len() {
            return None;
        }
        let mut walk = Self { call: PhantomData, ..*self };
        let mut filled = 0;
        while let Some(bytes) = walk.outgoing() {
            let length = bytes.len();
            into[filled..filled + length].copy_from_slice(bytes);
            filled += length;
            walk.advance(length);
        }
        Some(filled)
    }

    /// Calls `act` with each part of `count` bytes, from the `from`th of all on. They stand where they stood.
    pub(crate) fn each<E>(
        &self,
        from: usize,
        count: usize,
        mut act: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = Self { call: PhantomData, ..*self };
        walk.rewind();
        walk.advance(from);
        let mut left = count;
        while left > 0
            && let Some(bytes) = walk.outgoing()
        {
            let length = bytes.len().min(left);
            act(&bytes[..length])?;
            walk.advance(length);
            left -= length;
        }
        Ok(())
    }

    /// Goes back to their start.
    pub(crate) fn rewind(&mut self) {
        self.use_part(0);
        let all = (0..self.count).map(|index| self.at(index).iov_len).sum::<usize>();
        self.left = all.min(BYTES_MAX);
    }

    /// Bytes of the buffers that go into the next system call.
    pub(super) fn batched(&self) -> usize {
        let mut walk = Self { call: PhantomData, ..*self };
        let (parts, count) = walk.batch();
        parts[..count].iter().map(|part| part.iov_len).sum()
    }

    /// The buffers that remain, as many as fit into one system call.
    pub(super) fn batch(&mut self) -> ([iovec; BATCH], usize) {
        let mut parts = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut filled = 0;
        if let Some((start, length)) = self.next() {
            parts[0] = iovec { iov_base: start.cast(), iov_len: length };
            filled = 1;
            let mut left = self.left - length;
            for index in self.part + 1..self.count.min(self.part + BATCH) {
                let part = self.at(index);
                parts[filled] = iovec { iov_len: part.iov_len.min(left), ..part };
                left -= parts[filled].iov_len;
                filled += 1;
            }
        }
        (parts, filled)
    }
}

/// The address that stands in one of the program's, IPv4 as mapped IPv6; `None` for other families, and where there's no room for one.
///
/// # Safety
/// So many bytes can be read there.
pub unsafe fn address(place: *const libc::sockaddr, length: usize) -> Option<Ipv6Addr> {
    let mut six = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    if place.is_null() || length < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: the caller's promise; no more than there's room for is copied.
    unsafe { ptr::copy_nonoverlapping(place.cast::<u8>(), six.as_mut_ptr().cast(), length.min(size_of_val(&six))) };
    // SAFETY: it was zeroed, and all of its bytes may have any value.
    let six = unsafe { six.assume_init() };
    let whole = c_int::from(six.sin6_family) == libc::AF_INET || length >= size_of_val(&six);
    super::ask::address_in(&six).filter(|_| whole).map(|address| *address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[&[u8]]) -> Vec<iovec> {
        texts.iter().map(|text| iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() }).collect()
    }

    #[test]
    fn walks_over_empty_and_partly_used_buffers() {
        let list = parts(&[b"", b"abc", b"", b"de", b""]);
        // SAFETY: the list and the texts live until the end of the test, and are only read.
        let mut buffers = unsafe { Buffers::list(list.as_ptr(), list.len()) }.unwrap();
        assert_eq!((buffers.left(), buffers.outgoing()), (5, Some(&b"abc"[..])));
        buffers.advance(2);
        assert_eq!(buffers.outgoing(), Some(&b"c"[..]));
        buffers.advance(2);
        assert_eq!((buffers.left(), buffers.outgoing()), (1, Some(&b"e"[..])));
        buffers.rewind();
        let mut whole = [0; 5];
        assert_eq!((buffers.gather(&mut whole), &whole, buffers.left()), (Some(5), b"abcde", 5));
        assert_eq!(buffers.gather(&mut [0; 4]), None);
        let mut seen = Vec::new();
        let all = buffers.each(1, 3, |part| {
            seen.push(part.to_vec());
            Ok::<_, ()>(())
        });
        assert!(all.is_ok());
        assert_eq!((seen, buffers.left()), (vec![b"bc".to_vec(), b"d".to_vec()], 5));
        buffers.advance(1);
        let (batch, count) = buffers.batch();
        assert_eq!(batch[..count].iter().map(|part| part.iov_len).sum::<usize>(), 4);
        buffers.advance(100);
        assert_eq!((buffers.left(), buffers.outgoing()), (0, None));
    }

    #[test]
    fn takes_no_more_than_the_kernel_does() {
        let text = [0_u8; 8];
        let list = [iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: BYTES_MAX - 5 }; 2];
        // SAFETY: nothing is read of the buffers.
        let mut buffers = unsafe { Buffers::list(list.as_ptr(), 2) }.unwrap();
        assert_eq!((buffers.left(), buffers.batched()), (BYTES_MAX, BYTES_MAX));
        buffers.advance(BYTES_MAX - 5);
        assert_eq!((buffers.left(), buffers.next().map(|next| next.1)), (5, Some(5)));
        buffers.advance(5);
        assert_eq!(buffers.next(), None);
        // SAFETY: as above.
        assert_eq!(unsafe { Buffers::one(text.as_ptr().cast(), usize::MAX) }.left(), BYTES_MAX);
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        let huge = [iovec { iov_base: ptr::null_mut(), iov_len: usize::MAX / 2 }; 3];
        // SAFETY: the list is read, not its buffers.
        assert!(unsafe { Buffers::list(huge.as_ptr(), 3) }.is_err());
        // SAFETY: nothing is read of a list that is too long.
        assert!(unsafe { Buffers::list(huge.as_ptr(), PARTS_MAX + 1) }.is_err());
    }
}
