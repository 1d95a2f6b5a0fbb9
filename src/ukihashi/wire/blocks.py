"""The block stream that follows the welcome on each connection (protocol section 12.1).

    batch     := u32 count (1..0xfffffffe), count * ( u32 size, size bytes )        one block = one Ethernet frame
    keepalive := 0xffffffff, u32 size (0..512), size bytes of anything
    nothing   := u32 0

In an extended session (docs/protocol.md) a block is a counted record, never empty; control records may be among them,
and a keep-alive's body begins with a record number. Where both ends take super-frames, bit 31 of a size tells one.

Splitting and joining both work on whole reads and writes, because a call per frame is what would cost most.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ukihashi.errors import N_, PeerViolation
from ukihashi.ether.frame import HEADER
from ukihashi.ether.offload import MAX_SUPER_FRAME, TRAILER, SuperFrame
from ukihashi.wire.constants import KEEPALIVE_MARK, MAX_BLOCK, MAX_CONTROL, MAX_FRAME, MAX_KEEPALIVE
from ukihashi.wire.extension import CONTROL, HAVE_LENGTH, SUPER_FRAME, ControlRecord, read_control, read_number

_U32: Final = struct.Struct("!I")
# sizes as a batch says them, for all frames but long super-frames
_SIZES: Final = {
    bytes: tuple(_U32.pack(length) for length in range(MAX_BLOCK + 1)),
    SuperFrame: tuple(_U32.pack(length | SUPER_FRAME) for length in range(MAX_BLOCK + 1)),
}
_LENGTH: Final = SUPER_FRAME - 1  # bits of a size
_LEAST_SUPER_FRAME: Final = HEADER + TRAILER

_SUPER_SIZES: Final = (SUPER_FRAME | _LEAST_SUPER_FRAME, SUPER_FRAME | MAX_SUPER_FRAME)

_GROUP: Final = 8  # a full TLS record holds ten frames of full size


@lru_cache(maxsize=256)
def _group_of(size: int) -> tuple[struct.Struct, tuple[int, ...]]:
    """What cuts `_GROUP` blocks of one `size` at once, and the sizes it must find."""
    return struct.Struct("!" + f"I{size & _LENGTH}s" * _GROUP), (size,) * _GROUP


class BlockDecoder:
    """Cut one connection's bytes into frames. Holds at most one incomplete block after each `feed`.

    After a PeerViolation the framing is lost: each later `feed` raises the same error again.
    """

    __slots__ = (
        "_alive", "_body", "_broken", "_extended", "_held", "_left", "_max_block", "_max_keepalive", "_skip",
        "_takes_super_frames", "controls", "keepalives", "super_frames",
    )  # fmt: skip

    def __init__(
        self,
        max_block: int = MAX_BLOCK,
        max_keepalive: int = MAX_KEEPALIVE,
        *,
        extended: bool = False,
        super_frames: bool = False,
    ) -> None:
        """`super_frames`: both ends of this extended session take them."""
        self._extended = extended
        self._takes_super_frames = super_frames
        self._max_block = max_block  # bytes
        self._max_keepalive = max_keepalive  # bytes
        self._held = bytearray()  # the start of a number or of a block, never a whole one
        self._left = 0  # blocks of the current batch still to come
        self._alive = False  # the next number is a keep-alive's size
        self._skip = 0  # bytes of a keep-alive's body still to come
        self._body = bytearray()  # extended: its first HAVE_LENGTH bytes
        self._broken: PeerViolation | None = None
        self.keepalives = 0  # complete ones so far
        self.super_frames = 0  # given so far
        self.controls: list[ControlRecord] = []  # extended: what has come; whoever reads it empties it

    @property
    def pending(self) -> int:
        """Bytes held for a block that is not complete; at most 3 more than the longest block has."""
        return len(self._held)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take what one read returned; give every frame that it completed, in order, empty blocks left out.

        Args:
            data: any number of bytes, split anywhere; bytes are fastest (anything else is copied once).
        Raises:
            PeerViolation: a block above `max_block` or a keep-alive above `max_keepalive`; extended: an empty block, a
                control record that can't be read, a super-frame of a size that none has or that nobody agreed on. Drop
                the connection.
        Cost: O(len(data)), one copy a frame, two a super-frame.
        """
        if self._broken is not None:
            raise self._broken
        frames: list[bytes] = []
        view = data if isinstance(data, bytes) else bytes(data)
        try:
            at = self._top_up(view, frames) if self._held else 0
            self._cut(view, at, frames)
        except PeerViolation as violation:
            self._broken = violation
            self._held.clear()
            raise
        return frames

    def _top_up(self, data: bytes, frames: list[bytes]) -> int:
        """Complete what is held from the start of `data`; give the place behind what was used."""
        held, at = self._held, 0
        while held:
            want = 4
            if len(held) >= 4:  # only a block is ever held beyond its first number
                want += self._checked(_U32.unpack_from(held)[0])
            piece = memoryview(data)[at : at + want - len(held)]
            at += len(piece)
            if want > 4 + self._max_block and len(held) + len(piece) == want:  # long: copied no more than it must be
                frames.append(SuperFrame(b"".join((memoryview(held)[4:], piece))))
                self.super_frames += 1
                self._left -= 1
                held.clear()
                break
            held += piece
            if len(held) < want:
                break
            if want == 4 and self._left and self._checked(_U32.unpack(held)[0]):
                continue  # the number is whole, its block is not
            whole = bytes(held)
            held.clear()
            self._cut(whole, 0, frames)
        return at

    def _cut(self, data: bytes, at: int, frames: list[bytes]) -> None:
        """Read `data` from `at` on; `_held` is empty before, and holds the incomplete rest after."""
        end = len(data)
        if self._skip:
            at = self._skip_body(data, at)
        while end - at >= 4:
            if self._left:
                at = self._cut_batch(data, at, frames)
                if self._left:
                    break  # the rest is the start of a block
            elif self._alive:
                size = _U32.unpack_from(data, at)[0]
                if size > self._max_keepalive:
                    raise PeerViolation(
                        N_("a keep-alive of {size} bytes, at most {limit} are taken"),
                        size=size,
                        limit=self._max_keepalive,
                    )
                self._alive, self._skip = False, size
                if size == 0:
                    self._keepalive_came()
                at = self._skip_body(data, at + 4)
            else:
                count = _U32.unpack_from(data, at)[0]
                at += 4
                if count == KEEPALIVE_MARK:
                    self._alive = True
                else:
                    self._left = count
        if at < end:
            self._held += memoryview(data)[at:]

    def _cut_batch(self, data: bytes, at: int, frames: list[bytes]) -> int:
        """Read blocks of the current batch as far as they are whole; give the place behind them.

        Bulk traffic is runs of equal sizes: `_GROUP` blocks of one size are cut by one call of `struct`.
        """
        left, limit, end = self._left, self._max_block, len(data)
        least, most = _SUPER_SIZES if self._takes_super_frames else (1, 0)
        unpack, append = _U32.unpack_from, frames.append
        while left and end - at >= 4:
            size = unpack(data, at)[0]
            length = size & _LENGTH
            span = _GROUP * (4 + length)
            if left >= _GROUP and end - at >= span and 0 < length <= limit:
                last = at + span - length - 4
                if unpack(data, last)[0] == size:  # cheap, and tells most mixed traffic at once
                    cutter, sizes = _group_of(size)
                    parts = cutter.unpack_from(data, at)
                    if parts[::2] == sizes:
                        if size == length:
                            frames += parts[1::2]
                        else:
                            self._checked(size)
                            frames += map(SuperFrame, parts[1::2])
                            self.super_frames += _GROUP
                        at += span
                        left -= _GROUP
                        continue
            for _ in range(min(left, _GROUP)):
                if end - at < 4:
                    break
                start = at + 4
                stop = start + unpack(data, at)[0]
                if stop - start > limit or stop > end:
                    size = stop - start
                    is_super = least <= size <= most
                    stop = start + (size - SUPER_FRAME if is_super else self._checked(size))
                    if stop > end:
                        self._left = left
                        return at
                    if is_super:
                        append(SuperFrame(data[start:stop]))
                        self.super_frames += 1
                    else:
                        self._control_came(data[start:stop])
                elif stop > start:
                    append(data[start:stop])
                elif self._extended:
                    raise PeerViolation(N_("an empty record"))
                at = stop
                left -= 1
        self._left = left
        return at

    def _skip_body(self, data: bytes, at: int) -> int:
        step = min(self._skip, len(data) - at)
        if self._extended and len(self._body) < HAVE_LENGTH:
            self._body += data[at : at + min(step, HAVE_LENGTH - len(self._body))]
        self._skip -= step
        if step and not self._skip:
            self._keepalive_came()
        return at + step

    def _keepalive_came(self) -> None:
        self.keepalives += 1
        if self._extended:
            body, self._body = self._body, bytearray()
            self.controls.append(read_number(bytes(body)))

    def _control_came(self, body: bytes) -> None:
        control = read_control(body)
        if control is not None:
            self.controls.append(control)

    def _checked(self, size: int) -> int:
        """The length that a block's size means. Raises: PeerViolation."""
        if size <= self._max_block:
            return size
        if self._extended and size ^ CONTROL <= MAX_CONTROL:
            return size ^ CONTROL
        if self._extended and size & (SUPER_FRAME | CONTROL) == SUPER_FRAME:
            length = size ^ SUPER_FRAME
            if self._takes_super_frames and _LEAST_SUPER_FRAME <= length <= MAX_SUPER_FRAME:
                return length
            raise PeerViolation(
                N_("a super-frame of {size} bytes, {least} to {most} are taken"),
                size=length,
                least=_LEAST_SUPER_FRAME if self._takes_super_frames else 0,
                most=MAX_SUPER_FRAME if self._takes_super_frames else 0,
            )
        raise PeerViolation(N_("a block of {size} bytes, at most {limit} are taken"), size=size, limit=self._max_block)


def encode_frames(frames: Sequence[bytes]) -> bytes:
    """One batch of all `frames` (each at most MAX_BLOCK bytes, a super-frame MAX_SUPER_FRAME); b"" for none."""
    if not frames:
        return b""
    parts: list[bytes] = [b""] * (2 * len(frames) + 1)
    parts[0] = _U32.pack(len(frames))
    sizes = _SIZES
    try:
        parts[1::2] = [sizes[frame.__class__][len(frame)] for frame in frames]
    except IndexError:
        parts[1::2] = [_size_of(frame) for frame in frames]
    parts[2::2] = frames
    return b"".join(parts)


def _size_of(frame: bytes) -> bytes:
    """As a batch says it."""
    is_super = frame.__class__ is SuperFrame
    most = MAX_SUPER_FRAME if is_super else MAX_BLOCK
    if len(frame) > most:
        raise ValueError(f"a frame is longer than {most} bytes")
    return _U32.pack(len(frame) | SUPER_FRAME * is_super)


def encode_keepalive(body: bytes) -> bytes:
    """A keep-alive with `body`, at most MAX_KEEPALIVE bytes of anything."""
    if len(body) > MAX_KEEPALIVE:
        raise ValueError(f"a keep-alive's body is at most {MAX_KEEPALIVE} bytes")
    return _U32.pack(KEEPALIVE_MARK) + _U32.pack(len(body)) + body


def compress(frame: bytes) -> bytes:
    """A frame as a block of a compressed session: one zlib stream (12.4)."""
    return zlib.compress(frame)


def decompress(block: bytes, max_frame: int = MAX_FRAME) -> bytes | None:
    """The frame in a block of a compressed session; None, as for any frame to drop, if it is not zlib or too long."""
    stream = zlib.decompressobj()
    try:
        frame = stream.decompress(block, max_frame + 1)
    except zlib.error:
        return None
    return frame if stream.eof and len(frame) <= max_frame else None
