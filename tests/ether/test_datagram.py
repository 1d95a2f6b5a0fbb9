"""UDP in whole frames, written and read."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.ether.datagram import Datagram, checksum, encode, parse

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
PAIRS = [("10.1.2.3", "10.1.2.255"), ("fd00::1", "ff02::2")]


@given(st.sampled_from(PAIRS), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=1400))
def test_a_datagram_is_read_as_it_was_written(pair: tuple[str, str], source: int, to: int, payload: bytes) -> None:
    sent = Datagram(A, B, ip_address(pair[0]), ip_address(pair[1]), source, to, payload)
    frame = encode(sent)
    assert parse(frame) == sent
    assert parse(frame + b"padding") == sent
    assert parse(frame[:12] + b"\x81\0\0\x05" + frame[12:]) == sent


@pytest.mark.parametrize("pair", PAIRS)
def test_a_changed_byte_is_noticed_wherever_it_is(pair: tuple[str, str]) -> None:
    frame = encode(Datagram(A, B, ip_address(pair[0]), ip_address(pair[1]), 68, 67, b"abcdefg"))
    start = len(frame) - 15
    for at in range(start, len(frame)):
        with pytest.raises(PeerViolation):
            parse(frame[:at] + bytes([frame[at] ^ 0x11]) + frame[at + 1 :])


def test_pieces_and_rests_are_refused_and_other_things_are_none() -> None:
    frame = encode(Datagram(A, B, ip_address("10.0.0.1"), ip_address("10.0.0.2"), 1, 2, b"x" * 20))
    for piece in (frame[:20] + b"\x20\0" + frame[22:], frame[:20] + b"\0\x01" + frame[22:], frame[:-1], frame[:38]):
        with pytest.raises(PeerViolation):
            parse(piece)
    assert parse(frame[:23] + b"\x06" + frame[24:]) is None
    assert parse(frame[:12] + b"\x08\x06" + frame[14:]) is None
    assert parse(frame[:10]) is None


def test_the_sum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
    assert checksum(b"\xff\xff") == 0


@given(st.binary(max_size=80), st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x81\0"]))
def test_hostile_frames_are_none_a_datagram_or_refused(rest: bytes, kind: bytes) -> None:
    with contextlib.suppress(PeerViolation):
        parse(B + A + kind + rest)
