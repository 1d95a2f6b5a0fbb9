"""Cuts under a TCP stream that takes all there is: what arrives is what was sent, and what is missing was counted.

Drops are expected here, at queues that are full; each of them must stand in a ledger, and nothing else may be missing.
"""

import json
import random
import threading
from operator import sub
from typing import Any, NamedTuple

import pytest

from lab.cuts import random_cuts
from lab.flow import stream
from lab.net import Net
from lab.numbered import End, Numbered
from lab.pairs import Pair, ours
from lab.wait import TimeOver, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("nft"), pytest.mark.timeout(1500)]

Ledgers = dict[str, dict[str, Any]]


class Counted(NamedTuple):
    """What the kernel counted at a card's interface."""

    left: int  # frames that the card took
    dropped: int  # frames the full interface dropped
    came: int  # frames that the card wrote


def counted(end: End) -> Counted:
    stats = json.loads(end.host.run(["ip", "-s", "-j", "link", "show", "dev", end.interface]))[0]["stats64"]
    return Counted(stats["tx"]["packets"], stats["tx"]["dropped"], stats["rx"]["packets"])


State = tuple[Ledgers, Counted, Counted]  # with the interfaces of c and b


def state(pair: Pair) -> State:
    """Ledgers and interfaces when all is acknowledged and nothing more comes."""
    last: list[State] = []

    def look() -> bool:
        ledgers = pair.ledgers()
        last.append((ledgers, counted(pair.one), counted(pair.other)))
        quiet = len(ledgers) == 4 and all(row["waiting"] == 0 for row in ledgers.values())
        return quiet and len(last) > 1 and last[-1] == last[-2]

    try:
        until(look, seconds=60.0, what="every record being acknowledged", step_s=0.5)
    except TimeOver as late:
        raise AssertionError(f"{late}: {last[-1]}") from None
    return last[-1]


@pytest.mark.soak
@pytest.mark.parametrize("ways", ["up", "down"])
def test_a_hundred_cuts_under_a_saturating_stream_lose_nothing_uncounted(net: Net, ways: str) -> None:
    cuts_under_a_stream(net, cuts=100, ways=ways, seed=random.SystemRandom().randrange(1 << 20))


def cuts_under_a_stream(net: Net, *, cuts: int, ways: str, seed: int) -> None:
    with ours(net, buffer_kib=4096, fast=True, seed=seed) as pair:
        with Numbered(pair.one, pair.other, rate=1, seed=seed):
            pass  # every switch on the way has learned both stations
        before = state(pair)
        sender, receiver = (pair.hosts[letter] for letter in ("cb" if ways == "up" else "bc"))
        address = pair.addresses[1 if ways == "up" else 0]
        over, found = threading.Event(), list[int | Exception]()

        def saturate() -> None:
            try:
                found.append(stream(sender, receiver, address, over=over.is_set))  # checked by SHA-256
            except Exception as error:  # noqa: BLE001 - looked at below
                found.append(error)

        thread = threading.Thread(target=saturate, daemon=True)
        thread.start()
        try:
            report = random_cuts(pair, cuts=cuts, seed=seed, buffer=pair.buffer_bytes)
        finally:
            over.set()
            thread.join(120.0)
        print(f"{report.plan}\n{report.count} cuts in {report.seconds:.0f} s: {report.cuts}\n{report.result}\n{found}")
        after = state(pair)
        print(before, after, sep="\n")
    assert len(found) == 1
    assert isinstance(found[0], int), found[0]
    assert found[0] > 1 << 20
    assert (report.count, report.stuck) == (cuts, 0)
    for counts in (report.result.up, report.result.down):
        assert (counts.doubled, counts.reordered, counts.damaged, counts.missed) == (0, 0, 0, 0)
        assert counts.received > 0
    balanced(before, after)


def balanced(before: State, after: State) -> None:
    """Each frame of each step of the way arrived at the next one or was counted as dropped, in both directions."""

    def moved(where: str, name: str) -> int:
        old, new = (ledgers[where][name] for ledgers in (before[0], after[0]))
        return int(new) - int(old)

    def dropped(where: str, *reasons: str) -> int:
        """For these reasons, or for any."""
        old, new = (ledgers[where]["dropped"] for ledgers in (before[0], after[0]))
        return sum(new[reason] - old.get(reason, 0) for reason in reasons or new)

    ends = {
        name: Counted(*map(sub, new, old))
        for name, new, old in (("card c", after[1], before[1]), ("card b", after[2], before[2]))
    }
    for near, into, out, far in (
        ("card c", "hub to c", "hub to b", "card b"),
        ("card b", "hub to b", "hub to c", "card c"),
    ):
        assert ends[near].dropped == dropped(near, "kernel")
        assert ends[near].left == moved(near, "sent") + dropped(near) - dropped(near, "kernel", "refused")
        assert moved(near, "sent") == moved(near, "acknowledged") == moved(into, "received")
        assert moved(into, "received") == moved(out, "sent") + dropped(out)
        assert moved(out, "sent") == moved(out, "acknowledged") == moved(far, "received")
        assert moved(far, "received") == ends[far].came + dropped(far, "refused")
        assert ends[far].came > 0
    assert all(row["lost"] == 0 for row in after[0].values())
