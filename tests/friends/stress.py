#!/usr/bin/env python3
"""Two processes do at random what programs do with a TCP connection on one host, and see whether it does what TCP does.

    stress.py [--seed N] [--connections N] [--bytes N] [--small] [--kill]
    stress.py --client PORT ... (what it starts itself)

Each direction carries bytes that follow from the seed and their place in the stream, so each receive is checked at once, whatever
process or call it was. With --kill one side kills itself in the middle: what the other receives has to be a true beginning, and then
an end or a reset. The calls are the same whatever way the bytes go: run it without the library and with it, and expect the same line.
"""
import argparse
import array
import errno
import fcntl
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

# A call that takes longer hangs.
PATIENCE_S = 30
# The pattern repeats after so many bytes: a prime, so that no size of a buffer or ring divides it.
PERIOD = 1_000_003
SMALL = [1, 2, 7, 64, 255, 256, 1000]
SIZES = [1, 2, 7, 64, 255, 256, 1000, 4096, 5000, 16384, 65536, 100_000, 262_144, 300_000]
FIONREAD = 0x541B
# What a child says that failed otherwise than by an error of the system's.
FAILED = -1 << 60


class Wrong(Exception):
    """Bytes or answers that TCP wouldn't have given."""


class Pattern:
    """The bytes of one direction."""

    def __init__(self, seed):
        once = random.Random(seed).randbytes(PERIOD)
        self.bytes = once + once[:max(SIZES) * 2]

    def at(self, place, length):
        start = place % PERIOD
        return self.bytes[start:start + length]

    def check(self, place, seen):
        if seen != self.at(place, len(seen)):
            right = self.at(place, len(seen))
            first = next(index for index in range(len(seen)) if seen[index] != right[index])
            raise Wrong(f"byte {place + first} of the stream is wrong, {first} into {len(seen)}")


def in_child(act):
    """Runs `act` in a forked process, and returns the number that it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, struct.pack("q", act()))
        except OSError as error:
            # The parent's to judge: a peer that was killed resets.
            os.write(writing, struct.pack("q", -error.errno))
        except BaseException as error:
            os.write(2, f"in a child: {error!r}\n".encode())
            os.write(writing, struct.pack("q", FAILED))
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 8)
    os.close(reading)
    os.waitpid(child, 0)
    answer = struct.unpack("q", said)[0] if len(said) == 8 else FAILED
    if answer == FAILED:
        raise Wrong("a child failed")
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


class Sending:
    def __init__(self, sock, pattern, total, chance, forks, sizes):
        self.sock, self.pattern, self.total, self.chance, self.forks, self.sizes = sock, pattern, total, chance, forks, sizes
        self.place = 0
        # Where in the stream this process kills itself.
        self.dies_at = None
        self.file = tempfile.TemporaryFile()
        self.file.write(pattern.bytes)
        self.file.flush()

    def run(self):
        acts = [self.send, self.send, self.send_some, self.gather, self.write, self.by_poll, self.by_other]
        if self.sizes is SIZES:
            acts += [self.sendfile, self.splice, self.rest]
        if self.forks:
            acts.append(self.fork)
        while self.place < self.total:
            self.chance.choice(acts)()
            if self.dies_at is not None and self.place >= self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def size(self):
        return min(self.chance.choice(self.sizes), self.total - self.place)

    def send(self):
        size = self.size()
        self.sock.sendall(self.pattern.at(self.place, size))
        self.place += size

    def send_some(self):
        try:
            self.place += self.sock.send(self.pattern.at(self.place, self.size()), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def gather(self):
        size = self.size()
        data, parts = self.pattern.at(self.place, size), []
        while data:
            length = self.chance.choice([0, 1, 100, len(data)])
            parts.append(data[:length])
            data = data[length:]
            if len(parts) > 200:
                parts.append(data)
                break
        self.place += self.sock.sendmsg(parts, [], self.chance.choice([0, socket.MSG_MORE, socket.MSG_DONTWAIT]) if size < 60000 else 0)

    def write(self):
        self.place += os.write(self.sock.fileno(), self.pattern.at(self.place, self.size()))

    def by_poll(self):
        waiting = select.poll()
        waiting.register(self.sock, select.POLLOUT)
        if waiting.poll(PATIENCE_S * 1000):
            self.send_some()

    def by_other(self):
        """By another descriptor of the same end, which is closed again."""
        with self.sock.dup() as other:
            size = self.size()
            other.sendall(self.pattern.at(self.place, size))
            self.place += size

    def sendfile(self):
        start = self.place % PERIOD
        self.place += os.sendfile(self.sock.fileno(), self.file.fileno(), start, self.size())

    def splice(self):
        reading, writing = os.pipe()
        size = min(self.size(), 60000)
        os.write(writing, self.pattern.at(self.place, size))
        while size:
            moved = os.splice(reading, self.sock.fileno(), size)
            size -= moved
            self.place += moved
        os.close(reading)
        os.close(writing)

    def fork(self):
        def act():
            size = self.size()
            self.sock.sendall(self.pattern.at(self.place, size))
            return size
        self.place += in_child(act)

    def rest(self):
        time.sleep(self.chance.choice([0, 0.0001, 0.001, 0.015]))


class Receiving:
    def __init__(self, sock, pattern, chance, forks, draws, sizes):
        self.sock, self.pattern, self.chance, self.forks, self.draws, self.sizes = sock, pattern, chance, forks, draws, sizes
        self.place = 0
        self.ended = False
        self.epoll = None

    def run(self):
        acts = [self.recv, self.recv, self.recv, self.into, self.peek, self.all, self.read, self.by_poll, self.by_select,
                self.by_epoll, self.ioctl, self.scatter, self.by_other]
        if self.sizes is SIZES:
            acts.append(self.rest)
        if self.forks:
            acts.append(self.fork)
        while not self.ended:
            act = self.chance.choice(acts)
            if self.draws and self.chance.random() < 0.002:
                act = self.splice
            act()

    def size(self):
        return self.chance.choice(self.sizes)

    def took(self, data):
        self.pattern.check(self.place, data)
        self.place += len(data)
        self.ended = not data

    def recv(self):
        self.took(self.sock.recv(self.size()))

    def by_other(self):
        """By another descriptor of the same end, which is closed again."""
        with self.sock.dup() as other:
            self.took(other.recv(self.size()))

    def into(self):
        room = bytearray(self.size())
        count = self.sock.recv_into(room)
        self.took(bytes(room[:count]))

    def scatter(self):
        rooms = [bytearray(self.chance.choice([1, 100, 5000])) for _ in range(self.chance.choice([1, 3, 100]))]
        count = self.sock.recvmsg_into(rooms)[0]
        self.took(b"".join(rooms)[:count])

    def peek(self):
        seen = self.sock.recv(self.size(), socket.MSG_PEEK)
        self.pattern.check(self.place, seen)
        again = self.sock.recv(len(seen) or 1)
        if not seen and again:
            raise Wrong("bytes after the end")
        if seen and not (again and seen.startswith(again)):
            raise Wrong("a look showed other bytes than the receive after it")
        self.took(again)

    def all(self):
        size = self.size()
        data = self.sock.recv(size, socket.MSG_WAITALL)
        self.took(data)
        if len(data) < size:
            # Fewer than asked for: the end, and nothing but the end, follows.
            if self.sock.recv(1):
                raise Wrong("MSG_WAITALL came back early")
            self.ended = True

    def read(self):
        self.took(os.read(self.sock.fileno(), self.size()))

    def some(self):
        """What is there, which is something or the end."""
        try:
            self.took(self.sock.recv(self.size(), socket.MSG_DONTWAIT))
        except BlockingIOError:
            raise Wrong("readable, and then nothing to receive") from None

    def by_poll(self):
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        if not waiting.poll(PATIENCE_S * 1000):
            raise Wrong("poll found nothing")
        self.some()

    def by_select(self):
        if not select.select([self.sock], [], [], PATIENCE_S)[0]:
            raise Wrong("select found nothing")
        self.some()

    def by_epoll(self):
        with select.epoll() as waiting:
            waiting.register(self.sock, select.EPOLLIN)
            if not waiting.poll(PATIENCE_S):
                raise Wrong("epoll found nothing")
            # A doorbell may be the last of what was received meanwhile: an event too many is allowed, as on TCP.
            try:
                self.took(self.sock.recv(self.size(), socket.MSG_DONTWAIT))
            except BlockingIOError:
                pass

    def ioctl(self):
        count = array.array("i", [0])
        fcntl.ioctl(self.sock, FIONREAD, count)
        size = min(count[0], max(SIZES))
        if size:
            data = self.sock.recv(size, socket.MSG_WAITALL | socket.MSG_DONTWAIT)
            if len(data) != size:
                raise Wrong(f"FIONREAD said {count[0]}, and of {size} there came {len(data)}")
            self.took(data)

    def splice(self):
        reading, writing = os.pipe()
        moved = os.splice(self.sock.fileno(), writing, 60000)
        self.took(os.read(reading, moved) if moved else b"")
        os.close(reading)
        os.close(writing)

    def fork(self):
        def act():
            data = self.sock.recv(self.size())
            self.pattern.check(self.place, data)
            return len(data)
        count = in_child(act)
        self.place += count
        self.ended = count == 0

    def rest(self):
        time.sleep(self.chance.choice([0, 0.0001, 0.001, 0.015]))


def both(sock, options, index, is_client):
    """Both directions of one connection, a thread each. Returns what each of them failed by."""
    seed = options.seed * 1000 + index
    out, into = (seed * 2, seed * 2 + 1) if is_client else (seed * 2 + 1, seed * 2)
    chance = random.Random(seed * 4 + is_client)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, chance.choice([0, 1]))
    # One side forks: both would be a crowd.
    forks = chance.random() < 0.3
    total = chance.randrange(options.bytes // 2, options.bytes)
    sizes = SMALL if options.small else SIZES
    sending = Sending(sock, Pattern(out), total, random.Random(seed * 8 + is_client), forks, sizes)
    receiving = Receiving(sock, Pattern(into), random.Random(seed * 8 + 2 + is_client), forks, chance.random() < 0.3, sizes)
    dies = options.kill and index == options.connections - 1 and is_client == bool(options.seed % 2)
    faults = []

    def guarded(act):
        try:
            act()
        except (ConnectionResetError, BrokenPipeError) as error:
            if not options.kill:
                faults.append(repr(error))
        except BaseException as error:
            faults.append(f"{type(error).__name__}: {error}")

    def send():
        sending.run()
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            # The other side was killed before it had read all, which reset the connection.
            if not options.kill or error.errno != errno.ENOTCONN:
                raise

    if dies:
        sending.dies_at = int(total * chance.random())
    threads = [threading.Thread(target=guarded, args=(act,), daemon=True) for act in (send, receiving.run)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 4)
        if thread.is_alive():
            faults.append(f"it hangs: sent {sending.place} of {sending.total}, received {receiving.place}")
    return faults, sending.place, receiving.place


def run(options, sockets, is_client):
    """All connections, one after the other; what was sent and received."""
    for index, sock in enumerate(sockets):
        faults, sent, received = both(sock, options, index, is_client)
        print("client" if is_client else "server", index, "sent", sent, "received", received, *faults, flush=True)
        if faults:
            os._exit(1)
        sock.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=4_000_000, help="that a direction carries at most")
    parser.add_argument("--small", action="store_true", help="small calls alone, and so many of them")
    parser.add_argument("--kill", action="store_true", help="one side kills itself in the last connection")
    parser.add_argument("--plain-client", action="store_true", help="start the client without the library")
    parser.add_argument("--client", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run(options, (socket.create_connection(("127.0.0.1", options.client)) for _ in range(options.connections)), True)
        return
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    environment = dict(os.environ)
    if options.plain_client:
        environment.pop("LD_PRELOAD", None)
    command = [sys.executable, __file__, *sys.argv[1:], "--client", str(listening.getsockname()[1])]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    faulty = []

    def serve():
        run(options, (listening.accept()[0] for _ in range(options.connections)), False)

    # The side that dies mustn't take this process with it.
    server = os.fork()
    if server == 0:
        serve()
        os._exit(0)
    listening.close()
    said = client.communicate(timeout=PATIENCE_S * 10)[0]
    print(said, end="")
    ends = [client.returncode, os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])]
    killed = ends.count(-signal.SIGKILL)
    if killed != options.kill or any(end not in (0, -signal.SIGKILL) for end in ends):
        faulty.append(f"ended with {ends}")
    print("fail" if faulty else "pass", options.seed, *faulty)
    sys.exit(bool(faulty))


if __name__ == "__main__":
    main()
