"""Ends, half-closes and resets."""
import os
import socket
import time

from ends import dial, exactly, expect, finish, listener, met, outcome, pair, reset_on_close, start, to_end, until

from .check import check


def seen(calls):
    """What a row of calls comes to, with time for the other end between them."""
    outcomes = []
    for call in calls:
        outcomes.append(outcome(call))
        time.sleep(0.002)
    return outcomes


@check
def a_half_close_and_then_the_answer():
    """Send, shut down writing, read the answer: the usual question of short clients."""
    listening, count = listener(backlog=128), 150

    def serve():
        for _ in range(count):
            end, _ = listening.accept()
            question = to_end(end)
            time.sleep(0.0005)
            end.sendall(question)
            end.close()

    start(serve)
    for _ in range(count):
        end = dial(listening)
        end.sendall(b"question")
        end.shutdown(socket.SHUT_WR)
        expect(to_end(end) == b"question", "another answer")
        end.close()


@check
def a_half_close_leaves_the_other_direction():
    """One end sends, shuts down writing, and then gets a long answer."""
    data = os.urandom(300_000)
    for _ in range(20):
        dialled, accepted = met()
        start(lambda: (dialled.sendall(data), dialled.shutdown(socket.SHUT_WR)))
        expect(to_end(accepted) == data, "there")
        start(lambda: (accepted.sendall(data), accepted.close()))
        expect(to_end(dialled) == data, "back")


@check
def the_end_comes_after_the_last_byte():
    """What was sent before a close is read before the end, however late."""
    for _ in range(50):
        dialled, accepted = met()
        dialled.sendall(b"last words")
        dialled.close()
        time.sleep(0.001)
        expect(to_end(accepted) == b"last words", "words are missing")


@check
def reading_after_the_connection_is_over():
    """When both ends have shut down writing TCP is done, and what came before is still read."""
    for _ in range(20):
        dialled, accepted = met()
        dialled.sendall(b"last words")
        dialled.close()
        time.sleep(0.001)
        accepted.shutdown(socket.SHUT_WR)
        time.sleep(0.002)
        expect((got := to_end(accepted)) == b"last words", f"{got}")


@check
def reading_after_a_reset_of_ones_own():
    """A reset that one's own write has brought about leaves what came before to be read."""
    for _ in range(20):
        dialled, accepted = met()
        dialled.sendall(b"last words")
        dialled.close()
        time.sleep(0.001)
        accepted.send(b"too late")
        time.sleep(0.002)
        got = outcome(lambda: accepted.recv(100))
        expect(got == 10, f"{got}")


@check
def a_reset_is_no_end():
    """close(2) with SO_LINGER 0: the reader gets what had come or nothing, then an error, and never an end."""
    for _ in range(60):
        dialled, accepted = met()
        dialled.send(b"x" * 100)
        reset_on_close(dialled)
        dialled.close()
        outcomes = seen([lambda: accepted.recv(1000)] * 2)
        expect("ConnectionResetError" in outcomes and 0 not in outcomes, f"{outcomes}")


@check
def closing_without_having_read_resets():
    """close(2) while bytes are unread is a reset (RFC 2525, 2.17): the writer learns that they were lost."""
    for _ in range(30):
        dialled, accepted = met()
        dialled.send(b"x" * 100)
        time.sleep(0.001)
        accepted.close()
        outcomes = seen([lambda: dialled.recv(10), lambda: dialled.send(b"y"), lambda: dialled.send(b"y")])
        expect("ConnectionResetError" in outcomes, f"{outcomes}")


@check
def writing_to_a_closed_end():
    """After the peer's close one write is taken; those after the reset that it brings fail with EPIPE."""
    for _ in range(40):
        dialled, accepted = met()
        accepted.close()
        expect(dialled.recv(1) == b"", "no end")
        write = [lambda: dialled.send(b"y")]
        expect((said := seen(write)) == [1], f"the first: {said}")
        expect(until(lambda: seen(write) == ["BrokenPipeError"]), "it goes on")
        expect((said := seen(write)) == ["BrokenPipeError"], f"one more: {said}")


@check
def shutting_down_reading():
    """SHUT_RD: what is there can be read, then comes the end, and the writer isn't disturbed."""
    dialled, accepted = met()
    dialled.send(b"abc")
    time.sleep(0.01)
    accepted.shutdown(socket.SHUT_RD)
    outcomes = [accepted.recv(10), accepted.recv(10), dialled.send(b"def")]
    expect(outcomes == [b"abc", b"", 3], f"{outcomes}")


@check
def a_connection_closed_before_it_is_accepted():
    """The server reads what was sent, and the end, of a client that came and went before accept(2)."""
    listening = listener()
    for _ in range(50):
        end = dial(listening)
        end.send(b"here and gone")
        end.close()
        accepted, _ = listening.accept()
        expect(to_end(accepted) == b"here and gone", "words are missing")


@check
def a_killed_writer():
    """A process that is killed leaves its written bytes, and then the end."""
    for _ in range(20):
        dialled, accepted = met()
        child = os.fork()
        if child == 0:
            dialled.sendall(b"written")
            os.kill(os.getpid(), 9)
        dialled.close()
        os.waitpid(child, 0)
        expect(to_end(accepted) == b"written", "words are missing")


@check
def a_killed_reader():
    """A process that is killed with unread bytes resets; the writer isn't left waiting."""
    dialled, accepted = met()
    child = os.fork()
    if child == 0:
        time.sleep(60)
    accepted.close()
    dialled.send(b"unread")
    os.kill(child, 9)
    os.waitpid(child, 0)
    expect(until(lambda: isinstance(outcome(lambda: dialled.send(b"y")), str)), "writes are taken for ever")


@check
def two_ends_that_close_at_once():
    """Both shut down writing at the same time: both read the end."""
    for _ in range(40):
        dialled, accepted = met()
        other = start(lambda: accepted.shutdown(socket.SHUT_WR))
        dialled.shutdown(socket.SHUT_WR)
        other.join()
        expect((exactly(dialled, 1), exactly(accepted, 1)) == (b"", b""), "no end")


@check
def sending_after_the_end():
    """Who has shut down can't send any more, and what was sent before comes, and then the end."""
    dialled, accepted = met()
    dialled.send(b"last")
    dialled.shutdown(socket.SHUT_WR)
    expect((said := outcome(lambda: dialled.send(b"x"))) == "BrokenPipeError", f"it sends on: {said}")
    expect((got := to_end(accepted)) == b"last", f"{got}")


@check
def shutting_down_beside_who_sends():
    """What a thread could send while another shut the connection down comes before the end, all of it."""
    for _ in range(30):
        dialled, accepted = met()
        sent = [0]

        def send(end=dialled, sent=sent):
            while True:
                try:
                    sent[0] += end.send(b"s" * 300)
                except BlockingIOError:
                    time.sleep(0)
                except BrokenPipeError:
                    return

        def shut(end=dialled):
            time.sleep(0.002)
            end.shutdown(socket.SHUT_WR)

        threads = [start(send), start(shut)]
        got = len(to_end(accepted))
        finish(*threads)
        expect(got == sent[0], f"{got} bytes of {sent[0]} before the end")
