"""`./run bench alert`: recall per transport and false alarms of the detector over a folder of labelled captures.

The folder has `labels.csv` (file, label, transport, client, server, description with `expect=N` log lines). Captures of
its subfolder `ndpi`, if there is one, are foreign traffic: every line there is a false alarm.
"""

import argparse
import csv
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ukihashi.alert.service import Alert
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.features import Outer
from ukihashi.detect.record import Finding, Found, Verdict
from ukihashi.errors import InputUnreadable, UkihashiError

CORPUS: Final = Path(__file__).resolve().parent.parent / "tests" / "corpus"
OUTER: Final = {"direct": Outer.TCP, "http-proxy": Outer.HTTP, "socks": Outer.SOCKS, "ssh": Outer.SSH}
POSITIVE: Final = ("softether", "ukihashi")


class Label(NamedTuple):
    """One row of `labels.csv`."""

    path: Path
    label: str
    transport: str
    clients: tuple[str, ...]
    server: str
    expect: int  # log lines
    words: str


class Share(NamedTuple):
    """Sessions found, of all."""

    found: int
    of: int
    probable: int


class _Memory:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def take(self, found: Found) -> None:
        if isinstance(found, Finding):
            self.findings.append(found)

    def close(self) -> None:
        pass


@dataclass
class Table:
    """What a run over a folder gave."""

    shares: dict[str, list[int]] = field(default_factory=dict)  # transport -> found, of, probable only
    false_alarms: list[str] = field(default_factory=list)
    probable_on_others: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)  # more lines than sessions
    wrong_transport: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    seconds_to_line: list[float] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)
    flows: int = 0
    packets: int = 0
    cpu_s: float = 0.0

    def recall(self, transport: str) -> Share:
        """Of one transport (direct, http-proxy, socks, ssh)."""
        found, of, probable = self.shares.get(transport, [0, 0, 0])
        return Share(found, of, probable)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "recall": {kind: {"found": n[0], "of": n[1], "probable_only": n[2]} for kind, n in self.shares.items()},
            "false_alarms": self.false_alarms,
            "probable_on_others": self.probable_on_others,
            "missed": self.missed,
            "doubled": self.doubled,
            "wrong_transport": self.wrong_transport,
            "wrong_ends": self.wrong_ends,
            "unreadable": self.unreadable,
            "files": dict(self.files),
            "tcp_connections": self.flows,
            "packets": self.packets,
            "cpu_seconds": round(self.cpu_s, 2),
            "median_seconds_to_line": self.median(),
        }

    def median(self) -> float | None:
        """Of the seconds from a connection's begin to its verdict."""
        times = sorted(self.seconds_to_line)
        return round(times[len(times) // 2], 2) if times else None

    def text(self) -> str:
        """For people."""
        lines = [f"{'transport':<12} {'found':>5} {'of':>4} {'probable only':>14}"]
        lines += [f"{kind:<12} {n[0]:>5} {n[1]:>4} {n[2]:>14}" for kind, n in sorted(self.shares.items())]
        lines.append(f"files: {', '.join(f'{count} {label}' for label, count in sorted(self.files.items()))}")
        rate = self.packets / self.cpu_s if self.cpu_s else 0.0
        lines.append(f"{self.packets} packets, {self.flows} TCP connections, {rate / 1000:.0f} k packets/s of CPU")
        lines.append(f"median time to a line: {self.median()} s")
        for title in (
            "false_alarms",
            "probable_on_others",
            "missed",
            "doubled",
            "wrong_transport",
            "wrong_ends",
            "unreadable",
        ):
            names = getattr(self, title)
            lines.append(f"{title.replace('_', ' ')}: {len(names)}" + "".join(f"\n    {name}" for name in names))
        return "\n".join(lines)


def labels(folder: Path) -> Iterator[Label]:
    """The rows of `labels.csv`, then the foreign captures."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wanted = re.search(r"expect=(\d+)", row["description"])
            yield Label(
                folder / row["file"],
                row["label"],
                row["transport"],
                tuple(row["client"].split(";")),
                row["server"],
                int(wanted[1]) if wanted else 0,
                row["description"],
            )
    for path in sorted((folder / "ndpi").glob("*.pcap*")):
        yield Label(path, "foreign", "", (), "", 0, "")


def judge(path: Path) -> tuple[list[Finding], Alert, str]:
    """All findings of a capture, what read it, and why it could not be read to its end."""
    memory, problems = _Memory(), list[UkihashiError]()
    alert = Alert([memory], tell=problems.append, probable=True)
    trouble = ""
    with path.open("rb") as file:
        try:
            alert.read(CaptureFile(file, path.name))
        except InputUnreadable as error:
            trouble = str(error)
    alert.finish()
    return memory.findings, alert, trouble


def judge_corpus(folder: Path) -> Table:
    """Judge every capture of a folder with labels."""
    table = Table()
    begin = time.process_time()
    for label in labels(folder):
        findings, alert, trouble = judge(label.path)
        table.packets += alert.packets
        table.flows += alert.flows
        table.files[label.label] += 1
        if trouble:
            table.unreadable.append(trouble)
        _enter(table, label, findings)
    table.cpu_s = time.process_time() - begin
    return table


def _enter(table: Table, label: Label, findings: list[Finding]) -> None:
    name = label.path.name
    confirmed = [finding for finding in findings if finding.verdict is Verdict.CONFIRMED]
    told = [f"{name}: {finding.family.value}, rule {finding.rule}, {finding.client}" for finding in findings]
    if label.label not in POSITIVE:
        table.false_alarms += told if confirmed else []
        table.probable_on_others += told if findings and not confirmed else []
        return
    row = table.shares.setdefault(label.transport, [0, 0, 0])
    good = [finding for finding in confirmed if finding.family.name.lower() == label.label]
    row[0] += min(len(good), label.expect)
    row[1] += label.expect
    if len(good) < label.expect:
        row[2] += min(label.expect - len(good), len(findings) - len(confirmed))
        table.missed.append(f"{name}: {len(good)} of {label.expect}" + "".join(f"; {words}" for words in told))
    if len(confirmed) > label.expect:
        table.doubled.append(f"{name}: {len(confirmed)} lines for {label.expect}")
    table.seconds_to_line += [finding.decided - finding.begin for finding in good]
    for finding in confirmed:
        if finding.outer is not OUTER[label.transport] and not finding.rule.startswith("5"):
            table.wrong_transport.append(f"{name}: {finding.outer.value}")
        if str(finding.client) not in label.clients or str(finding.server) != label.server:
            table.wrong_ends.append(f"{name}: {finding.client} {finding.server}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a folder; with --json FILE write it as JSON too."""
    parser = argparse.ArgumentParser(prog="bench alert", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="no difference: it is quick")
    options = parser.parse_args(argv)
    table = judge_corpus(options.folder)
    print(table.text())
    if options.json:
        options.json.write_text(json.dumps(table.as_json(), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
