"""Messages between processes: streams cut anywhere, packets with descriptors, a partner that is gone or stuck."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.hub.messages import Answered, Asked, HostPort, HubPut, LoginAsked, Ready, encode
from ukihashi.hub.pipes import AsyncPipe, MessageDecoder, Pipe, PipeBroken, receive_with_fds, send_with_fd

MESSAGES = [
    HubPut(hub="LAN"),
    Asked(ask=1, what="sessions"),
    Answered(ask=1, rows=[{"session": "SID-A-1", "drops": {"full": 3}, "age_s": 1.5}]),
    LoginAsked(ask=2, hub="LAN", user="a", authtype=1, challenge=bytes(20)),
]


@pytest.fixture
def stream() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def packets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


@given(cuts=st.lists(st.integers(1, 40), min_size=1))
def test_messages_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    wire = b"".join(struct.pack("!I", len(encode(m))) + encode(m) for m in MESSAGES)
    decoder, got, start, turn = MessageDecoder(), list[object](), 0, 0
    while start < len(wire):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(wire[start : start + size])
        start, turn = start + size, turn + 1
    assert got == MESSAGES


@pytest.mark.parametrize("junk", [b"\xff\xff\xff\xff", b"\0\0\0\2no", struct.pack("!I", 5) + b"\x81\xa4type"[:5]])
def test_what_is_no_message_breaks_the_pipe(junk: bytes) -> None:
    with pytest.raises(PipeBroken):
        MessageDecoder().feed(junk)


def test_a_pipe_keeps_what_the_socket_does_not_take(stream: tuple[socket.socket, socket.socket]) -> None:
    left, right = Pipe(stream[0]), Pipe(stream[1])
    sent = 0
    while not left.wants_write:
        left.send(Answered(ask=sent, rows=[{"text": "x" * 10_000}]))
        sent += 1
    got = []
    while left.wants_write or len(got) < sent:
        got += right.receive()
        left.flush()
    assert [m.ask for m in got if isinstance(m, Answered)] == list(range(sent))
    assert right.receive() == []


def test_a_pipe_to_a_process_that_stands_still_breaks(stream: tuple[socket.socket, socket.socket]) -> None:
    left, block = Pipe(stream[0]), Answered(ask=1, rows=[{"text": "x" * 15_000_000}])
    left.send(block)
    left.send(block)
    with pytest.raises(PipeBroken, match="takes no messages"):
        left.send(block)


def test_the_last_messages_come_before_the_end(stream: tuple[socket.socket, socket.socket]) -> None:
    left, right = Pipe(stream[0]), Pipe(stream[1])
    left.send(MESSAGES[0])
    left.close()
    assert right.receive() == [MESSAGES[0]]
    with pytest.raises(PipeBroken):
        right.receive()
    with pytest.raises(PipeBroken):
        right.send(MESSAGES[0])


def test_asyncio_and_epoll_ends_understand_each_other(stream: tuple[socket.socket, socket.socket]) -> None:
    pipe = Pipe(stream[0])

    async def control() -> list[object]:
        other = AsyncPipe(stream[1])
        for message in MESSAGES:
            await other.send(message)
        got: list[object] = [message async for message in other]
        other.close()
        return got

    for message in MESSAGES:
        pipe.send(message)
    stream[0].shutdown(socket.SHUT_WR)
    assert asyncio.run(control()) == MESSAGES
    assert pipe.receive() == MESSAGES


def test_a_packet_carries_descriptors(packets: tuple[socket.socket, socket.socket]) -> None:
    reader, writer = os.pipe()
    send_with_fd(packets[0], HostPort(hub="LAN", interface="uklan"), [writer])
    os.close(writer)
    received = receive_with_fds(packets[1])
    assert received is not None
    message, fds = received
    assert message == HostPort(hub="LAN", interface="uklan")
    os.write(fds[0], b"through")
    assert os.read(reader, 100) == b"through"
    for fd in (reader, *fds):
        os.close(fd)


def test_packets_say_when_the_other_end_is_gone_or_silent(packets: tuple[socket.socket, socket.socket]) -> None:
    packets[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive_with_fds(packets[1])
    packets[0].send(b"\x81junk")
    with pytest.raises(PipeBroken):
        receive_with_fds(packets[1])
    packets[0].close()
    assert receive_with_fds(packets[1]) is None
    with pytest.raises(PipeBroken):
        send_with_fd(packets[1], Ready(who="worker"))
