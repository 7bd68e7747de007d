#!/usr/bin/env python3
"""Clients and a server with a relay between them, on one host: whether what goes through is what was sent.

    relayed.py            says "listening PORT", and is told "relay PORT"; then each line names a check
    relayed.py --client PORT   sends without end (what it starts itself)
"""
import random
import signal
import socket
import subprocess
import sys
import threading

from ends import Failed, exactly, expect, finish, reset_on_close, start, to_end

# A connection that has exchanged so much has come to its usual way.
EXCHANGES = 24
PERIOD = 1_000_003
PATTERN = random.Random(5).randbytes(PERIOD)


def pattern(place, length):
    """Bytes of a stream, by their place in it."""
    start_at = place % PERIOD
    data = PATTERN[start_at:start_at + length]
    while len(data) < length:
        data += PATTERN[:length - len(data)]
    return data


class Relayed:
    """A server, and a relay that leads to it."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listening.settimeout(20)
        self.port = None
        self.flow = None

    def pair(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        server, _ = self.listening.accept()
        server.settimeout(20)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(EXCHANGES):
            for one, other in ((client, server), (server, client)):
                one.sendall(b"hello")
                expect(exactly(other, 5) == b"hello", "the first exchanges are wrong")
        return client, server


def send(end, total, sizes):
    place, dice = 0, random.Random(total)
    while place < total:
        length = min(dice.choice(sizes), total - place)
        end.sendall(pattern(place, length))
        place += length


def receive(end, total):
    place = 0
    while place < total:
        data = end.recv(min(1 << 17, total - place))
        expect(data, f"the stream ends at {place} of {total}")
        expect(data == pattern(place, len(data)), f"a byte between {place} and {place + len(data)} is wrong")
        place += len(data)


SIZES = [1, 64, 1000, 4096, 65536, 300_000]


def streams_both_ways(relayed):
    client, server = relayed.pair()
    total = 24 << 20
    beside = [start(send, client, total, SIZES), start(send, server, total, SIZES), start(receive, server, total)]
    receive(client, total)
    finish(*beside)
    for end in (client, server):
        end.close()


def small_exchanges(relayed):
    client, server = relayed.pair()
    for count in range(3000):
        asked = pattern(count, 64)
        client.sendall(asked)
        expect(exactly(server, 64) == asked, "a request is wrong")
        server.sendall(asked[:16])
        expect(exactly(client, 16) == asked[:16], "an answer is wrong")
    client.close()
    expect(to_end(server) == b"", "more than an end")
    server.close()


def one_side_finishes(relayed):
    for swapped in (False, True):
        one, other = relayed.pair()[::-1 if swapped else 1]
        total = 3 << 20
        beside = start(send, one, total, SIZES)
        receive(other, total)
        finish(beside)
        one.shutdown(socket.SHUT_WR)
        expect(to_end(other) == b"", "no end after the last byte")
        beside = start(send, other, total, SIZES)
        receive(one, total)
        finish(beside)
        other.close()
        expect(to_end(one) == b"", "no end of the other side")
        one.close()


def a_reset_is_a_reset(relayed):
    for swapped in (False, True):
        one, other = relayed.pair()[::-1 if swapped else 1]
        one.sendall(pattern(0, 5000))
        expect(exactly(other, 5000) == pattern(0, 5000), "bytes before the reset")
        reset_on_close(one)
        one.close()
        try:
            data = other.recv(1)
        except ConnectionResetError:
            data = None
        expect(data is None, f"{data} and no reset")
        other.close()


def who_reads_late_reads_all(relayed):
    client, server = relayed.pair()
    total = 12 << 20
    beside = start(send, client, total, [65536])
    beside.join(0.3)
    expect(beside.is_alive(), "nothing waits for the reader")
    receive(server, total)
    finish(beside)
    client.close()
    expect(to_end(server) == b"", "no end")
    server.close()


def what_waits_at_a_close_comes(relayed):
    client, server = relayed.pair()
    client.sendall(pattern(0, 100_000))
    client.close()
    expect(to_end(server) == pattern(0, 100_000), "what was sent before the close")
    server.close()


def a_killed_client_leaves_a_true_beginning(relayed):
    child = subprocess.Popen([sys.executable, __file__, "--client", str(relayed.port)])
    server, _ = relayed.listening.accept()
    server.settimeout(20)
    place = 0
    while True:
        try:
            data = server.recv(1 << 16)
        except ConnectionResetError:
            break
        if not data:
            break
        expect(data == pattern(place, len(data)), f"a byte between {place} and {place + len(data)} is wrong")
        place += len(data)
        if place > 4 << 20 and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()
    expect(place > 4 << 20, f"it ends at {place}, before the client was killed")
    server.close()


def a_client_that_sends_without_end(port):
    end, place = socket.create_connection(("127.0.0.1", port), timeout=20), 0
    while True:
        end.sendall(pattern(place, 8192))
        place += 8192


class Flow:
    """Checked bytes both ways until it's told to stop."""

    def __init__(self, relayed):
        self.ends, self.over, self.rounds = relayed.pair(), threading.Event(), 0
        self.thread = start(self.run)

    def run(self):
        client, server = self.ends
        while not self.over.is_set():
            beside = start(send, client, 200_000, SIZES)
            receive(server, 200_000)
            finish(beside)
            server.sendall(b"heard")
            expect(exactly(client, 5) == b"heard", "an answer is wrong")
            self.rounds += 1

    def stop(self):
        self.over.set()
        finish(self.thread)
        client, server = self.ends
        client.close()
        expect(to_end(server) == b"", "no end")
        server.close()


def flow_begins(relayed):
    relayed.flow = Flow(relayed)
    flow_goes_on(relayed)


def flow_goes_on(relayed):
    """Waits until what is done to it meanwhile has had its effect: several rounds."""
    goal, wait = relayed.flow.rounds + 40, threading.Event()
    for _ in range(20_000):
        if relayed.flow.rounds >= goal:
            return
        expect(relayed.flow.thread.is_alive(), lambda: f"it has ended: {relayed.flow.thread.error}")
        wait.wait(0.001)
    raise Failed("it stands still")


def flow_ends(relayed):
    relayed.flow.stop()


CHECKS = [
    streams_both_ways,
    small_exchanges,
    one_side_finishes,
    a_reset_is_a_reset,
    who_reads_late_reads_all,
    what_waits_at_a_close_comes,
    a_killed_client_leaves_a_true_beginning,
    flow_begins,
    flow_goes_on,
    flow_ends,
]


def main():
    if sys.argv[1:2] == ["--client"]:
        a_client_that_sends_without_end(int(sys.argv[2]))
    relayed, checks = Relayed(), {check.__name__: check for check in CHECKS}
    print("listening", relayed.listening.getsockname()[1], flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "relay":
            relayed.port = int(words[1])
            continue
        try:
            checks[words[0]](relayed)
        except (Failed, OSError) as wrong:
            print("fail", words[0], repr(wrong), flush=True)
        else:
            print("pass", words[0], flush=True)


if __name__ == "__main__":
    main()
