"""poll(2), epoll(7), select(2), SIGIO, and what waits to be read."""
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import time

from ends import exactly, expect, finish, heard, met, pair, start, stuff, to_poll, to_select, until, waits_to_be_read

from .check import check

SYS_PPOLL = 73 if platform.machine() == "aarch64" else 271
SYS_PSELECT6 = 72 if platform.machine() == "aarch64" else 270


@check
def level_triggered_epoll():
    """A readable socket is reported as long as it is, and no longer."""
    dialled, accepted = met()
    epoll = select.epoll()
    epoll.register(accepted, select.EPOLLIN)
    for _ in range(20):
        expect(epoll.poll(0) == [], "it is reported with nothing to read")
        dialled.send(b"abc")
        expect(epoll.poll(2) and epoll.poll(2), "it isn't reported, or once alone")
        accepted.recv(2)
        expect(epoll.poll(2), "it isn't reported with a rest to read")
        accepted.recv(2)


@check
def edge_triggered_epoll():
    """Each arrival is reported once, even while bytes of an earlier one are unread."""
    dialled, accepted = met()
    epoll = select.epoll()
    epoll.register(accepted, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
    epoll.poll(0)
    for _ in range(20):
        dialled.send(b"a")
        expect(len(epoll.poll(2)) == 1, "the first arrival isn't reported")
        expect(epoll.poll(0.01) == [], "it is reported twice")
        dialled.send(b"b")
        expect(len(epoll.poll(2)) == 1, "the second arrival isn't reported")
        expect(accepted.recv(10) == b"ab", "other bytes")
    dialled.shutdown(socket.SHUT_WR)
    events = epoll.poll(2)
    expect(events and events[0][1] & select.EPOLLRDHUP, f"the end isn't reported: {events}")


@check
def edges_and_short_reads():
    """A read that gets less than it asked for has emptied the socket (epoll(7)): the next arrival is an edge of its own."""
    for size, writes in ((100_000, 10), (1100, 1100), (200_000, 20), (4_000_000, 400), (300_000, 3)):
        data = os.urandom(size)
        dialled, accepted = pair()
        accepted.setblocking(False)
        epoll, got = select.epoll(), bytearray()
        epoll.register(accepted, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
        pieces = [data[at : at + size // writes] for at in range(0, size, size // writes)]
        writer = start(lambda: [dialled.sendall(piece) for piece in pieces])
        # As much as goes has come before the first read.
        writer.join(0.05)
        while len(got) < len(data):
            expect(epoll.poll(3), lambda: f"no edge after {len(got)} of {len(data)} bytes")
            while True:
                try:
                    piece = accepted.recv(20000)
                except BlockingIOError:
                    break
                got += piece
                if len(piece) < 20000:
                    break
        expect(got == data, "other bytes")


@check
def poll_and_select():
    """Both report a readable socket, and neither one that isn't."""
    dialled, accepted = met()
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    expect(not poll.poll(0) and not select.select([accepted], [], [], 0)[0], "reported with nothing to read")
    dialled.send(b"c")
    expect(poll.poll(2000) and select.select([accepted], [], [], 2)[0], "not reported")
    accepted.recv(10)
    expect(not poll.poll(0), "reported when all is read")


@check
def a_sleeper_is_woken():
    """Who sleeps in poll(2) is woken by the first byte, and by the end."""
    dialled, accepted = met()
    for _ in range(50):
        poll = select.poll()
        poll.register(accepted, select.POLLIN)
        start(lambda: dialled.send(b"!"))
        expect(poll.poll(5000), "the byte wakes nobody")
        accepted.recv(1)
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    start(dialled.close)
    expect(poll.poll(5000) and accepted.recv(1) == b"", "the end wakes nobody")


@check
def signals_of_arrivals():
    """O_ASYNC: a signal for bytes that come."""
    dialled, accepted = met()
    came = []
    signal.signal(signal.SIGIO, lambda *_: came.append(1))
    fcntl.fcntl(accepted, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(accepted, fcntl.F_SETFL, fcntl.fcntl(accepted, fcntl.F_GETFL) | os.O_ASYNC)
    dialled.send(b"a")
    expect(until(lambda: came, 2), "no SIGIO")


@check
def what_waits_to_be_read_is_told():
    """FIONREAD counts what was sent and not yet read."""
    dialled, accepted = met()
    dialled.send(b"a" * 1000)
    dialled.send(b"b" * 500)
    expect(until(lambda: waits_to_be_read(accepted) == 1500, 2), lambda: f"{waits_to_be_read(accepted)} of 1500")
    accepted.recv(100)
    expect(waits_to_be_read(accepted) == 1400, lambda: f"{waits_to_be_read(accepted)} of 1400")


@check
def what_waits_is_told_however_much():
    """FIONREAD isn't 0 while a socket is readable, with more under way than its buffer holds."""
    dialled, accepted = met()
    taken, _ = stuff(dialled)
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    while taken:
        expect(poll.poll(2000), f"{taken} bytes never come")
        expect(waits_to_be_read(accepted) > 0, f"0, with {taken} to come and readable")
        taken -= len(accepted.recv(1 << 16))


@check
def select_of_more_than_a_set():
    """select(2) takes a count beyond FD_SETSIZE, and the system call may be made by its number."""
    dialled, accepted = met()
    # A receive that waited, if this one does: readiness wasn't looked at so far.
    dialled.send(b"a")
    exactly(accepted, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    limit = struct.pack("ll", 2, 0)
    by = {
        "select": lambda wanted: libc.select(4096, wanted, None, None, limit),
        "pselect6": lambda wanted: libc.syscall(SYS_PSELECT6, 1024, wanted, None, None, limit, None),
    }
    for name, call in by.items():
        wanted = ctypes.create_string_buffer(to_select(accepted, 512), 512)
        sending = start(lambda: (time.sleep(0.05), dialled.send(b"bc")))
        expect((told := call(wanted)) == 1, f"{name}: {told}")
        finish(sending)
        expect(exactly(accepted, 2) == b"bc", f"{name}: other bytes")


@check
def limits_of_waits():
    """By number ppoll(2) and pselect(2) say what is left of their limit; one that is none is refused by all."""
    dialled, accepted = met()
    libc = ctypes.CDLL(None, use_errno=True)
    one = to_poll(accepted)
    by = {
        "ppoll": lambda limit: libc.syscall(SYS_PPOLL, one, 1, limit, None, 8),
        "pselect6": lambda limit: libc.syscall(SYS_PSELECT6, 1024, to_select(accepted), None, None, limit, None),
        "ppoll of libc": lambda limit: libc.ppoll(one, 1, limit, None),
        "select": lambda limit: libc.select(1024, to_select(accepted), None, None, limit),
    }
    for name, call in by.items():
        limit = ctypes.create_string_buffer(struct.pack("ll", 7, 0), 16)
        sending = start(lambda: (time.sleep(0.05), dialled.send(b"x")))
        told = call(limit)
        finish(sending)
        seconds = struct.unpack("ll", limit.raw)[0]
        expect(told == 1 and seconds == (7 if "libc" in name else 6), f"{name}: {told}, {seconds} s left")
        exactly(accepted, 1)
        for wrong in ((-1, 0), (0, -1)):
            refused = call(struct.pack("ll", *wrong)) == -1 and ctypes.get_errno() == errno.EINVAL
            expect(refused, f"{name}: {wrong} is taken")


def talk(asking, answering, waits, times):
    """So many exchanges; who answers waits so before."""
    for _ in range(times):
        asking.send(b"question")
        waits()
        expect(exactly(answering, 8) == b"question", "another question")
        answering.send(b"answer")
        expect(exactly(asking, 6) == b"answer", "another answer")


@check
def signals_beside_an_epoll():
    """O_ASYNC tells of bytes also on a socket that is in an epoll, however often that was waited for."""
    dialled, accepted = met()
    with heard(signal.SIGIO) as came:
        epoll = select.epoll()
        epoll.register(accepted, select.EPOLLIN)
        fcntl.fcntl(accepted, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(accepted, fcntl.F_SETFL, fcntl.fcntl(accepted, fcntl.F_GETFL) | os.O_ASYNC)
        talk(dialled, accepted, lambda: epoll.poll(2), 60)
        for _ in range(5):
            count = len(came)
            dialled.send(b"x")
            expect(until(lambda: len(came) > count, 2), "no signal")
            expect(exactly(accepted, 1) == b"x", "another byte")
        accepted.close()


@check
def an_epoll_after_a_childs():
    """A process hears of a socket by its epoll also where a child that has ended heard of it by its own before."""
    dialled, accepted = met()
    reading, writing = os.pipe()

    def hears():
        epoll = select.epoll()
        epoll.register(accepted, select.EPOLLIN)
        for _ in range(60):
            expect(epoll.poll(2), "it isn't told")
            expect(exactly(accepted, 8) == b"question", "another question")
            accepted.send(b"answer")

    for in_child in (True, False):
        if in_child:
            child = os.fork()
            if child == 0:
                try:
                    hears()
                    os.write(writing, b"y")
                finally:
                    os._exit(0)
        else:
            hearing = start(hears)
        for _ in range(60):
            dialled.send(b"question")
            expect(exactly(dialled, 6) == b"answer", "another answer")
        if in_child:
            os.waitpid(child, 0)
            expect(os.read(reading, 1) == b"y", "the child")
        else:
            finish(hearing)
