"""Real OpenVPN runs in the laboratory as the bench needs it: frames pass, and it comes back after a cut."""

import time

import pytest

from lab.faults import FaultRelay
from lab.net import Net
from lab.numbered import End, Numbered
from lab.openvpn import PORT, Client, Server

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("openvpn")]


def test_frames_pass_between_two_clients_and_again_after_a_reset(net: Net) -> None:
    card, middle, hub, other = (net.host(name) for name in ("c", "f", "h", "b"))
    net.link(middle, card)
    net.link(hub, middle)
    net.link(hub, other)
    server = Server(hub)
    server.start()
    with FaultRelay(middle, listen=(middle.ipv4, PORT), target=(hub.ipv4, PORT)) as relay:
        near = Client(card, server, "c", remote=relay.address)
        far = Client(other, server, "b", remote=(hub.addresses[2], PORT))
        near.start()
        far.start()
        with Numbered(End(card, near.interface), End(other, far.interface), rate=200, seed=1) as frames:
            assert frames.flows_again(time.monotonic(), seconds=10.0) < 10.0
            relay.reset()
            assert frames.flows_again(time.monotonic(), seconds=30.0) < 30.0
            result = frames.finish(quiet_s=0.5)
    assert result.total("lost") > 0  # it keeps nothing over a cut
    assert result.total("doubled") == result.total("damaged") == 0
