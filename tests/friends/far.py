#!/usr/bin/env python3
"""Two ends on two hosts, for tests of what friends' programs cost connections that aren't local.

    far.py serve ADDRESS            "port N", then answers each connection's messages with the same bytes until standard input ends
    far.py ask ADDRESS PORT COUNT   that many exchanges of 1,000 bytes on one connection; "answered"
"""
import socket
import sys
import threading

MESSAGE = bytes(1000)


def answer(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def serve(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family)

    def accept():
        while True:
            threading.Thread(target=answer, args=[listening.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("port", listening.getsockname()[1], flush=True)
    sys.stdin.read()


def ask(address, port, count):
    with socket.create_connection((address, int(port)), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(int(count)):
            connection.sendall(MESSAGE)
            missing = len(MESSAGE)
            while missing:
                missing -= len(connection.recv(missing)) or sys.exit("ended early")
    print("answered", flush=True)


{"ask": ask, "serve": serve}[sys.argv[1]](*sys.argv[2:])
