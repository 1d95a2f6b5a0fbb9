"""The largest segment that the ends of a TCP connection tell each other (RFC 9293, section 3.7.1), made smaller."""

from typing import Final

from ukihashi.ether.frame import IPV4, IPV6, payload

TCP: Final = 6
SYN: Final = 0x02
_END, _NOTHING, _MSS = 0, 1, 2  # kinds of options
_IPV6_MORE: Final = 20  # bytes by which IPv6's header is longer
_FLAGS: Final = 13  # byte of the TCP header
_CHECKSUM: Final = 16
_OPTIONS: Final = 20
_SHORTEST: Final = 14 + 20 + 20  # bytes of a frame with a TCP header without options


def clamp(frames: list[bytes], most: int) -> list[bytes]:
    """The frames, none offering a larger segment than `most` bytes over IPv4, 20 less over IPv6.

    Gives `frames` itself if nothing has to change. What can't be read (a fragment, options cut short) stays as it is.
    """
    changed: list[bytes] | None = None
    for index, frame in enumerate(frames):
        start, limit = _syn(frame, most) if len(frame) > _SHORTEST else (0, 0)
        if start:
            new = _clamped(frame, start, limit)
            if new is not None:
                if changed is None:
                    changed = list(frames)
                changed[index] = new
    return frames if changed is None else changed


def _syn(frame: bytes, most: int) -> tuple[int, int]:
    """Where the TCP header of a connection's first packets starts, and the limit there; 0 for any other frame."""
    kind, at = payload(frame)
    if kind == IPV4 and len(frame) >= at + 20:
        if frame[at + 9] != TCP or frame[at + 6] & 0x3F or frame[at + 7]:  # another protocol, or a fragment
            return 0, 0
        start = at + (frame[at] & 0x0F) * 4
    elif kind == IPV6 and len(frame) >= at + 40 and frame[at + 6] == TCP:
        start = at + 40
        most -= _IPV6_MORE
    else:
        return 0, 0
    return (start, most) if len(frame) >= start + _OPTIONS and frame[start + _FLAGS] & SYN else (0, 0)


def _clamped(frame: bytes, start: int, most: int) -> bytes | None:
    at, end = start + _OPTIONS, start + (frame[start + 12] >> 4) * 4
    while at + 1 < end <= len(frame):
        kind, length = frame[at], frame[at + 1]
        if kind == _NOTHING:
            at += 1
            continue
        if kind == _END or length < 2:
            return None
        if kind == _MSS:
            if length != 4 or at + 4 > end or int.from_bytes(frame[at + 2 : at + 4], "big") <= most:
                return None
            return _with(frame, start, at + 2, most)
        at += length
    return None


def _with(frame: bytes, start: int, at: int, value: int) -> bytes:
    """`frame` with another number at `at`, and the TCP checksum that fits (RFC 1624, equation 3)."""
    new = bytearray(frame)
    new[at : at + 2] = value.to_bytes(2, "big")
    first = at - (at - start) % 2  # the sum is over words from the header's start; the number may lie across two
    total = ~int.from_bytes(new[start + _CHECKSUM : start + _CHECKSUM + 2], "big") & 0xFFFF
    for word in range(first, at + 2, 2):
        total += ~int.from_bytes(frame[word : word + 2], "big") & 0xFFFF
        total += int.from_bytes(new[word : word + 2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    new[start + _CHECKSUM : start + _CHECKSUM + 2] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(new)
