"""An idle link says something every 5 s in each direction, and nothing more than it must (A16, A17, D7)."""

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from lab.capture import Capture
from lab.net import Net
from lab.ukihashi import FAST_CARD, FAST_HUB, Card, Hub, gateway
from lab.wait import pause, until
from ukihashi.capture.pcap import CaptureFile

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("tcpdump")]

QUIET = {"echo_guard": {"enabled": False}}
ETHERNET = 14  # bytes of its header


def sizes(path: Path, port: int, seconds: float) -> dict[str, list[int]]:
    """Bytes of TCP payload of each segment that has any, by direction, in that time after the first packet."""
    began = 0.0
    found: dict[str, list[int]] = {"in": [], "out": []}
    with path.open("rb") as file:
        for batch in CaptureFile(file, path.name):
            for when, at, _, _ in batch.packets:
                began = began or when
                if when >= began + seconds:
                    break
                ip = at + ETHERNET
                tcp = ip + (batch.buffer[ip] & 15) * 4
                total = struct.unpack_from("!H", batch.buffer, ip + 2)[0]
                payload = ip + total - tcp - (batch.buffer[tcp + 12] >> 4) * 4
                if payload:
                    source = struct.unpack_from("!H", batch.buffer, tcp)[0]
                    found["in" if source == port else "out"].append(payload)
    return found


def check(net: Net, *, times: float, seconds: float) -> None:
    """One idle span of `seconds`, with times multiplied by `times`."""
    machine, host = net.lan("hub", "card")
    hub, card = Hub(machine), Card(host)
    settings: dict[str, Any] = {**QUIET}
    if times != 1:
        hub.configure(FAST_HUB)
        settings.update(FAST_CARD)
    hub.start(first=False)
    hub.run("hub", "create", "LAN")  # no port of the hub machine itself, which would have things to say
    host.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    card.join_with(hub.invite("ann"), settings)
    interface = card.interface()
    host.run(["sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"])

    def counted() -> tuple[int, int, int]:
        row = card.status()
        return row["keepalives_in"], row["keepalives_out"], row["frames_out"]

    until(lambda: counted()[0] >= 2, seconds=30.0, what="two keep-alives", step_s=0.2)
    with Capture(host, "eth0", expression=f"tcp and host {machine.ipv4}") as capture:
        before, began = counted(), time.monotonic()
        pause(seconds + 1.0)
        after, ended = counted(), time.monotonic()
    assert after[2] == before[2]  # it was idle indeed
    for way in (0, 1):
        assert abs(after[way] - before[way] - (ended - began) / (5.0 * times)) <= 2  # asking takes a moment
    for direction, found in sizes(capture.path, 443, seconds).items():
        assert abs(len(found) - 12) <= 1, direction
        assert len(set(found)) > len(found) / 2, direction  # their sizes say nothing


def test_idle(net: Net) -> None:
    check(net, times=0.1, seconds=6.0)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_idle_at_full_length(net: Net) -> None:
    check(net, times=1.0, seconds=60.0)


def test_traffic_takes_their_place(net: Net) -> None:
    machine, host = net.lan("hub", "card")
    hub, card = Hub(machine), Card(host)
    hub.configure(FAST_HUB)
    hub.start()
    card.join_with(hub.invite("ann"), {**QUIET, **FAST_CARD})
    target = gateway(card.address(4))
    host.pings(target)
    before, began = card.status(), time.monotonic()
    busy = time.monotonic()
    host.run(["ping", "-q", "-i", "0.1", "-c", "50", target])
    busy = time.monotonic() - busy
    after, ended = card.status(), time.monotonic()
    assert after["frames_out"] - before["frames_out"] >= 50
    around = 2 * (ended - began - busy) + 2  # asking takes its time, during which the link is idle
    for way in ("keepalives_in", "keepalives_out"):
        assert after[way] - before[way] <= around, way
    assert around < 2 * (ended - began)
