#!/usr/bin/env python3
"""What processes do to themselves that libc's stand-ins have to bear: limits, system calls given up, other descriptors, other programs.

    bounds.py [NAME...]

As faults.py: on plain TCP all pass.
"""
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from ends import expect
from faults import libc, main, pair, warm

X86 = os.uname().machine == "x86_64"
# memfd_create, linkat, unlinkat, pidfd_open, pidfd_getfd: x86-64 and the generic table (asm/unistd.h).
GIVEN_UP = (319, 265, 263, 434, 438) if X86 else (279, 37, 35, 434, 438)
SECCOMP = 317 if X86 else 277
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
SO_PEEK_OFF = 42
LOAD, EQUAL, RETURN, ALLOW, KILL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("parts", ctypes.c_void_p),
                ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


def give_up(by_number):
    """From now on the kernel kills this process for system calls that sockets don't need (seccomp(2))."""
    code = [(LOAD, 0, 0, 0)]
    for number in GIVEN_UP:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, KILL)]
    code.append((RETURN, 0, 0, ALLOW))
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(filters)))
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, one, none, none, none)
    if by_number:
        told = libc.syscall(SECCOMP, 1, 0, program)
    else:
        told = libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), program)
    expect(told == 0, "the filter isn't taken")


def lives_without(by_number):
    friends, before = pair(), pair(rounds=2)
    friends[0].sendall(b"unread")
    give_up(by_number)
    expect(friends[1].recv(6) == b"unread", "what was sent before is lost")
    for dialled, accepted in (friends, before):
        warm(dialled, accepted)
        dialled.close()
        expect(accepted.recv(1) == b"", "the end is wrong")
    again = pair()
    again[0].sendall(b"new")
    expect(again[1].recv(3) == b"new", "a new connection fails")


def a_process_that_gives_up_system_calls_lives_on():
    lives_without(False)


def a_process_that_gives_up_system_calls_by_number_lives_on():
    lives_without(True)


def a_program_that_was_started_with_few_system_calls_lives():
    exchange = [sys.executable, os.path.abspath(__file__), "a_connection_carries_something"]
    said = subprocess.run(exchange, preexec_fn=lambda: give_up(False), capture_output=True, check=False).stdout
    expect(said == b"pass a_connection_carries_something\n", f"it says {said}")


def a_connection_carries_something():
    dialled, accepted = pair()
    dialled.sendall(b"something")
    expect(accepted.recv(9) == b"something", "it carries something else")


def files_may_be_short():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    a_connection_carries_something()


def stdio_writes_to_a_duplicate():
    dialled, accepted = pair()
    kept = os.dup(1)
    os.dup2(accepted.fileno(), 1)
    libc.puts(b"by stdio")
    libc.fflush(None)
    os.dup2(kept, 1)
    expect(dialled.recv(20) == b"by stdio\n", "stdio's bytes don't come")
    dialled.sendall(b"answer")
    expect(accepted.recv(6) == b"answer", "the other way is wrong")


def stdio_reads_from_a_duplicate():
    dialled, accepted = pair()
    dialled.sendall(b"first\n")
    os.dup2(accepted.fileno(), 0)
    dialled.sendall(b"second\n")
    said = bytes(libc.getchar() & 255 for _ in range(13))
    expect(said == b"first\nsecond\n", f"stdio reads {said}")


def a_program_that_cant_be_executed_changes_nothing():
    dialled, accepted = pair()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    dialled.sendall(b"unread")
    try:
        os.execv("/nonexistent/program", ["program"])
    except FileNotFoundError:
        pass
    linger = struct.unpack("ii", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    expect(linger == (1, 7), f"SO_LINGER is {linger}")
    expect(accepted.recv(10) == b"unread", "what was unread is lost")
    accepted.sendall(b"answer")
    accepted.close()
    expect((dialled.recv(10), dialled.recv(10)) == (b"answer", b""), "the end is wrong")


def segments():
    """Where this process has mapped what friends share; its board has another name."""
    with open("/proc/self/maps") as maps:
        return [int(line.split("-")[0], 16) for line in maps if "memfd:midmile-friends " in line]


def many_connections_share_so_much_memory():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    pairs = [pair(rounds=10) for _ in range(700)]
    expect(len(segments()) <= 1024, f"{len(segments())} segments")
    for dialled, accepted in pairs:
        dialled.sendall(b"still")
        expect(accepted.recv(5) == b"still", "a connection is wrong")
        dialled.close()
        accepted.close()
    expect(len(segments()) == 0, "segments stay")
    again = pair()
    expect(len(segments()) in (0, 2), f"then {len(segments())}")
    again[0].sendall(b"again")
    expect(again[1].recv(5) == b"again", "a connection is wrong afterwards")


def a_lock_that_isnt_given_back_isnt_waited_for():
    dialled, accepted = pair()
    dialled.setblocking(False)
    # Both writers' locks, as a peer could leave them: the first process has them.
    for start in segments():
        for lock in (384 + 640, 1408 + 640):
            ctypes.memmove(start + lock, struct.pack("I", 1), 4)
    began = time.monotonic()
    try:
        dialled.send(b"x")
    except ConnectionResetError:
        pass
    expect(time.monotonic() - began < 10, "it's waited for")


def peeking_goes_on_where_the_last_ended():
    dialled, accepted = pair(rounds=2)
    try:
        accepted.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    except OSError as error:
        # Linux before 6.9.
        expect(error.errno == errno.EOPNOTSUPP, f"{error}")
        return
    warm(dialled, accepted)
    dialled.sendall(b"abcd")
    time.sleep(0.01)
    peeked = [accepted.recv(2, socket.MSG_PEEK) for _ in range(2)]
    expect(peeked == [b"ab", b"cd"], f"peeked {peeked}")
    expect(accepted.recv(10) == b"abcd", "received something else")


def a_close_after_a_child_was_killed_is_an_end():
    for _ in range(200):
        dialled, accepted = pair(rounds=10)
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # A doorbell that comes when its byte was read.
        sending = threading.Thread(target=dialled.sendall, args=(b"x",))
        sending.start()
        expect(accepted.recv(1) == b"x", "another byte comes")
        accepted.close()
        sending.join()
        expect(dialled.recv(1) == b"", "no end comes")
        dialled.close()


def error_of(answer):
    return 0 if answer >= 0 else ctypes.get_errno()


def impossible_calls_fail_as_they_should():
    dialled, accepted = pair()
    parts = (Vector * 1025)()
    message = Message(parts=ctypes.addressof(parts), count=1025)
    libc.sendmsg.restype = libc.recvmsg.restype = libc.writev.restype = libc.sendto.restype = ctypes.c_ssize_t
    for what, end, wanted in ((libc.sendmsg, dialled, errno.EMSGSIZE), (libc.recvmsg, accepted, errno.EMSGSIZE)):
        told = error_of(what(end.fileno(), ctypes.byref(message), socket.MSG_DONTWAIT))
        expect(told == wanted, f"1025 buffers: {told}")
    told = error_of(libc.writev(dialled.fileno(), parts, 1025))
    expect(told == errno.EINVAL, f"writev of 1025 buffers: {told}")
    told = error_of(libc.sendto(dialled.fileno(), b"x", 1, 0, bytes(5000), 5000))
    expect(told == errno.EINVAL, f"an address of 5000 bytes: {told}")
    dialled.sendall(b"on")
    time.sleep(0.01)
    expect(accepted.recv(10) == b"on", "the connection doesn't go on")


CHECKS = [
    a_connection_carries_something,
    a_process_that_gives_up_system_calls_lives_on,
    a_process_that_gives_up_system_calls_by_number_lives_on,
    a_program_that_was_started_with_few_system_calls_lives,
    files_may_be_short,
    stdio_writes_to_a_duplicate,
    stdio_reads_from_a_duplicate,
    a_program_that_cant_be_executed_changes_nothing,
    impossible_calls_fail_as_they_should,
    peeking_goes_on_where_the_last_ended,
    a_close_after_a_child_was_killed_is_an_end,
    many_connections_share_so_much_memory,
    a_lock_that_isnt_given_back_isnt_waited_for,
]


if __name__ == "__main__":
    main(CHECKS)
