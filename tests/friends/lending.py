#!/usr/bin/env python3
"""Connections that several threads or processes write to: their locks are lent to one, and come back to the others.

    lending.py [NAME...]

As faults.py.
"""
import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time

from ends import expect
from faults import main, pair

# Writes in a row after which a lock has been lent.
OFTEN = 60
# How long a reader waits where it's cheap to wake, in seconds.
DOZE = 0.01
# Moments at which one is killed, and what lies between them, in seconds.
MOMENTS = 60
MOMENT = 5e-6
# Records after which an end is what it will be.
SEVERAL = 5
RECORD = struct.Struct("<II")


def write(end, who, count, first=0):
    for number in range(first, first + count):
        end.sendall(RECORD.pack(who, number))


def records(end, count):
    got = end.recv(count * RECORD.size, socket.MSG_WAITALL)
    return [RECORD.unpack_from(got, place) for place in range(0, len(got), RECORD.size)]


def in_thread(act, *more):
    thread = threading.Thread(target=act, args=more)
    thread.start()
    return thread


def in_child(act, *more):
    child = os.fork()
    if child == 0:
        try:
            act(*more)
        finally:
            os._exit(0)
    return child


def threads_write_in_turn():
    dialled, accepted = pair(OFTEN)
    wanted = []
    for turn in range(6):
        in_thread(write, dialled, turn % 3, OFTEN, turn * OFTEN).join()
        wanted += [(turn % 3, turn * OFTEN + number) for number in range(OFTEN)]
    expect(records(accepted, len(wanted)) == wanted, "not what was written")


def threads_write_at_once():
    for _ in range(60):
        dialled, accepted = pair(OFTEN)
        threads = [in_thread(write, dialled, who, 300) for who in range(3)]
        got = records(accepted, 3 * 300)
        for thread in threads:
            thread.join()
        for who in range(3):
            expect([record for record in got if record[0] == who] == [(who, n) for n in range(300)], "some are broken")


def threads_receive_at_once():
    for _ in range(30):
        dialled, accepted = pair(OFTEN)
        got = [[], [], []]

        def receive(into):
            while len(piece := accepted.recv(RECORD.size, socket.MSG_WAITALL)) == RECORD.size:
                into.append(RECORD.unpack(piece))

        threads = [in_thread(receive, into) for into in got]
        write(dialled, 7, 900)
        dialled.shutdown(socket.SHUT_WR)
        for thread in threads:
            thread.join()
        expect(all(into == sorted(into) for into in got), "a thread sees them out of order")
        expect(sorted(sum(got, [])) == [(7, n) for n in range(900)], "some are missing or broken")


def a_parent_and_its_child_write_in_turn():
    for _ in range(10):
        dialled, accepted = pair(OFTEN)
        write(dialled, 0, OFTEN)
        child = in_child(write, dialled, 1, OFTEN)
        os.waitpid(child, 0)
        write(dialled, 2, OFTEN)
        expect(records(accepted, 3 * OFTEN) == [(who, n) for who in range(3) for n in range(OFTEN)], "not what was written")


def a_parent_and_its_child_write_at_once():
    for _ in range(30):
        dialled, accepted = pair(OFTEN)
        child = in_child(write, dialled, 1, 300)
        thread = in_thread(write, dialled, 0, 300)
        got = records(accepted, 600)
        thread.join()
        os.waitpid(child, 0)
        for who in range(2):
            expect([record for record in got if record[0] == who] == [(who, n) for n in range(300)], "some are broken")


def told_by(waiting, end):
    """Reads records of an end that doesn't wait: where it's told to by `waiting`, of the select module."""
    end.setblocking(False)
    told = waiting()
    told.register(end, select.POLLIN)
    seconds = 1 if waiting is select.epoll else 1000

    def read(count):
        got = b""
        while len(got) < count * RECORD.size:
            expect(told.poll(10 * seconds), "nothing is told")
            with contextlib.suppress(BlockingIOError):
                piece = end.recv(count * RECORD.size - len(got))
                expect(piece, "an end that nobody sent")
                got += piece
        return [RECORD.unpack_from(got, place) for place in range(0, len(got), RECORD.size)]

    return read


def one_is_killed_while_writing(read_of):
    """On one CPU who is woken often runs before who woke it has done what comes next: there it's killed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for turn in range(20):
        dialled, accepted = pair(OFTEN)
        read = read_of(accepted)
        pause = (turn % 2) * (DOZE + 0.002)

        def for_ever():
            number = 0
            while True:
                write(dialled, 0, 1, number)
                number += 1
                time.sleep(pause)

        child = in_child(for_ever)
        got = read(3 if pause else 2000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        thread = in_thread(write, dialled, 1, OFTEN)
        while got[-1] != (1, OFTEN - 1):
            got += read(1)
        thread.join()
        theirs = [record for record in got if record[0] == 0]
        expect(theirs == [(0, n) for n in range(len(theirs))], "what it wrote isn't whole")
        expect(got == theirs + [(1, n) for n in range(len(got) - len(theirs))], "what came after isn't whole")
        # All that was announced has come or is taken back: the end that reads is as quiet as it was.
        expect(not select.select([accepted], [], [], 0.01)[0], "readable for nothing")


def one_is_killed_while_writing_to_who_blocks():
    one_is_killed_while_writing(lambda end: lambda count: records(end, count))


def one_is_killed_while_writing_to_who_polls():
    one_is_killed_while_writing(lambda end: told_by(select.poll, end))


def one_is_killed_while_writing_to_who_waits_by_epoll():
    one_is_killed_while_writing(lambda end: told_by(select.epoll, end))


def one_is_killed_while_reading(reading, shared=False):
    """Two processes share the end that reads, and what it waits by if that's `shared`. The one that reads is killed, and the other reads on to the
    end: what the first had taken is gone with it, and nothing else."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for turn in range(MOMENTS):
        dialled, accepted = pair(OFTEN)
        taken, say = os.pipe()
        read = reading(accepted)
        # What is waited by has been used.
        for number in range(SEVERAL * shared):
            write(dialled, 0, 1, number)
            read(1)

        def for_ever():
            told = read if shared else reading(accepted)
            while True:
                told(1)
                os.write(say, b"x")

        child = in_child(for_ever)
        # One by one: each is announced, and taken with what announced it; at some moment of the last it's killed.
        for number in range(SEVERAL):
            write(dialled, 0, 1, number)
            os.read(taken, 1)
        write(dialled, 0, 1, SEVERAL)
        time.sleep(turn * MOMENT)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        write(dialled, 1, OFTEN)
        got = []
        while not got or got[-1] != (1, OFTEN - 1):
            got += read(1)
        left = [record for record in got if record[0] == 0]
        expect(left == [(0, n) for n in range(SEVERAL + 1 - len(left), SEVERAL + 1)], f"what was left isn't whole: {got}")
        expect(got[len(left) :] == [(1, n) for n in range(OFTEN)], f"what came after isn't whole: {got}")
        expect(not select.select([accepted], [], [], 0.01)[0], "readable for nothing")
        dialled.shutdown(socket.SHUT_WR)
        accepted.setblocking(True)
        expect(accepted.recv(1) == b"", "another end")
        os.close(taken)
        os.close(say)


def one_that_blocks_is_killed_while_reading():
    one_is_killed_while_reading(lambda end: lambda count: records(end, count))


def one_that_polls_is_killed_while_reading():
    one_is_killed_while_reading(lambda end: told_by(select.poll, end))


def one_that_waits_by_epoll_is_killed_while_reading():
    one_is_killed_while_reading(lambda end: told_by(select.epoll, end))


def one_of_two_that_wait_by_an_epoll_is_killed_while_reading():
    one_is_killed_while_reading(lambda end: told_by(select.epoll, end), shared=True)


CHECKS = [
    threads_write_in_turn,
    threads_write_at_once,
    threads_receive_at_once,
    a_parent_and_its_child_write_in_turn,
    a_parent_and_its_child_write_at_once,
    one_is_killed_while_writing_to_who_blocks,
    one_is_killed_while_writing_to_who_polls,
    one_is_killed_while_writing_to_who_waits_by_epoll,
    one_that_blocks_is_killed_while_reading,
    one_that_polls_is_killed_while_reading,
    one_that_waits_by_epoll_is_killed_while_reading,
    one_of_two_that_wait_by_an_epoll_is_killed_while_reading,
]

if __name__ == "__main__":
    main(CHECKS)
