"""Neighbour discovery, written and read."""

import contextlib
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether import ndp

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
SAID = ndp.RouterAdvertisement(
    A,
    ndp.link_local(A),
    router_lifetime_s=1800,
    hop_limit=64,
    other=True,
    mtu=1400,
    prefixes=(ndp.Prefix(IPv6Network("fd00:1::/64")), ndp.Prefix(IPv6Network("fd00:2::/64"), True, False, 60, 30)),
    routes=(
        ndp.Route(IPv6Network("fd00:3::/48"), 600),
        ndp.Route(IPv6Network("::/0"), 60),
        ndp.Route(IPv6Network("fd00::1/128"), 1),
    ),
    dns=(IPv6Address("fd00:1::fe"), IPv6Address("fd00:1::1")),
    search=("lan.internal", "example.org"),
    names_s=900,
)


def test_an_advertisement_is_read_as_it_was_written() -> None:
    frame = ndp.router_advertisement(SAID)
    assert frame[:6] == b"\x33\x33\0\0\0\x01"
    assert ndp.parse(frame) == SAID
    plain = ndp.RouterAdvertisement(A, ndp.link_local(A))
    alone = ndp.router_advertisement(plain, destination=ndp.link_local(B), destination_mac=B)
    assert alone[:6] == B
    assert ndp.parse(alone) == plain


def test_solicitations_and_their_answers() -> None:
    assert ndp.parse(ndp.router_solicitation(A)) == ndp.RouterSolicitation(A, ndp.NOWHERE)
    assert ndp.parse(ndp.router_solicitation(A, ndp.link_local(A))) == ndp.RouterSolicitation(A, ndp.link_local(A))
    target = IPv6Address("fd00:1::fe")
    frame = ndp.neighbour_solicitation(A, ndp.link_local(A), target)
    assert frame[:6] == b"\x33\x33\xff\0\0\xfe"
    asked = ndp.parse(frame)
    assert asked == ndp.NeighbourSolicitation(A, ndp.link_local(A), target)
    assert isinstance(asked, ndp.NeighbourSolicitation)
    answer = ndp.neighbour_advertisement(asked, B)
    assert answer[:6] == A
    assert ndp.parse(answer) == ndp.NeighbourAdvertisement(B, target, target, B, False, True, True)


def test_who_has_no_address_yet_is_answered_by_all_nodes() -> None:
    asked = ndp.NeighbourSolicitation(A, ndp.NOWHERE, IPv6Address("fd00::1"))
    answer = ndp.parse(ndp.neighbour_advertisement(asked, B))
    assert isinstance(answer, ndp.NeighbourAdvertisement)
    assert not answer.solicited


def test_what_does_not_come_from_the_link_or_was_changed_is_refused() -> None:
    frame = ndp.router_advertisement(SAID)
    for at, value in ((21, 64), (55, 1), (len(frame) - 1, 9), (19, 200)):
        with pytest.raises(PeerViolation):
            ndp.parse(frame[:at] + bytes([value]) + frame[at + 1 :])
    with pytest.raises(PeerViolation):
        ndp.parse(frame[:-1])
    with pytest.raises(PeerViolation):
        ndp.parse(ndp.router_advertisement(ndp.RouterAdvertisement(A, IPv6Address("fd00::1"))))
    with pytest.raises(PeerViolation):
        ndp.parse(ndp.neighbour_solicitation(A, ndp.NOWHERE, ndp.ALL_NODES))
    assert ndp.parse(frame[:12] + b"\x08\0" + frame[14:]) is None
    assert ndp.parse(frame[:54] + b"\x80" + frame[55:]) is None


def test_addresses_made_of_a_station() -> None:
    mac = bytes.fromhex("00005e005301")
    assert ndp.link_local(mac) == IPv6Address("fe80::200:5eff:fe00:5301")
    assert ndp.interface_address(IPv6Network("fd00:1::/64"), mac) == IPv6Address("fd00:1::200:5eff:fe00:5301")


@given(st.sampled_from([133, 134, 135, 136]), st.binary(max_size=120))
def test_hostile_messages_are_read_or_refused(kind: int, rest: bytes) -> None:
    body = bytes((kind, 0, 0, 0)) + rest
    with contextlib.suppress(PeerViolation):
        ndp.parse(ndp._frame(A, B, ndp.link_local(A), ndp.ALL_NODES, body.ljust(8, b"\0")))
