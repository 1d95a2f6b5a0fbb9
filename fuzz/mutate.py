"""Inputs from inputs: small damages at random places, with a liking for length fields."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

MAX_INPUT: Final = 1 << 17  # bytes
_EDGES: Final = (0, 1, 2, 3, 4, 13, 14, 63, 64, 255, 256, 511, 512, 513, 1500, 1600, 1601, 3200, 3201, 4096, 65535)
_WIDE: Final = (0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_DIGITS: Final = re.compile(rb"\d+")


class Mutator:
    """Makes damaged copies of a growing list of seeds. The same random numbers give the same inputs."""

    def __init__(self, rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        """`tokens`: words of the format, put in at random."""
        self._rng = rng
        self._seeds = list(seeds) or [b""]
        self._tokens = list(tokens) or [b"\0"]
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._flip,
            self._set,
            self._length,
            self._length,
            self._short_length,
            self._number,
            self._token,
            self._insert,
            self._delete,
            self._repeat,
            self._splice,
            self._truncate,
        )

    @property
    def seeds(self) -> int:
        """Seeds by now."""
        return len(self._seeds)

    def keep(self, data: bytes) -> None:
        """`data` led somewhere new: build on it."""
        self._seeds.append(data)

    def next(self) -> bytes:
        """A new input."""
        data = bytearray(self._rng.choice(self._seeds))
        for _ in range(self._rng.choice((0, 1, 1, 2, 2, 3, 5, 8))):
            self._rng.choice(self._ways)(data)
        return bytes(data[:MAX_INPUT])

    def _place(self, data: bytearray, room: int = 1) -> int:
        return self._rng.randrange(max(len(data) - room + 1, 1))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._place(data)] ^= 1 << self._rng.randrange(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._place(data)] = self._rng.randrange(256)

    def _length(self, data: bytearray) -> None:
        """A big-endian u32 somewhere becomes an edge, the input's length, or a little more or less than it was."""
        at = self._place(data, 4)
        was = int.from_bytes(data[at : at + 4], "big")
        near = was + self._rng.randint(-4, 4)
        value = self._rng.choice((near, near, len(data), len(data) - at, *_EDGES, *_WIDE))
        data[at : at + 4] = (value % (1 << 32)).to_bytes(4, "big")

    def _short_length(self, data: bytearray) -> None:
        at = self._place(data, 2)
        data[at : at + 2] = (self._rng.choice(_EDGES) % (1 << 16)).to_bytes(2, self._rng.choice(("big", "little")))

    def _number(self, data: bytearray) -> None:
        """A decimal number in text becomes another."""
        found = [match.span() for match in _DIGITS.finditer(data[:4096])]
        if found:
            start, stop = self._rng.choice(found)
            data[start:stop] = str(self._rng.choice((*_EDGES, *_WIDE, 10**19, 10**40, -1))).encode()

    def _token(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._rng.choice(self._tokens)

    def _insert(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._rng.randbytes(self._rng.choice((1, 2, 4, 16, 64)))

    def _delete(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : at + self._rng.choice((1, 2, 4, 16, 64, 1024))]

    def _repeat(self, data: bytearray) -> None:
        at = self._place(data)
        piece = bytes(data[at : at + self._rng.choice((1, 4, 16, 64, 512))])
        data[at:at] = piece * self._rng.choice((1, 2, 8, 40))

    def _splice(self, data: bytearray) -> None:
        """Its start, and the end of another seed."""
        other = self._rng.choice(self._seeds)
        data[self._place(data) :] = other[self._rng.randrange(len(other) + 1) :]

    def _truncate(self, data: bytearray) -> None:
        del data[self._place(data) :]
