#!/usr/bin/env python3
"""What epoll tells of connections that have become friends where the peer's socket is withheld: the kernel doesn't let this process have it, as under
Yama. Here it's a process that has given its capabilities up, beside a peer that hasn't: root's.

    withheld.py [NAME...]

Each check runs in a process of its own and says "pass NAME" or "fail NAME: why". On plain TCP all pass.
"""
import ctypes
import os
import select
import socket
import struct
import threading
from select import EPOLLET, EPOLLIN, EPOLLONESHOT

import faults
from doorbells import ADD, DATA, DEL, MOD, control, libc, told, wait
from ends import expect, until, waits_to_be_read

# _LINUX_CAPABILITY_VERSION_3 (linux/capability.h), and the words that it comes with.
VERSION, WORDS = 0x20080522, 6
# x86-64 and the generic table (asm/unistd.h).
PIDFD_GETFD = 438


def give_up_capabilities():
    nothing = libc.capset(struct.pack("Ii", VERSION, 0), bytes(4 * WORDS))
    expect(nothing == 0, "capabilities can't be given up")


class Peer:
    """Another process, which dials, and sends what it's told to."""

    def __init__(self):
        listening = socket.create_server(("127.0.0.1", 0))
        orders, self.orders = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.orders)
            self.dial(listening, orders)
        self.end, _ = listening.accept()
        listening.close()

    def dial(self, listening, orders):
        with socket.create_connection(listening.getsockname()) as end:
            listening.close()
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(faults.ROUNDS):
                end.sendall(b"question")
                end.recv(100)
            while text := os.read(orders, 100):
                end.sendall(text)
        os._exit(0)

    def sends(self, text):
        os.write(self.orders, text)
        expect(until(lambda: waits_to_be_read(self.end) == len(text)), "it doesn't come")


def withheld():
    """A peer, and the epoll in which its connection's end is registered: a friend by now, whose doorbells come by a pipe."""
    peer = Peer()
    peer.end.setblocking(False)
    epoll = libc.epoll_create1(0)
    control(epoll, ADD, peer.end)
    for _ in range(faults.ROUNDS):
        expect(told(epoll) == [DATA] and peer.end.recv(100) == b"question", "nothing is told of the question")
        peer.end.sendall(b"answer")
    give_up_capabilities()
    handle = os.pidfd_open(peer.process)
    expect(libc.syscall(PIDFD_GETFD, handle, 0, 0) < 0, "the peer's descriptors can be had")
    return peer, epoll


def empties(peer, epoll, text):
    """Reads all: nothing more is told, until more comes."""
    expect(peer.end.recv(100) == text, "other bytes come")
    expect(wait(epoll, 20) == [], "what was read is told of")


def once_is_told_of_what_is_unread():
    peer, epoll = withheld()
    peer.sends(b"abc")
    control(epoll, MOD, peer.end, EPOLLIN | EPOLLONESHOT)
    expect(told(epoll) == [DATA], "it isn't told")
    expect(wait(epoll, 20) == [], "it's told twice")
    control(epoll, MOD, peer.end, EPOLLIN | EPOLLONESHOT)
    expect(told(epoll) == [DATA], "it isn't told again")
    empties(peer, epoll, b"abc")
    control(epoll, MOD, peer.end, EPOLLIN | EPOLLONESHOT)
    peer.sends(b"def")
    expect(told(epoll) == [DATA], "what comes then isn't told of")
    empties(peer, epoll, b"def")


def who_sleeps_is_told_when_another_registers_it_anew():
    peer, epoll = withheld()
    control(epoll, MOD, peer.end, 0)
    peer.sends(b"abc")
    heard = []
    waiting = threading.Thread(target=lambda: heard.extend(told(epoll, 5000)))
    waiting.start()
    control(epoll, MOD, peer.end, EPOLLIN | EPOLLONESHOT, 6)
    waiting.join(5)
    expect(heard == [6], f"who sleeps hears {heard}")
    empties(peer, epoll, b"abc")


def a_second_epoll_is_told():
    peer, epoll = withheld()
    peer.sends(b"abc")
    other = libc.epoll_create1(0)
    control(other, ADD, peer.end, EPOLLIN, 7)
    expect(told(other) == [7], "the second isn't told")
    expect(told(epoll) == [DATA], "the first isn't told any more")
    empties(peer, other, b"abc")
    expect(wait(epoll, 0) == [], "what was read is told of")
    peer.sends(b"d")
    expect(told(other) == [7] and told(epoll) == [DATA], "not both are told of what comes then")
    control(other, DEL, peer.end)
    expect(wait(other, 0) == [] and told(epoll) == [DATA], "it's told where it was taken out")
    empties(peer, epoll, b"d")


def what_is_taken_out_unread_is_told_of_no_more():
    peer, epoll = withheld()
    peer.sends(b"abc")
    other = libc.epoll_create1(0)
    control(other, ADD, peer.end, EPOLLIN | EPOLLONESHOT, 7)
    control(other, DEL, peer.end)
    expect(wait(other, 20) == [], "it's told where it was taken out")
    expect(told(epoll) == [DATA], "where it's still registered it isn't told")
    peer.end.close()
    expect(wait(epoll, 20) == [], "it's told of a socket that is closed")


def a_duplicate_is_told_of():
    peer, epoll = withheld()
    peer.sends(b"abc")
    copy = peer.end.dup()
    control(epoll, ADD, copy, EPOLLIN, 8)
    expect(8 in told(epoll), "the duplicate isn't told of")
    empties(peer, epoll, b"abc")
    peer.sends(b"d")
    expect(sorted(told(epoll)) == sorted([8, DATA]), "not both are told of what comes then")


def edges_of_what_is_unread_are_told_once():
    peer, epoll = withheld()
    peer.sends(b"abc")
    other = libc.epoll_create1(0)
    control(other, ADD, peer.end, EPOLLIN | EPOLLET, 9)
    expect(told(other) == [9] and wait(other, 20) == [], "an edge isn't told once")
    expect(peer.end.recv(100) == b"abc", "other bytes come")
    peer.sends(b"d")
    expect(told(other) == [9] and peer.end.recv(100) == b"d", "the next edge isn't told")


def pipes():
    """The descriptors of the library's that are pipes. It hides them from calls, and not from /proc."""
    numbers = (int(name) for name in os.listdir("/proc/self/fd"))
    path = "/proc/self/fd/{}".format
    return [number for number in numbers if number >= 700 and os.path.exists(path(number)) and "pipe:" in os.readlink(path(number))]


def a_descriptor_put_where_a_pipe_stands_hides_nothing():
    peer, epoll = withheld()
    peer.sends(b"abc")
    for number in pipes():
        os.dup2(1, number)
    expect(told(epoll) == [DATA], "it isn't told")
    empties(peer, epoll, b"abc")
    for text in (b"d", b"e"):
        peer.sends(text)
        expect(told(epoll) == [DATA], "what comes then isn't told of")
        empties(peer, epoll, text)


CHECKS = [
    once_is_told_of_what_is_unread,
    who_sleeps_is_told_when_another_registers_it_anew,
    a_second_epoll_is_told,
    what_is_taken_out_unread_is_told_of_no_more,
    a_duplicate_is_told_of,
    edges_of_what_is_unread_are_told_once,
    a_descriptor_put_where_a_pipe_stands_hides_nothing,
]


if __name__ == "__main__":
    faults.main(CHECKS)
