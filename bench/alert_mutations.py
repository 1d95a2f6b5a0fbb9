"""What the detector finds of changed builds (B33): recall for each change.

    python -m bench.alert_mutations [--seconds 85] [--folder FOLDER] [--only WORD]

Our own programs run with other numbers (`lab/mutant`), each change with its own hub and two cards: one idle, one with a
ping each second. Sessions of SoftEther are the captures of `tests/corpus`, rewritten: sizes and times of packets as
such a build would make them. The detector is not changed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from bench.alert import CORPUS, judge, labels
from lab.capture import Capture
from lab.net import Host, LabError, Net
from lab.rewrite import Packet, place, read, write
from lab.ukihashi import Card, Hub, gateway
from lab.wait import TimeOver
from ukihashi.detect.record import Verdict

MUTANT: Final = Path(__file__).resolve().parent.parent / "lab" / "mutant"
SECONDS: Final = 85.0
EVERY: Final = {"keep-alives twice as often": 2.5, "keep-alives half as often": 10.0}  # seconds; an option
OWN: Final = (
    "unchanged",
    *EVERY,
    "no padding",
    "padding to 4999",
    "acknowledges after 0.4 s",
    "acknowledges after 3 s",
    "server name and ALPN",
    "records in halves",
)
OPENING_TURNS: Final = 12  # of a connection; later ones have no padding of the opening
STEADY_S: Final = 4.0  # after a connection's begin: then its timers rule


class Result(NamedTuple):
    """Of one change."""

    family: str
    change: str
    sessions: int
    flagged: int
    confirmed: int


# -- our own ---------------------------------------------------------------------------------------------------------


def own(folder: Path, changes: Sequence[str], seconds: float) -> Iterator[Result]:
    """Run every change at once and judge what was recorded."""
    with Net() as net, ExitStack() as stack:
        names = [f"{kind}{number}" for number in range(len(changes)) for kind in ("hub", "idle", "ping")]
        hosts = {host.name: host for host in net.lan(*names)}

        def begin(number: int) -> list[Path]:
            try:
                return _begin(stack, hosts, number, changes[number])
            except (LabError, TimeOver) as error:
                print(f"{changes[number]}: {error}", file=sys.stderr)
                return []

        with ThreadPoolExecutor(3) as pool:
            captures = list(pool.map(begin, range(len(changes))))
        time.sleep(seconds)
        for host in hosts.values():
            for capture in _captures.pop(host.name, []):
                capture.close()
        for change, paths in zip(changes, captures, strict=True):
            for path in paths:
                (folder / f"{change.replace(' ', '-')}-{path.parent.name[:4]}.pcap").write_bytes(path.read_bytes())
            yield _judged("ukihashi", change, paths, [1] * len(paths))
    return


_captures: dict[str, list[Capture]] = {}


def _begin(stack: ExitStack, hosts: Mapping[str, Host], number: int, change: str) -> list[Path]:
    env = (
        {"PYTHONPATH": str(MUTANT), "UKIHASHI_MUTANT": change} if change != "unchanged" and change not in EVERY else {}
    )
    hub = Hub(hosts[f"hub{number}"])
    hub.env.update(env)
    every = EVERY.get(change)
    if every is not None:
        hub.configure({"times": {"keepalive_s": every, "dead_s": 3 * every}})
    hub.start()
    paths = []
    for kind in ("idle", "ping"):
        host = hosts[f"{kind}{number}"]
        card = Card(host)
        card.env.update(env)
        times = {"keepalive": every, "suspect": 2 * every, "dead": 3 * every} if every is not None else {}
        account = card.prepare(hub.invite(kind), {"times": times, "path": {"via": "direct:"}})
        capture = Capture(host, "eth0", expression="tcp port 443", snap_bytes=256)
        stack.enter_context(capture)
        _captures[host.name] = [capture]
        card.up(account, seconds=90)
        if kind == "ping":
            host.spawn(["ping", "-n", "-i", "1", gateway(card.address(4))], log="ping")
        paths.append(capture.path)
    return paths


# -- SoftEther -------------------------------------------------------------------------------------------------------


More = Callable[[int, int, bool], int]
"""Bytes more in a packet: number of its turn, its payload, is it the last of its turn? May be less than 0."""


def resized(packets: Sequence[Packet], make: Callable[[], More]) -> list[Packet]:
    """The capture as if each packet with data had so many bytes more; `make` is called once for a connection."""
    places = [place(packet) for packet in packets]
    flows: dict[frozenset[bytes], dict[str, Any]] = {}
    last = _last_of_turns(packets)
    made = []
    for number, (packet, where) in enumerate(zip(packets, places, strict=True)):
        if where is None:
            made.append(packet)
            continue
        ends = where.ends(packet.data)
        flow = flows.setdefault(frozenset(ends), {"more": make(), "turn": -1, "sender": None, "grown": {}})
        data = bytearray(packet.data)
        for side, at in ((0, 4), (1, 8)):
            field = slice(where.tcp + at, where.tcp + at + 4)
            old = int.from_bytes(data[field])
            grown = [
                extra for after, extra in flow["grown"].get(ends[side], []) if (old - after) & 0xFFFFFFFF < 1 << 31
            ]
            data[field] = ((old + sum(grown)) & 0xFFFFFFFF).to_bytes(4)
        extra = 0
        sequence = int.from_bytes(packet.data[where.tcp + 4 : where.tcp + 8])
        newest = flow.setdefault("newest", {}).get(ends[0])
        fresh = newest is None or (sequence - newest) & 0xFFFFFFFF < 1 << 31
        if where.size > 0 and fresh:
            if flow["sender"] != ends[0]:
                flow["sender"], flow["turn"] = ends[0], flow["turn"] + 1
            extra = max(flow["more"](flow["turn"], where.size, number in last), 1 - where.size)
            flow["newest"][ends[0]] = sequence + where.size
            flow["grown"].setdefault(ends[0], []).append((sequence + where.size & 0xFFFFFFFF, extra))
            at = where.ip + (2 if where.version == 4 else 4)
            total = int.from_bytes(data[at : at + 2])
            if total:
                data[at : at + 2] = (total + extra).to_bytes(2)
        made.append(packet._replace(data=bytes(data[: max(len(data) + min(extra, 0), where.payload)]),
                                    length=packet.length + extra))  # fmt: skip
    return made


def _last_of_turns(packets: Sequence[Packet]) -> set[int]:
    latest: dict[frozenset[bytes], tuple[int, bytes]] = {}
    found = set()
    for number, packet in enumerate(packets):
        where = place(packet)
        if where is not None and where.size > 0:
            ends = where.ends(packet.data)
            before = latest.get(frozenset(ends))
            if before is not None and before[1] != ends[0]:
                found.add(before[0])
            latest[frozenset(ends)] = number, ends[0]
    return found


def retimed(packets: Sequence[Packet], factor: float) -> list[Packet]:
    """Slower or faster by `factor` once the connections have opened."""
    start = packets[0].time + STEADY_S
    return [
        packet._replace(time=start + (packet.time - start) * factor) if packet.time > start else packet
        for packet in packets
    ]


def padded(chance: Random, less: int, more: int) -> Callable[[], More]:
    """Other padding in the messages of an opening: `less` bytes, the usual mean, are taken off, up to `more` added."""

    def change(turn: int, size: int, last: bool) -> int:
        if not (last and 2 <= turn < OPENING_TURNS and size > 200):
            return 0
        return chance.randint(0, more) - min(less, size - 200)

    return lambda: change


def named() -> More:
    """A server name and ALPN: the first turn is longer."""
    return lambda turn, size, last: 60 if turn == 0 else 0 * size * last


def halved() -> More:
    """One TLS record more for each packet's last record."""
    return lambda turn, size, last: 22 if turn >= 2 and size + last else 0


STANDARD: Final[Mapping[str, Callable[[Sequence[Packet]], list[Packet]]]] = {
    "unchanged": list,
    "keep-alives twice as often": partial(retimed, factor=0.5),
    "keep-alives half as often": partial(retimed, factor=2.0),
    "no padding": lambda packets: resized(packets, padded(Random(1), 500, 0)),
    "padding to 4999": lambda packets: resized(packets, padded(Random(2), 0, 4000)),
    "server name and ALPN": lambda packets: resized(packets, named),
    "records in halves": lambda packets: resized(packets, halved),
}


def standard(folder: Path, only: str) -> Iterator[Result]:
    """The SoftEther captures of the corpus, each change in turn."""
    rows = [label for label in labels(CORPUS) if label.label == "softether" and label.transport == "direct"]
    sources = [(label, read(label.path)) for label in rows]
    for change, rewrite in STANDARD.items():
        if only in change:
            paths = []
            for label, packets in sources:
                paths.append(folder / f"{change.replace(' ', '-')}-{label.path.name.removesuffix('.gz')}")
                write(paths[-1], rewrite(packets))
            yield _judged("softether", change, paths, [label.expect for label in rows])
            for path in paths:
                path.unlink()


def _judged(family: str, change: str, paths: Sequence[Path], expected: Sequence[int]) -> Result:
    flagged = confirmed = 0
    for path, expect in zip(paths, expected, strict=True):
        findings = judge(path)[0]
        flagged += min(expect, len(findings))
        confirmed += min(expect, sum(finding.verdict is Verdict.CONFIRMED for finding in findings))
    return Result(family, change, sum(expected), flagged, confirmed)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each change; with --json write them, too."""
    parser = argparse.ArgumentParser(prog="bench alert_mutations", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--folder", type=Path, help="keep our own captures here")
    parser.add_argument("--only", default="", help="only changes with this word in their name")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'family':<10} {'change':<28} {'sessions':>8} {'flagged':>8} {'confirmed':>10}")
        changes = [change for change in OWN if options.only in change]
        for result in (*own(folder, changes, options.seconds), *standard(Path(made), options.only)):
            results.append(result._asdict())
            family, change, sessions, flagged, confirmed = result
            print(f"{family:<10} {change:<28} {sessions:>8} {flagged:>8} {confirmed:>10}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
