"""Each fault of the relay does what it says, seen with plain sockets at both ends."""

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.faults import FaultRelay, Way
from lab.net import Host, Net
from lab.wait import TimeOver, until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

PORT = 4433
SHORT_S = 0.6  # nothing may arrive for so long


@dataclass
class Line:
    """card ---- f ---- hub, the relay on f, and a server's socket on hub."""

    relay: FaultRelay
    card: Host
    server: socket.socket

    def dial(self, seconds: float = 5.0) -> socket.socket:
        """The card's end of a new connection to the relay."""
        with self.card.inside():
            end = socket.socket()
        end.settimeout(seconds)
        try:
            end.connect(self.relay.address)
        except OSError:
            end.close()
            raise
        return end

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection, tried out."""
        card = self.dial()
        hub, _peer = self.server.accept()
        hub.settimeout(5.0)
        for one, other in ((card, hub), (hub, card)):
            one.sendall(b"hello")
            assert other.recv(16) == b"hello"
        return card, hub


@pytest.fixture
def line(net: Net) -> Iterator[Line]:
    card, middle, hub = net.host("card"), net.host("f"), net.host("hub")
    net.link(middle, card)
    net.link(hub, middle)
    with hub.inside():
        server = socket.create_server((hub.ipv4, PORT))
    server.settimeout(5.0)
    listen = next(address for address in middle.addresses if "." in address)
    with server, FaultRelay(middle, listen=(listen, PORT), target=(hub.ipv4, PORT), seed=1) as relay:
        yield Line(relay, card, server)


def is_silent(end: socket.socket, seconds: float = SHORT_S) -> bool:
    """Nothing comes for so long, not even an end."""
    end.settimeout(seconds)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5.0)
    return False


def read_all(end: socket.socket) -> tuple[bytes, str]:
    """All that still comes, and how it ends: "FIN" or "RST"."""
    data = b""
    while True:
        try:
            piece = end.recv(1 << 16)
        except ConnectionResetError:
            return data, "RST"
        if not piece:
            return data, "FIN"
        data += piece


@contextlib.contextmanager
def both_closed(*ends: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for end in ends:
            end.close()


def test_it_carries_bytes_both_ways_counts_them_and_hands_an_end_on(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        block = hashlib.sha256(b"x").digest() * 4096
        card.sendall(block)
        card.shutdown(socket.SHUT_WR)
        assert read_all(hub) == (block, "FIN")
        hub.sendall(b"and back")
        hub.shutdown(socket.SHUT_WR)
        assert read_all(card) == (b"and back", "FIN")
        (one,) = line.relay.connections
        until(lambda: one.ended, seconds=5, what="the connection being over")
        assert one.how == "closed"
        assert (one.moved("up"), one.moved("down")) == (len(block) + 5, 5 + 8)
        assert line.relay.moved("up") == len(block) + 5
        assert line.relay.alive == []


def test_a_hub_that_is_not_there_is_a_reset(line: Line) -> None:
    line.server.close()
    with pytest.raises(ConnectionResetError), line.dial() as card:  # perhaps before connect() returns
        card.recv(1)


def test_reset_reaches_both_ends_and_the_next_connection_passes(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        assert line.relay.reset() == 1
        assert read_all(card) == (b"", "RST")
        assert read_all(hub) == (b"", "RST")
        assert line.relay.connections[0].how == "reset"
        assert line.relay.reset() == 0
    with both_closed(*line.pair()):
        assert len(line.relay.connections) == 2


def test_a_reset_of_one_end_is_handed_on(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        hub.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        hub.close()
        assert read_all(card) == (b"", "RST")


def test_close_says_fin_to_both_ends(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        assert line.relay.close() == 1
        assert read_all(card) == (b"", "FIN")
        assert read_all(hub) == (b"", "FIN")


@pytest.mark.parametrize("way", ["up", "down"])
def test_half_close_ends_one_direction_and_swallows_what_is_said_there(line: Line, way: Way) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        source, sink = (card, hub) if way == "up" else (hub, card)
        line.relay.half_close(way)
        assert read_all(sink) == (b"", "FIN")
        source.sendall(b"lost")
        sink.sendall(b"the other way")
        assert source.recv(64) == b"the other way"
        flow = line.relay.connections[0].flows[way]
        until(lambda: flow.thrown_away == 4, seconds=5, what="the bytes being thrown away")
        assert flow.moved == 5


@pytest.mark.parametrize("way", ["up", "down"])
def test_truncate_forwards_exactly_so_many_bytes_and_resets(line: Line, way: Way) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        source, sink = (card, hub) if way == "up" else (hub, card)
        line.relay.truncate(7, way)
        source.sendall(b"012")
        assert sink.recv(64) == b"012"
        source.sendall(b"3456789")
        assert read_all(sink) == (b"3456", "RST")
        assert read_all(source)[1] == "RST"
        one = line.relay.connections[0]
        assert (one.flows[way].moved, one.how) == (5 + 7, "truncated")


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_one_way_black_hole_stops_that_way_alone_and_nothing_is_lost_behind_it(line: Line, way: Way) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        source, sink = (card, hub) if way == "up" else (hub, card)
        line.relay.black_hole(way)
        source.sendall(b"waits")
        sink.sendall(b"passes")
        assert source.recv(64) == b"passes"
        assert is_silent(sink)
        line.relay.heal()
        assert sink.recv(64) == b"waits"


def test_in_a_black_hole_no_connection_opens_and_no_end_is_heard(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        began = line.relay.black_hole("both", seconds=3.0)
        with pytest.raises(TimeoutError):
            line.dial(SHORT_S)  # its SYN is not answered
        card.close()
        assert is_silent(hub)
        line.relay.reset()  # the relay forgets, as a NAT does; its RSTs are lost too
        assert is_silent(hub)
        hub.settimeout(10.0)
        hub.sendall(b"after it the relay's machine knows no such connection")
        assert read_all(hub) == (b"", "RST")
        assert time.monotonic() - began >= 3.0
        assert [what for _at, what in line.relay.events] == ["black_hole both", "reset", "heal"]


def test_silence_buries_the_present_connections_alone_and_heal_brings_them_back(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        assert line.relay.silence() == 1
        card.sendall(b"from the dead")
        hub.sendall(b"from the dead")
        assert is_silent(hub)
        with both_closed(*line.pair()):
            assert is_silent(card)
        line.relay.heal()
        hub.settimeout(10.0)
        card.settimeout(10.0)
        assert hub.recv(64) == card.recv(64) == b"from the dead"


def test_delay_holds_each_piece_and_keeps_the_order(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        line.relay.delay(300, jitter=200)
        begin = time.monotonic()
        for number in range(20):
            card.sendall(bytes([number]))
            time.sleep(0.005)
        got = b""
        while len(got) < 20:
            got += hub.recv(64)
            assert time.monotonic() - begin >= 0.3
        assert got == bytes(range(20))
        line.relay.delay(0)


def test_rate_lets_no_more_through(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        line.relay.rate(100_000)
        begin, got = time.monotonic(), 0
        card.sendall(bytes(50_000))
        while got < 50_000:
            got += len(hub.recv(1 << 16))
        assert time.monotonic() - begin >= 0.4


def test_refuse_resets_new_connections_and_leaves_others(line: Line) -> None:
    card, hub = line.pair()
    with both_closed(card, hub):
        line.relay.refuse(2.0)
        with pytest.raises(ConnectionResetError), line.dial() as refused:  # perhaps before connect() returns
            refused.recv(1)
        assert line.relay.refused == 1
        card.sendall(b"still here")
        assert hub.recv(64) == b"still here"
        time.sleep(2.0)
        with both_closed(*line.pair()):
            pass


def test_kill_every_kills_again_and_again_until_told_otherwise(line: Line) -> None:
    line.relay.kill_every(1.0)
    for _ in range(3):
        card, hub = line.pair()
        with both_closed(card, hub):
            assert read_all(card) == (b"", "RST")
    assert [one.how for one in line.relay.connections] == ["kill"] * 3
    line.relay.kill_every(0)
    with both_closed(*line.pair()), pytest.raises(TimeOver):
        until(lambda: not line.relay.alive, seconds=1.5, what="a kill")
