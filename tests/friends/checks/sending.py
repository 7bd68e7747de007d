"""splice(2), sendfile(2), zero-copy and urgent data."""
import ctypes
import mmap
import os
import select
import signal
import socket
import struct
import tempfile
import time

from ends import SO_ZEROCOPY, Failed, Skipped, exactly, expect, heard, met, outcome, start, to_end, until, waits_to_be_read

from .check import check, check_blocking

MSG_ZEROCOPY = 0x4000000
TCP_ULP, TCP_ZEROCOPY_RECEIVE = 31, 35
SPLICE_F_NONBLOCK = 2
LIBC = ctypes.CDLL(None, use_errno=True)


@check_blocking
def splicing_from_a_socket():
    """splice(2) waits for bytes and moves them until the end."""
    dialled, accepted = met()
    reading, writing = os.pipe()
    dialled.send(b"h" * 5000)
    start(lambda: (time.sleep(0.1), dialled.close()))
    got = b""
    while count := os.splice(accepted.fileno(), writing, 4096):
        got += os.read(reading, count)
    expect(got == b"h" * 5000, f"{len(got)} of 5000 bytes")


@check
def splicing_what_is_there():
    """splice(2) that doesn't wait moves what is there."""
    dialled, accepted = met()
    _reading, writing = os.pipe()
    dialled.send(b"h" * 5000)
    until(lambda: waits_to_be_read(accepted) == 5000, 2)
    said = outcome(lambda: os.splice(accepted.fileno(), writing, 8192, flags=SPLICE_F_NONBLOCK))
    expect(said == 5000, f"{said}")


@check
def splicing_to_a_socket():
    """splice(2) from a pipe sends what is in it."""
    dialled, accepted = met()
    reading, writing = os.pipe()
    os.write(writing, b"p" * 30000)
    left = 30000
    while left:
        left -= os.splice(reading, dialled.fileno(), left)
    expect(exactly(accepted, 30000) == b"p" * 30000, "other bytes")


@check
def sending_a_file():
    """sendfile(2) sends a file's bytes."""
    data = os.urandom(3_000_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        dialled, accepted = met()
        got, at = [], 0
        reader = start(lambda: got.append(to_end(accepted)))
        while at < len(data):
            try:
                at += os.sendfile(dialled.fileno(), file.fileno(), at, len(data) - at)
            except BlockingIOError:
                select.select([], [dialled], [], 5)
        dialled.close()
        reader.join(10)
    expect(got == [data], "other bytes")


@check
def sending_without_a_copy():
    """MSG_ZEROCOPY: the bytes come, and the sender is told when its buffer is free."""
    dialled, accepted = met()
    dialled.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    buffer = mmap.mmap(-1, 1 << 16)
    buffer.write(b"k" * (1 << 16))
    count = dialled.send(memoryview(buffer), MSG_ZEROCOPY)
    expect(exactly(accepted, count) == b"k" * count, "other bytes")
    poll = select.poll()
    poll.register(dialled, 0)
    events = poll.poll(2000)
    expect(events and events[0][1] & select.POLLERR, "the sender isn't told")
    expect(dialled.recvmsg(100, 200, socket.MSG_ERRQUEUE)[1], "the sender isn't told which")


@check
def receiving_without_a_copy():
    """TCP_ZEROCOPY_RECEIVE finds what is there."""
    dialled, accepted = met()
    LIBC.mmap.restype = ctypes.c_void_p
    size = 1 << 16
    place = LIBC.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, accepted.fileno(), ctypes.c_long(0))
    if place in (None, ctypes.c_void_p(-1).value):
        raise Skipped("the socket can't be mapped")
    dialled.send(b"q" * 4096)
    time.sleep(0.05)
    request = bytearray(struct.pack("QIIIiQiI", place, size, 0, 0, 0, 0, 0, 0))
    length = ctypes.c_uint(40)
    buffer = (ctypes.c_char * len(request)).from_buffer(request)
    said = LIBC.getsockopt(accepted.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, buffer, ctypes.byref(length))
    _, mapped, to_copy, waiting, _ = struct.unpack_from("QIIIi", bytes(request))
    expect(said == 0 and (mapped + to_copy >= 4096 or waiting >= 4096), f"{mapped} mapped, {to_copy} to copy")


@check
def urgent_data():
    """MSG_OOB: POLLPRI, the byte apart from the others, and the others in order (RFC 9293, 3.8.5)."""
    dialled, accepted = met()
    for data, flags in ((b"ab", 0), (b"!", socket.MSG_OOB), (b"cd", 0)):
        dialled.send(data, flags)
    poll = select.poll()
    poll.register(accepted, select.POLLPRI)
    expect(poll.poll(1000), "no POLLPRI")
    expect(accepted.recv(1, socket.MSG_OOB) == b"!", "another byte")
    expect(exactly(accepted, 4) == b"abcd", "others")


@check
def urgent_data_in_line():
    """SO_OOBINLINE: the urgent byte comes in its place among the others, and its place is marked."""
    dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    for data, flags in ((b"ab", 0), (b"!", socket.MSG_OOB), (b"cd", 0)):
        dialled.send(data, flags)
    poll = select.poll()
    poll.register(accepted, select.POLLPRI)
    expect(poll.poll(1000), "no POLLPRI")
    # A read stops at the mark.
    expect(accepted.recv(10) == b"ab" and exactly(accepted, 3) == b"!cd", "other bytes")


@check
def tls_in_the_kernel():
    """TCP_ULP: the kernel's TLS can be set up on a connection."""
    dialled, _accepted = met()
    try:
        dialled.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except FileNotFoundError as error:
        raise Skipped("this kernel has no TLS") from error
    except OSError as error:
        raise Failed(f"{error}") from error


@check
def holding_back():
    """MSG_MORE may hold bytes back; the next write releases them, in order."""
    dialled, accepted = met()
    dialled.send(b"a", socket.MSG_MORE)
    dialled.send(b"b")
    expect(exactly(accepted, 2) == b"ab", "other bytes")


@check
def signals_of_a_closed_connection():
    """SIGPIPE comes with EPIPE, unless the call says MSG_NOSIGNAL."""
    dialled, accepted = met()
    with heard(signal.SIGPIPE) as came:
        accepted.close()
        until(lambda: outcome(lambda: dialled.send(b"x", socket.MSG_NOSIGNAL)) == "BrokenPipeError", 2)
        expect(not came, "a signal in spite of MSG_NOSIGNAL")
        expect(outcome(lambda: dialled.send(b"x")) == "BrokenPipeError" and len(came) == 1, f"{len(came)} signals by send")
        expect(outcome(lambda: os.write(dialled.fileno(), b"x")) == "BrokenPipeError" and len(came) == 2, f"{len(came)} by write")
