"""The offices work as offices do, before any program of ours comes in: one wire, real DHCP, mDNS and web servers."""

import hashlib
from pathlib import Path

import pytest

from lab.net import Net
from lab.offices import OUTSIDE4, ROUTED4, ROUTED6, Town, web_server

pytestmark = [pytest.mark.slow, pytest.mark.peer("dnsmasq", "avahi-daemon", "dhclient", "udhcpc", "curl")]


def test_an_office_with_a_router(net: Net, tmp_path: Path) -> None:
    town = Town(net)
    office = town.office("w", hosts=2)
    router = office.add_router()
    one, two = office.hosts
    one.speak_mdns()
    two.speak_mdns()
    leases = [one.lease("dhclient"), two.lease("udhcpc")]
    assert {lease["router"] for lease in leases} == {f"{ROUTED4}.1"}
    assert {lease["domain"] for lease in leases} == {"office.example"}
    assert len({lease["address"] for lease in leases}) == 2
    assert one.ipv6(ROUTED6).startswith(ROUTED6)
    one.use_dns(leases[0]["dns"])
    assert town.web.ipv4 in one.resolves("web.example")
    assert one.resolves("nobody.office.example") == []
    assert one.hears_mdns(two) == leases[1]["address"]
    assert two.hears_mdns(one, 6)
    data = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(data)
    tmp_path.chmod(0o755)
    for place, address in ((town.web, town.web.ipv4), (two.host, leases[1]["address"])):
        web_server(place, tmp_path)
        assert one.fetch_sum(f"http://{address}/file") == hashlib.sha256(data).hexdigest()
    assert f"via {ROUTED4}.1" in one.host.ip("route get " + town.web.ipv4)
    assert router.ipv4.startswith(OUTSIDE4)
    one.forget()
    assert one.host.ip("-4 addr show dev eth0 scope global") == ""
