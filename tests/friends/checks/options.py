"""What TCP says of itself."""
import socket
import struct
import time

from ends import TCP_INFO_BYTES, expect, met

from .check import check

# Of struct tcp_info (linux/tcp.h).
BYTES_ACKED_AT, BYTES_RECEIVED_AT = 120, 128


def count_at(end, place):
    return struct.unpack_from("Q", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES), place)[0]


@check
def counts_of_the_connection():
    """TCP_INFO counts the bytes that were sent and received."""
    dialled, accepted = met()
    dialled.send(b"a" * 1000)
    accepted.recv(2000)
    time.sleep(0.05)
    acked, received = count_at(dialled, BYTES_ACKED_AT), count_at(accepted, BYTES_RECEIVED_AT)
    expect(acked >= 1000 and received >= 1000, f"{acked} sent, {received} received")


@check
def names_of_the_ends():
    """Each end knows the other's address."""
    dialled, accepted = met()
    expect(dialled.getsockname() == accepted.getpeername(), "the dialled end's")
    expect(dialled.getpeername() == accepted.getsockname(), "the accepted end's")
