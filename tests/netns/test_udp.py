"""UDP acceleration beside Debian's real programs: our card at their server, their client at our hub.

near ------ wire ------ far        UDP is dropped on the wire for a while; TCP goes on
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab import matrix
from lab.ends import OurCard, OurHub
from lab.flow import stream
from lab.interop import BULK, Scene, wait_carried
from lab.net import Net
from lab.wait import until
from ukihashi.session.udp_drops import FOREIGN, UNREAD

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpnclient", "vpncmd")]

UDP = next(variant for variant in matrix.VARIANTS if variant.udp)
PINGS = 20
NOTICE_S = 15.0  # silence of 2.1 s at both ends, and what their programs need to say so
BACK_S = 45.0  # ten steady seconds and a few more
UPGRADE_S = 60.0
FIRST_PORT = 40_000  # of `standard.udp_ports`
FORGED = 5_000


@contextmanager
def without_udp(scene: Scene) -> Iterator[None]:
    """What comes from the other host by UDP is dropped before anybody sees it."""
    hosts = scene.near.host, scene.far.host
    for here, there in (hosts, hosts[::-1]):
        rule = f"meta l4proto udp ip saddr {there.ipv4} counter drop"
        chain = f"type filter hook prerouting priority raw; {rule};"
        here.run(["nft", "-f", "-"], stdin=f"table inet wire {{ chain cut {{ {chain} }}; }}")
    yield
    for here in hosts:
        here.run(["nft", "delete", "table", "inet", "wire"])


def our_row(scene: Scene) -> dict[str, Any]:
    """The session as our end of it sees it."""
    if isinstance(scene.near, OurCard):
        return scene.near.program.status("far")
    assert isinstance(scene.far, OurHub)
    return next(row for row in scene.far.program.sessions(scene.far.hub) if row["user"] == "taro")


def bulk(scene: Scene) -> None:
    """Both ways, checked."""
    near, far = scene.addresses
    stream(scene.near.host, scene.far_host, far, seconds=0.0, least=BULK)
    stream(scene.far_host, scene.near.host, near, seconds=0.0, least=BULK)


def wait_udp(scene: Scene, wanted: bool, seconds: float) -> None:
    until(lambda: our_row(scene)["udp"] is wanted, seconds=seconds, what=f"UDP {wanted}", step_s=0.3)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["card", pytest.param("client", marks=pytest.mark.soak)])
def test_frames_go_by_udp_and_by_tcp_while_udp_is_cut(net: Net, role: str) -> None:
    scene = Scene(net, role, UDP)
    scene.joined()
    for end in (scene.far, scene.near):
        wait_carried(end, UDP)

    def counted() -> tuple[int, int, int]:
        row = our_row(scene)
        return row["udp_frames_in"], row["udp_frames_out"], row["tls_writes"]

    before = counted()
    scene.near.host.run(["ping", "-n", "-q", f"-c{PINGS}", "-i0.1", scene.addresses[1]])
    frames_in, frames_out, writes = (now - then for now, then in zip(counted(), before, strict=True))
    assert min(frames_in, frames_out) >= PINGS
    assert writes == 0

    bulk(scene)
    frames_in, frames_out, writes = (now - then for now, then in zip(counted(), before, strict=True))
    assert min(frames_in, frames_out) > BULK // 1400
    assert writes == 0  # the hub made each end of the stream send segments that fit

    if role == "client":
        _forged_datagrams_change_nothing(scene)

    with without_udp(scene):
        wait_udp(scene, False, NOTICE_S)
        scene.passes(NOTICE_S)
        before = counted()
        bulk(scene)
        frames_in, frames_out, writes = (now - then for now, then in zip(counted(), before, strict=True))
        assert (frames_in, frames_out) == (0, 0)
        assert writes > 0

    for end in (scene.far, scene.near):
        wait_carried(end, UDP)
    before = counted()
    scene.near.host.run(["ping", "-n", "-q", f"-c{PINGS}", "-i0.1", scene.addresses[1]])
    assert counted()[2] == before[2]
    if role == "card":
        assert our_row(scene)["logins"] == 1
    else:
        _goes_on_through_an_upgrade(scene)
        assert our_row(scene)["session"] == "SID-TARO-1"
    scene.ends()


def _forged_datagrams_change_nothing(scene: Scene) -> None:
    """From the client's own machine, to the session's own port."""
    with scene.near.host.inside():
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        for _ in range(FORGED):
            stranger.sendto(os.urandom(100), (scene.far.host.ipv4, FIRST_PORT))
        scene.near.host.run(["ping", "-n", "-q", f"-c{PINGS}", "-i0.1", scene.addresses[1]])
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody is answered
            stranger.recv(2048)
    row = our_row(scene)
    assert row["udp"]
    assert row["udp_dropped"][FOREIGN] + row["udp_dropped"].get(UNREAD, 0) >= FORGED


def _goes_on_through_an_upgrade(scene: Scene) -> None:
    """The next worker has the path's keys and port; the client notices nothing, and is answered by TCP meanwhile."""
    assert isinstance(scene.far, OurHub)
    scene.far.program.run("hub", "upgrade", timeout_s=UPGRADE_S)
    before = our_row(scene)
    scene.near.host.run(["ping", "-n", "-q", f"-c{PINGS}", "-i0.1", scene.addresses[1]])
    after = our_row(scene)
    assert after["udp_frames_in"] - before["udp_frames_in"] >= PINGS
    wait_udp(scene, True, BACK_S)
