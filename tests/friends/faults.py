#!/usr/bin/env python3
"""What went wrong once where libc's calls are stood in front of: each is asked again, of connections that have become friends.

    faults.py [NAME...]

Each check runs in a process of its own and says "pass NAME" or "fail NAME: why". On plain TCP all pass.
"""
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

from ends import Failed, alarms, expect, until

libc = ctypes.CDLL(None, use_errno=True)
libc.send.restype = libc.recv.restype = libc.read.restype = libc.syscall.restype = ctypes.c_ssize_t
# x86-64 and the generic table (asm/unistd.h).
CLOSE = 3 if os.uname().machine == "x86_64" else 57
# More than rings and sockets' buffers hold.
LARGE = 50_000_000
ROUNDS = 40
# That a check may take.
SECONDS = 60


def warm(dialled, accepted, rounds=ROUNDS):
    for end in (dialled, accepted):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(rounds):
        for one, other in ((dialled, accepted), (accepted, dialled)):
            one.sendall(b"w")
            expect(other.recv(1) == b"w", "the first bytes are wrong")


def pair(rounds=ROUNDS):
    listening = socket.create_server(("127.0.0.1", 0))
    dialled = socket.create_connection(listening.getsockname())
    accepted, _ = listening.accept()
    listening.close()
    warm(dialled, accepted, rounds)
    return dialled, accepted


def close_by_number(end):
    """As libuv closes: libc's close() doesn't see it."""
    expect(libc.syscall(CLOSE, end.detach()) == 0, "close fails")


def timed(call):
    began = time.monotonic()
    return call(), time.monotonic() - began


def a_number_closed_by_a_system_call_is_a_files_afterwards():
    dialled, accepted = pair()
    number = accepted.fileno()
    close_by_number(accepted)
    with tempfile.TemporaryFile(buffering=0) as file:
        expect(fcntl.fcntl(file, fcntl.F_DUPFD, number) == number, "the number isn't free")
        os.write(number, b"for the file")
        expect(os.pread(number, 100, 0) == b"for the file", "the file lacks what was written")
    expect(dialled.recv(1) == b"", "the peer doesn't see the end")


def a_number_closed_by_a_system_call_is_another_connections_afterwards():
    for _ in range(5):
        dialled, accepted = pair()
        numbers = {dialled.fileno(), accepted.fileno()}
        close_by_number(dialled)
        close_by_number(accepted)
        again, other = pair()
        expect(numbers & {again.fileno(), other.fileno()}, "no number comes again")
        again.sendall(b"to the other")
        expect(other.recv(100) == b"to the other", "it doesn't come")


def a_number_closed_by_no_function_is_a_files_afterwards():
    dialled, accepted = pair()
    number = accepted.detach()
    # close(), as the instructions that make a system call.
    code = {"x86_64": "b8030000000f05c3", "aarch64": "280780d2010000d4c0035fd6"}[os.uname().machine]
    room = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    room.write(bytes.fromhex(code))
    place = ctypes.addressof(ctypes.c_char.from_buffer(room))
    expect(ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(place)(number) == 0, "close fails")
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"of the file")
        expect(fcntl.fcntl(file, fcntl.F_DUPFD, number) == number, "the number isn't free")
        file.seek(0)
        expect(os.read(number, 100) == b"of the file", "the file isn't read")
        os.write(number, b", and more")
        expect(os.pread(number, 100, 0) == b"of the file, and more", "the file isn't written")
    expect(dialled.recv(1) == b"", "the peer doesn't see the end")


def a_stdio_stream_closes_its_number():
    dialled, accepted = pair()
    libc.fdopen.restype = ctypes.c_void_p
    number = accepted.detach()
    stream = libc.fdopen(number, b"r+")
    libc.fclose(ctypes.c_void_p(stream))
    expect(dialled.recv(1) == b"", "the peer doesn't see the end")
    again, other = pair()
    expect(number in (again.fileno(), other.fileno()), "the number doesn't come again")
    again.sendall(b"x" * 1000)
    expect(len(other.recv(1000, socket.MSG_WAITALL)) == 1000, "it doesn't come")


def a_number_closed_during_a_receive_is_left_alone():
    for delay in (0.001, 0.004, 0.02):
        listening = socket.create_server(("127.0.0.1", 0))
        dialled, accepted = pair()
        number, room = accepted.fileno(), ctypes.create_string_buffer(10)
        threading.Thread(target=libc.recv, args=(number, room, 10, 0), daemon=True).start()
        time.sleep(delay)
        accepted.close()
        # One of them gets the number.
        several = [socket.socket() for _ in range(number)]
        again = next(one for one in several if one.fileno() == number)
        again.connect(listening.getsockname())
        other, _ = listening.accept()
        other.sendall(b"hello")
        # Longer than a receive sleeps without the kernel.
        time.sleep(0.05)
        again.settimeout(2)
        # A receive that sleeps in the kernel takes nothing either: it has the old socket.
        expect(again.recv(10) == b"hello", "another connection was touched")
        for end in (dialled, other, listening, *several):
            end.close()


def a_signal_ends_a_long_send():
    dialled, _accepted = pair()
    message = b"z" * LARGE
    with alarms(0.3):
        sent = libc.send(dialled.fileno(), message, LARGE, 0)
    expect(0 < sent < LARGE, lambda: f"sent {sent}")


def a_time_limit_ends_a_long_send():
    dialled, _accepted = pair()
    dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
    message = b"z" * LARGE
    sent, took = timed(lambda: libc.send(dialled.fileno(), message, LARGE, 0))
    expect(0 < sent < LARGE and took < 5, lambda: f"{sent} after {took:.1f} s")


def a_large_message_doesnt_wait_for_a_busy_reader():
    dialled, accepted = pair()
    message, took = b"m" * 500_000, []
    for _ in range(10):
        took.append(timed(lambda: dialled.sendall(message))[1])
        time.sleep(0.02)
        expect(accepted.recv(len(message), socket.MSG_WAITALL) == message, "the message is wrong")
        accepted.sendall(b"k")
        dialled.recv(1)
    expect(min(took) < 0.005, lambda: f"writes took {took}")


def sleeps(thread):
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "S"


def half_read():
    """A connection whose receiving end waits, with bytes that it hasn't read."""
    dialled, accepted = pair()
    dialled.sendall(b"hello world")
    expect(accepted.recv(5) == b"hello", "the first bytes are wrong")
    return dialled, accepted


def a_registration_beside_a_sleeping_epoll_is_told():
    _dialled, accepted = half_read()
    waiting, told = select.epoll(), []
    thread = threading.Thread(target=lambda: told.extend(waiting.poll(5)), daemon=True)
    thread.start()
    expect(until(lambda: sleeps(thread)), "it doesn't sleep")
    waiting.register(accepted.fileno(), select.EPOLLIN)
    thread.join(2)
    expect(told == [(accepted.fileno(), select.EPOLLIN)], lambda: f"told {told}")
    expect(accepted.recv(100) == b" world" and waiting.poll(0) == [], "it isn't quiet afterwards")


def an_epoll_within_another_is_told():
    _dialled, accepted = half_read()
    inner, outer, poll = select.epoll(), select.epoll(), select.poll()
    inner.register(accepted.fileno(), select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN)
    poll.register(inner.fileno(), select.POLLIN)
    expect(outer.poll(2) == [(inner.fileno(), select.EPOLLIN)], "the outer epoll says nothing")
    expect(poll.poll(2000) == [(inner.fileno(), select.POLLIN)], "poll says nothing of the epoll")
    expect(accepted.recv(100) == b" world", "the rest is wrong")
    expect(outer.poll(0.05) == [], "it's ready for nothing")


def a_new_epoll_knows_nothing_of_one_before():
    _dialled, accepted = half_read()
    before = select.epoll()
    number = before.fileno()
    before.register(accepted.fileno(), select.EPOLLIN)
    before.close()
    after = select.epoll()
    expect(after.fileno() == number, "the number isn't free")
    expect(after.poll(0.2) == [], "it tells of what isn't registered")


def a_registration_after_poll_is_told():
    _dialled, accepted = half_read()
    poll = select.poll()
    poll.register(accepted.fileno(), select.POLLIN)
    expect(poll.poll(1000), "poll says nothing")
    expect(accepted.recv(1) == b" ", "the next byte is wrong")
    waiting = select.epoll()
    waiting.register(accepted.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
    expect(waiting.poll(2) == [(accepted.fileno(), select.EPOLLIN)], "epoll says nothing")
    expect(accepted.recv(100) == b"world" and waiting.poll(0.05) == [], "it isn't told once")


def a_registration_after_the_peer_forked_is_told():
    dialled, accepted = pair()
    release, held = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        accepted.close()
        dialled.sendall(b"hello world")
        os.write(held[1], b"x")
        os.read(release[0], 1)
        os._exit(0)
    dialled.close()
    os.read(held[0], 1)
    expect(accepted.recv(5) == b"hello", "the first bytes are wrong")
    waiting = select.epoll()
    waiting.register(accepted.fileno(), select.EPOLLIN)
    told = waiting.poll(2)
    os.write(release[1], b"x")
    os.waitpid(child, 0)
    expect(told == [(accepted.fileno(), select.EPOLLIN)], lambda: f"told {told}")


def edges_registered_before_connect(events=select.EPOLLIN | select.EPOLLOUT | select.EPOLLET):
    listening = socket.create_server(("127.0.0.1", 0))
    dialled, waiting = socket.socket(), select.epoll()
    dialled.setblocking(False)
    waiting.register(dialled.fileno(), events)
    dialled.connect_ex(listening.getsockname())
    accepted, _ = listening.accept()
    for end in (dialled, accepted):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Large enough for a connection that is looked at by epoll to become friends.
    message = b"m" * 60_000
    for _ in range(ROUNDS):
        accepted.sendall(message)
        got = 0
        while got < len(message):
            expect(waiting.poll(2), "nothing is told")
            try:
                got += len(dialled.recv(len(message)))
            except BlockingIOError:
                pass
        dialled.sendall(message)
        expect(accepted.recv(len(message), socket.MSG_WAITALL) == message, "the message is wrong")
    waiting.poll(0)
    for _ in range(10):
        accepted.sendall(b"0123456789")
        expect(waiting.poll(2), "no edge comes with new bytes")
        expect(len(dialled.recv(4)) == 4, "they can't be read")


def peeking_for_more_than_comes_ends_in_time():
    dialled, accepted = pair()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
    dialled.sendall(b"12345")
    got, took = timed(lambda: accepted.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL))
    expect(got == b"12345" and 0.1 < took < 5, lambda: f"{got} after {took:.1f} s")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    dialled.shutdown(socket.SHUT_WR)
    expect(accepted.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL) == b"12345", "the end doesn't end it")


def receives_of_no_bytes():
    dialled, accepted = pair()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 0))
    room = ctypes.create_string_buffer(8)
    got, took = timed(lambda: libc.read(accepted.fileno(), room, 0))
    expect(got == 0 and took < 0.8, lambda: f"read: {got} after {took:.1f} s")
    got, took = timed(lambda: libc.recv(accepted.fileno(), room, 0, 0))
    expect(got == 0 and took > 0.1, lambda: f"recv: {got} after {took:.1f} s")
    dialled.sendall(b"x")
    expect(accepted.recv(8) == b"x", "the byte is lost")


def receives_that_sleep():
    """Two small sends to a reader that waits by epoll and reads each by a call that waits: how many of its calls sleep."""
    dialled, accepted = pair()
    waiting, messages = select.epoll(), 1500
    waiting.register(accepted.fileno(), select.EPOLLIN)

    def ask():
        for turn in range(messages):
            dialled.sendall(b"head")
            for _ in range(turn * 7919 % 300):
                pass
            dialled.sendall(b"b" * 64)
            dialled.recv(8)
            if turn % 50 == 0:
                time.sleep(0.04)

    asking, slept = threading.Thread(target=ask, daemon=True), 0
    asking.start()
    for _ in range(messages):
        expect(waiting.poll(5), "nothing is told")
        got, took = timed(lambda: accepted.recv(4, socket.MSG_WAITALL))
        slept += took > 0.02
        expect(got == b"head" and accepted.recv(64, socket.MSG_WAITALL) == b"b" * 64, "a message is wrong")
        accepted.sendall(b"answered")
    return slept


def a_readable_socket_has_something():
    """A busy machine holds a call up now and then, a fault does in each attempt."""
    slept = []
    while not slept or slept[-1] > 0:
        slept.append(receives_that_sleep())
        expect(len(slept) < 4, lambda: f"receives slept though the socket was readable: {slept}")


def a_peer_that_was_killed_is_told_once():
    dialled, accepted = pair()
    child = os.fork()
    if child == 0:
        accepted.close()
        time.sleep(SECONDS)
        os._exit(0)
    dialled.close()
    accepted.sendall(b"nobody reads this")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        accepted.recv(1)
        raise Failed("no reset")
    except ConnectionResetError:
        pass
    expect(accepted.recv(1) == b"", "it isn't told once")
    try:
        accepted.sendall(b"x")
        raise Failed("a send goes")
    except BrokenPipeError:
        pass


def a_send_after_a_peer_was_killed_fails():
    dialled, accepted = pair()
    child = os.fork()
    if child == 0:
        accepted.close()
        time.sleep(SECONDS)
        os._exit(0)
    dialled.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    expect(accepted.recv(1) == b"", "no end")
    expect(accepted.send(b"x") == 1, "the first send isn't taken")
    # Longer than a writer goes without asking the kernel.
    time.sleep(0.05)
    try:
        accepted.send(b"x")
        raise Failed("the second send goes")
    except BrokenPipeError:
        pass
    expect(accepted.recv(1) == b"", "the end isn't told afterwards")


def a_socket_passed_over_an_accepted_one_goes_on():
    """As multiprocessing hands sockets on: its Unix-domain sockets are accepted ones."""
    dialled, accepted = pair()
    with tempfile.TemporaryDirectory() as directory:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"{directory}/socket")
        listening.listen()
        child = os.fork()
        if child == 0:
            for end in (dialled, accepted):
                end.close()
            asking = socket.socket(socket.AF_UNIX)
            asking.connect(f"{directory}/socket")
            _, [number], _, _ = socket.recv_fds(asking, 1, 1)
            passed = socket.socket(fileno=number)
            passed.settimeout(5)
            passed.sendall(b"child got " + passed.recv(100))
            os._exit(0)
        passing, _ = listening.accept()
        dialled.sendall(b"a line")
        socket.send_fds(passing, [b"x"], [accepted.fileno()])
        accepted.close()
        dialled.settimeout(5)
        expect(dialled.recv(100) == b"child got a line", "the answer is wrong")
        os.waitpid(child, 0)


def inherited_by(start):
    dialled, accepted = pair()
    os.set_inheritable(dialled.fileno(), True)
    start(f"echo the child >&{dialled.fileno()}")
    accepted.settimeout(2)
    expect(accepted.recv(100) == b"the child\n", "what the child wrote is wrong")
    dialled.sendall(b"the parent")
    expect(accepted.recv(100) == b"the parent", "what the parent wrote is wrong")


def programs_started_by_system_inherit_sockets():
    inherited_by(lambda command: libc.system(command.encode()))


def programs_started_by_popen_inherit_sockets():
    libc.popen.restype = ctypes.c_void_p
    inherited_by(lambda command: libc.pclose(ctypes.c_void_p(libc.popen(command.encode(), b"r"))))


def programs_started_by_posix_spawn_inherit_sockets():
    def start(command):
        os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ), 0)
    inherited_by(start)


CHECKS = [
    a_number_closed_by_a_system_call_is_a_files_afterwards,
    a_number_closed_by_a_system_call_is_another_connections_afterwards,
    a_number_closed_by_no_function_is_a_files_afterwards,
    a_stdio_stream_closes_its_number,
    a_number_closed_during_a_receive_is_left_alone,
    a_signal_ends_a_long_send,
    a_time_limit_ends_a_long_send,
    a_large_message_doesnt_wait_for_a_busy_reader,
    a_registration_beside_a_sleeping_epoll_is_told,
    an_epoll_within_another_is_told,
    a_new_epoll_knows_nothing_of_one_before,
    a_registration_after_poll_is_told,
    a_registration_after_the_peer_forked_is_told,
    edges_registered_before_connect,
    peeking_for_more_than_comes_ends_in_time,
    receives_of_no_bytes,
    a_readable_socket_has_something,
    a_peer_that_was_killed_is_told_once,
    a_send_after_a_peer_was_killed_fails,
    a_socket_passed_over_an_accepted_one_goes_on,
    programs_started_by_system_inherit_sockets,
    programs_started_by_popen_inherit_sockets,
    programs_started_by_posix_spawn_inherit_sockets,
]


def run_here(check):
    try:
        check()
        print("pass", check.__name__)
    except Failed as why:
        print(f"fail {check.__name__}: {why}")
    except Exception as error:
        print(f"fail {check.__name__}: {type(error).__name__}: {error}")
    sys.stdout.flush()
    # Threads may still wait for what doesn't come; figures are written where a process exits in order.
    os._exit(0)


def run_apart(check):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        run_here(check)
    status = []

    def is_over():
        gone, word = os.waitpid(child, os.WNOHANG)
        status.append(word)
        return gone == child

    if not until(is_over, SECONDS):
        print(f"fail {check.__name__}: it hangs", flush=True)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif os.WIFSIGNALED(status[-1]):
        print(f"fail {check.__name__}: signal {os.WTERMSIG(status[-1])}", flush=True)


def main(checks):
    for check in checks:
        if len(sys.argv) == 1 or check.__name__ in sys.argv[1:]:
            run_apart(check)


if __name__ == "__main__":
    main(CHECKS)
