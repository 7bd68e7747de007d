#!/usr/bin/env python3
"""Two ends on two hosts, for tests of what friends' programs cost connections that aren't local.

    far.py serve ADDRESS            "port N", then answers each connection's messages with the same bytes until standard input ends
    far.py ask ADDRESS PORT COUNT   that many exchanges of 1,000 bytes on one connection; "answered"
    far.py visit ADDRESS PORT COUNT          that many connections there, each for one exchange, registered with epoll; "visited"
    far.py visited ADDRESS PORT OWN COUNT    the same, but that they come from there to this address
"""
import select
import socket
import sys
import threading

MESSAGE = bytes(1000)


# What "visited" asks of the other host: connections to an address.
CALL = b"call "


def answer(connection):
    while data := connection.recv(65536):
        if data.startswith(CALL):
            _, address, port, count = data.decode().split()
            for _ in range(int(count)):
                with socket.create_connection((address, int(port)), timeout=20) as called:
                    called.sendall(called.recv(100))
                    called.recv(100)
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


def exchange(waiting, end):
    waiting.register(end, select.EPOLLIN)
    end.send(MESSAGE[:100])
    waiting.poll(20)
    len(end.recv(100)) == 100 or sys.exit("ended early")
    end.close()


def visit(address, port, count):
    with select.epoll() as waiting:
        for _ in range(int(count)):
            exchange(waiting, socket.create_connection((address, int(port))))
    print("visited", flush=True)


def visited(address, port, own, count):
    with (
        socket.create_server((own, 0)) as listening,
        socket.create_connection((address, int(port)), timeout=20) as connection,
        select.epoll() as waiting,
    ):
        connection.sendall(CALL + f"{own} {listening.getsockname()[1]} {count}".encode())
        for _ in range(int(count)):
            exchange(waiting, listening.accept()[0])
        connection.recv(100)
    print("visited", flush=True)


{"ask": ask, "serve": serve, "visit": visit, "visited": visited}[sys.argv[1]](*sys.argv[2:])
