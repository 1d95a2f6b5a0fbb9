"""What the data process counts of frames, writes and keep-alives."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ukihashi.card.messages import Counters
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME


@dataclass(slots=True)
class Tally:
    """Counters of the process; fields as in `Counters`."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    tls_writes: int = 0
    frames_written: int = 0
    keepalives_in: int = 0
    keepalives_out: int = 0
    oversized: int = 0
    crowded: int = 0
    garbled: int = 0

    def outward(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Count frames on their way to the hub; those that no block may hold are counted and left out."""
        if frames and (len(max(frames, key=len)) > MAX_FRAME or len(min(frames, key=len)) < MIN_FRAME):
            fitting = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME]
            self.oversized += len(frames) - len(fitting)
            frames = fitting
        self.frames_out += len(frames)
        self.bytes_out += sum(map(len, frames))
        return frames

    def inward(self, frames: list[bytes]) -> list[bytes]:
        """Count frames that came from the hub; those above the protocol's size are counted and left out."""
        if frames and len(max(frames, key=len)) > MAX_FRAME:
            fitting = [frame for frame in frames if len(frame) <= MAX_FRAME]
            self.oversized += len(frames) - len(fitting)
            frames = fitting
        self.frames_in += len(frames)
        self.bytes_in += sum(map(len, frames))
        return frames

    def written(self, frames: int) -> None:
        """Count one TLS write that carries frames."""
        self.tls_writes += 1
        self.frames_written += frames

    def message(self, **more: Any) -> Counters:
        """The counters as they travel."""
        return Counters(**more, **{field.name: getattr(self, field.name) for field in fields(self)})
