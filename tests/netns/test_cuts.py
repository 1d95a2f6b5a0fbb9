"""Whatever cuts the connection, every frame arrives once and in order; what did not fit is counted (A16 to A36).

Frames are numbered by the test and counted by it where they come out; the ledgers of card and hub must say the same.
"""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from lab.cuts import Report, random_cuts
from lab.net import Net
from lab.numbered import Numbered, Result
from lab.pairs import Pair, ours
from lab.wait import TimeOver, pause, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("nft"), pytest.mark.timeout(240)]

# what logs say when the session itself was lost (c's is the second: see whether learning works, then begin)
UNUSUAL = re.compile("session=SID-C-2 .*reason=.*frames_in|no longer knows|not online|a session ended with|anew")
UP, DOWN = ("card c", "hub to b", "card b", "hub to c"), ("card b", "hub to c", "card c", "hub to b")


def buffer_kib(seed: int) -> int:
    return random.Random(seed).randint(1024, 8192)


def settled(pair: Pair) -> dict[str, dict[str, Any]]:
    """The ledgers when every record is acknowledged."""

    def look() -> dict[str, dict[str, Any]] | None:
        found = pair.ledgers()
        return found if found and all(row["waiting"] == 0 for row in found.values()) else None

    try:
        return until(look, seconds=10.0, what="every record being acknowledged", step_s=0.2)
    except TimeOver as late:
        raise AssertionError(f"{late}: {pair.ledgers()}") from None


def moved(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], where: str, name: str) -> int:
    """By how much a figure of a ledger has grown; `dropped` is all reasons together."""

    def figure(ledgers: dict[str, dict[str, Any]]) -> int:
        value = ledgers[where][name]
        return sum(value.values()) if isinstance(value, dict) else int(value)

    return figure(after) - figure(before)


def agree(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], result: Result) -> None:
    """What was counted at the ends is what the ledgers say. Beside ours only what learning needs is on the LAN."""
    assert set(after) == {"card c", "card b", "hub to c", "hub to b"}
    for (near, out, far, into), counts in ((UP, result.up), (DOWN, result.down)):
        sent, delivered = moved(before, after, near, "sent"), moved(before, after, far, "received")
        hub_took, hub_sent = moved(before, after, into, "received"), moved(before, after, out, "sent")
        dropped_near, dropped_out = moved(before, after, near, "dropped"), moved(before, after, out, "dropped")
        assert sent == moved(before, after, near, "acknowledged") == hub_took
        assert hub_sent == moved(before, after, out, "acknowledged") == delivered
        assert counts.sent + counts.primers == sent + dropped_near
        assert hub_took == hub_sent + dropped_out
        assert counts.received + counts.primers == delivered
    assert all(row["lost"] == 0 for row in after.values())


def exact(net: Net, *, cuts: int, seed: int) -> Report:
    """A run of random cuts with nothing lost, doubled or reordered, and ledgers that say so."""
    with ours(net, buffer_kib=buffer_kib(seed), fast=True, seed=seed) as pair:
        with Numbered(pair.one, pair.other, rate=1, seed=seed):
            pass  # every switch on the way has learned both stations
        before = settled(pair)
        report = random_cuts(pair, cuts=cuts, seed=seed, buffer=pair.buffer_bytes)
        print(report.plan)
        print(
            f"{report.count} cuts in {report.seconds:.0f} s, back after {report.worst_s:.2f} s at most: {report.cuts}"
        )
        print(report.result)
        after = settled(pair)
        print(after)
        assert pair.programs is not None
        ends = [line for one in pair.programs for line in one.log().splitlines() if UNUSUAL.search(line)]
        assert not ends, ends
        assert (report.count, report.stuck) == (cuts, 0)
        assert report.worst_s <= report.plan.worst_s, "the machine was too slow for the load that was drawn"
        for counts in (report.result.up, report.result.down):
            assert (counts.lost, counts.doubled, counts.reordered) == (0, 0, 0)
            assert (counts.damaged, counts.missed) == (0, 0)
            assert counts.sent == counts.received > 0
        agree(before, after, report.result)
        assert moved(before, after, "card c", "cuts") >= cuts // 2  # a short black hole is none
        assert moved(before, after, "card c", "resumes") == moved(before, after, "card c", "cuts")
        assert moved(before, after, "card b", "cuts") == 0
    return report


def test_no_cut_loses_doubles_or_reorders_a_frame(net: Net) -> None:
    exact(net, cuts=10, seed=2)  # a high rate


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_cuts_lose_nothing(net: Net) -> None:
    exact(net, cuts=1000, seed=random.SystemRandom().randrange(1 << 20))


@pytest.mark.parametrize("seed", [11])
def test_what_does_not_fit_into_the_buffers_is_counted_to_the_last_frame(net: Net, seed: int) -> None:
    kib = random.Random(seed).randint(512, 768)
    with ours(net, buffer_kib=kib, fast=True, seed=seed) as pair:
        with Numbered(pair.one, pair.other, rate=1, seed=seed):
            pass
        before = settled(pair)
        with Numbered(pair.one, pair.other, rate=600, seed=seed) as frames:
            pause(1.0)
            pair.relay.refuse(4.0)
            pair.relay.reset()
            pause(4.0)
            frames.flows_again(frames.began + 5.0, seconds=20.0)
            pause(1.0)
            result = frames.finish()
        after = settled(pair)
        print(kib, result, after)
        agree(before, after, result)
        for (near, out, *_), counts in ((UP, result.up), (DOWN, result.down)):
            assert (counts.doubled, counts.reordered, counts.damaged, counts.missed) == (0, 0, 0, 0)
            dropped = moved(before, after, near, "dropped") + moved(before, after, out, "dropped")
            assert dropped == counts.lost > 0
        assert moved(before, after, "card c", "dropped") > 0  # at its TAP, which it stopped reading
        assert moved(before, after, "hub to c", "dropped") > 0


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_minute_without_a_link_under_full_load_stays_within_the_bounds(net: Net) -> None:
    """Buffers of 8 MiB, a cut of 60 s, many times more than that to be sent: memory is bounded, every drop named."""
    with ours(net, buffer_kib=8192) as pair:
        with Numbered(pair.one, pair.other, rate=1, seed=5):
            pass
        before, memory = settled(pair), resident_kib(pair)
        with Numbered(pair.one, pair.other, rate=2000, sizes=(900, 1500), seed=5) as frames:
            pause(2.0)
            pair.relay.refuse(60.0)
            pair.relay.reset()
            pause(58.0)
            grown = {name: size - memory[name] for name, size in resident_kib(pair).items()}
            frames.flows_again(frames.began + 62.0, seconds=30.0)
            pause(2.0)
            result = frames.finish()
        after = settled(pair)
        print(grown, result, after)
        assert max(grown.values()) < 32 * 1024
        agree(before, after, result)
        assert moved(before, after, "card c", "dropped") > 0
        assert after["hub to c"]["dropped"]["resume_buffer"] > 0
        assert after["card c"]["dropped"]["kernel"] > 0
        for counts in (result.up, result.down):
            assert (counts.doubled, counts.reordered) == (0, 0)


def resident_kib(pair: Pair) -> dict[str, int]:
    """Memory of the processes that keep records."""
    hub, card = pair.programs or (None, None)
    assert hub is not None
    assert card is not None
    pids = {"worker": hub.rows("hub", "status")[0]["worker"]["pid"], "data": card.status()["data_pid"]}
    lines = {name: Path(f"/proc/{pid}/status").read_text().splitlines() for name, pid in pids.items()}
    return {
        name: int(next(line for line in found if line.startswith("VmRSS:")).split()[1]) for name, found in lines.items()
    }
