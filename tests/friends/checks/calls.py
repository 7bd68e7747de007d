"""Calls at their edges: refused ones, interrupted ones, and those that have to do with a socket though they aren't of sockets."""
import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import tempfile
import time

from ends import alarms, exactly, expect, finish, met, start, to_poll, to_select, until, waits_to_be_read

from .check import check, check_blocking

LIBC = ctypes.CDLL(None, use_errno=True)
# No flags of dup3(2).
NO_FLAGS = 12345
# Of a sigset_t.
SET_BYTES = 128
SO_MAX_PACING_RATE = 47


def refused(answer, number):
    return answer == -1 and ctypes.get_errno() == number


@check
def what_is_refused_changes_nothing():
    """dup2(2), dup3(2), close_range(2) and poll(2) that are refused leave a connection with what waits to be read as it is."""
    dialled, accepted = met()
    dialled.send(b"kept")
    expect(until(lambda: waits_to_be_read(accepted) == 4, 2), "it doesn't come")
    other, place = os.open("/dev/null", os.O_RDONLY), accepted.fileno()
    expect(refused(LIBC.dup3(other, place, NO_FLAGS), errno.EINVAL), "dup3 isn't refused")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (place, before[1]))
    try:
        expect(refused(LIBC.dup2(other, place), errno.EBADF), "dup2 isn't refused")
        for count in (1 << 20, -1):
            expect(refused(LIBC.poll(to_poll(accepted), ctypes.c_ulong(count), 0), errno.EINVAL), f"poll of {count} isn't refused")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    expect(refused(LIBC.close_range(place, place - 1, 0), errno.EINVAL), "close_range isn't refused")
    with tempfile.TemporaryFile(buffering=0) as file:
        arguments = (place, None, file.fileno(), None, ctypes.c_size_t(4), 0)
        expect(refused(LIBC.splice(*arguments), errno.EINVAL), "splice to a file isn't refused")
    expect(exactly(accepted, 4) == b"kept", "other bytes")
    accepted.send(b"answer")
    expect(exactly(dialled, 6) == b"answer", "another answer")


@check
def lengths_that_are_none():
    """write(2) and read(2) of as many bytes as no buffer has fail, and take nothing."""
    dialled, accepted = met()
    dialled.send(b"abc")
    room, many = ctypes.create_string_buffer(16), ctypes.c_size_t(-1)
    expect(until(lambda: waits_to_be_read(accepted) == 3, 2), "it doesn't come")
    expect(refused(LIBC.read(accepted.fileno(), room, many), errno.EFAULT), "read")
    expect(refused(LIBC.write(dialled.fileno(), room, many), errno.EFAULT), "write")
    # recv(2) takes it for as many as may be.
    expect(LIBC.recv(accepted.fileno(), room, many, 0) == 3 and room.raw[:3] == b"abc", "recv")


@check
def a_mask_with_bytes_there():
    """ppoll(2) and pselect(2) with bytes to tell of leave a signal that their mask lets in to wait."""
    dialled, accepted = met()
    dialled.send(b"x")
    expect(until(lambda: waits_to_be_read(accepted) == 1, 2), "it doesn't come")
    limit, mask = struct.pack("ll", 1, 0), bytes(SET_BYTES)
    by = {
        "ppoll": lambda: LIBC.ppoll(to_poll(accepted), 1, limit, mask),
        "pselect": lambda: LIBC.pselect(1024, to_select(accepted), None, None, limit, mask),
    }
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)
    for name, call in by.items():
        expect((told := call()) == 1, f"{name}: {told}")
        expect(signal.SIGUSR1 in signal.sigpending(), f"{name}: the signal was let in")


@check
def the_mark_of_urgent_data():
    """sockatmark(3) says no as long as there's something to read before the mark."""
    dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    dialled.send(b"abc")
    expect(exactly(accepted, 1) == b"a", "another byte")
    dialled.send(b"!", socket.MSG_OOB)
    urgent = select.poll()
    urgent.register(accepted, select.POLLPRI)
    expect(urgent.poll(2000), "the mark doesn't come")
    expect(LIBC.sockatmark(accepted.fileno()) == 0, "it's said to be reached")
    expect(exactly(accepted, 2) == b"bc", "other bytes")
    expect(LIBC.sockatmark(accepted.fileno()) == 1, "it isn't said to be reached")


@check_blocking
def the_end_amid_signals():
    """A receive that signals interrupt again and again hears of a peer that was killed, whether they have it go on or not."""
    for interrupts in (True, False):
        dialled, accepted = met()
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            accepted.close()
            os.read(ready, 1)
            os.kill(os.getpid(), signal.SIGKILL)
        dialled.close()
        for _ in range(60):
            accepted.send(b"x")
        room = ctypes.create_string_buffer(1)
        # The peer's bytes are unread, so it's a reset.
        with alarms(0.004, interrupts):
            killing = start(lambda: (time.sleep(0.1), os.write(go, b"x")))
            deadline, answer = time.monotonic() + 5, -1
            while time.monotonic() < deadline:
                answer = LIBC.recv(accepted.fileno(), room, 1, 0)
                if answer >= 0 or ctypes.get_errno() != errno.EINTR:
                    break
            told = answer == 0 or answer == -1 and ctypes.get_errno() == errno.ECONNRESET
            finish(killing)
        os.waitpid(child, 0)
        expect(told, f"nothing is told: {answer}, interrupting: {interrupts}")


@check_blocking
def a_handler_that_interrupts_beside_one_that_does_not():
    """Which handler ran decides whether a call goes on, and nothing else: also where siginterrupt(3) said so."""
    dialled, accepted = met()
    room = ctypes.create_string_buffer(1)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, False)
    for _ in range(3):
        with alarms(0.003):
            expect(refused(LIBC.recv(accepted.fileno(), room, 1, 0), errno.EINTR), "it isn't interrupted")
    with alarms(0.003, interrupts=False):
        sending = start(lambda: (time.sleep(0.05), dialled.send(b"x")))
        expect(LIBC.recv(accepted.fileno(), room, 1, 0) == 1, "it's interrupted")
        finish(sending)


@check_blocking
def a_call_that_began_before_it_was_told_not_to_wait():
    """O_NONBLOCK is of the calls that come after it."""
    dialled, accepted = met()
    waiting = start(lambda: expect(accepted.recv(9) == b"late", "another answer"))
    time.sleep(0.003)
    fcntl.fcntl(accepted, fcntl.F_SETFL, os.O_NONBLOCK)
    time.sleep(0.1)
    dialled.send(b"late")
    finish(waiting)


@check
def a_rate_that_is_set():
    """SO_MAX_PACING_RATE holds."""
    dialled, accepted = met()
    dialled.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 2_000_000)
    began = time.monotonic()
    sending = start(lambda: dialled.sendall(bytes(1_000_000)))
    expect(len(exactly(accepted, 1_000_000)) == 1_000_000, "bytes are missing")
    finish(sending)
    expect(time.monotonic() - began > 0.2, f"{time.monotonic() - began:.3f} s")
