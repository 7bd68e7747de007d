"""Flags and options of receiving."""
import ctypes
import errno
import select
import socket
import struct
import threading
import time

from ends import (
    SO_TIMESTAMP, alarms, exactly, expect, finish, listener, met, outcome, pair, reset_on_close, start, to_end, until, waits_to_be_read,
)

from .check import check, check_blocking

SO_PEEK_OFF = 42
TCP_INQ = 36
LIBC = ctypes.CDLL(None, use_errno=True)


def received(end):
    """What recv(2) of the C library itself comes to: a count, or the error's name."""
    count = LIBC.recv(end.fileno(), ctypes.create_string_buffer(10), 10, 0)
    return errno.errorcode[ctypes.get_errno()] if count < 0 else count


@check
def peeking():
    """MSG_PEEK shows what comes next, over several writes, and takes nothing."""
    dialled, accepted = met()
    dialled.send(b"hello")
    dialled.send(b"world")
    until(lambda: waits_to_be_read(accepted) == 10, 2)
    looks = [accepted.recv(3, socket.MSG_PEEK), accepted.recv(100, socket.MSG_PEEK), exactly(accepted, 10)]
    expect(looks == [b"hel", b"helloworld", b"helloworld"], f"{looks}")


@check
def peeking_from_an_offset():
    """SO_PEEK_OFF: each look goes on where the last one ended (Linux 6.9 for TCP)."""
    dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    dialled.send(b"abcdef")
    time.sleep(0.01)
    looks = [accepted.recv(3, socket.MSG_PEEK), accepted.recv(3, socket.MSG_PEEK), exactly(accepted, 6)]
    expect(looks == [b"abc", b"def", b"abcdef"], f"{looks}")


@check_blocking
def waiting_for_all():
    """MSG_WAITALL waits until the buffer is full."""
    dialled, accepted = met()
    start(lambda: [(dialled.send(b"x" * 100), time.sleep(0.005)) for _ in range(10)])
    expect(len(accepted.recv(1000, socket.MSG_WAITALL)) == 1000, "fewer bytes")


@check_blocking
def waiting_for_all_from_the_first_byte():
    """MSG_WAITALL waits across whatever way the bytes come."""
    listening = listener(prepare=lambda end: end.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5))
    end = socket.create_connection(listening.getsockname())
    end.send(b"A" * 10)
    accepted, _ = listening.accept()
    got = []
    reader = start(lambda: got.append(accepted.recv(100, socket.MSG_WAITALL)))
    time.sleep(0.1)
    end.send(b"B" * 90)
    reader.join(3)
    expect(got == [b"A" * 10 + b"B" * 90], "it hangs, or fewer bytes")


@check
def a_low_water_mark():
    """SO_RCVLOWAT: a socket isn't called readable below it."""
    dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 500)
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    dialled.send(b"x" * 100)
    expect(not poll.poll(100), "readable with 100 bytes of 500")
    dialled.send(b"x" * 400)
    expect(poll.poll(2000), "not readable with 500 bytes")


@check
def throwing_away():
    """MSG_TRUNC takes bytes without writing them anywhere (tcp(7))."""
    dialled, accepted = met()
    dialled.send(b"a" * 100 + b"b" * 10)
    time.sleep(0.01)
    buffer = bytearray(b"?" * 100)
    count = accepted.recv_into(buffer, 100, socket.MSG_TRUNC)
    rest = accepted.recv(100)
    expect(count == 100 and rest == b"b" * 10, f"{count} bytes, and then {rest}")
    expect(bytes(buffer) == b"?" * 100, "the bytes were written")


@check
def how_much_is_left():
    """TCP_INQ: each receive tells what is left."""
    dialled, accepted = met()
    accepted.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
    dialled.send(b"a" * 1000)
    time.sleep(0.01)
    _, notes, _, _ = accepted.recvmsg(100, 200)
    left = [struct.unpack("i", data)[0] for _, kind, data in notes if kind == TCP_INQ]
    expect(left == [900], f"{left}")


@check
def timestamps():
    """SO_TIMESTAMP: each receive tells when the bytes came."""
    dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    notes = []

    def told():
        dialled.send(b"a")
        notes[:] = accepted.recvmsg(100, 200)[1]
        return notes

    # The kernel begins to note times a moment after the first socket has asked for it.
    expect(until(told), "no time was told")


@check_blocking
def a_signal_while_waiting():
    """A handler without SA_RESTART ends recv(2) with EINTR; with it, recv(2) goes on."""
    dialled, accepted = met()
    with alarms(0.05):
        expect((said := received(accepted)) == "EINTR", f"a signal: {said}")
    with alarms(0.05, interrupts=False):
        threading.Timer(0.2, dialled.send, [b"k"]).start()
        expect((said := received(accepted)) == 1, f"over signals: {said}")


@check_blocking
def a_limit_of_the_wait():
    """SO_RCVTIMEO: recv(2) fails with EAGAIN when its time is over, and no earlier."""
    _dialled, accepted = met()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
    began = time.monotonic()
    said, took = outcome(lambda: accepted.recv(1)), time.monotonic() - began
    expect(said == "BlockingIOError" and 0.15 < took < 5, f"{said} after {took:.2f} s")


@check_blocking
def waits_that_other_things_disturb():
    """A recv(2) that waits isn't ended by options that are set meanwhile."""
    for _ in range(50):
        dialled, accepted = met()

        def disturb():
            time.sleep(0.002)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialled.send(b"x")

        start(disturb)
        expect(accepted.recv(1) == b"x", "another byte")


def keeps_waiting(dialled, accepted):
    """The dialled end is told to wait: it does, for bytes, over signals, and for the end."""
    dialled.setblocking(True)
    dialled.sendall(b"question")
    expect(exactly(accepted, 8) == b"question", "the question")
    with alarms(0.02):
        expect((said := received(dialled)) == "EINTR", f"a signal: {said}")
    start(lambda: (time.sleep(0.005), accepted.sendall(b"answer")))
    expect(exactly(dialled, 6) == b"answer", "the answer")
    start(lambda: (time.sleep(0.005), accepted.close()))
    expect((said := received(dialled)) == 0, f"the end: {said}")


@check
def sockets_that_wait_after_they_were_connected():
    """A socket that was connected without waiting and then told to wait, waits: as most client libraries do."""
    for _ in range(10):
        keeps_waiting(*pair())


@check
def sockets_that_wait_after_an_exchange():
    """A socket that is told to wait in the midst of a connection, waits."""
    for _ in range(10):
        keeps_waiting(*met())


@check
def an_end_that_waits_from_the_start():
    """The same with the end that accepted: what came before it was told to wait is there."""
    for _ in range(10):
        dialled, accepted = pair()
        dialled.sendall(b"early")
        accepted.setblocking(True)
        expect(exactly(accepted, 5) == b"early", "bytes are missing")
        accepted.sendall(b"greeting")
        expect(exactly(dialled, 8) == b"greeting", "the greeting")
        time.sleep(0.005)
        start(lambda: (time.sleep(0.005), dialled.close()))
        expect(to_end(accepted) == b"", "no end")


@check
def a_low_water_mark_over_what_is_there():
    """SO_RCVLOWAT holds for what was there before it was set."""
    dialled, accepted = met()
    dialled.send(b"x" * 100)
    until(lambda: waits_to_be_read(accepted) == 100, 2)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 500)
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    expect(poll.poll(20) == [], "readable with 100 bytes")
    dialled.send(b"x" * 400)
    expect(poll.poll(2000), "not readable with 500 bytes")
    expect(exactly(accepted, 500) == b"x" * 500, "other bytes")


@check
def peeking_from_an_offset_into_what_is_there():
    """SO_PEEK_OFF holds for what was there before it was set."""
    dialled, accepted = met()
    dialled.send(b"abcdef")
    until(lambda: waits_to_be_read(accepted) == 6, 2)
    accepted.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    looks = [accepted.recv(3, socket.MSG_PEEK), accepted.recv(3, socket.MSG_PEEK), exactly(accepted, 6)]
    expect(looks == [b"abc", b"def", b"abcdef"], f"{looks}")


class Part(ctypes.Structure):
    """struct iovec."""
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct mmsghdr."""
    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("parts", ctypes.POINTER(Part)), ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_ulong), ("moved", ctypes.c_uint),
    ]


def messages(*buffers):
    """A list for sendmmsg(2) and recvmmsg(2), a message for each buffer."""
    parts = [Part(ctypes.cast(buffer, ctypes.c_void_p), length) for buffer, length in buffers]
    return (Message * len(parts))(*[Message(None, 0, ctypes.pointer(part), 1, None, 0, 0, 0) for part in parts])


@check_blocking
def a_list_of_messages_that_is_cut_short():
    """sendmmsg(2) ends with the message of which it could send a part: none of the next comes before the rest."""
    dialled, accepted = met()
    dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50_000))
    size = 64 << 20
    sent = messages((ctypes.create_string_buffer(b"a" * size, size), size), (ctypes.create_string_buffer(b"b" * 100, 100), 100))
    got = bytearray()

    def read():
        time.sleep(0.09)
        while part := accepted.recv(1 << 20):
            got.extend(part)

    reading = start(read)
    told = LIBC.sendmmsg(dialled.fileno(), sent, 2, 0)
    dialled.shutdown(socket.SHUT_WR)
    finish(reading)
    expect(told == 1 and 0 < sent[0].moved < size, f"{told} messages, {sent[0].moved} bytes of the first")
    expect(len(got) == sent[0].moved and not got.strip(b"a"), f"{len(got)} bytes came")


@check
def an_error_behind_messages():
    """recvmmsg(2) tells of what came before a reset, and the next call of the reset."""
    dialled, accepted = met()
    dialled.send(b"ab")
    until(lambda: waits_to_be_read(accepted) == 2, 2)
    first, second = ctypes.create_string_buffer(2), ctypes.create_string_buffer(2)
    # Unread bytes make the close a reset.
    accepted.send(b"x")
    time.sleep(0.02)
    into = messages((first, 2), (second, 2))

    def reset():
        time.sleep(0.05)
        reset_on_close(dialled)
        dialled.close()

    if accepted.getblocking():
        closing = start(reset)
        told = LIBC.recvmmsg(accepted.fileno(), into, 2, 0, None)
        finish(closing)
        expect(told == 1 and first.raw == b"ab", f"{told} messages")
        expect(received(accepted) == "ECONNRESET", "no reset is told")


@check_blocking
def messages_within_a_time():
    """recvmmsg(2) looks at its limit after each message, says what's left of it, and tells the end as often as it's asked."""
    dialled, accepted = met()
    buffers = [(ctypes.create_string_buffer(1), 1) for _ in range(3)]
    limit = ctypes.create_string_buffer(struct.pack("ll", 0, 30_000_000), 16)
    receive = lambda limit: LIBC.recvmmsg(accepted.fileno(), messages(*buffers), 3, 0, limit)
    dialled.send(b"a")
    sending = start(lambda: (time.sleep(0.08), dialled.send(b"b")))
    told = receive(limit)
    finish(sending)
    expect(told == 2 and struct.unpack("ll", limit.raw) == (0, 0), f"{told} messages, {struct.unpack('ll', limit.raw)} left")
    limit = ctypes.create_string_buffer(struct.pack("ll", 9, 0), 16)
    dialled.send(b"cde")
    expect(receive(limit) == 3 and struct.unpack("ll", limit.raw)[0] == 8, f"{struct.unpack('ll', limit.raw)} left")
    expect(receive(struct.pack("ll", 0, 1_000_000_000)) == -1 and ctypes.get_errno() == errno.EINVAL, "a limit that is none")
    dialled.close()
    expect(receive(None) == 3, "the end isn't told")
