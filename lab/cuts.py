"""Random cuts of all kinds between card and hub, under a load that what is kept over a cut can bear.

    report = random_cuts(pair, cuts=70, seed=1, buffer=pair.buffer_bytes)
    print(report.plan, report.result)

Everything is drawn from the seed before anything happens, so that other products meet the same cuts in the same order.
The rate is chosen so that rate times outage is a drawn share, at most `SHARE_MOST`, of the buffer. `Plan.worst_s` is
what counts as outage: the longest time from the last frame that is acknowledged to the next one.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from lab.faults import FaultRelay, Ways
from lab.net import LabError
from lab.numbered import LARGEST, SMALLEST, Numbered, Result
from lab.pairs import Pair
from lab.wait import TimeOver, pause, until

SHARE_MOST: Final = 0.8  # of the buffer
SHARE_LEAST: Final = 0.3
FRAMES_MOST: Final = 800.0  # a second and direction: what this Python can count beside the programs on two cores
KEPT_BYTES: Final = (SMALLEST + LARGEST) / 2 + 172  # what keeping a frame of the mean size costs (session/replay.py)
ACK_S: Final = 1.0  # received frames may wait so long for their acknowledgement
SYN_S: Final = 1.0  # the kernel repeats a SYN that was lost after so long
REDIAL_PART: Final = 2 / 15  # of the dead time: dials for a link that breaks again and again are so far apart
SLACK_S: Final = 1.0  # a shared machine
OUTAGE_MOST_S: Final = 1.0  # the path is refused so long at most beside what the products need themselves
GIVE_UP_S: Final = 40.0  # a product that is not back by then is started anew
STUCK_MOST: Final = 3  # times; then there is no sense in going on

# Weights; the last five kinds go unnoticed for a while and so take most of the time.
KINDS: Final[dict[str, int]] = {
    "reset": 20,
    "close": 12,
    "half_close up": 6,
    "half_close down": 6,
    "truncate up": 12,
    "truncate down": 12,
    "kill every": 4,
    "reset while resuming": 10,
    "black_hole both": 4,
    "black_hole up": 4,
    "black_hole down": 4,
    "silence": 4,
    "forgotten": 4,
}


@dataclass(frozen=True)
class Plan:
    """What was drawn for a run."""

    seed: int
    buffer_bytes: int
    share: float  # of the buffer that the worst outage may fill
    outage_most_s: float
    worst_s: float  # outage in all
    rate: float  # frames a second, each way

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: buffer {self.buffer_bytes // 1024} KiB, {self.rate:.0f} frames/s each way, "
            f"path away for {self.outage_most_s:.2f} s at most, "
            f"worst outage {self.worst_s:.1f} s = {self.share:.0%} of the buffer"
        )


@dataclass(frozen=True)
class Cut:
    """One cut. `kind` is one of KINDS."""

    kind: str
    pause_s: float  # before it, with frames passing
    outage_s: float  # afterwards new connections are refused; a black hole: beyond the time it goes unnoticed
    part: float  # 0..1, for what a kind draws besides
    delay_ms: float  # of the path before it


@dataclass
class Report:
    """What came of a run."""

    plan: Plan
    result: Result
    cuts: Counter[str]  # by kind
    stuck: int  # times it had to be started anew
    worst_s: float  # from a cut to frames passing again both ways, the longest; of those that came back
    seconds: float

    @property
    def count(self) -> int:
        """Cuts in all."""
        return sum(self.cuts.values())

    @property
    def exact(self) -> bool:
        """Each frame once and in order."""
        return self.result.up.exact and self.result.down.exact and not self.stuck


def draw(*, seed: int, buffer: int, blind_s: float) -> Plan:
    """Rate and outage for a product that keeps `buffer` bytes and dials at the latest after `blind_s` of silence."""
    chance = random.Random(seed)
    outage = chance.uniform(0.2, OUTAGE_MOST_S)
    share = chance.uniform(SHARE_LEAST, SHARE_MOST)
    worst = outage + blind_s * (1 + REDIAL_PART) + ACK_S + SYN_S + SLACK_S
    rate = min(FRAMES_MOST, share * buffer / worst / KEPT_BYTES)
    return Plan(seed, buffer, rate * KEPT_BYTES * worst / buffer, outage, worst, rate)


def draw_cuts(plan: Plan, count: int) -> list[Cut]:
    """The cuts of a run, in order."""
    chance = random.Random(plan.seed + 1)
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=count)
    return [
        Cut(
            kind, chance.uniform(0.0, 0.3), chance.choice((0.0, chance.uniform(0.0, plan.outage_most_s))),
            chance.random(), chance.choice((0.0, 0.0, chance.uniform(1.0, 60.0))),
        )
        for kind in kinds
    ]  # fmt: skip


def random_cuts(
    pair: Pair,
    *,
    cuts: int,
    seed: int,
    buffer: int,
    blind_s: float | None = None,
    give_up_s: float = GIVE_UP_S,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Numbered frames both ways through a drawn sequence of cuts; each time frames pass again before the next cut.

    Args:
        buffer: bytes that are kept over a cut, each way.
        blind_s: of the product that the load is chosen for; default is the pair's own.
        give_up_s: after so long without frames both ways it is started anew.
        told: gets a line before each cut.
    Raises:
        LabError: the product did not even come back when started anew.
    """
    blind_s = pair.blind_s if blind_s is None else blind_s
    plan = draw(seed=seed, buffer=buffer, blind_s=blind_s)
    done: Counter[str] = Counter()
    stuck, worst, begin = 0, 0.0, monotonic()
    with Numbered(pair.one, pair.other, rate=plan.rate, seed=seed) as frames:
        for cut in draw_cuts(plan, cuts):
            told(f"{done.total() + 1}: {cut.kind}")
            pair.relay.delay(cut.delay_ms, cut.delay_ms)
            pause(cut.pause_s)
            at = monotonic()
            _carry_out(cut, pair.relay, blind_s)
            done[cut.kind] += 1
            try:
                frames.flows_again(monotonic(), seconds=give_up_s)
                worst = max(worst, monotonic() - at)
            except TimeOver:
                stuck += 1
                _revive(pair, frames)
            pair.relay.heal()  # who was silenced may speak up now, from the dead
            if stuck >= STUCK_MOST:
                break
        pair.relay.delay(0)
        frames.flows_again(monotonic(), seconds=GIVE_UP_S)
        result = frames.finish(quiet_s=1.5)
    return Report(plan, result, done, stuck, worst, monotonic() - begin)


def _revive(pair: Pair, frames: Numbered) -> None:
    pair.relay.heal()
    pair.relay.delay(0)
    pair.revive()
    try:
        frames.flows_again(monotonic(), seconds=GIVE_UP_S)
    except TimeOver as late:
        raise LabError(f"{pair.title} was started anew, and still {late}") from None


def _carry_out(cut: Cut, relay: FaultRelay, blind_s: float) -> None:
    """Do what the cut says; when it returns the path is whole for new connections."""
    kind, _, ways = cut.kind.partition(" ")
    hole_s = (0.1 + 0.9 * cut.part) * blind_s + cut.outage_s
    if kind in ("reset", "close", "half_close") and cut.outage_s:
        relay.refuse(cut.outage_s)
    match kind, ways:
        case "reset", "while resuming":
            relay.reset()
            pause(0.1 * cut.part)  # the next link is at its TCP, TLS, login or resume
            relay.reset()
        case "reset", _:
            relay.reset()
        case "close", _:
            relay.close()
        case "half_close", "up" | "down":
            relay.half_close(ways)
        case "truncate", "up" | "down":
            present = relay.alive
            relay.truncate(int(cut.part * 3000), ways)
            until(  # not all of them: what a black hole has killed stands here as a ghost, and carries nothing
                lambda: any(one.how == "truncated" for one in present) or all(one.ended for one in present),
                seconds=GIVE_UP_S,
                what="the bytes to pass before the cut",
            )
        case "kill", _:
            relay.kill_every(0.25)
            pause(0.6 + cut.outage_s)
            relay.kill_every(0)
        case "black_hole", "both" | "up" | "down":
            _hole(relay, ways, hole_s)
        case "silence", _:
            relay.silence()
            return
        case "forgotten", _:  # as by a NAT: the path comes back and knows the connection no more; its RSTs were lost
            relay.black_hole("both")
            relay.reset()
            pause(hole_s)
            relay.heal()
        case _:
            raise LabError(f"no such cut: {cut.kind}")
    if kind in ("reset", "close", "half_close"):
        pause(cut.outage_s)


def _hole(relay: FaultRelay, ways: Ways, seconds: float) -> None:
    relay.black_hole(ways)
    pause(seconds)
    relay.heal()
