"""A slow, lossy line between two lab hosts, in user space, for kernels that can't make one.

    net.link(hub, card, lay=Line(net, Quality(mbit=200, delay_s=0.01, loss=0.01), seed=1))

Each end is a TAP without offloads, so what is on the line are packets of an ordinary size, as on a real one. A process
of its own carries them. Each direction has a queue of bounded bytes in front (newest dropped when it is full), a rate,
then loss by chance, then delay.
"""

import contextlib
import fcntl
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from lab.net import Host, Net, Process
from ukihashi.tap.device import IFF_NO_PI, IFF_TAP, IFREQ, TUN, TUNSETIFF

LARGEST: Final = 2048  # bytes of a read; above every frame of an MTU of 1500
BATCH: Final = 64  # frames read from one end before the other gets its turn
STEP_S: Final = 0.0002  # what is due within so long leaves together: a packet of 1500 bytes at 200 Mbit/s takes 0.06 ms
HIGHEST: Final = -20  # nice: a real line takes no CPU of the machines at its ends
ROOT: Final = Path(__file__).resolve().parent.parent


class Quality(NamedTuple):
    """What one direction of a line is like."""

    mbit: float  # million bits a second, of whole frames
    delay_s: float  # one way
    loss: float  # share of the frames, 0..1
    queue: int = 500_000  # bytes that may wait at its beginning


class Way:
    """One direction. It asks no clock: `now` is seconds that never decrease."""

    def __init__(self, quality: Quality, chance: random.Random) -> None:
        self._bytes_per_s = quality.mbit * 1e6 / 8
        self._quality, self._chance = quality, chance
        self._free_at = 0.0  # when all that was taken so far has been sent
        self._flying: deque[tuple[float, bytes]] = deque()  # (arrives, frame), oldest first
        self.carried = self.lost = self.overflowed = 0  # frames

    def take(self, frame: bytes, now: float) -> None:
        """A frame at the beginning of the line."""
        if (self._free_at - now) * self._bytes_per_s + len(frame) > self._quality.queue:
            self.overflowed += 1
            return
        self._free_at = max(self._free_at, now) + len(frame) / self._bytes_per_s
        if self._chance.random() < self._quality.loss:  # it took its time on the line like any other
            self.lost += 1
            return
        self.carried += 1
        self._flying.append((self._free_at + self._quality.delay_s, frame))

    def arrived(self, now: float) -> list[bytes]:
        """The frames that are at the other end by now, in order; each is given once."""
        frames: list[bytes] = []
        while self._flying and self._flying[0][0] <= now:
            frames.append(self._flying.popleft()[1])
        return frames

    @property
    def next_at(self) -> float | None:
        """When the next frame arrives; None if none is on the way."""
        return self._flying[0][0] if self._flying else None


class Line:
    """Lays the cable of `Net.link`; `process` carries the frames from then on, until the network is closed."""

    def __init__(self, net: Net, quality: Quality, *, seed: int) -> None:
        self._net, self._quality, self._seed = net, quality, seed
        self.process: Process | None = None

    def __call__(self, one: Host, interface: str, other: Host, peer_interface: str) -> None:
        """The two ends, and the process between them."""
        ends = [_tap(one, interface), _tap(other, peer_interface)]
        try:
            self.process = self._spawn(one.folder / "line.log", ends)
        finally:
            for end in ends:
                os.close(end)

    def _spawn(self, log: Path, ends: list[int]) -> Process:
        words = [*map(str, (*ends, self._seed, *self._quality))]
        with log.open("ab") as file:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "lab.line", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=ends,
                start_new_session=True,
            )
        process = Process(popen, log, 0)
        self._net.processes.append(process)
        process.wait_for("^carries")
        return process

    def stop(self) -> dict[str, int]:
        """Cut it for good; how many frames were carried, lost and dropped at a full queue, both ways together."""
        assert self.process is not None
        self.process.stop()
        counts: dict[str, int] = json.loads(self.process.output().splitlines()[-1])
        return counts


def _tap(host: Host, interface: str) -> int:
    with host.inside():
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(interface.encode(), IFF_TAP | IFF_NO_PI))
    return fd


# -- the process that carries --------------------------------------------------------------------------------------


def carry(ends: tuple[int, int], ways: tuple[Way, Way]) -> None:
    """Carry frames for ever: first end to second by the first way, second to first by the second."""
    sides = {ends[0]: (ways[0], ends[1]), ends[1]: (ways[1], ends[0])}
    while True:
        now = time.monotonic()
        for way, out in sides.values():
            for frame in way.arrived(now):
                _put(out, frame)
        times = [way.next_at for way in ways if way.next_at is not None]
        wait = max(STEP_S, min(times) - time.monotonic()) if times else None
        for end in select.select(ends, [], [], wait)[0]:
            _take(end, sides[end][0])


def _take(end: int, way: Way) -> None:
    try:
        for _ in range(BATCH):
            way.take(os.read(end, LARGEST), time.monotonic())
    except BlockingIOError:
        pass


def _put(end: int, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # that interface is down: nobody is there to hear it
        os.write(end, frame)


def main(words: list[str]) -> int:
    """`FD FD SEED MBIT DELAY_S LOSS QUEUE`; tells the counts when it is ended by SIGTERM."""
    ends, seed = (int(words[0]), int(words[1])), int(words[2])
    quality = Quality(float(words[3]), float(words[4]), float(words[5]), int(words[6]))
    ways = tuple(Way(quality, random.Random(2 * seed + number)) for number in range(2))
    os.setpriority(os.PRIO_PROCESS, 0, HIGHEST)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("carries", flush=True)
    try:
        carry(ends, (ways[0], ways[1]))
    finally:
        names = ("carried", "lost", "overflowed")
        print(json.dumps({name: sum(getattr(way, name) for way in ways) for name in names}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
