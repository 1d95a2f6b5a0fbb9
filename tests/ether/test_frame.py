"""Views of a frame."""

import pytest

from ukihashi.ether import frame as ether

PLAIN = bytes.fromhex("0200000000020200000000010800") + bytes(46)
TAGGED = PLAIN[:12] + bytes.fromhex("8100e0050806") + bytes(46)


def test_addresses_and_type() -> None:
    assert ether.destination(PLAIN).hex(":") == "02:00:00:00:00:02"
    assert ether.source(PLAIN).hex(":") == "02:00:00:00:00:01"
    assert ether.ether_type(PLAIN) == ether.IPV4
    assert ether.ether_type(TAGGED) == ether.VLAN
    assert (ether.payload(PLAIN), ether.payload(TAGGED)) == ((ether.IPV4, 14), (ether.ARP, 18))


@pytest.mark.parametrize(
    ("frame", "vlan"),
    [
        (PLAIN, 0),
        (TAGGED, 5),
        (PLAIN[:12] + bytes.fromhex("8100efff0800"), 4095),
        (PLAIN[:12] + bytes.fromhex("8100e0000800"), 0),  # a priority, no VLAN
        (TAGGED[:17], 0),  # the tag is cut short
    ],
)
def test_vlan(frame: bytes, vlan: int) -> None:
    assert ether.vlan_id(frame) == vlan


@pytest.mark.parametrize(("mac", "group"), [("ffffffffffff", True), ("01005e000001", True), ("020000000001", False)])
def test_group_addresses(mac: str, group: bool) -> None:
    assert ether.is_group(bytes.fromhex(mac)) is group
