"""Datagrams and negotiation of UDP acceleration."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.wire.blocks import compress
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.pack import Pack
from ukihashi.wire.udp import (
    COMPRESSED,
    KEY_LENGTH,
    MAX_PADDING,
    OUTER_MTU,
    Datagram,
    UdpCodec,
    UdpEnd,
    UdpGrant,
    UdpOffer,
    frame_of,
    longest_frame,
    mss,
)

OURS, THEIRS = bytes(range(128)), bytes(range(128, 256))
TICK, ECHO = 1_000, 77


def codec(*, mine: bool = True, encrypted: bool = True, ip_version: int = 4, iv: bytes = bytes(12)) -> UdpCodec:
    """One of the two ends: `mine` or the other."""
    end = UdpEnd(OURS, THEIRS, 5, 9, encrypted, fast=True)
    if not mine:
        end = UdpEnd(THEIRS, OURS, 9, 5, encrypted, fast=True)
    return UdpCodec(end, ip_version=ip_version, first_iv=iv)


@given(st.binary(max_size=1375), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_frame_arrives_as_it_was(frame: bytes, chance: float, encrypted: bool) -> None:
    data = codec(encrypted=encrypted).encode(TICK, ECHO, frame, chance)
    assert codec(mine=False, encrypted=encrypted).decode(data) == Datagram(TICK, ECHO, frame, 0)
    assert len(data) <= OUTER_MTU - 28


def test_padding_is_0_to_31_bytes_and_never_beyond_the_budget() -> None:
    bare = 12 + 23 + 16
    assert len(codec().encode(TICK, ECHO, b"", 0.0)) == bare
    assert len(codec().encode(TICK, ECHO, b"", 0.9999)) == bare + MAX_PADDING
    assert len(codec().encode(TICK, ECHO, bytes(1375), 0.9999)) == OUTER_MTU - 28
    assert len(codec(ip_version=6).encode(TICK, ECHO, bytes(1350), 0.9999)) == OUTER_MTU - 48


def test_an_iv_is_used_once() -> None:
    one = codec(iv=b"i" * 12)
    datagrams = [one.encode(TICK, ECHO, b"the same frame", 0.0) for _ in range(500)]
    assert datagrams[0].startswith(b"i" * 12)
    assert len({data[:12] for data in datagrams}) == 500
    assert datagrams[7][12:24] == datagrams[8][:12]


@given(st.integers(0, 8 * 60 - 1))
def test_one_changed_bit_makes_it_nobody_s(bit: int) -> None:
    data = bytearray(codec().encode(TICK, ECHO, b"frame of a few", 0.0))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    assert codec(mine=False).decode(bytes(data)) is None


@given(st.binary(max_size=200), st.booleans())
def test_anything_at_all_is_survived(data: bytes, encrypted: bool) -> None:
    assert codec(encrypted=encrypted).decode(data) is None or not encrypted


def test_our_own_datagram_sent_back_is_nobody_s() -> None:
    for encrypted in (True, False):
        assert codec(encrypted=encrypted).decode(codec(encrypted=encrypted).encode(TICK, ECHO, b"", 0.0)) is None


def test_what_an_authentic_sender_can_still_do_wrong() -> None:
    sender, receiver = codec(encrypted=False), codec(mine=False, encrypted=False)
    good = sender.encode(TICK, ECHO, bytes(60), 0.0)
    assert receiver.decode(good) is not None
    assert receiver.decode(sender.encode(0, ECHO, b"", 0.0)) is None  # a tick is never 0
    assert receiver.decode(good[:-1]) is None  # says more than it has
    assert receiver.decode(good[:22] + b"\2" + good[23:]) is None  # a flag that nobody knows
    longest = MAX_FRAME.to_bytes(2, "big")
    assert receiver.decode(good[:20] + longest + good[22:] + bytes(MAX_FRAME)) is not None
    assert receiver.decode(good[:20] + b"\x06\x41" + good[22:] + bytes(MAX_FRAME)) is None


def test_compressed_frames_are_unpacked() -> None:
    frame = bytes(100) + b"x"
    assert frame_of(Datagram(TICK, ECHO, compress(frame), COMPRESSED)) == frame
    assert frame_of(Datagram(TICK, ECHO, b"no zlib", COMPRESSED)) is None
    assert frame_of(Datagram(TICK, ECHO, compress(bytes(100_000)), COMPRESSED)) is None
    assert frame_of(Datagram(TICK, ECHO, frame, 0)) == frame


def test_sizes() -> None:
    assert (mss(4, encrypted=True), mss(4, encrypted=False)) == (1309, 1349)  # as measured at real servers
    assert mss(6, encrypted=True) == 1289
    for version in (4, 6):
        for encrypted in (True, False):  # Ethernet, IPv4, TCP; a time stamp is inside the segment size
            assert mss(version, encrypted=encrypted) + 14 + 20 + 20 <= longest_frame(version, encrypted=encrypted)


OFFER = UdpOffer(40_001, OURS, fast=True)
GRANT = UdpGrant(40_002, THEIRS, to_server=7, to_client=8, encrypted=True, fast=False)


def over_the_wire(message: UdpOffer | UdpGrant, **changes: int | bytes) -> Pack:
    """`message` in a PACK, some elements changed."""
    pack, changed = Pack(), Pack()
    message.add_to(pack)
    for element in Pack.decode(pack.encode()):
        if element.name not in changes:
            changed._elements[element.name.lower().encode()] = element
    for name, value in changes.items():
        if isinstance(value, int):
            changed.add_int(name, value)
        elif value:
            changed.add_data(name, value)
    return changed


@pytest.mark.parametrize("fast", [True, False])
def test_offer_and_grant_survive_the_wire(fast: bool) -> None:
    assert UdpOffer.read(over_the_wire(replace(OFFER, fast=fast))) == replace(OFFER, fast=fast)
    grant = replace(GRANT, fast=not fast, encrypted=fast)
    assert UdpGrant.read(over_the_wire(grant)) == grant
    assert UdpOffer.read(Pack()) is None
    assert UdpGrant.read(Pack()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"use_udp_acceleration": 0},
        {"udp_acceleration_max_version": 1},  # RC4 only
        {"udp_acceleration_max_version": b""},  # the same: an old client doesn't say it
        {"udp_acceleration_client_port": 0},
        {"udp_acceleration_client_port": 65536},
        {"udp_acceleration_client_key_v2": bytes(127)},
        {"udp_acceleration_client_key_v2": b""},
    ],
)
def test_an_offer_that_can_t_be_used_is_none(changes: dict[str, int | bytes]) -> None:
    assert UdpOffer.read(over_the_wire(OFFER, **changes)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"use_udp_acceleration": 0},
        {"udp_acceleration_version": 1},  # RC4
        {"udp_acceleration_version": b""},
        {"udp_acceleration_server_port": 0},
        {"udp_acceleration_server_key_v2": bytes(20)},
        {"udp_acceleration_server_cookie": 0},
        {"udp_acceleration_client_cookie": 0},
    ],
)
def test_a_grant_that_can_t_be_used_is_none(changes: dict[str, int | bytes]) -> None:
    assert UdpGrant.read(over_the_wire(GRANT, **changes)) is None


def test_fresh_ones_are_all_different() -> None:
    drawn = iter(range(1, 1000))

    def random(count: int) -> bytes:
        return next(drawn).to_bytes(count, "big")

    offer, grant = UdpOffer.fresh(1, random), UdpGrant.fresh(2, random, encrypted=True, fast=True)
    assert len(offer.key) == len(grant.key) == KEY_LENGTH
    assert len({offer.key, offer.old_key, grant.key, grant.old_key}) == 4
    assert grant.to_client != grant.to_server
    assert 0 not in (grant.to_client, grant.to_server)
    assert UdpGrant.fresh(2, bytes, encrypted=True, fast=True).to_client == 1  # 0 would mean none
    for secret in (OURS, THEIRS):
        assert secret.hex()[:8] not in repr((OFFER, GRANT))
        assert repr(secret)[2:20] not in repr((OFFER, GRANT))


def test_the_two_ends_fit() -> None:
    ends = UdpEnd.server(OFFER, GRANT), UdpEnd.client(OFFER, GRANT)
    server, client = (UdpCodec(end, ip_version=4, first_iv=bytes(12)) for end in ends)
    for one, other in ((server, client), (client, server)):
        assert other.decode(one.encode(TICK, ECHO, b"frame", 0.5)) == Datagram(TICK, ECHO, b"frame", 0)
