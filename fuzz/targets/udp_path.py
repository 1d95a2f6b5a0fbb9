"""A path of UDP acceleration with state: strangers' datagrams among authentic ones, from anywhere, at any time.

An input is a list of steps: u8 kind, u8 time (tenths of a second), u16 length, bytes. What the peer can seal itself is
tried by sealing the bytes as a whole INNER.
"""

import struct
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ukihashi.session.udp_path import UdpPath
from ukihashi.wire.constants import MAX_FRAME
from ukihashi.wire.udp import MAX_DATAGRAM, UdpEnd

ALLOWED = ()
TOKENS = [b"\0\0\0\5", bytes(7) + b"\1", bytes(8), b"\xff" * 8, b"\x06\x40\0", b"\x06\x41\1", b"\x78\x9c"]
STEP: Final = struct.Struct("!BBH")
INNER: Final = struct.Struct("!IQQHB")
OURS, THEIRS = bytes(range(128)), bytes(range(128, 256))
ENCRYPTED: Final = UdpEnd(OURS, THEIRS, 5, 9, encrypted=True, fast=True)
PLAIN: Final = UdpEnd(OURS, THEIRS, 5, 9, encrypted=False, fast=False)
PEER, STRANGER = ("192.0.2.1", 1), ("203.0.113.66", 2)
FORGED, OWN, AGAIN, SEALED = range(4)


def seeds() -> list[bytes]:
    """A peer's talk, forged datagrams between it, replays; what an evil peer may say. The first byte: which form."""
    talk = [(SEALED, 5, INNER.pack(5, 500 * n, 500 * n, 0, 0)) for n in range(1, 40)]
    frames = [
        (SEALED, 1, INNER.pack(5, 9000, 1, 60, 0) + bytes(60)),
        (SEALED, 1, INNER.pack(5, 9001, 1, 9, 1) + bytes(9)),
    ]
    evil = [(SEALED, 1, INNER.pack(5, 2**64 - 1, 2**64 - 1, MAX_FRAME, 0) + bytes(MAX_FRAME))]
    lists = [talk, frames, [(FORGED, 3, bytes(80)), *frames, (AGAIN, 255, b""), (OWN, 0, b"")], evil + talk[:3]]
    packed = [b"".join(STEP.pack(kind, time, len(data)) + data for kind, time, data in steps) for steps in lists]
    return [bytes([form]) + steps for form in (0, 1) for steps in packed]


def run(data: bytes) -> object:
    """Take the steps; after each, state what holds."""
    encrypted = data[:1] != b"\1"
    path = UdpPath(ENCRYPTED if encrypted else PLAIN, PEER, 0.0, first_iv=bytes(12), chance=lambda: 0.5)
    seal = ChaCha20Poly1305(THEIRS[:32]).encrypt
    now, at, last, frames = 0.0, 1, b"", 0
    while len(data) - at >= STEP.size and at < 1 << 16:
        kind, tenths, length = STEP.unpack_from(data, at)
        body = data[at + STEP.size : at + STEP.size + length]
        at += STEP.size + length
        now += tenths / 10
        if kind % 4 == SEALED:
            iv = at.to_bytes(12, "big")
            last = iv + seal(iv, body, None) if encrypted else body
        came, source = last, PEER
        if kind % 4 == FORGED:
            came, source = body, STRANGER
        elif kind % 4 == OWN:
            came, source = path.encode(body[: path.longest_frame], now), STRANGER
        before = (path.newest, path.peer, path.is_ready(now), path.due_at)
        frame = path.receive(came[:MAX_DATAGRAM], source, now)
        assert len(frame) <= MAX_FRAME
        assert path.newest >= before[0]
        if encrypted and kind % 4 in {FORGED, OWN}:
            assert frame == b""
            assert (path.newest, path.peer, path.is_ready(now), path.due_at) == before
        if now >= path.due_at:
            assert path.keepalive(now)
            assert path.due_at > now
        frames += bool(frame)
    return min(frames, 3), frozenset(path.drops), path.is_ready(now), path.peer == PEER, path.newest.bit_length() // 16
