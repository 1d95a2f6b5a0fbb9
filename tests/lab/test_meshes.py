"""Real tinc, fastd and OpenVPN over UDP run in the laboratory as the bench needs them: members hear each other."""

from types import ModuleType

import pytest

from lab import fastd, tinc
from lab.net import Net
from lab.openvpn import SWITCH, Client, Server

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.mark.soak
@pytest.mark.peer("tincd", "fastd")
@pytest.mark.parametrize("peer", [tinc, fastd], ids=["tinc", "fastd"])
def test_two_members_hear_each_other_and_the_middle(net: Net, peer: ModuleType) -> None:
    assert peer.missing() == ""
    a, h, b = (net.host(name) for name in "ahb")
    net.link(h, a)
    net.link(h, b)
    members = {a: h.addresses[0], b: h.addresses[2]}
    peer.start(h, members, {h: "10.78.0.1/24", a: "10.78.0.2/24", b: "10.78.0.3/24"})
    a.pings("10.78.0.1")
    a.pings("10.78.0.3")


@pytest.mark.peer("openvpn")
def test_openvpn_goes_over_udp_too(net: Net) -> None:
    a, h, b = (net.host(name) for name in "ahb")
    net.link(h, a)
    net.link(h, b)
    server = Server(h, udp=True)
    server.start()
    h.add_address(SWITCH, "10.78.0.1/24")
    for number, (host, address) in enumerate(((a, h.addresses[0]), (b, h.addresses[2]))):
        client = Client(host, server, host.name, remote=(address, server.port))
        client.start()
        host.add_address(client.interface, f"10.78.0.{number + 2}/24")
    a.pings("10.78.0.3")
    a.pings("10.78.0.1")
    assert h.run(["ss", "-lunH", f"sport = :{server.port}"])
