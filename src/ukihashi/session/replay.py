"""What one direction of a session still owes its peer: encoded batches, from the first record not acknowledged on.

Records are numbered by counting them, from 0, for the life of the session (docs/protocol.md).

    first          cursor           high          end
      |-- sent, not --|-- to be sent --|-- never sent --|
      | acknowledged  |  once more     |                |

A batch is kept as it was encoded for the wire, so that keeping it costs nothing but a reference, and a broadcast's
batch is one object for all ports. Pure; the owner bounds what it appends by looking at `bytes`.
"""

import struct
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from ukihashi.errors import N_, PeerViolation

OVERHEAD: Final = 160  # bytes that a batch costs beside its own, so that many small ones can't outgrow the bound

MAX_SIZE: Final = (1 << 30) - 1  # the bits of a record's size that are a size; above them it says what is in it

_U32: Final = struct.Struct("!I")


class Batch(NamedTuple):
    """Some records as they go on the wire (protocol section 12.1)."""

    data: bytes
    records: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A buffer as a value, to go on with in another process."""

    first: int
    high: int
    batches: tuple[Batch, ...]


class ReplayBuffer:
    """See the module."""

    __slots__ = ("_at", "_batches", "_start", "bytes", "cursor", "end", "first", "high")

    def __init__(self, kept: Kept = Kept(0, 0, ())) -> None:
        self._batches = deque(kept.batches)
        self._start = kept.first  # number of the first record of the first batch; `first` may be inside it
        self._at = 0  # the batch that holds `cursor`, counted from the first
        self.first = kept.first  # oldest record not acknowledged
        self.high = kept.high  # records before it were given to some link: the peer may have them
        self.cursor = kept.first  # next record for the present link
        self.end = kept.first + sum(batch.records for batch in kept.batches)
        self.bytes = sum(len(batch.data) + OVERHEAD for batch in kept.batches)

    def keep(self) -> Kept:
        """The buffer as a value. Records already acknowledged inside the first batch are cut off."""
        batches = list(self._batches)
        if batches and self.first > self._start:
            batches[0] = _without(batches[0], self.first - self._start)
        return Kept(self.first, self.high, tuple(batches))

    @property
    def waiting(self) -> int:
        """Records to be given to the link, again or for the first time."""
        return self.end - self.cursor

    def append(self, data: bytes, records: int) -> None:
        """Keep one encoded batch, to be sent and held until acknowledged."""
        self._batches.append(Batch(data, records))
        self.end += records
        self.bytes += len(data) + OVERHEAD

    def take(self, limit_bytes: int) -> bytes:
        """What to write next: the records from `cursor` on, as whole batches within `limit_bytes`, at least one.

        b"" if nothing waits. What was taken counts as given to the link.
        """
        if self.cursor == self.end:
            return b""
        batch = self._batches[self._at]
        inside = self.cursor - self._start_of_current()
        if inside:
            batch = _without(batch, inside)
        taken = [batch.data]
        size, records = len(batch.data), batch.records
        self._at += 1
        while self._at < len(self._batches) and size + len(self._batches[self._at].data) <= limit_bytes:
            more = self._batches[self._at]
            taken.append(more.data)
            size += len(more.data)
            records += more.records
            self._at += 1
        self.cursor += records
        self.high = max(self.high, self.cursor)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def acknowledge(self, have: int) -> int:
        """The peer holds every record before `have`: let go of them; gives how many are new to that.

        Raises:
            PeerViolation: it acknowledges what the present link was not given, or takes an acknowledgement back.
        """
        if not self.first <= have <= self.cursor:
            raise PeerViolation(
                N_("the peer acknowledges record {have}, but {first} to {cursor} are under way"),
                have=have,
                first=self.first,
                cursor=self.cursor,
            )
        return self._release(have)

    def holds(self, have: int) -> bool:
        """Can a link go on from record `have`?"""
        return self.first <= have <= self.high

    def rewind(self, have: int) -> int:
        """A new link goes on from record `have`, which the peer named; gives how many records will be sent again.

        Raises: ValueError: not held; ask `holds` first.
        """
        if not self.holds(have):
            raise ValueError(f"record {have} is not within {self.first} to {self.high}")
        self._release(have)
        self.cursor = have
        self._at = 0
        return self.high - have

    def never_sent(self) -> tuple[Batch, ...]:
        """The batches that no link was given, for a session that begins afresh."""
        number, fresh = self._start, list[Batch]()
        for batch in self._batches:
            if number >= self.high:  # batches are taken whole, so none is half sent
                fresh.append(batch)
            number += batch.records
        return tuple(fresh)

    def clear(self) -> int:
        """Let go of everything; gives how many records were still owed. No link can go on after it."""
        owed = self.end - self.first
        self._batches.clear()
        self.first = self._start = self.high = self.cursor = self.end
        self._at = self.bytes = 0
        return owed

    def _release(self, have: int) -> int:
        batches, released = self._batches, have - self.first
        while batches and self._start + batches[0].records <= have:
            gone = batches.popleft()
            self._start += gone.records
            self.bytes -= len(gone.data) + OVERHEAD
            self._at -= 1
        self._at = max(self._at, 0)
        self.first = have
        return released

    def _start_of_current(self) -> int:
        """Number of the first record of the batch that holds `cursor`: O(1) except after a rewind into a batch."""
        if self._at == 0:
            return self._start
        return self.cursor  # batches are taken whole, so beyond the first one the cursor stands at a batch's start


def _without(batch: Batch, count: int) -> Batch:
    """`batch` without its first `count` records."""
    at = 4
    for _ in range(count):
        at += 4 + (_U32.unpack_from(batch.data, at)[0] & MAX_SIZE)
    return Batch(_U32.pack(batch.records - count) + batch.data[at:], batch.records - count)
