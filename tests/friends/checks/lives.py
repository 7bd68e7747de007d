"""Sockets that are shared, handed on, used again, and many at once."""
import array
import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import time

from ends import dial, exactly, expect, finish, listener, met, outcome, reset_on_close, start, to_end, until

from .check import check, check_blocking

LIBC = ctypes.CDLL(None, use_errno=True)
AF_UNSPEC_ADDRESS = bytes(16)


@check
def another_connection_by_the_same_socket():
    """connect(2) with AF_UNSPEC ends a connection, and the socket begins another, to which the peer of the one before has nothing to say."""
    listening, end, before = listener(), socket.socket(), None
    for number in range(30):
        end.connect(listening.getsockname())
        accepted, _ = listening.accept()
        for _ in range(3 if before else 0):
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                before.send(b"of the connection before")
        for _ in range(3):
            end.send(b"question %d" % number)
            expect(accepted.recv(20) == b"question %d" % number, "another question")
            accepted.send(b"answer")
            expect(end.recv(10) == b"answer", "another answer")
        if number % 2:
            accepted.send(b"of the connection before")
        expect(LIBC.connect(end.fileno(), AF_UNSPEC_ADDRESS, 16) == 0, "it can't be ended")
        told = outcome(lambda: end.recv(30, socket.MSG_DONTWAIT))
        expect(told == "ConnectionResetError", f"of the connection before comes {told}")
        before = accepted


@check
def the_same_ports_again():
    """A connection with the addresses and ports of the one before has its own bytes alone."""
    listening, port = listener(), 0
    for number in range(300):
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind(("127.0.0.1", port))
        port = end.getsockname()[1]
        end.connect(listening.getsockname())
        accepted, _ = listening.accept()
        for _ in range(2):
            end.send(b"%08d" % number)
            expect(exactly(accepted, 8) == b"%08d" % number, "bytes of another connection")
            accepted.send(b"%08d" % number)
            expect(exactly(end, 8) == b"%08d" % number, "bytes of another connection")
        if number % 2:
            end.send(b"unread")
        reset_on_close(end)
        end.close()
        accepted.close()


@check
def a_child_with_a_copy():
    """fork(2): the child reads and answers, and its exit ends the connection once nobody has it."""
    dialled, accepted = met()
    child = os.fork()
    if child == 0:
        accepted.send(exactly(accepted, 3)[::-1])
        os._exit(0)
    accepted.close()
    dialled.send(b"abc")
    expect(exactly(dialled, 3) == b"cba", "another answer")
    os.waitpid(child, 0)
    expect(dialled.recv(10) == b"", "no end")


@check
def another_program_with_a_copy():
    """exec(2): a program that inherits the socket reads and answers."""
    answers_by_another_program(os.environ)


@check
def another_program_with_another_environment():
    """execve(2): so does one that is loaded without what this one was loaded with."""
    answers_by_another_program({"PATH": os.environ["PATH"]})


def answers_by_another_program(environment):
    dialled, accepted = met()
    accepted.setblocking(True)
    child = os.fork()
    if child == 0:
        os.dup2(accepted.fileno(), 0)
        os.dup2(accepted.fileno(), 1)
        os.execvpe("head", ["head", "-c", "6"], environment)
    accepted.close()
    dialled.send(b"abc")
    dialled.send(b"def")
    expect(exactly(dialled, 6) == b"abcdef", "another answer")
    os.waitpid(child, 0)
    expect(dialled.recv(10) == b"", "no end")


@check
def a_socket_handed_to_another():
    """SCM_RIGHTS: whoever gets the socket reads what was sent before and after."""
    dialled, accepted = met()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    here.setblocking(True)
    there.setblocking(True)
    dialled.send(b"before ")
    here.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [accepted.fileno()]))])
    accepted.close()
    _, notes, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
    handed = socket.socket(fileno=array.array("i", notes[0][2])[0])
    dialled.send(b"after")
    dialled.close()
    expect(exactly(handed, 100) == b"before after", "other bytes")


@check
def a_copy_of_the_descriptor():
    """dup(2): closing one of two copies closes nothing."""
    dialled, accepted = met()
    copy = accepted.dup()
    accepted.close()
    dialled.send(b"abc")
    expect(exactly(copy, 3) == b"abc", "other bytes")
    copy.send(b"def")
    expect(exactly(dialled, 3) == b"def", "other bytes")


@check
def many_at_once():
    """500 connections open at once have their own bytes each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listening = listener(backlog=512)
    pairs = []
    for _ in range(500):
        end = dial(listening)
        pairs.append((end, listening.accept()[0]))
    for turn in range(3):
        for number, (end, _) in enumerate(pairs):
            end.send(b"%d-%d" % (turn, number))
        for number, (_, accepted) in enumerate(pairs):
            question = accepted.recv(20)
            expect(question == b"%d-%d" % (turn, number), "bytes of another connection")
            accepted.send(question)
        for number, (end, _) in enumerate(pairs):
            expect(end.recv(20) == b"%d-%d" % (turn, number), "bytes of another connection")


@check
def a_command_beside_what_is_unread():
    """system(3), and others that start a program with a copy of the socket: what is unread is read later, and then the end."""
    libc = ctypes.CDLL(None)
    dialled, accepted = met()
    os.set_inheritable(accepted.fileno(), True)
    dialled.sendall(b"hello world")
    dialled.shutdown(socket.SHUT_WR)
    expect(exactly(accepted, 5) == b"hello", "another beginning")
    expect(libc.system(b"true") == 0, "no command")
    subprocess.run(["true"], check=True, close_fds=False)
    expect((got := to_end(accepted)) == b" world", f"{got}")


@check
def a_program_that_isnt_there():
    """execl(3), execlp(3) and execle(3) that fail, in this process and in a child, change nothing: the close is an end and no reset."""
    libc = ctypes.CDLL(None)
    dialled, accepted = met()
    missing, none = b"/nonexistent/program", ctypes.c_void_p()
    words = [b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight"]
    tries = [
        lambda: libc.execl(missing, *words, none),
        lambda: libc.execlp(b"no-such-program", *words, none),
        lambda: libc.execle(missing, *words, none, none),
    ]
    dialled.sendall(b"unread")
    for attempt in tries:
        expect(attempt() == -1, "it was executed")
        child = os.fork()
        if child == 0:
            os._exit(0 if attempt() == -1 else 1)
        expect(os.waitpid(child, 0)[1] == 0, "a child")
    child = os.fork()
    if child == 0:
        libc.execl(b"/bin/sh", b"sh", b"-c", b'test "$0 $1 $2 $3 $4 $5" = "a b c d e f"', b"a", b"b", b"c", b"d", b"e", b"f", none)
        os._exit(1)
    expect(os.waitpid(child, 0)[1] == 0, "other arguments")
    accepted.sendall(b"answer")
    accepted.shutdown(socket.SHUT_WR)
    expect(exactly(accepted, 6) == b"unread", "other bytes")
    accepted.close()
    expect((got := to_end(dialled)) == b"answer", f"{got}")


def own_process(name):
    """A child made by other means than fork(3): what those in front of libc's functions hear of it, they hear from the call."""
    numbers = {"x86_64": (56, 57), "aarch64": (220, None)}[os.uname().machine]
    by = {"_Fork": LIBC._Fork, "clone": lambda: LIBC.syscall(numbers[0], signal.SIGCHLD, None, None, None, None)}
    return by[name]()


@check_blocking
def processes_made_by_other_means():
    """What a parent and its child write to one connection stays whole, however the child was made."""
    for name in ("_Fork", "clone"):
        dialled, accepted = met()
        count, records = 20_000, []
        reading = start(lambda: records.append(exactly(accepted, 2 * 8 * count)))
        child = own_process(name)
        for _ in range(count):
            LIBC.send(dialled.fileno(), b"child..." if child == 0 else b"parent..", 8, 0)
        if child == 0:
            LIBC._exit(0)
        finish(reading)
        os.waitpid(child, 0)
        told = [records[0][place : place + 8] for place in range(0, len(records[0]), 8)]
        expect(sorted(set(told)) == [b"child...", b"parent.."] and told.count(b"child...") == count, f"{name}: torn")


@check
def what_another_process_says_of_a_shared_socket():
    """O_NONBLOCK and SO_RCVTIMEO are the open file's and the socket's: what one process says, holds in the other that shares them."""
    dialled, accepted = met()
    waits = accepted.getblocking()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ready, 1)
        fcntl.fcntl(accepted, fcntl.F_SETFL, 0)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
        os._exit(0)
    room = ctypes.create_string_buffer(1)
    expect(LIBC.recv(accepted.fileno(), room, 1, socket.MSG_DONTWAIT) == -1, "there's something to read")
    os.write(go, b"x")
    os.waitpid(child, 0)
    began = time.monotonic()
    expect(LIBC.recv(accepted.fileno(), room, 1, 0) == -1, "there's something to read")
    expect(0.03 < time.monotonic() - began < 2, f"it waits for {time.monotonic() - began:.3f} s; before: {waits}")
    accepted.setblocking(waits)
    fcntl.fcntl(accepted, fcntl.F_SETFL, os.O_NONBLOCK)
    child = os.fork()
    if child == 0:
        fcntl.fcntl(accepted, fcntl.F_SETFL, 0)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
        time.sleep(0.1)
        dialled.send(b"y")
        os._exit(0)
    until(lambda: fcntl.fcntl(accepted, fcntl.F_GETFL) & os.O_NONBLOCK == 0, 2)
    expect(LIBC.recv(accepted.fileno(), room, 1, 0) == 1, "it doesn't wait")
    os.waitpid(child, 0)


@check
def an_epoll_of_each_process():
    """A parent and its child, each with an epoll of its own for the socket that they share, are both told."""
    dialled, accepted = met()
    accepted.setblocking(False)
    parents = select.epoll()
    parents.register(accepted, select.EPOLLIN)
    (told, tell), (ready, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        own = select.epoll()
        own.register(accepted, select.EPOLLIN)
        os.write(tell, b"r")
        os.read(ready, 1)
        os.write(tell, b"y" if own.poll(5) else b"n")
        os._exit(0)
    os.read(told, 1)
    # The parent's registration comes to its usual way meanwhile, in which the child's isn't to be forgotten.
    for _ in range(20):
        dialled.send(b"q")
        expect(parents.poll(5) and exactly(accepted, 1) == b"q", "the parent isn't told")
        accepted.send(b"a")
        expect(exactly(dialled, 1) == b"a", "another answer")
    os.write(go, b"x")
    time.sleep(0.05)
    dialled.send(b"x")
    expect(parents.poll(5), "the parent isn't told")
    expect(os.read(told, 1) == b"y", "the child isn't told")
    expect(exactly(accepted, 1) == b"x" and os.waitpid(child, 0)[1] == 0, "another byte")


@check_blocking
def a_writer_that_is_killed_and_not_waited_for():
    """A process that shares a connection, and is killed while it writes, holds nobody up, though its parent hasn't waited for it."""
    for number in range(12):
        dialled, accepted = met()
        reading = start(to_end, accepted)
        child = os.fork()
        if child == 0:
            while True:
                dialled.send(b"12345678")
        time.sleep(0.02 + number * 0.0013)
        os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
        began = time.monotonic()
        dialled.send(b"x")
        took = time.monotonic() - began
        os.waitpid(child, 0)
        dialled.close()
        finish(reading)
        expect(took < 2, f"a send takes {took:.1f} s")
