"""ARP, written and read."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from ukihashi.ether import arp
from ukihashi.ether.frame import BROADCAST, destination, source

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
ONE, TWO = IPv4Address("10.1.2.1"), IPv4Address("10.1.2.2")


def test_a_request_and_its_reply() -> None:
    frame = arp.request(A, ONE, TWO)
    assert (destination(frame), source(frame), len(frame)) == (BROADCAST, A, 42)
    asked = arp.parse(frame)
    assert asked == arp.Arp(arp.REQUEST, A, ONE, bytes(6), TWO)
    answer = arp.reply(asked, B)
    assert (destination(answer), source(answer)) == (A, B)
    assert arp.parse(answer) == arp.Arp(arp.REPLY, B, TWO, A, ONE)


def test_an_announcement_asks_for_its_own_address() -> None:
    told = arp.parse(arp.announcement(A, ONE))
    assert told is not None
    assert told.sender == told.target == ONE


def test_a_tagged_request_is_read_too() -> None:
    frame = arp.request(A, ONE, TWO)
    assert arp.parse(frame[:12] + b"\x81\0\0\x05" + frame[12:]) == arp.parse(frame)


def test_what_is_cut_short_is_told() -> None:
    frame = arp.request(A, ONE, TWO)
    assert not arp.is_cut_short(frame)
    assert arp.is_cut_short(frame[:-1])
    assert arp.parse(frame[:-1]) is None
    assert not arp.is_cut_short(frame[:12] + b"\x08\0")


@given(st.binary(min_size=14, max_size=60))
def test_hostile_frames_are_none_or_arp(frame: bytes) -> None:
    arp.parse(frame[:12] + b"\x08\x06" + frame[14:])
    arp.is_cut_short(frame)
