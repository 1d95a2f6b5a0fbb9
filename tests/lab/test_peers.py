"""The real SoftEther programs run in the laboratory: the ground that all tests against them stand on."""

import pytest

from lab.net import LabError, Net
from lab.peers import Client, Server

pytestmark = [pytest.mark.peer("vpnserver", "vpnclient", "vpncmd"), pytest.mark.slow]


def test_a_real_client_joins_a_real_server_with_password_and_anonymously(net: Net) -> None:
    hub, a, b = net.lan("hub", "a", "b")
    server, one, two = Server(hub), Client(a), Client(b)
    for program in (server, one, two):
        program.start()
    server.create_hub("LAB")
    server.create_user("LAB", "ann", "secret")
    server.create_user("LAB", "guest")
    server.bridge("LAB", "host", cidrs=["10.9.0.1/24"])
    one.create_account("v", server=hub.ipv4, user="ann", password="secret", cidrs=["10.9.0.2/24"], hub="LAB", port=5555)
    two.create_account("v", server=hub.ipv6, user="guest", cidrs=["10.9.0.3/24"], hub="LAB", port=5555)
    one.connect("v")
    two.connect("v")
    assert a.pings("10.9.0.1") < 5000
    assert a.pings("10.9.0.3") < 5000
    assert {"ann", "guest"} <= {row["User Name"] for row in server.sessions("LAB")}
    assert one.status("v")["Server Name"] == hub.ipv4
    workers = set(a.pids())
    one.restart()
    assert not workers & set(a.pids())  # a fresh process, not the old one found again
    assert b.pings("10.9.0.2") < 5000

    one.create_account("w", server=hub.ipv4, user="ann", password="wrong", hub="LAB", port=5555)
    with pytest.raises(LabError, match="w being online"):
        one.connect("w", seconds=2)
