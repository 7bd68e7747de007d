#!/usr/bin/env python3
"""What epoll tells of connections that have become friends, whose doorbells come by a pipe beside the socket.

    doorbells.py [NAME...]

Each check runs in a process of its own and says "pass NAME" or "fail NAME: why". On plain TCP all pass.
"""
import ctypes
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from select import EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLOUT

from ends import expect
from faults import ROUNDS, pair, run_apart

libc = ctypes.CDLL(None, use_errno=True)
ADD, DEL, MOD = 1, 2, 3
# struct epoll_event is packed on x86-64 alone.
EVENT = "<IQ" if os.uname().machine == "x86_64" else "<I4xQ"
SIZE = struct.calcsize(EVENT)
# The data of the one socket that most checks have.
DATA = 0x1234_5678_9ABC_DEF0


def control(epoll, operation, end, events=EPOLLIN, data=DATA):
    event = struct.pack(EVENT, events, data)
    number = end if isinstance(end, int) else end.fileno()
    expect(libc.epoll_ctl(epoll, operation, number, event) == 0, "epoll_ctl fails")


def wait(epoll, milliseconds=2000, call=None):
    """All that is told, as (events, data)."""
    room = ctypes.create_string_buffer(SIZE * 8)
    count = (call or libc.epoll_wait)(epoll, room, 8, milliseconds)
    expect(count >= 0, "epoll_wait fails")
    return list(struct.iter_unpack(EVENT, room[: SIZE * count]))


def told(epoll, milliseconds=2000):
    """What is told of the sockets' receiving."""
    return [data for events, data in wait(epoll, milliseconds) if events & EPOLLIN]


def is_piped(epoll):
    """Whether something of the library's stands in the epoll."""
    with open(f"/proc/self/fdinfo/{epoll}", encoding="ascii") as info:
        data = [line.split("data:")[1].split()[0] for line in info if line.startswith("tfd:")]
    return len(data) > len(set(data))


def piped(events=EPOLLIN):
    """A pair whose accepted end doesn't wait and is registered; and the epoll."""
    dialled, accepted = pair(1)
    accepted.setblocking(False)
    epoll = libc.epoll_create1(0)
    control(epoll, ADD, accepted, events)
    for _ in range(ROUNDS):
        dialled.sendall(b"question")
        expect(told(epoll) == [DATA], "nothing is told of the question")
        expect(accepted.recv(100) == b"question", "it's another question")
        expect(events & EPOLLET or told(epoll, 0) == [], "a question is told of that was read")
        accepted.sendall(b"answer")
        expect(dialled.recv(100) == b"answer", "it's another answer")
    if "MIDMILE_FRIENDS_DIR" in os.environ and "FRIENDS_TEST_BY_TCP" not in os.environ:
        expect(is_piped(epoll) != bool(events & EPOLLONESHOT), "doorbells don't go the way they should")
    return dialled, accepted, epoll


def level_triggered_readiness_is_told_until_all_is_read():
    dialled, accepted, epoll = piped()
    dialled.sendall(b"abc")
    expect(wait(epoll) == [(EPOLLIN, DATA)], "it isn't told once")
    expect(accepted.recv(1) == b"a" and told(epoll, 0) == [DATA], "the rest isn't told of")
    expect(accepted.recv(1) == b"b" and told(epoll, 0) == [DATA], "the last byte isn't told of")
    expect(accepted.recv(1) == b"c" and wait(epoll, 0) == [], "what was read is told of")


def readable_and_writable_are_told_in_one():
    dialled, accepted, epoll = piped()
    control(epoll, MOD, accepted, EPOLLIN | EPOLLOUT)
    dialled.sendall(b"abc")
    expect(wait(epoll) == [(EPOLLIN | EPOLLOUT, DATA)], "they aren't told in one")
    expect(accepted.recv(9) == b"abc" and wait(epoll, 0) == [(EPOLLOUT, DATA)], "it isn't writable alone")


def edges_are_told_once_each():
    dialled, accepted, epoll = piped(EPOLLIN | EPOLLET)
    for part in (b"a", b"b"):
        dialled.sendall(part)
        expect(told(epoll) == [DATA], "an edge isn't told")
        expect(wait(epoll, 20) == [], "an edge is told twice")
    expect(accepted.recv(9) == b"ab" and wait(epoll, 20) == [], "there's an edge for nothing")
    dialled.sendall(b"c")
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"c", "the next edge isn't told")


def a_registration_changed_to_edges_tells_each():
    dialled, accepted, epoll = piped()
    control(epoll, MOD, accepted, EPOLLIN | EPOLLET)
    wait(epoll, 0)
    for part in (b"a", b"b", b"c"):
        dialled.sendall(part)
        expect(told(epoll) == [DATA], "an edge isn't told")
    expect(accepted.recv(9) == b"abc", "it doesn't come")


def once_is_once():
    dialled, accepted, epoll = piped()
    control(epoll, MOD, accepted, EPOLLIN | EPOLLONESHOT)
    dialled.sendall(b"a")
    expect(told(epoll) == [DATA], "it isn't told")
    dialled.sendall(b"b")
    expect(wait(epoll, 20) == [], "it's told twice")
    control(epoll, MOD, accepted, EPOLLIN | EPOLLONESHOT)
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"ab", "it isn't told again")


def a_registration_that_is_changed_tells_what_it_says():
    dialled, accepted, epoll = piped()
    control(epoll, MOD, accepted, EPOLLOUT, 7)
    dialled.sendall(b"abc")
    expect(wait(epoll) == [(EPOLLOUT, 7)], "what wasn't asked for is told")
    control(epoll, MOD, accepted, EPOLLIN, 8)
    expect(wait(epoll) == [(EPOLLIN, 8)], "what is asked for isn't told")
    control(epoll, MOD, accepted, 0, 9)
    expect(wait(epoll, 20) == [], "what isn't asked for any more is told")
    expect(accepted.recv(9) == b"abc", "it doesn't come")


def a_registration_that_is_taken_away_tells_nothing_until_it_is_made_again():
    dialled, accepted, epoll = piped()
    dialled.sendall(b"a")
    control(epoll, DEL, accepted)
    expect(wait(epoll, 20) == [], "what was sent before is told")
    dialled.sendall(b"b")
    expect(wait(epoll, 20) == [], "what was sent after is told")
    control(epoll, ADD, accepted, EPOLLIN, 5)
    expect(told(epoll) == [5] and accepted.recv(9) == b"ab", "it isn't told where it's registered again")
    expect(wait(epoll, 0) == [], "what was read is told of")


def a_socket_that_is_closed_tells_nothing():
    dialled, accepted, epoll = piped()
    dialled.sendall(b"a")
    expect(told(epoll) == [DATA], "it isn't told")
    accepted.close()
    expect(wait(epoll, 20) == [], "a socket is told of that was closed")
    expect(not is_piped(epoll), "something is left in the epoll")


def a_copy_keeps_a_registration_whose_descriptor_is_closed():
    dialled, accepted, epoll = piped()
    copy = accepted.dup()
    accepted.close()
    dialled.sendall(b"abc")
    expect(told(epoll) == [DATA] and copy.recv(9) == b"abc", "it isn't told")
    expect(wait(epoll, 0) == [], "what was read is told of")


def a_copy_that_is_registered_too_is_told_of_too():
    dialled, accepted, epoll = piped()
    copy = accepted.dup()
    control(epoll, ADD, copy, EPOLLIN, 9)
    dialled.sendall(b"abc")
    expect(sorted(told(epoll)) == [9, DATA] and copy.recv(9) == b"abc", "not both are told of")
    expect(wait(epoll, 0) == [], "what was read is told of")


def two_epolls_tell_both():
    dialled, accepted, epoll = piped()
    other = libc.epoll_create1(0)
    dialled.sendall(b"a")
    control(other, ADD, accepted, EPOLLIN, 2)
    for part in (b"a", b"b"):
        expect(told(other) == [2] and told(epoll) == [DATA], "not both tell it")
        expect(accepted.recv(9) == part and wait(epoll, 0) == [] == wait(other, 0), "what was read is told of")
        dialled.sendall(b"b")


def a_child_that_exits_or_closes_changes_nothing():
    dialled, accepted, epoll = piped()
    for closes in (False, True):
        child = os.fork()
        if child == 0:
            if closes:
                accepted.close()
                os.close(epoll)
            os._exit(0)
        os.waitpid(child, 0)
        dialled.sendall(b"abc")
        expect(told(epoll) == [DATA] and accepted.recv(9) == b"abc", "it isn't told")
        expect(wait(epoll, 0) == [], "what was read is told of")


def a_child_that_sends_is_heard():
    dialled, accepted, epoll = piped()
    child = os.fork()
    if child == 0:
        dialled.sendall(b"child")
        os._exit(0)
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"child", "it isn't told")
    os.waitpid(child, 0)
    dialled.sendall(b"parent")
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"parent", "it isn't told afterwards")


def an_epoll_within_an_epoll_is_ready():
    dialled, accepted, epoll = piped()
    outer = libc.epoll_create1(0)
    control(outer, ADD, epoll, EPOLLIN, 3)
    expect(wait(outer, 20) == [], "it's ready for nothing")
    dialled.sendall(b"abc")
    expect(told(outer) == [3] and told(epoll) == [DATA] and accepted.recv(9) == b"abc", "it isn't ready")
    expect(wait(outer, 0) == [], "what was read is told of")


def an_epoll_that_is_closed_leaves_its_number_to_another():
    dialled, accepted, epoll = piped()
    os.close(epoll)
    other = libc.epoll_create1(0)
    expect(other == epoll, "the number doesn't come again")
    dialled.sendall(b"abc")
    expect(wait(other, 20) == [], "another epoll tells of it")
    control(other, ADD, accepted, EPOLLIN, 4)
    expect(told(other) == [4] and accepted.recv(9) == b"abc", "it isn't told")
    expect(wait(other, 0) == [], "what was read is told of")


def an_epoll_of_two_numbers_is_one():
    for closes in (False, True):
        dialled, accepted, epoll = piped()
        copy = os.dup(epoll)
        if closes:
            os.close(epoll)
        dialled.sendall(b"a")
        expect(told(copy) == [DATA], "it isn't told")
        control(copy, DEL, accepted)
        expect(wait(copy, 20) == [] and not is_piped(copy), "what was taken away is told of")
        control(copy, ADD, accepted, EPOLLIN, 5)
        expect(told(copy) == [5] and accepted.recv(9) == b"a", "it isn't told again")
        control(copy, MOD, accepted, EPOLLIN, 6)
        dialled.sendall(b"b")
        expect(told(copy) == [6] and accepted.recv(9) == b"b", "it isn't told as it was changed")


def is_at_rest(epoll):
    """Whether something of the library's stands in the epoll though nothing is registered there."""
    with open(f"/proc/self/fdinfo/{epoll}", encoding="ascii") as info:
        return any(line.startswith("tfd:") for line in info)


def at_rest(events=EPOLLIN):
    """A pair whose accepted end was just taken out of the epoll, and the epoll."""
    dialled, accepted, epoll = piped(events)
    control(epoll, DEL, accepted)
    if "MIDMILE_FRIENDS_DIR" in os.environ:
        expect(is_at_rest(epoll), "the pipe doesn't rest")
    return dialled, accepted, epoll


def what_is_taken_out_and_put_in_again_is_told_of():
    dialled, accepted, epoll = piped()
    call = instructions()
    for turn in range(60):
        control(epoll, DEL, accepted)
        if turn % 3 == 0:
            dialled.sendall(b"a")
            expect(wait(epoll, 0, call) == [], "what isn't registered is told of")
        if turn % 4 < 2:
            control(epoll, ADD, accepted, EPOLLOUT, turn % 2)
            expect(wait(epoll, 0, call) == [(EPOLLOUT, turn % 2)], "reading is told of")
            if turn % 4 == 0:
                control(epoll, DEL, accepted)
        if turn % 3 == 1:
            dialled.sendall(b"a")
        control(epoll, MOD if turn % 4 == 1 else ADD, accepted, EPOLLIN, turn % 5)
        if turn % 3 == 2:
            expect(wait(epoll, 0) == [], "it's told of for nothing")
            dialled.sendall(b"a")
        expect(told(epoll) == [turn % 5], "it isn't told of")
        expect(accepted.recv(9) == b"a" and wait(epoll, 0, call) == [], "what was read is told of")


def a_registration_that_is_taken_out_is_made_anew_later():
    dialled, accepted, epoll = at_rest()
    time.sleep(0.03)
    dialled.sendall(b"a")
    control(epoll, ADD, accepted)
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"a", "it isn't told of")
    expect(wait(epoll, 0) == [], "what was read is told of")


def what_rests_in_an_epoll_that_is_closed_is_told_of_by_the_next():
    dialled, accepted, epoll = at_rest()
    copy = os.dup(epoll)
    os.close(epoll)
    other = libc.epoll_create1(0)
    expect(other == epoll and not is_at_rest(copy), "something is left in the epoll")
    control(other, ADD, accepted)
    dialled.sendall(b"a")
    expect(wait(copy, 20) == [], "the epoll that it was taken out of tells of it")
    expect(told(other) == [DATA] and accepted.recv(9) == b"a", "it isn't told of")


def what_rests_in_one_epoll_is_put_into_another():
    dialled, accepted, epoll = at_rest()
    other = libc.epoll_create1(0)
    control(other, ADD, accepted)
    expect(not is_at_rest(epoll), "something is left in the epoll")
    dialled.sendall(b"a")
    expect(told(other) == [DATA] and wait(epoll, 0) == [], "not the other tells of it")
    expect(accepted.recv(9) == b"a" and wait(other, 0) == [], "what was read is told of")


def what_rests_in_a_child_too_is_told_of_in_the_child():
    dialled, accepted, epoll = at_rest()
    child = os.fork()
    if child == 0:
        left, own = is_at_rest(epoll), libc.epoll_create1(0)
        control(own, ADD, accepted)
        os._exit(0 if not left and told(own) == [DATA] and accepted.recv(9) == b"a" else 1)
    accepted.close()
    dialled.sendall(b"a")
    expect(wait(epoll, 100) == [], "who has given it away is told of it")
    expect(os.waitpid(child, 0)[1] == 0, "it isn't told of in the child")


def a_socket_that_is_closed_while_it_rests_tells_nothing():
    dialled, accepted, epoll = at_rest()
    accepted.close()
    expect(not is_at_rest(epoll), "something is left in the epoll")
    try:
        dialled.sendall(b"a")
    except OSError:
        pass
    expect(wait(epoll, 20) == [], "a socket is told of that was closed")


def edges_do_not_rest():
    dialled, accepted, epoll = piped(EPOLLIN | EPOLLET)
    control(epoll, DEL, accepted)
    expect(not is_at_rest(epoll), "something is left in the epoll")
    dialled.sendall(b"a")
    control(epoll, ADD, accepted, EPOLLIN | EPOLLET)
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"a", "an edge isn't told")


def nothing_is_missed_that_comes_while_it_is_put_in_again():
    dialled, accepted, epoll = piped()
    count = 4000
    child = os.fork()
    if child == 0:
        accepted.close()
        for index in range(count):
            dialled.sendall(bytes([index % 251]))
            if index % 5 in (0, 2):
                dialled.recv(1)
        os._exit(0)
    dialled.close()
    place, answered = 0, 0
    while place < count:
        expect(told(epoll, 5000) == [DATA], f"{count - place} bytes are missing")
        control(epoll, DEL, accepted)
        got = accepted.recv(1 + place % 19)
        expect(all(byte == (place + at) % 251 for at, byte in enumerate(got)), "bytes in another order")
        place += len(got)
        while answered < place:
            if answered % 5 in (0, 2):
                accepted.send(b"!")
            answered += 1
        control(epoll, ADD, accepted)
    os.waitpid(child, 0)


def one_thread_waits_while_another_registers():
    dialled, accepted, epoll = piped()
    control(epoll, DEL, accepted)
    dialled.sendall(b"abc")
    heard = []
    waiting = threading.Thread(target=lambda: heard.extend(told(epoll, 5000)))
    waiting.start()
    control(epoll, ADD, accepted, EPOLLIN, 6)
    waiting.join(5)
    expect(heard == [6] and accepted.recv(9) == b"abc", "who waits doesn't hear of it")


def instructions():
    """epoll_wait as the instructions that make the system call: no function sees it."""
    code = {"x86_64": "b8e80000004989ca0f05c3", "aarch64": "c80280d2010000d4c0035fd6"}[os.uname().machine]
    room = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    room.write(bytes.fromhex(code))
    begin = ctypes.c_char.from_buffer(room)
    place = ctypes.addressof(begin)
    kinds = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p]
    function = ctypes.CFUNCTYPE(*kinds)(place)
    # What is called has to stay mapped: the function keeps nothing but the address.
    return lambda epoll, into, most, limit, _kept=begin: function(epoll, ctypes.addressof(into), most, limit, None)


def a_wait_that_no_function_sees_hears_of_it():
    dialled, accepted, epoll = piped()
    call = instructions()
    for _ in range(3):
        dialled.sendall(b"abc")
        heard = wait(epoll, 2000, call)
        expect(heard and {data for _, data in heard} == {DATA}, "it isn't told")
        expect(accepted.recv(9) == b"abc" and wait(epoll, 0, call) == [], "what was read is told of")


def poll_hears_of_it_too():
    dialled, accepted, epoll = piped()
    looking = select.poll()
    looking.register(accepted, select.POLLIN)
    for part in (b"a", b"b"):
        dialled.sendall(part)
        expect(looking.poll(2000) != [] and told(epoll) == [DATA], "not both tell it")
        expect(accepted.recv(9) == part and wait(epoll, 0) == [] == looking.poll(0), "what was read is told of")


def the_end_is_told():
    dialled, accepted, epoll = piped()
    dialled.sendall(b"last")
    dialled.shutdown(socket.SHUT_WR)
    expect(DATA in told(epoll) and accepted.recv(9) == b"last", "the last bytes aren't told of")
    expect(DATA in told(epoll) and accepted.recv(9) == b"", "the end isn't told of")


def a_peer_that_is_killed_is_told_of():
    dialled, accepted, epoll = piped()
    child = os.fork()
    if child == 0:
        dialled.sendall(b"last")
        signal.pause()
    dialled.close()
    expect(told(epoll) == [DATA] and accepted.recv(9) == b"last", "it isn't told")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    expect(DATA in told(epoll) and accepted.recv(9) == b"", "its end isn't told of")


def none_of_many_is_missed():
    dialled, accepted, epoll = piped()
    count, size = 4000, 50
    child = os.fork()
    if child == 0:
        accepted.close()
        for index in range(count):
            dialled.sendall(bytes([index % 251]) * size)
            # The reader comes to sleep again and again, at another place each time.
            if index % 7 in (0, 2, 3):
                dialled.recv(1)
        os._exit(0)
    dialled.close()
    left, place, answered = count * size, 0, 0
    while left > 0:
        expect(told(epoll, 5000) == [DATA], f"{left} bytes are missing")
        got = accepted.recv(1 + place % 190)
        expect(all(byte == (place + at) // size % 251 for at, byte in enumerate(got)), "bytes in another order")
        left, place = left - len(got), place + len(got)
        while answered < place // size:
            if answered % 7 in (0, 2, 3):
                accepted.send(b"!")
            answered += 1
    os.waitpid(child, 0)


def without_descriptors_it_goes_by_tcp():
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (15, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.environ["FRIENDS_TEST_BY_TCP"] = "1"
    level_triggered_readiness_is_told_until_all_is_read()


CHECKS = [
    level_triggered_readiness_is_told_until_all_is_read,
    readable_and_writable_are_told_in_one,
    edges_are_told_once_each,
    a_registration_changed_to_edges_tells_each,
    once_is_once,
    a_registration_that_is_changed_tells_what_it_says,
    a_registration_that_is_taken_away_tells_nothing_until_it_is_made_again,
    a_socket_that_is_closed_tells_nothing,
    a_copy_keeps_a_registration_whose_descriptor_is_closed,
    a_copy_that_is_registered_too_is_told_of_too,
    two_epolls_tell_both,
    a_child_that_exits_or_closes_changes_nothing,
    a_child_that_sends_is_heard,
    an_epoll_within_an_epoll_is_ready,
    an_epoll_that_is_closed_leaves_its_number_to_another,
    an_epoll_of_two_numbers_is_one,
    what_is_taken_out_and_put_in_again_is_told_of,
    a_registration_that_is_taken_out_is_made_anew_later,
    what_rests_in_an_epoll_that_is_closed_is_told_of_by_the_next,
    what_rests_in_one_epoll_is_put_into_another,
    what_rests_in_a_child_too_is_told_of_in_the_child,
    a_socket_that_is_closed_while_it_rests_tells_nothing,
    edges_do_not_rest,
    nothing_is_missed_that_comes_while_it_is_put_in_again,
    one_thread_waits_while_another_registers,
    a_wait_that_no_function_sees_hears_of_it,
    poll_hears_of_it_too,
    the_end_is_told,
    a_peer_that_is_killed_is_told_of,
    none_of_many_is_missed,
    without_descriptors_it_goes_by_tcp,
]


def main():
    for check in CHECKS:
        if len(sys.argv) == 1 or check.__name__ in sys.argv[1:]:
            run_apart(check)


if __name__ == "__main__":
    main()
