#!/usr/bin/env python3
"""Connections with both ends here, for tests of what becomes of them when friends come and go.

    traffic.py flow [--port N]   streams on eight connections; "flowing", and at the next line of standard input "intact BYTES"
    traffic.py ask               a server; "flowing", and at each line two questions on a new connection, "answered"
    traffic.py wait              one connection; for each line that says who is to wait for an end of it, that and ten messages to it, "said"
    traffic.py unread [--port N] sends bytes that nobody reads yet; "waiting", and at the next line more, "intact BYTES" once all is read

All sockets are O_NONBLOCK. Anything else than "intact" is what went wrong, and the exit code is 1.
"""
import hashlib
import random
import select
import socket
import sys
import threading

from ends import Failed, dial, exactly, expect, listener, to_end

CONNECTIONS = 8
STUCK_SECONDS = 20


class Flow:
    """A stream from one end to the other, which is compared."""

    def __init__(self, sender, receiver, seed, stop):
        self.sender, self.receiver, self.seed, self.stop = sender, receiver, seed, stop
        self.sent, self.got = hashlib.blake2b(), hashlib.blake2b()
        self.count, self.trouble = 0, []
        self.threads = [threading.Thread(target=self.guarded, args=[work], daemon=True) for work in (self.write, self.read)]
        for thread in self.threads:
            thread.start()

    def guarded(self, work):
        try:
            work()
        except OSError as error:
            self.trouble.append(f"{work.__name__}: {error!r}")

    def write(self):
        dice = random.Random(self.seed)
        blob = dice.randbytes(1 << 18)
        while not self.stop.wait(0.0005):
            for _ in range(8):
                size = dice.choice([1, 100, 4096, 65536])
                at = dice.randrange(0, len(blob) - size)
                self.sender.sendall(blob[at : at + size])
                self.sent.update(blob[at : at + size])
        self.sender.shutdown(socket.SHUT_WR)

    def read(self):
        while data := self.receiver.recv(65536):
            self.got.update(data)
            self.count += len(data)

    def finish(self):
        for thread in self.threads:
            thread.join(STUCK_SECONDS)
            if thread.is_alive():
                raise Failed("a stream hangs")
        expect(not self.trouble and self.sent.digest() == self.got.digest(), f"{self.count} bytes, {self.trouble}")
        return self.count


def connections(port):
    """Pairs; on a chosen port, the clients' ports are chosen too."""
    listening = listener(port=port)
    for number in range(CONNECTIONS):
        own = ("127.0.0.1", port * 8 + number) if port else None
        dialled = socket.create_connection(listening.getsockname(), timeout=STUCK_SECONDS, source_address=own)
        yield dialled, listening.accept()[0]


def flow(port):
    stop, flows = threading.Event(), []
    for number, (dialled, accepted) in enumerate(connections(port)):
        flows += [Flow(dialled, accepted, 2 * number, stop), Flow(accepted, dialled, 2 * number + 1, stop)]
    print("flowing", flush=True)
    sys.stdin.readline()
    stop.set()
    return sum(each.finish() for each in flows)


def unread(port):
    pairs, early, late = list(connections(port)), b"unread " * 1000, b"and later"
    for dialled, accepted in pairs:
        dialled.sendall(b"hello")
        expect(exactly(accepted, 5) == b"hello", "the first bytes")
        dialled.sendall(early)
    print("waiting", flush=True)
    sys.stdin.readline()
    for dialled, accepted in pairs:
        dialled.sendall(late)
        dialled.close()
        got = to_end(accepted)
        expect(got == early + late, f"{len(got)} bytes, ending with {got[-20:]}")
    return CONNECTIONS * (len(early) + len(late))


def ask(port):
    listening, count = socket.create_server(("127.0.0.1", port)), 0
    print("flowing", flush=True)
    for _ in sys.stdin:
        dialled = dial(listening)
        accepted, _ = listening.accept()
        for one, other in ((dialled, accepted), (accepted, dialled)) * 2:
            one.sendall(b"word")
            count += len(exactly(other, 4))
        dialled.close()
        accepted.close()
        print("answered", flush=True)
    return count


def wait(port):
    """Who waits for the end that accepted: a level-triggered epoll, always, and whoever was named."""
    listening = socket.create_server(("127.0.0.1", port))
    for _ in range(2):
        # By the first it's known how the server waits.
        dialled, (accepted, _) = dial(listening), listening.accept()
        for one, other in ((dialled, accepted), (accepted, dialled)) * 2:
            one.sendall(b"word")
            exactly(other, 4)
    level, other = select.epoll(), select.epoll()
    level.register(accepted, select.EPOLLIN)

    def poll():
        """Stands among those who wait, for an error that doesn't come."""
        poller = select.poll()
        poller.register(accepted, 0)
        threading.Thread(target=poller.poll, daemon=True).start()

    levels, edges = select.EPOLLIN, select.EPOLLIN | select.EPOLLET
    acts = {
        "edges": lambda: other.register(accepted, edges),
        "levels": lambda: other.modify(accepted, levels),
        "edges before": lambda: level.modify(accepted, edges),
        "levels before": lambda: level.modify(accepted, levels),
        "edges again": lambda: other.modify(accepted, edges),
        "none": lambda: other.unregister(accepted),
        "one who polls": poll,
        "": lambda: None,
    }
    print("waiting", flush=True)
    count = 0
    for line in sys.stdin:
        acts[line.strip()]()
        for _ in range(10):
            dialled.sendall(b"word")
            count += len(exactly(accepted, 4))
        print("said", flush=True)
    return count


def main():
    socket.setdefaulttimeout(STUCK_SECONDS)
    work = {"ask": ask, "flow": flow, "unread": unread, "wait": wait}[sys.argv[1]]
    port = int(sys.argv[3]) if sys.argv[2:3] == ["--port"] else 0
    try:
        print("intact", work(port), flush=True)
    except (Failed, OSError) as error:
        print("broken:", error, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
