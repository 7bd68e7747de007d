"""Two ends of a connection on loopback, and what checks do with them."""
import array
import contextlib
import fcntl
import hashlib
import os
import random
import select
import signal
import socket
import struct
import threading
import time

# That a call may wait before it counts as hanging.
CALL_SECONDS = 10
# Options that Python's socket module lacks (asm-generic/socket.h, linux/tcp.h, linux/sockios.h).
SO_TIMESTAMP, SO_ZEROCOPY = 29, 60
TCP_INFO_BYTES = 256
FIONREAD, SIOCOUTQ = 0x541B, 0x5411


class Failed(Exception):
    """The promise is broken."""


class Skipped(Exception):
    """It can't be asked here."""


def expect(condition, otherwise):
    if not condition:
        raise Failed(otherwise() if callable(otherwise) else otherwise)


def loopback(family=socket.AF_INET):
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def listener(family=socket.AF_INET, backlog=64, prepare=None, port=0):
    """A server that has answered once: what is learned of a server by its first connection, is known."""
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((loopback(family), port))
    if prepare:
        prepare(listening)
    listening.listen(backlog)
    first = dial(listening)
    first.sendall(b"?")
    accepted, _ = listening.accept()
    for one, other in ((first, accepted), (accepted, first)) * 2:
        one.sendall(b"!")
        other.recv(2)
    first.close()
    accepted.close()
    return listening


def dial(listening):
    return socket.create_connection(listening.getsockname()[:2], timeout=socket.getdefaulttimeout())


def pair(family=socket.AF_INET, prepare_listener=None, prepare_dialled=None):
    """The end that dialled and the end that was accepted; neither holds small writes back."""
    listening = listener(family, prepare=prepare_listener)
    dialled = socket.socket(family)
    if prepare_dialled:
        prepare_dialled(dialled)
    dialled.connect(listening.getsockname()[:2])
    accepted, _ = listening.accept()
    listening.close()
    for end in (dialled, accepted):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # For ways that aren't taken before a connection has proved to last.
    for _ in range(int(os.environ.get("FRIENDS_TEST_WARM_UP", "0"))):
        for one, other in ((dialled, accepted), (accepted, dialled)):
            one.sendall(b"w")
            other.recv(1)
    return dialled, accepted


def met(**options):
    """As pair, after an exchange both ways: a connection that has come to its usual way."""
    dialled, accepted = pair(**options)
    for one, other in ((dialled, accepted), (accepted, dialled)) * 2:
        one.sendall(b"hello")
        expect(exactly(other, 5) == b"hello", "the first exchange is wrong")
    return dialled, accepted


def exactly(end, count):
    """So many bytes, or fewer if the stream ends."""
    got = bytearray()
    while len(got) < count:
        data = end.recv(min(1 << 20, count - len(got)))
        if not data:
            break
        got += data
    return bytes(got)


def to_end(end):
    got = bytearray()
    while True:
        data = end.recv(1 << 17)
        if not data:
            return bytes(got)
        got += data


def number_of(end, request):
    """What an ioctl(2) says."""
    cell = array.array("i", [0])
    fcntl.ioctl(end, request, cell)
    return cell[0]


def waits_to_be_read(end):
    return number_of(end, FIONREAD)


def waits_to_be_sent(end):
    return number_of(end, SIOCOUTQ)


def until(what, seconds=CALL_SECONDS):
    """Looks until something is true."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


@contextlib.contextmanager
def alarms(seconds, interrupts=True):
    """Signals again and again: a single one may come before the call that it's meant for has begun."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, interrupts)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def heard(number):
    """A list that gets an entry with each signal of this number."""
    came = []
    before = signal.signal(number, lambda *_: came.append(1))
    try:
        yield came
    finally:
        signal.signal(number, before)


def start(work, *arguments):
    """Does something beside; finish() says what came of it."""
    thread = threading.Thread(target=lambda: attempt(thread, work, arguments), daemon=True)
    thread.error = None
    thread.start()
    return thread


def attempt(thread, work, arguments):
    try:
        work(*arguments)
    except Exception as error:
        thread.error = error


def finish(*threads):
    """Waits until what was started is done, and fails if it did."""
    for thread in threads:
        thread.join(CALL_SECONDS)
        expect(not thread.is_alive(), "it hangs")
        if thread.error:
            raise thread.error


def reset_on_close(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def to_poll(end):
    """A struct pollfd that asks for what comes."""
    return struct.pack("ihh", end.fileno(), select.POLLIN, 0)


def to_select(end, length=128):
    """An fd_set of this one, of so many bytes."""
    wanted = bytearray(length)
    wanted[end.fileno() // 8] |= 1 << end.fileno() % 8
    return bytes(wanted)


def outcome(call):
    """A number, a length, or the name of the error."""
    try:
        result = call()
        return len(result) if isinstance(result, bytes) else result
    except OSError as error:
        return type(error).__name__


def stuff(end, at_most=128 << 20, chunk=65536):
    """Writes without waiting until nothing is taken for a while; how much was, and whether that was the end."""
    end.setblocking(False)
    data, taken, last = b"z" * chunk, 0, time.monotonic()
    while taken < at_most:
        try:
            taken += end.send(data)
            last = time.monotonic()
        except BlockingIOError:
            if time.monotonic() - last > 0.3:
                return taken, True
            time.sleep(0.005)
    return taken, False


def stream(sender, receiver, total, seed=7):
    """Sends so many bytes in writes of all sizes, reads them so, with pauses; they have to be the same."""
    blob = random.Random(seed).randbytes(1 << 20)
    sent, got = hashlib.blake2b(), hashlib.blake2b()

    def write():
        dice, left = random.Random(seed + 1), total
        while left:
            size = min(dice.choice([1, 13, 256, 4096, 30000, 65536, 200000]), left)
            at = dice.randrange(0, len(blob) - size)
            sender.sendall(blob[at : at + size])
            sent.update(blob[at : at + size])
            left -= size
        sender.shutdown(socket.SHUT_WR)

    writer, dice, count = start(write), random.Random(seed + 2), 0
    while True:
        data = receiver.recv(dice.choice([1, 100, 5000, 65536, 300000]))
        if not data:
            break
        got.update(data)
        count += len(data)
        if dice.random() < 0.002:
            time.sleep(0.003)
    finish(writer)
    expect(count == total and sent.digest() == got.digest(), f"{count} of {total} bytes came, or others")
