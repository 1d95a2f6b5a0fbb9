"""What the detector tells others never leaves by a card that it captures on."""

import pytest

from lab.net import Net
from ukihashi.alert.silence import check_listen, check_way, way_out
from ukihashi.errors import UsageError


def test_loopback_is_told_by_the_kernel() -> None:
    assert way_out("127.0.0.1") == "lo"
    assert way_out("::1") == "lo"
    check_way("127.0.0.1", ["eth1"], "udp://127.0.0.1:514")
    check_way("no-such-host.invalid", ["eth1"], "x")
    with pytest.raises(UsageError, match="is reached by lo, a card that is captured on"):
        check_way("127.0.0.1", ["lo", "eth1"], "udp://127.0.0.1:514")


def test_ports(net: Net) -> None:
    a, b = net.host("a"), net.host("b")
    near, _far = net.link(a, b)
    with a.inside():
        assert way_out(b.ipv4) == near
        assert way_out("203.0.113.1") == ""
        with pytest.raises(UsageError, match=f"is reached by {near}"):
            check_way(b.ipv4, [near], f"tcp://{b.ipv4}:601")
        check_listen("127.0.0.1", [near], "127.0.0.1:9719")
        check_listen("0.0.0.0", ["lo"], "0.0.0.0:9719")
        for host in ("0.0.0.0", "::", "", a.ipv4, a.ipv6):
            with pytest.raises(UsageError, match=f"would answer on {near}"):
                check_listen(host, [near], host)
