"""Behind a load balancer: its header is due and believed, nobody else's is, and everything counts by the client."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from tests.hub.cards import QUICK, Address, Field
from tests.hub.official import Client, Lane

from ukihashi.hub.balancers import QUIET_S
from ukihashi.hub.messages import LoginAsked
from ukihashi.net.proxy_protocol import SIGNATURE
from ukihashi.wire.constants import Code
from ukihashi.wire.http import pack_request
from ukihashi.wire.pack import Pack
from ukihashi.wire.udp import UdpOffer

BALANCER = "127.0.0.9"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
V2 = SIGNATURE + b"\x21\x21\0\x24" + bytes.fromhex("20010db8" + "00" * 11 + "07" + "00" * 16) + b"\x9c\x40\x01\xbb"
LOCAL = SIGNATURE + b"\x20\0\0\0"


class Brought(Lane):
    """A connection that a balancer makes: the header, then TLS."""

    def __init__(self, address: Address, wait: Callable[[], object], source: str, header: bytes, piece: int) -> None:
        self.header, self.piece = header, piece
        super().__init__(address, wait, source)

    def flush(self) -> None:
        while self.header:
            sent = self.sock.send(self.header[: self.piece])
            self.header = self.header[sent:]
            self.wait()
        super().flush()


class Behind(Client):
    """A client behind the balancer."""

    def __init__(self, field: Field, header: bytes = V1, *, piece: int = 4096, source: str = BALANCER) -> None:
        super().__init__(field, source)
        self.header, self.piece = header, piece

    def dial(self) -> Lane:
        lane = Brought(self.field.address, self.field.turn, self.source, self.header, self.piece)
        self.lanes.append(lane)
        lane.hello()
        return lane


@pytest.fixture
def behind(make_field: Callable[..., Field]) -> Iterator[Field]:
    field = make_field(replace(QUICK, proxies=[f"{BALANCER}/32", "10.0.0.0/8"]))
    yield field
    assert field.door.half_open == 0


def raw(field: Field, said: bytes, source: str = BALANCER) -> socket.socket:
    """A connection that says this and no more."""
    sock = socket.create_connection(field.address, source_address=(source, 0))
    sock.setblocking(False)
    if said:
        sock.send(said)
    field.until(lambda: field.door.half_open, "the connection")
    return sock


def ends(field: Field, sock: socket.socket) -> None:
    """The hub closes it, and says nothing."""

    def is_over() -> bool:
        try:
            assert sock.recv(100) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        return True

    field.until(is_over, "the end")
    sock.close()
    field.until(lambda: not field.door.half_open, "the end")


@pytest.mark.parametrize(
    ("header", "peer"), [(V1, "192.0.2.7:40000"), (V2, "[2001:db8::7]:40000")], ids=["version 1", "version 2"]
)
@pytest.mark.parametrize("piece", [4096, 1], ids=["at once", "byte by byte"])
def test_the_client_is_whom_the_balancer_names(behind: Field, header: bytes, peer: str, piece: int) -> None:
    client = Behind(behind, header, piece=piece)
    client.join("a", max_connection=2)
    (asked,) = behind.asked
    assert isinstance(asked, LoginAsked)
    assert asked.peer == peer
    assert client.row()["peer"] == peer
    client.more()
    assert client.row()["peer"] == peer
    client.close()


def test_of_a_health_check_the_connection_is_the_balancers_own(behind: Field) -> None:
    client = Behind(behind, LOCAL)
    client.join("a")
    assert client.row()["peer"].startswith(f"{BALANCER}:")
    client.close()


def test_who_looks_and_says_nothing_is_no_event(behind: Field) -> None:
    with capture_logs() as told:
        for header in (b"", V1, LOCAL, V2[:20]):
            sock = raw(behind, header)
            sock.shutdown(socket.SHUT_WR)
            ends(behind, sock)
    assert told == []


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\n\r\n", V1.replace(b"443", b"x")])
def test_without_a_header_a_balancer_is_not_heard(behind: Field, said: bytes) -> None:
    with capture_logs() as told:
        ends(behind, raw(behind, said))
        assert [one["event"] for one in told] == ["proxy_header_wrong"]
        assert told[0]["peer"].startswith(f"{BALANCER}:")
        ends(behind, raw(behind, said))
        ends(behind, raw(behind, said))
        assert len(told) == 1
        behind.after(QUIET_S)
        ends(behind, raw(behind, said))
    assert told[1]["as_many_before"] == 2


def test_a_header_that_does_not_end_has_its_time(behind: Field) -> None:
    sock = raw(behind, V2[:-1])
    behind.after(QUICK.opening_s + 0.1)
    behind.until(lambda: sock.recv(200), "the hint")
    behind.after(QUICK.linger_s + 0.1)
    behind.until(lambda: not behind.door.half_open, "the end")
    sock.close()


@pytest.mark.parametrize("header", [V1, V2, LOCAL])
def test_nobody_else_is_believed(behind: Field, header: bytes) -> None:
    with capture_logs() as told:
        liar = raw(behind, header + b"\x16\x03\x01", "127.0.0.8")
        behind.until(lambda: behind.wiring.lingering, "the end")
        behind.after(QUICK.linger_s + 0.1)
        liar.close()
        assert behind.door.half_open == 0
    assert told == []


def test_who_comes_past_the_balancer_is_who_it_is(behind: Field) -> None:
    honest = Client(behind, "127.0.0.8")
    honest.join("a")
    assert honest.row()["peer"].startswith("127.0.0.8:")
    honest.close()


def test_one_client_of_a_balancer_takes_no_place_from_its_others(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, proxies=[BALANCER], asking=60, asking_of_one=3))
    field.unanswered = "a"
    crowd, other = Behind(field), Behind(field, V2)
    codes = []
    for _ in range(5):
        lane = crowd.dial()
        lane.write(pack_request(lane.http, crowd.request("a")))
        field.quiet()
        lane.read()
        codes.append(Pack.decode(lane.answer().body).get_int("error") if lane.plain else 0)
    assert codes == [0] * 3 + [Code.HUB_IS_BUSY] * 2
    other.join("b")
    crowd.close()
    other.close()


def test_a_client_waits_for_its_turn_in_its_own_name(behind: Field) -> None:
    waiting: list[str] = []
    openings = behind.wiring.openings

    def put(call: Callable[[], None], whose: str = "") -> None:
        waiting.append(whose)
        openings.put(call, whose)

    behind.wiring.openings = SimpleNamespace(put=put)  # type: ignore[assignment]
    for header in (V1, V2):
        Behind(behind, header).dial().drop()
    assert set(waiting) == {"192.0.2.7", "20010db800000000"}
    behind.until(lambda: not behind.door.half_open, "the end")


def test_no_udp_is_offered_behind_a_balancer(behind: Field) -> None:
    """It passes on TCP only."""
    direct, brought = Client(behind, "127.0.0.8"), Behind(behind)
    offer = UdpOffer.fresh(40_000, os.urandom)
    direct.join("a", udp=offer)
    assert direct.welcome.udp is not None
    brought.join("b", udp=offer)
    assert brought.welcome.udp is None
    direct.close()
    brought.close()


def test_networks_are_changed_while_it_runs(field: Field) -> None:
    field.door.set_limits(replace(QUICK, proxies=[BALANCER]))
    client = Behind(field)
    client.join("a")
    assert client.row()["peer"] == "192.0.2.7:40000"
    field.door.set_limits(QUICK)
    again = Client(field, BALANCER)
    again.join("b")
    assert again.row()["peer"].startswith(f"{BALANCER}:")
    client.close()
    again.close()
