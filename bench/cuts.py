"""`./run bench cuts`: what cut connections cost, ours beside SoftEther and OpenVPN over TCP under the same faults.

    c ---- f ---- h ---- b       c: a card, f: a relay of ours that breaks things, h: hub, b: a second member at it

For each product in turn:

1. resets: RST to both sides of the connection; how long no 10 ms probe got from c to b.
2. black holes: no packet passes for a while, with few frames each way; when c sends the first new SYN after the last
   byte it received, and when frames pass both ways again after the path came back.
3. random cuts of all kinds (lab/cuts.py) under numbered frames both ways: lost, doubled, reordered.

A product that is not back 40 s after a cut is started anew; after three times its phase ends. Both are in the figures.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.machine import Median
from lab import openvpn, pairs, peers
from lab.capture import Capture
from lab.cuts import GIVE_UP_S, STUCK_MOST, Plan, Report, random_cuts
from lab.flow import Probe
from lab.net import LabError, Net
from lab.numbered import Numbered
from lab.pairs import Pair
from lab.wait import TimeOver, pause

BUFFER_KIB: Final = (1024, 8192)  # drawn between; the same for all products
APART_S: Final = (1.2, 2.0)  # from one reset to the next; a link that lives shorter may be taken for one that flaps
QUIET_RATE: Final = 50.0  # frames a second, each way, around a black hole
HOLE_S: Final = 20.0
FIELDS: Final = ("frame.time_epoch", "ip.src", "tcp.flags.syn", "tcp.flags.ack", "tcp.len")


class Extent(NamedTuple):
    """How much is measured."""

    resets: int
    holes: int
    cuts: int
    fast: bool  # our times divided by ten, and so the black holes; the others' times can't be
    give_up_s: float = GIVE_UP_S  # a product that is not back by then is started anew


FULL: Final = Extent(resets=50, holes=3, cuts=100, fast=False)
QUICK: Final = Extent(resets=10, holes=1, cuts=20, fast=True)


@dataclass
class Found:
    """The figures of one product."""

    title: str
    reset_gap_s: Median = field(default_factory=Median)
    reset_stuck: int = 0  # resets after which it was not back in time
    hole_s: float = 0.0
    detect_s: list[float | None] = field(default_factory=list)  # of each black hole; None: no SYN until it ended
    recover_s: list[float | None] = field(default_factory=list)  # None: not back in time
    report: Report | None = None
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)


# -- measuring --------------------------------------------------------------------------------------------------------


def resets(pair: Pair, extent: Extent, seed: int, found: Found) -> None:
    """Fill in the gaps after resets."""
    chance = random.Random(seed)
    c, b = pair.hosts["c"], pair.hosts["b"]
    c.pings(pair.addresses[1])
    with Probe(c, b, pair.addresses[1]) as probe:
        for _ in range(extent.resets):
            pause(chance.uniform(*APART_S))
            at = time.monotonic()
            pair.relay.reset()
            try:
                probe.flows_again(at, seconds=extent.give_up_s)
            except TimeOver:
                found.reset_stuck += 1
                if found.reset_stuck >= STUCK_MOST:
                    return
                pair.revive()
                probe.flows_again(time.monotonic(), seconds=GIVE_UP_S)
                continue
            pause(0.2)
            found.reset_gap_s.add(longest_gap([when for when, _ in probe.arrived], since=at - 0.1))


def longest_gap(arrivals: Sequence[float], *, since: float) -> float:
    """The longest time between two arrivals next to each other, of which the later came after `since`."""
    return max((b - a for a, b in itertools.pairwise(arrivals) if b > since), default=0.0)


def black_holes(pair: Pair, extent: Extent, seconds: float, seed: int, found: Found) -> None:
    """Fill in how soon a dead path is noticed, and how soon frames pass when it is back."""
    found.hole_s = seconds
    for number in range(extent.holes):
        expression = f"tcp port {pair.relay.address[1]}"
        path = pair.hosts["c"].folder / f"hole-{number}.pcap"
        capture = Capture(pair.hosts["c"], pair.outer_interface, expression=expression, snap_bytes=128, path=path)
        with capture, Numbered(pair.one, pair.other, rate=QUIET_RATE, seed=seed + number) as frames:
            pause(2.0)
            wall = time.time() - time.monotonic()
            began = pair.relay.black_hole("both")
            pause(began + seconds - time.monotonic())
            pair.relay.heal()
            back = time.monotonic()
            try:
                found.recover_s.append(frames.flows_again(back, seconds=extent.give_up_s))
            except TimeOver:
                found.recover_s.append(None)
                pair.revive()
        segments = list(read_segments(pair, path))
        found.detect_s.append(detected(segments, card=pair.hosts["c"].addresses, since=wall + began, until=wall + back))


class Segment(NamedTuple):
    """A TCP segment at the card's outer interface."""

    at: float  # seconds since 1970
    source: str
    syn: bool
    ack: bool
    payload: int  # bytes


def read_segments(pair: Pair, path: Path) -> Iterator[Segment]:
    """What a capture holds, in order."""
    words = ["tshark", "-r", str(path), "-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields"]
    for name in FIELDS:
        words += ["-e", name]
    for line in pair.hosts["c"].run(words, timeout_s=120).splitlines():
        at, source, syn, ack, payload = line.split("\t")
        yield Segment(float(at), source, syn in ("1", "True"), ack in ("1", "True"), int(payload))


def detected(segments: Sequence[Segment], *, card: Sequence[str], since: float, until: float) -> float | None:
    """From the last byte the card received to its first new SYN, if that was sent between `since` and `until`."""
    heard = max((one.at for one in segments if one.payload and one.source not in card and one.at <= until), default=0.0)
    dialled = [one.at for one in segments if one.syn and not one.ack and one.source in card and one.at > since]
    return dialled[0] - heard if dialled and heard and dialled[0] < until else None


# -- the products -----------------------------------------------------------------------------------------------------


@contextmanager
def _ours(net: Net, fast: bool, buffer_kib: int) -> Iterator[Pair]:
    with pairs.ours(net, fast=fast, buffer_kib=buffer_kib) as pair:
        yield pair


PRODUCTS: Final[dict[str, Callable[[Net, bool, int], AbstractContextManager[Pair]]]] = {
    "ours": _ours,
    "softether": lambda net, _fast, _kib: pairs.softether(net),
    "openvpn": lambda net, _fast, _kib: pairs.openvpn_tcp(net),
}
MISSING: Final[Mapping[str, Callable[[], str]]] = {
    "ours": str,
    "softether": lambda: peers.missing("vpnserver", "vpnclient"),
    "openvpn": openvpn.missing,
}


def measure(name: str, extent: Extent, seed: int, buffer_kib: int, console: Console) -> Found:
    """All phases of one product, in a network of its own."""
    with Net() as net, PRODUCTS[name](net, extent.fast, buffer_kib) as pair:
        found = Found(pair.title)
        say: Callable[[str], None] = lambda what: console.print(f"{pair.title}: {what}", highlight=False)  # noqa: E731
        say(f"{extent.resets} resets")
        resets(pair, extent, seed, found)
        if found.reset_stuck:
            pair.revive()  # whatever it suffered, the next phase begins with a sound one
        hole_s = HOLE_S / pairs.FAST_PART if extent.fast and name == "ours" else HOLE_S
        say(f"{extent.holes} black hole(s) of {hole_s:g} s")
        black_holes(pair, extent, hole_s, seed, found)
        if None in found.recover_s:
            pair.revive()
        say(f"{extent.cuts} random cuts")
        blind_s = 1.5 if extent.fast else 15.0  # ours, for all: the same load, the same cuts
        found.report = random_cuts(
            pair, cuts=extent.cuts, seed=seed, buffer=buffer_kib * 1024, blind_s=blind_s, give_up_s=extent.give_up_s,
            told=lambda what: console.print(f"  cut {what}", highlight=False),
        )  # fmt: skip
        found.ledgers = pair.ledgers()
        return found


# -- telling ----------------------------------------------------------------------------------------------------------


def as_json(found: Found) -> dict[str, Any]:
    """The figures by the names that are promised."""
    report = found.report
    assert report is not None
    gaps, plan, total = found.reset_gap_s, report.plan, report.result.total
    return {
        "cuts": report.count,
        "cuts_by_kind": dict(report.cuts),
        "sent": total("sent"),
        "lost": total("lost"),
        "doubled": total("doubled"),
        "reordered": total("reordered"),
        "damaged": total("damaged"),
        "uncounted": total("missed"),
        "longest_gap_s": round(max(report.result.up.longest_gap_s, report.result.down.longest_gap_s), 3),
        "not_back_in_40_s": found.reset_stuck + found.recover_s.count(None) + report.stuck,
        "resets": len(gaps.values) + found.reset_stuck,
        "reset_gap_s_median": round(gaps.middle, 3) if gaps else None,
        "reset_gap_s_worst": round(gaps.values[-1], 3) if gaps and not found.reset_stuck else None,
        "resets_not_back_in_40_s": found.reset_stuck,
        "blackhole_s": found.hole_s,
        "blackhole_detect_s": _rounded(found.detect_s),
        "recover_s": _rounded(found.recover_s),
        "drawn": _drawn(plan),
        "ledgers": found.ledgers,
    }


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 3) for value in values]


def _drawn(plan: Plan) -> dict[str, Any]:
    return {
        "seed": plan.seed,
        "buffer_kib": plan.buffer_bytes // 1024,
        "frames_per_s": round(plan.rate, 1),
        "outage_most_s": round(plan.outage_most_s, 3),
        "worst_outage_s": round(plan.worst_s, 3),
        "share_of_buffer": round(plan.share, 3),
    }


def _show(result: dict[str, dict[str, Any]], titles: dict[str, str], console: Console) -> None:
    table = Table(title="The same faults for each")
    rows = {
        "random cuts": lambda row: str(row["cuts"]),
        "frames sent": lambda row: f"{row['sent']:,}",
        "lost": lambda row: f"{row['lost']:,}",
        "doubled": lambda row: f"{row['doubled']:,}",
        "reordered": lambda row: f"{row['reordered']:,}",
        "gap after a reset, median s": lambda row: _text(row["reset_gap_s_median"]),
        "worst s": lambda row: _text(row["reset_gap_s_worst"]),
        "black hole, s": lambda row: f"{row['blackhole_s']:g}",
        "new SYN after, s": lambda row: ", ".join(map(_text, row["blackhole_detect_s"])),
        "frames pass after its end, s": lambda row: ", ".join(map(_text, row["recover_s"])),
        "not back in 40 s, started anew": lambda row: str(row["not_back_in_40_s"]),
    }
    table.add_column("")
    for name in result:
        table.add_column(titles[name], justify="right")
    for what, tell in rows.items():
        table.add_row(what, *map(tell, result.values()))
    console.print(table)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main(argv: Sequence[str]) -> int:
    """Run the bench. 0 done, 1 something could not be measured, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="./run bench cuts", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true",
        help=f"{QUICK.resets} resets, {QUICK.holes} black hole and {QUICK.cuts} cuts, our times divided by ten",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=None, help="of everything that is drawn; default: drawn, printed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.add_argument("--only", metavar="NAMES", default=",".join(PRODUCTS), help="of ours,softether,openvpn")
    words = parser.parse_args(argv)
    names = words.only.split(",")
    if unknown := set(names) - set(PRODUCTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    extent = QUICK if words.quick else FULL
    seed = random.SystemRandom().randrange(1 << 20) if words.seed is None else words.seed
    buffer_kib = random.Random(seed).randint(*BUFFER_KIB)
    console = Console(stderr=True)
    result: dict[str, dict[str, Any]] = {}
    titles: dict[str, str] = {}
    for name in names:
        if gone := MISSING[name]():
            console.print(f"[yellow]{name} is not measured: missing Debian packages {gone}[/yellow]")
            continue
        try:
            found = measure(name, extent, seed, buffer_kib, console)
        except (LabError, TimeOver) as error:
            console.print(f"[red]{name} could not be measured:[/red] {error}")
            return 1
        result[name], titles[name] = as_json(found), found.title
        console.print(str(found.report.plan) if found.report else "", highlight=False)
    _show(result, titles, Console())
    if words.json:
        words.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
