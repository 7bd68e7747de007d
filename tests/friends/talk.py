"""Both ends of a connection in one process, which tells by lines on standard output what it has done and goes on with each line of its input.

    talk.py SENT-BY-NEAR SENT-BY-FAR

First they become friends (`friends PORT PORT`: the near end's, the far end's). Then, for each line of input:

    talk    exchanges of many sizes; then more than a ring holds in one go, so that the rest goes by TCP; then exchanges again
    fill    more than a ring holds, which nobody reads yet: `filled`
    read    what `fill` has sent is read
    flood   exchanges of 5 MB
    close   both ends

What the near end has sent since it became a friend is appended to the one file, what the far end has, to the other.
"""

import random
import socket
import sys

listening = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listening.getsockname())
far, _ = listening.accept()
files = [open(path, "ab", buffering=0) for path in sys.argv[1:]]
dice = random.Random(11)
sent = {near: 0, far: 0}


def receive(end, count):
    whole = b""
    while len(whole) < count:
        part = end.recv(count - len(whole))
        assert part, "the end came early"
        whole += part
    return whole


def send(end, data):
    end.sendall(data)
    sent[end] += len(data)
    files[0 if end is near else 1].write(data)


def exchange(sizes):
    for size in sizes:
        data = dice.randbytes(size)
        send(near, data)
        assert receive(far, size) == data
        send(far, data[::-1])
        assert receive(near, size) == data[::-1]


def fill():
    """As much as isn't read: 256 KiB by the ring, the rest by TCP."""
    data = dice.randbytes(400_000)
    near.setblocking(False)
    at = 0
    while at < len(data):
        count = near.send(data[at:])
        at += count
    near.setblocking(True)
    sent[near] += len(data)
    files[0].write(data)
    return data


for _ in range(20):
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    far.sendall(b"x")
    assert near.recv(1) == b"x"
print("friends", near.getsockname()[1], far.getsockname()[1], flush=True)
waiting = b""
for order in sys.stdin:
    order = order.strip()
    if order == "talk":
        exchange(range(1, 3000, 50))
        data = fill()
        assert receive(far, len(data)) == data
        exchange(range(1, 3000, 50))
    elif order == "fill":
        waiting += fill()
    elif order == "read":
        assert receive(far, len(waiting)) == waiting
        waiting = b""
    elif order == "flood":
        exchange([100_000] * 50)
    elif order == "close":
        near.close()
        far.close()
    else:
        raise ValueError(order)
    print("done", sent[near], sent[far], flush=True)
