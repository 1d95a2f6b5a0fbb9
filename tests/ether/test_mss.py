"""MSS clamping; the checksum is checked by reckoning it anew."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.ether.icmp import checksum
from ukihashi.ether.mss import clamp

MACS = bytes(range(12))
MSS = b"\x02\x04"
SACK_OK = b"\x04\x02"
NOP = b"\x01"
TIME = b"\x08\x0a" + bytes(range(8))


def tcp(options: bytes, *, flags: int = 2, data: bytes = b"", version: int = 4, tagged: bool = False) -> bytes:
    """A frame with a TCP packet and a right checksum."""
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    header = struct.pack("!HHIIBBHHH", 1234, 443, 7, 0, size // 4 << 4, flags, 65535, 0, 0) + options
    segment = header + data
    ends = bytes(range(8)) if version == 4 else bytes(range(32))
    total = checksum(_even(pseudo(ends, len(segment)) + segment))
    segment = segment[:16] + total.to_bytes(2, "big") + segment[18:]
    if version == 4:
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, 6, 0) + ends + segment
    else:
        packet = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + ends + segment
    tag = b"\x81\x00\x00\x05" if tagged else b""
    return MACS + tag + (b"\x08\x00" if version == 4 else b"\x86\xdd") + packet


def pseudo(ends: bytes, size: int) -> bytes:
    """What the checksum covers beside the segment."""
    return ends + struct.pack("!HH", 6, size)


def _even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)


def is_whole(frame: bytes) -> bool:
    """The checksum of the TCP packet in `frame` is right."""
    at = 18 if frame[12:14] == b"\x81\x00" else 14
    ends, segment = (frame[at + 12 : at + 20], frame[at + 20 :])
    if frame[at] >> 4 == 6:
        ends, segment = frame[at + 8 : at + 40], frame[at + 40 :]
    return checksum(_even(pseudo(ends, len(segment)) + segment)) == 0


def option(value: int) -> bytes:
    return MSS + value.to_bytes(2, "big")


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b"", SACK_OK + TIME), (NOP, TIME), (NOP * 3 + SACK_OK, b""), (SACK_OK + TIME + NOP, NOP)],
)
def test_a_larger_offer_is_made_smaller(before: bytes, after: bytes, tagged: bool) -> None:
    frame = tcp(before + option(1460) + after, tagged=tagged)
    (new,) = clamp([frame], 1309)
    assert new == tcp(before + option(1309) + after, tagged=tagged)
    assert is_whole(new)


@given(st.integers(0, 65535), st.integers(1, 1460), st.binary(max_size=40), st.integers(0, 3))
def test_the_checksum_stays_right(offered: int, most: int, data: bytes, odd: int) -> None:
    frame = tcp(NOP * odd + option(offered), data=data)
    (new,) = clamp([frame], most)
    assert is_whole(new)
    assert new[: 14 + 20 + 16] == frame[: 14 + 20 + 16]
    assert int.from_bytes(new[54 + odd + 2 : 54 + odd + 4], "big") == min(offered, most)


def test_over_ipv6_it_is_20_less() -> None:
    (new,) = clamp([tcp(option(1440), version=6)], 1309)
    assert new == tcp(option(1289), version=6)


def test_the_answer_to_a_syn_is_one_too() -> None:
    (new,) = clamp([tcp(option(1460), flags=0x12)], 1309)
    assert new == tcp(option(1309), flags=0x12)


@pytest.mark.parametrize(
    "frame",
    [
        tcp(option(1309)),  # small enough
        tcp(option(1460), flags=0x10),  # not a SYN: those bytes are nothing to us
        tcp(b""),
        tcp(b"\0" + option(1460)),  # behind the end of the options
        tcp(b"\x05\x00" + option(1460)),  # an option of no length
        tcp(MSS[:1] + b"\x06" + bytes(4)),  # an MSS of another length
        tcp(SACK_OK + NOP + MSS[:1]),  # cut short
        tcp(option(1460))[:-2],
        tcp(option(1460))[:20] + b"\x20" + tcp(option(1460))[21:],  # the first of several fragments
        tcp(option(1460))[:23] + b"\x11" + tcp(option(1460))[24:],  # UDP
        b"",
        bytes(13),
        bytes(60),
    ],
)
def test_anything_else_is_left_alone(frame: bytes) -> None:
    frames = [frame, tcp(option(536))]
    assert clamp(frames, 1309) is frames


def test_only_what_must_change_is_copied() -> None:
    large, small = tcp(option(1460)), tcp(option(500))
    frames = [small, large, small]
    new = clamp(frames, 1309)
    assert new[0] is small
    assert new[2] is small
    assert new[1] != large
    assert frames[1] is large


@given(st.binary(max_size=200), st.integers(0, 255))
def test_anything_at_all_is_survived(noise: bytes, at: int) -> None:
    frame = tcp(SACK_OK + option(1460) + TIME)
    for candidate in (noise, frame[:at], frame[:at] + noise, frame[:14] + noise):
        (new,) = clamp([candidate], 1309)
        assert len(new) == len(candidate)
