"""Every byte comes, once, and in the order in which it was sent."""
import ctypes
import os
import random
import socket
import struct
import subprocess
import time

from ends import Skipped, dial, exactly, expect, finish, listener, met, pair, start, stream, to_end, waits_to_be_read

from .check import check

CLONE_NEWNET = 0x40000000
MSG_FASTOPEN = 0x20000000


def own_network(*commands):
    """Moves this process to a network namespace of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise Skipped("a network namespace needs root")
    for command in ("ip link set lo up", *commands):
        if subprocess.run(command.split(), capture_output=True).returncode:
            raise Skipped(f"{command} fails")


def goes_on(end, listening):
    """A connection that has sent ten letters A sends ten B and ten C: those come behind."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.send(b"B" * 10)
    end.send(b"C" * 10)
    accepted, _ = listening.accept()
    end.close()
    got = to_end(accepted)
    accepted.close()
    expect(got == b"A" * 10 + b"B" * 10 + b"C" * 10, lambda: f"{got}")


@check
def a_short_connection():
    """Connect, write at once in pieces, close: the peer reads exactly that, then the end."""
    count, listening, dice = 300, listener(backlog=128), random.Random(1)
    sizes = [dice.choice([1, 10, 100, 1000, 5000, 20000, 65536]) for _ in range(count)]

    def write():
        for number, size in enumerate(sizes):
            end, data = dial(listening), random.Random(number).randbytes(size)
            step = max(1, size // (1 + number % 5))
            for at in range(0, size, step):
                end.sendall(data[at : at + step])
            if number % 3 == 0:
                end.shutdown(socket.SHUT_WR)
                end.recv(1)
            end.close()

    start(write)
    for number, size in enumerate(sizes):
        end, _ = listening.accept()
        got = to_end(end)
        end.close()
        expect(got == random.Random(number).randbytes(size), f"connection {number}: {len(got)} of {size} bytes, or others")


@check
def bytes_sent_before_the_server_sees_the_connection():
    """TCP_DEFER_ACCEPT: what is sent before the server has the connection comes before what is sent after."""
    listening = listener(prepare=lambda end: end.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5))
    for _ in range(100):
        end = dial(listening)
        end.send(b"A" * 10)
        goes_on(end, listening)


@check
def bytes_in_the_syn():
    """TCP Fast Open: the bytes of the SYN come first."""
    own_network("sysctl -qw net.ipv4.tcp_fastopen=3")
    listening = listener(prepare=lambda end: end.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16))
    for _ in range(60):
        end = socket.socket()
        if socket.getdefaulttimeout():
            end.setblocking(False)
        try:
            end.sendto(b"A" * 10, MSG_FASTOPEN, listening.getsockname())
        except BlockingIOError:
            # There's no cookie yet: the bytes weren't taken.
            end.settimeout(socket.getdefaulttimeout())
            time.sleep(0.01)
            end.send(b"A" * 10)
        end.settimeout(socket.getdefaulttimeout())
        goes_on(end, listening)


@check
def bytes_on_a_slow_loopback():
    """With 3 ms on the way, writes while the handshake's end is under way come in order."""
    own_network("tc qdisc add dev lo root netem delay 3ms limit 100000")
    listening = listener()
    for _ in range(30):
        end, expected = dial(listening), b""
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(20):
            expected += b"%04d" % number
            end.send(b"%04d" % number)
            time.sleep(0.0004)
        accepted, _ = listening.accept()
        end.close()
        got = to_end(accepted)
        accepted.close()
        expect(got == expected, lambda: f"{got[:40]}")


@check
def a_long_stream_in_writes_and_reads_of_all_sizes():
    """A stream is what was written, over IPv4 and IPv6, however it is cut and whoever pauses."""
    for family in (socket.AF_INET, socket.AF_INET6):
        dialled, accepted = pair(family)
        stream(dialled, accepted, 24 << 20)
        stream(accepted, dialled, 8 << 20)


@check
def a_stream_over_a_mapped_address():
    """A server on an IPv6 socket serves an IPv4 client (RFC 4291, 2.5.5.2)."""
    listening = socket.socket(socket.AF_INET6)
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.bind(("::", 0))
    listening.listen()
    for size in (1, 4 << 20):
        dialled = socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=socket.getdefaulttimeout())
        accepted, _ = listening.accept()
        finish(start(stream, dialled, accepted, size, 3), start(stream, accepted, dialled, size, 5))


@check
def both_directions_at_once():
    """Streams of both directions don't mix."""
    dialled, accepted = met()
    finish(start(stream, dialled, accepted, 8 << 20, 3), start(stream, accepted, dialled, 8 << 20, 5))


@check
def records_of_two_writers():
    """Two threads write short records to one socket: none is torn, and each writer's are in order."""
    dialled, accepted = met()
    count = 8000

    def write(writer):
        for number in range(count):
            dialled.sendall(struct.pack("II", writer, number))

    for writer in (0, 1):
        start(write, writer)
    records, following = exactly(accepted, 16 * count), [0, 0]
    for writer, number in struct.iter_unpack("II", records):
        expect(writer < 2 and number == following[writer], "a record is torn or out of order")
        following[writer] += 1
    expect(following == [count, count], f"{following} records")


@check
def a_reader_that_comes_and_goes():
    """Bursts with pauses between: a queue that runs full and empty by turns keeps the order."""
    dialled, accepted = met()
    data = os.urandom(1 << 16)
    for burst in (1, 3, 40, 200, 2, 90):
        writer = start(lambda: [dialled.sendall(data) for _ in range(burst)])
        time.sleep(0.01)
        expect(exactly(accepted, burst * len(data)) == data * burst, f"a burst of {burst}")
        writer.join()
        expect(waits_to_be_read(accepted) == 0, "more came than was sent")
