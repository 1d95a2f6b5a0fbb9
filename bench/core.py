"""How fast the pure core is on this machine: `python bench/core.py`. Prints, asserts nothing.

Figures are per second of CPU time of one core, the median of several rounds.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from ukihashi.switch.forward import Switch
from ukihashi.units import PortId
from ukihashi.wire.blocks import BlockDecoder, encode_frames

ROUNDS = 7
SECONDS = 0.2  # of each round
A, B, C = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))


def measure(name: str, frames: int, work: Callable[[], object]) -> None:
    """Repeat `work`, which handles `frames` frames, and print the rate."""
    rates = []
    for _ in range(ROUNDS):
        count, start = 0, time.process_time()
        while time.process_time() - start < SECONDS:
            for _ in range(10):
                work()
            count += 10 * frames
        rates.append(count / (time.process_time() - start))
    print(f"{name:48} {statistics.median(rates) / 1e6:8.2f} M frames/s")


def frame(destination: bytes, source: bytes, length: int = 1514) -> bytes:
    """An IPv4-typed frame."""
    return destination + source + b"\x08\x00" + bytes(length - 14)


def bench_decoder() -> None:
    """One read of 16 to 256 KiB with one batch of frames; the same cut at a bad place."""
    for kib in (16, 64, 256):
        for length in (1514, 64):
            frames = [frame(A, B, length)] * (kib * 1024 // (length + 4))
            data, decoder = encode_frames(frames), BlockDecoder()
            measure(f"decode {kib} KiB, frames of {length} B", len(frames), partial(decoder.feed, data))
    frames = [frame(A, B, length) for length in (1514, 66, 1514, 1400, 90, 66, 1514)] * 8
    data = encode_frames(frames)
    measure("decode 50 KiB, mixed sizes", len(frames), partial(BlockDecoder().feed, data))
    frames = [frame(A, B)] * 43
    data = encode_frames(frames)
    pieces, decoder = [data[: len(data) - 700], data[-700:]], BlockDecoder()
    measure("decode 64 KiB cut in a frame", len(frames), lambda: [decoder.feed(piece) for piece in pieces])


def bench_encoder() -> None:
    """Frames of one turn into one batch."""
    frames = [frame(A, B)] * 43
    measure("encode 64 KiB, frames of 1514 B", len(frames), lambda: encode_frames(frames))


def bench_switch() -> None:
    """Batches of 43 frames between learned stations, alternating ones, and floods."""
    switch = Switch()
    for port in (1, 2, 3):
        switch.add_port(PortId(port))
    for port, station in ((1, A), (2, B), (3, C)):
        switch.forward([frame(b"\xff" * 6, station)], PortId(port), 0.0)
    one = [frame(B, A)] * 43
    measure("switch, run to a known station", len(one), lambda: switch.forward(one, PortId(1), 1.0))
    two = [frame(B, A), frame(C, A)] * 21
    measure("switch, two known stations in turn", len(two), lambda: switch.forward(two, PortId(1), 1.0))
    flood = [frame(b"\xff" * 6, A)] * 43
    measure("switch, flood to two ports", len(flood), lambda: switch.forward(flood, PortId(1), 1.0))
    single = [frame(B, A)]
    measure("switch, batches of one frame", 1, lambda: switch.forward(single, PortId(1), 1.0))


if __name__ == "__main__":
    bench_decoder()
    bench_encoder()
    bench_switch()
