"""Labelled captures and what the detector says of their packets, for tests that rewrite them (`lab.rewrite`)."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from lab.rewrite import Packet, read
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.record import Finding
from ukihashi.detect.sieve import OPENINGS
from ukihashi.detect.verdict import Detector

ROOT: Final = Path(__file__).resolve().parent.parent
HERE: Final = ROOT / "tests" / "corpus"
LARGER: Final = Path(os.environ.get("UKIHASHI_CORPUS") or ROOT.parent / "shared" / "corpus")


class Capture(NamedTuple):
    """One row of `labels.csv`."""

    path: Path
    label: str  # softether, ukihashi, other
    transport: str
    clients: tuple[str, ...]
    server: str  # address:port
    expect: int  # log lines

    @property
    def name(self) -> str:
        """Its file's, without the ending."""
        return self.path.name.partition(".")[0]

    @property
    def end(self) -> bytes:
        """The server's address and port."""
        host, _, port = self.server.rpartition(":")
        return ip_address(host.strip("[]")).packed + int(port).to_bytes(2)


def captures(folder: Path) -> Iterator[Capture]:
    """The rows of a folder's `labels.csv`."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wanted = re.search(r"expect=(\d+)", row["description"])
            yield Capture(
                folder / row["file"],
                row["label"],
                row["transport"],
                tuple(row["client"].split(";")),
                row["server"],
                int(wanted[1]) if wanted else 0,
            )


@cache
def here(name: str) -> Capture:
    """That of `tests/corpus` with this name."""
    return next(one for one in captures(HERE) if one.name == name)


def packets(capture: Capture) -> list[Packet]:
    """All of it."""
    return read(capture.path)


def judge(packets: Sequence[Packet]) -> list[Finding]:
    """What is found in these packets, PROBABLE ones too."""
    detector = Detector()
    table = FlowTable(detector, sieve=OPENINGS)
    for link_type, several in groupby(packets, key=lambda packet: packet.link_type):
        rows, buffer = list[tuple[float, int, int, int]](), bytearray()
        for packet in several:
            rows.append((packet.time, len(buffer), len(packet.data), packet.length))
            buffer += packet.data
        table.take(link_type, bytes(buffer), rows)
    end = packets[-1].time if packets else 0.0
    table.advance(end)
    detector.finish(end)
    return [found for found in detector.drain() if isinstance(found, Finding)]
