"""Fresh captures of both families for the detector: every way to a hub, every use, by the real programs (lab.tunnels).

    python -m bench.alert_fresh FOLDER [--quick]        writes captures and `labels.csv`

The quick set is two uses of each way, at once; the other one takes several minutes.
"""

import argparse
import csv
import gzip
import itertools
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from lab.net import Net
from lab.tunnels import ROADS, USES, Plan, Town
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.decode import ACK, SYN, segments
from ukihashi.detect.record import Endpoint

KINDS: Final = ("direct", "http-proxy", "socks", "ssh")
SECONDS: Final = 95.0  # that every session is in use
QUICK_S: Final = 82.0
CUTS: Final = (0.15, 0.5)  # when, as shares of that
AT_ONCE: Final = 24  # sessions; two cores carry no more with all their traffic
TOGETHER: Final = 4  # sessions that open at the same time


class Row(NamedTuple):
    """One capture that has a tunnel in it."""

    kind: str  # direct, http-proxy, socks, ssh
    family: str  # ukihashi, softether
    description: str
    file: Path
    expect: int  # log lines
    client: str  # address:port of its first connections, ";" between
    server: str  # address:port on the wire


def plans(*, quick: bool) -> list[Plan]:
    """What is recorded. The programs of a kind take turns."""
    turn = itertools.count()
    found = list[Plan]()
    for family, program, at in (("ukihashi", "card", "hub"), ("softether", "vpnclient", "vpnserver")):
        for place, kind in enumerate(KINDS):
            chosen = (USES[place], USES[(place + 3) % len(USES)]) if quick else USES
            for use in chosen:
                roads = ROADS[kind]
                found.append(Plan(family, program, at, kind, roads[next(turn) % len(roads)], use))
    mixed = [("card", "vpnserver"), ("vpnclient", "hub")]
    for program, at in mixed:
        for use in ("idle", "ping") if quick else ("idle", "browsing", "voice", "ping"):
            found.append(Plan("softether", program, at, "direct", "direct", use))
        if not quick:
            found.append(Plan("softether", program, at, "http-proxy", "squid", "idle"))
    if not quick:
        for use in ("idle", "voice", "ping"):
            found.append(Plan("ukihashi", "card", "hub", "direct", "direct", use, version=6))
            found.append(Plan("ukihashi", "card", "hub", "direct", "direct", use, tls12=True))
        found.append(Plan("softether", "vpnclient", "vpnserver", "direct", "direct", "idle", version=6))
        found.append(Plan("softether", "card", "vpnserver", "direct", "direct", "idle", tls12=True))
    return found


def first_clients(path: Path) -> str:
    """Address and port of the ends that opened a connection in a capture, in order; at most eight."""
    found = dict[Endpoint, None]()
    with path.open("rb") as file:
        for batch in CaptureFile(file, str(path)):
            for _, key, _, _, flags, *_ in segments(batch.link_type, batch.buffer, batch.packets):
                if flags & (SYN | ACK) == SYN:
                    found[Endpoint(key[: (len(key) - 4) // 2], int.from_bytes(key[-4:-2]))] = None
    return ";".join(map(str, list(found)[:8]))


def record(folder: Path, quick: bool, *, seconds: float = 0.0, chosen: Sequence[Plan] = ()) -> list[Row]:
    """Make the sessions, record each into `folder`, give a row for each that came up; else print why not.

    The quick set takes about two minutes, most of it waiting. The other one is made in parts of `AT_ONCE` sessions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    planned = list(chosen) or plans(quick=quick)
    parts = -(-len(planned) // AT_ONCE)
    length = seconds or (QUICK_S if quick else SECONDS)
    return [row for part in range(parts) for row in _part(folder, planned[part::parts], length)]


def _part(folder: Path, planned: Sequence[Plan], length: float) -> list[Row]:
    rows = list[Row]()
    with Net() as net:
        town = Town(net, planned)
        town.open()
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(town.begin, town.sessions))
        begin = time.monotonic()
        cutting = [session for session in town.sessions if session.again is not None and not session.trouble]
        for share in CUTS:
            time.sleep(max(0.0, begin + share * length - time.monotonic()))
            with ThreadPoolExecutor(TOGETHER) as pool:
                list(pool.map(town.cut, cutting))
            cutting = [session for session in cutting if session.card is not None]
        time.sleep(max(0.0, begin + length - time.monotonic()))
        for session in town.sessions:
            town.end(session)
        for session in town.sessions:
            if session.trouble or session.capture is None:
                print(f"not recorded: {session.trouble}", file=sys.stderr)
                continue
            plan, source, server = session.plan, session.capture.path, town.on_wire(session)
            target = folder / f"{plan.name}.pcap.gz"
            with source.open("rb") as whole, gzip.open(target, "wb", compresslevel=1) as out:
                shutil.copyfileobj(whole, out)
            client = first_clients(source)
            rows.append(Row(plan.kind, plan.family, plan.words, target, session.expect, client, server))
    return rows


def write_labels(folder: Path, rows: Sequence[Row]) -> None:
    """`labels.csv`, as `./run bench alert FOLDER` reads it."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "transport", "client", "server", "description"])
        for row in rows:
            words = f"expect={row.expect}; {row.description}"
            writer.writerow([row.file.name, row.family, row.kind, row.client, row.server, words])


def main(argv: Sequence[str] | None = None) -> int:
    """Record into a folder."""
    parser = argparse.ArgumentParser(prog="bench alert_fresh", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="two uses of each way")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--only", default="", help="only plans with this word in their name")
    options = parser.parse_args(argv)
    chosen = [plan for plan in plans(quick=options.quick) if options.only in plan.name]
    write_labels(options.folder, record(options.folder, options.quick, seconds=options.seconds, chosen=chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
