#!/usr/bin/env python3
"""Connections that end before they could become friends, for tests of what they cost.

    visits.py COUNT    that many, one after the other, within this process: each is registered with epoll at both ends, carries a question
                       and an answer, and is closed; "visited"
"""
import select
import socket
import sys


def visit(listening, epoll):
    asking = socket.socket()
    asking.connect(listening.getsockname())
    answering, _ = listening.accept()
    for end in asking, answering:
        epoll.register(end, select.EPOLLIN)
    for one, other in (asking, answering), (answering, asking):
        one.send(b"sixty-four bytes")
        other.recv(100)
    asking.close()
    answering.close()


with socket.create_server(("127.0.0.1", 0)) as server, select.epoll() as waiting:
    for _ in range(int(sys.argv[1])):
        visit(server, waiting)
print("visited", flush=True)
