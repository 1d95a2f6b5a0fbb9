"""UDP acceleration at the data process: which way frames go. Real sockets; times are a tenth of what they are."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.card.rig import SECONDS, Rig, frame

from lab.fake_hub import Conversation
from lab.standard_hub import StandardHub
from lab.wait import until
from ukihashi.card.clock import clock
from ukihashi.card.messages import Opened
from ukihashi.card.udp import UdpOffered
from ukihashi.net.udp import UdpLane, open_udp
from ukihashi.pki import ca
from ukihashi.session import udp_path
from ukihashi.session.udp_drops import FOREIGN
from ukihashi.session.udp_path import Pace, UdpPath
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.messages import ErrorAnswer, Login, Redirect, Welcome
from ukihashi.wire.udp import UdpEnd, UdpGrant, UdpOffer


class UdpHub(StandardHub):
    """Grants a path to whoever offers one. `deaf`: takes and says nothing by UDP."""

    offer: UdpOffer | None = None
    grants = True
    deaf = False

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.lanes: list[UdpLane] = []
        self.datagrams: list[bytes] = []
        self.lock = threading.Lock()

    def _judge(self, talk: Conversation, login: Login, challenge: bytes) -> Welcome | Redirect | ErrorAnswer:
        answer = super()._judge(talk, login, challenge)
        self.offer = login.udp
        if not isinstance(answer, Welcome) or login.udp is None or not self.grants:
            return answer
        sock = open_udp(("127.0.0.1", 0))
        grant = UdpGrant(sock.getsockname()[1], bytes(range(128)), 7, 8)
        there = ("127.0.0.1", login.udp.port)
        path = UdpPath(UdpEnd.server(login.udp, grant), there, clock(), first_iv=bytes(12), chance=lambda: 0.5)
        with self.lock:
            self.lanes.append(UdpLane(sock, path))
        return replace(answer, udp=grant)

    def pump(self) -> list[bytes]:
        """Its end of the newest path lives for a moment; all datagrams' frames so far."""
        with self.lock:
            lanes = self.lanes[-1:]
        for lane in lanes:
            frames = lane.receive(clock())
            if not self.deaf:
                lane.tick(clock())
                self.datagrams += frames
        return self.datagrams

    def close(self) -> None:
        super().close()
        for lane in self.lanes:
            lane.close()


@pytest.fixture
def hub(identity: ca.Identity, monkeypatch: pytest.MonkeyPatch) -> Iterator[UdpHub]:
    monkeypatch.setattr(udp_path, "FAST", Pace(0.05, 0.1, 0.3))
    monkeypatch.setattr(udp_path, "STABLE_S", 0.6)
    with UdpHub(identity.certificate, identity.key) as made:
        yield made


@pytest.fixture
def rig(hub: UdpHub) -> Iterator[Rig]:
    made = Rig(hub)
    made.beside = [open_udp(("0.0.0.0", 0))]
    try:
        yield made
    finally:
        made.close()
        for sock in made.beside:
            sock.close()


def join(rig: Rig) -> Opened:
    """As the dialler does it: what was passed is closed on its side."""
    opened = rig.join()
    for sock in rig.beside:
        sock.close()
    rig.beside = []
    return opened


def uses_udp(rig: Rig, hub: UdpHub, wanted: bool) -> bool:
    hub.pump()
    return rig.counters().udp is wanted


def test_frames_go_by_udp_while_the_path_is_ready(rig: Rig, hub: UdpHub) -> None:
    join(rig)
    hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)
    assert not rig.counters().udp
    until(lambda: uses_udp(rig, hub, True), seconds=SECONDS, what="the path", step_s=0.02)
    rig.send(2, 3)
    until(lambda: len(hub.pump()) == 2, seconds=SECONDS, what="datagrams", step_s=0.01)
    assert hub.datagrams == [frame(2), frame(3)]
    hub.lanes[0].send([frame(4), frame(5)], clock())
    rig.reaches_kernel(4, 5)
    hub.send([frame(6)])  # frames may come either way at any time
    rig.reaches_kernel(6)
    counted = rig.counters()
    assert (counted.udp_frames_in, counted.udp_frames_out, counted.udp_dropped) == (2, 2, {})
    assert (counted.frames_in, counted.frames_out) == (3, 3)

    rig.kernel.send(frame(9).ljust(MAX_FRAME, b"."))  # too long for a datagram
    assert hub.frames.get(timeout=SECONDS) == frame(9).ljust(MAX_FRAME, b".")

    hub.deaf = True
    until(lambda: uses_udp(rig, hub, False), seconds=SECONDS, what="the path being dead", step_s=0.02)
    rig.send(7)
    rig.reaches_hub(7)
    hub.deaf = False
    until(lambda: uses_udp(rig, hub, True), seconds=SECONDS, what="the path again", step_s=0.02)
    rig.send(8)
    until(lambda: frame(8) in hub.pump(), seconds=SECONDS, what="a datagram", step_s=0.01)


def test_the_path_carries_frames_while_every_connection_is_cut(rig: Rig, hub: UdpHub) -> None:
    opened = join(rig)
    hub.wait_for(1)
    until(lambda: uses_udp(rig, hub, True), seconds=SECONDS, what="the path", step_s=0.02)
    hub.end(0)
    rig.control.recv(1 << 16)  # it was lost
    rig.send(1)
    until(lambda: hub.pump() == [frame(1)], seconds=SECONDS, what="a datagram", step_s=0.01)
    rig.connect(session_key=opened.session_key, timeout_ms=opened.timeout_ms, terms=opened.terms, pin=opened.pin)
    assert rig.hear(Opened).resumed
    assert rig.counters().udp  # it is the same session, so the same path
    rig.connect()  # a fresh login ends it
    rig.hear(Opened)
    assert not rig.counters().udp


def test_a_hub_that_grants_nothing_is_joined_all_the_same(rig: Rig, hub: UdpHub) -> None:
    hub.grants = False
    port = rig.beside[0].getsockname()[1]
    join(rig)
    hub.wait_for(1)
    assert hub.offer is not None
    assert hub.offer.port == port
    rig.send(1)
    rig.reaches_hub(1)
    assert not rig.counters().udp


def test_without_a_socket_nothing_is_offered(rig: Rig, hub: UdpHub) -> None:
    for sock in rig.beside:
        sock.close()
    rig.beside = []
    rig.join()
    hub.wait_for(1)
    assert hub.offer is None


def test_strangers_are_counted_and_reach_nobody(rig: Rig, hub: UdpHub) -> None:
    port = rig.beside[0].getsockname()[1]
    join(rig)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for noise in (b"", b"x", bytes(1400)):
            stranger.sendto(noise, ("127.0.0.1", port))
        until(lambda: rig.counters().udp_dropped == {FOREIGN: 3}, seconds=SECONDS, what="the counter")
    assert rig.counters().frames_in == 0


def test_a_socket_is_used_once() -> None:
    offered = UdpOffered(open_udp(("127.0.0.1", 0)))
    grant = UdpGrant(5, bytes(128), 1, 2)
    lane = offered.granted(grant, ("127.0.0.1", 443), 0.0)
    assert lane is not None
    assert lane.path.peer == ("127.0.0.1", 5)
    offered.close()
    assert lane.fd >= 0  # it is the lane's now
    assert offered.granted(grant, ("127.0.0.1", 443), 0.0) is None
    lane.close()
