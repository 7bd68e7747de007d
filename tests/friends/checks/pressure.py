"""A writer is held up by a reader that doesn't read."""
import os
import select
import socket
import struct
import time

from ends import dial, exactly, expect, listener, met, outcome, stuff, waits_to_be_sent

from .check import check, check_blocking


def small_receiver(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)


def small_sender(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)


def available_kib():
    with open("/proc/meminfo") as lines:
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])


def becomes_writable(end, milliseconds):
    poll = select.poll()
    poll.register(end, select.POLLOUT)
    return bool(poll.poll(milliseconds))


@check
def a_writer_is_held_up():
    """Without a reader a writer is stopped, isn't called writable, and goes on once all is read."""
    dialled, accepted = met()
    taken, was_stopped = stuff(dialled)
    expect(was_stopped and taken < 32 << 20, f"{taken >> 20} MiB were taken")
    expect(not becomes_writable(dialled, 0), "it is called writable though nothing is taken")
    expect(len(exactly(accepted, taken)) == taken, "bytes are missing")
    expect(becomes_writable(dialled, 2000), "it never becomes writable again")


@check
def the_bound_follows_the_buffers():
    """With buffers of 64 KiB less than 2 MiB are under way."""
    dialled, _accepted = met(prepare_listener=small_receiver, prepare_dialled=small_sender)
    taken, was_stopped = stuff(dialled, chunk=4096)
    expect(was_stopped and taken < 2 << 20, f"{taken >> 10} KiB were taken")


@check
def single_bytes_are_bounded_by_what_they_cost():
    """Writes of one byte to nobody are stopped before they cost the kernel 100 MB."""
    cost = 0
    # The memory is the host's, and others take of it as well: a cost is there each time.
    for _ in range(5):
        dialled, _accepted = met(prepare_listener=small_receiver, prepare_dialled=small_sender)
        before = available_kib()
        taken, was_stopped = stuff(dialled, at_most=1_000_000, chunk=1)
        cost = before - available_kib()
        expect(was_stopped, f"{taken} writes were taken")
        if cost < 100_000:
            return
    expect(False, f"{taken} writes were taken, at {cost} KiB")


@check_blocking
def a_waiting_writer_stops_after_its_time():
    """SO_SNDTIMEO: a writer that waits gets EAGAIN when its time is over."""
    dialled, _accepted = met()
    dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
    taken = 0
    for _ in range(2000):
        result = outcome(lambda: dialled.send(b"q" * 65536))
        if result == "BlockingIOError":
            return
        taken += result
    expect(False, f"{taken >> 20} MiB were taken without a wait")


@check
def what_waits_to_be_sent_is_told():
    """SIOCOUTQ is 0 when everything has gone, and more with a stuffed connection."""
    dialled, _accepted = met()
    idle = waits_to_be_sent(dialled)
    stuff(dialled)
    expect(idle == 0 and waits_to_be_sent(dialled) > 0, f"{idle} when idle, {waits_to_be_sent(dialled)} when stuffed")


@check
def a_little_after_much():
    """A small message after a full buffer's worth comes, whatever the writer's buffer holds still."""
    rounds, size, listening = 8, 300_000, listener()
    child = os.fork()
    if child == 0:
        end = dial(listening)
        end.setblocking(True)
        for expected in [1] * 40 + [size, 1] * rounds:
            exactly(end, expected)
            if expected == 1:
                end.send(b"!")
        os._exit(0)
    end, _ = listening.accept()
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(40):
        end.send(b"?")
        expect(exactly(end, 1) == b"!", "another answer")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)

    def send(data):
        while data:
            try:
                data = data[end.send(data, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                expect(becomes_writable(end, 2000), "it never becomes writable")

    answered = select.poll()
    answered.register(end, select.POLLIN)
    for _ in range(rounds):
        send(memoryview(bytes(size)))
        time.sleep(0.015)
        send(b"?")
        expect(answered.poll(3000) and end.recv(1) == b"!", "it doesn't come")
    os.waitpid(child, 0)
