"""What the data process counts of frames, writes and keep-alives."""

from dataclasses import dataclass, fields
from typing import Any, Final

from ukihashi.card.messages import Counters
from ukihashi.ether.offload import ALL, TRAILER, Kind, SuperFrame, flaw, sound
from ukihashi.tap.device import Batch
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME

LONG: Final = MAX_FRAME + TRAILER  # bytes of a frame that is still to be split are more


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
    super_frames_in: int = 0
    super_frames_out: int = 0
    offload_header: int = 0

    def outward(self, frames: list[bytes]) -> list[bytes]:
        """Count frames on their way to the hub; those that no block may hold are counted and left out."""
        sizes = list(map(len, frames))
        if sizes and (max(sizes) > MAX_FRAME or min(sizes) < MIN_FRAME):
            fitting = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME or _is_sound(frame)]
            self.oversized += len(frames) - len(fitting)
            frames, sizes = fitting, list(map(len, fitting))
            self.super_frames_out += sum(size > LONG for size in sizes)
        self.frames_out += len(frames)
        self.bytes_out += sum(sizes)
        return frames

    def batch(self, batch: Batch) -> Batch:
        """As `outward`, of frames that were encoded when they were read."""
        self.oversized += batch.unfit
        self.super_frames_out += batch.long
        self.frames_out += batch.frames
        if batch.frames:
            self.bytes_out += len(batch.data) - 4 - 4 * batch.frames
        return batch

    def inward(self, frames: list[bytes]) -> list[bytes]:
        """Count frames that came from the hub; those above the protocol's size are counted and left out."""
        sizes = list(map(len, frames))
        if sizes and max(sizes) > MAX_FRAME:
            fitting = [frame for frame in frames if len(frame) <= MAX_FRAME or frame.__class__ is SuperFrame]
            self.oversized += len(frames) - len(fitting)
            frames, sizes = fitting, list(map(len, fitting))
            self.super_frames_in += sum(size > LONG for size in sizes)
        self.frames_in += len(frames)
        self.bytes_in += sum(sizes)
        return frames

    def checked(self, frames: list[bytes], granted: Kind) -> list[bytes]:
        """Frames from the hub, super-frames among them; those that the kernel must not see are counted and left out."""
        left = sound(frames, granted)
        self.offload_header += len(frames) - len(left)
        return left

    def written(self, frames: int) -> None:
        """Count one TLS write that carries frames."""
        self.tls_writes += 1
        self.frames_written += frames

    def message(self, **more: Any) -> Counters:
        """The counters as they travel."""
        return Counters(**more, **{field.name: getattr(self, field.name) for field in fields(self)})


def _is_sound(frame: bytes) -> bool:
    return frame.__class__ is SuperFrame and not flaw(frame, ALL)
