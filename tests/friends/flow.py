"""A client and a server in two processes, whose bytes are checked at their places, under orders from standard input.

    flow.py [--epoll] [--fork]

Orders: `dial` makes a new connection, `run` sends records until the next line comes, `quit` ends. What is said: `dialled ADDRESS PID PID`,
`running` once some records have gone, `stopped RECORDS` once all of the connection's are answered. A record has 100,000 bytes; its answer is one byte.
With --epoll the sockets don't wait, and readiness is asked for. With --fork the connection is handed to a child once it has been used.
"""

import argparse
import os
import random
import select
import signal
import socket
import sys
import threading

RECORD = 100_000
PATTERN = random.Random(7).randbytes(1 << 20)


def expected(at, length):
    """The bytes of the stream from a place on."""
    at %= len(PATTERN)
    part = PATTERN[at : at + length]
    while len(part) < length:
        part += PATTERN[: length - len(part)]
    return part


def waiter(end, events):
    """What waits for readiness; nothing where calls wait themselves."""
    if end.getblocking():
        return lambda: None
    ready = select.epoll()
    ready.register(end, events)
    return ready.poll


def receive(end, wait, most):
    while True:
        try:
            return end.recv(most)
        except BlockingIOError:
            wait()


def send_all(end, wait, data):
    while data:
        try:
            data = data[end.send(data) :]
        except BlockingIOError:
            wait()


def serve(end):
    incoming, outgoing = waiter(end, select.EPOLLIN), waiter(end, select.EPOLLOUT)
    at = 0
    while data := receive(end, incoming, 65536):
        assert data == expected(at, len(data)), f"wrong bytes behind {at}"
        answers = (at + len(data)) // RECORD - at // RECORD
        at += len(data)
        send_all(end, outgoing, b"k" * answers)


def server(listening, epoll):
    while True:
        end, _ = listening.accept()
        end.setblocking(not epoll)
        threading.Thread(target=serve, args=(end,), daemon=True).start()


class Flow:
    def __init__(self, address, epoll):
        self.end = socket.create_connection(address)
        self.end.setblocking(not epoll)
        self.sent = 0
        self.answered = 0
        self.room = waiter(self.end, select.EPOLLOUT)
        wait = waiter(self.end, select.EPOLLIN)
        for _ in range(20):
            self.record()
            self.answered += len(receive(self.end, wait, 1))

    def listen(self):
        """From here on a thread of its own hears the answers."""
        self.news = threading.Condition()
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        wait = waiter(self.end, select.EPOLLIN)
        while answers := receive(self.end, wait, 1000):
            with self.news:
                self.answered += len(answers)
                self.news.notify()

    def record(self):
        send_all(self.end, self.room, expected(self.sent * RECORD, RECORD))
        self.sent += 1

    def settle(self, least):
        """Waits until fewer than so many answers are missing."""
        with self.news:
            assert self.news.wait_for(lambda: self.sent - self.answered < least, 60), "answers are missing"


def run(flow):
    """Sends until a line comes."""
    first = flow.sent
    while True:
        flow.record()
        flow.settle(50)
        if flow.sent - first == 20:
            print("running", flush=True)
        if flow.sent - first >= 20 and select.select([sys.stdin], [], [], 0)[0]:
            break
    sys.stdin.readline()
    flow.settle(1)
    print("stopped", flow.sent, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epoll", action="store_true")
    parser.add_argument("--fork", action="store_true")
    options = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        server(listening, options.epoll)
    flow = None
    try:
        while (order := sys.stdin.readline().strip()) != "quit":
            if order == "dial":
                flow = Flow(listening.getsockname(), options.epoll)
                if options.fork:
                    other = os.fork()
                    if other != 0:
                        flow.end.close()
                        os.waitpid(other, 0)
                        return
                flow.listen()
                address = "%s:%d" % flow.end.getsockname()
                print("dialled", address, os.getpid(), child, flush=True)
            elif order == "run":
                run(flow)
            else:
                raise ValueError(order)
    finally:
        try:
            os.kill(child, signal.SIGTERM)
        except ProcessLookupError:
            pass


main()
