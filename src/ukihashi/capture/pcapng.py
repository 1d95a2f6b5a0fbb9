"""Write a pcapng capture: packets that other tools can read, too (draft-ietf-opsawg-pcapng)."""

import struct
from collections.abc import Iterable
from typing import Final

RESOLUTION: Final = 9  # nanoseconds
_SECTION, _INTERFACE, _ENHANCED = 0x0A0D0D0A, 1, 6
_COMMENT, _APPLICATION, _IF_RESOLUTION = 1, 4, 9


def pcapng(packets: Iterable[tuple[float, int, int, bytes]], *, application: str = "", comment: str = "") -> bytes:
    """A whole file.

    Args:
        packets: time in seconds since 1970, link type, bytes on the wire, bytes kept; in order of time.
        application: who wrote it; comment: what it is.
    """
    options = b""
    for code, text in ((_COMMENT, comment), (_APPLICATION, application)):
        if text:
            options += _option(code, text.encode())
    blocks = [_block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options + (_END if options else b""))]
    interfaces: dict[int, int] = {}
    for time, link_type, length, data in packets:
        if link_type not in interfaces:
            interfaces[link_type] = len(interfaces)
            described = struct.pack("<HHI", link_type, 0, 0) + _option(_IF_RESOLUTION, bytes([RESOLUTION])) + _END
            blocks.append(_block(_INTERFACE, described))
        ticks = round(time * 10**RESOLUTION)
        head = struct.pack(
            "<5I", interfaces[link_type], ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF, len(data), length
        )
        blocks.append(_block(_ENHANCED, head + _padded(data)))
    return b"".join(blocks)


_END: Final = bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size
