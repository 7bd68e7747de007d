"""Sockets that are shared, handed on, used again, and many at once."""
import array
import contextlib
import ctypes
import os
import resource
import socket
import subprocess

from ends import dial, exactly, expect, listener, met, reset_on_close, to_end

from .check import check

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
