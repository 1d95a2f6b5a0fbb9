"""`./run bench alert`: recall per transport, false alarms and delay of the detector over labelled captures.

    ./run bench alert [FOLDER ...]      folders with labels.csv (tests/corpus); a subfolder `ndpi` is foreign traffic
        --fresh                         captures made now: real tunnels, and look-alikes by real servers
        --mutations --speed             recall for changed tunnels; packets a second beside other readers
        --all --quick --json FILE --docs

Every capture is judged whole, with 5 % of its packets lost, with one direction only, without its begin, and with other
bytes and ports. `labels.csv` has file, label, transport, client, server, description with `expect=N` log lines.
"""

import argparse
import csv
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import alert_ndpi, alert_report
from bench.alert_conditions import BLIND, CONDITIONS, rewritten
from ukihashi.alert.service import Alert
from ukihashi.capture.pcap import CaptureFile
from ukihashi.detect.features import Outer
from ukihashi.detect.record import Finding, Found, Verdict
from ukihashi.errors import InputUnreadable, UkihashiError

CORPUS: Final = Path(__file__).resolve().parent.parent / "tests" / "corpus"
OUTER: Final = {"direct": Outer.TCP, "http-proxy": Outer.HTTP, "socks": Outer.SOCKS, "ssh": Outer.SSH}
POSITIVE: Final = ("softether", "ukihashi")
IMITATION: Final = "imitation"  # made to have a tunnel's sizes, as no ordinary program does: counted apart
OTHERS_TUNNEL: Final = re.compile(r"ovpn|openvpn|vpn|anyconnect|wireguard|ssh-w|-in-tls|ipsec|tor\b", re.IGNORECASE)
LATEST_S: Final = 80.0  # requirement B3
LISTS: Final = (
    "false_alarms", "probable_on_others", "imitations", "missed", "doubled", "wrong_transport", "wrong_ends",
    "late", "unreadable",
)  # fmt: skip


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
class Tally:
    """Sessions of one kind and family."""

    n: int = 0
    flagged: int = 0  # PROBABLE or CONFIRMED
    confirmed: int = 0
    delays: list[float] = field(default_factory=list)  # seconds from a connection's begin to its verdict


@dataclass
class Table:
    """What a run over captures gave."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)  # (transport, family)
    benign: Tally = field(default_factory=Tally)  # of files
    false_alarms: list[str] = field(default_factory=list)
    probable_on_others: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    imitations: list[str] = field(default_factory=list)  # CONFIRMED, of those below
    doubled: list[str] = field(default_factory=list)  # more lines than sessions
    wrong_transport: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)  # said later than LATEST_S
    unreadable: list[str] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)
    flows: int = 0
    packets: int = 0
    cpu_s: float = 0.0

    def recall(self, transport: str) -> Share:
        """Of one transport (direct, http-proxy, socks, ssh), all families."""
        chosen = [tally for (kind, _), tally in self.tallies.items() if kind == transport]
        found = sum(tally.confirmed for tally in chosen)
        return Share(found, sum(tally.n for tally in chosen), sum(tally.flagged for tally in chosen) - found)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each transport and family, as JSON has them."""
        return [
            {"kind": kind, "family": family, "n": tally.n, "flagged": tally.flagged, "confirmed": tally.confirmed,
             "delay_s": alert_report.median(tally.delays)}
            for (kind, family), tally in sorted(self.tallies.items())
        ]  # fmt: skip

    def details(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "rows": [
                {**row, "delay_worst_s": alert_report.worst(self.tallies[row["kind"], row["family"]].delays),
                 "flagged_95": alert_report.interval(row["flagged"], row["n"]),
                 "confirmed_95": alert_report.interval(row["confirmed"], row["n"])}
                for row in self.rows()
            ],
            "benign": {**self.harmless(), "confirmed_95": alert_report.interval(self.benign.confirmed, self.benign.n)},
            **{name: getattr(self, name) for name in LISTS},
            "files": dict(self.files), "tcp_connections": self.flows, "packets": self.packets,
            "cpu_seconds": round(self.cpu_s, 2),
        }  # fmt: skip

    def harmless(self) -> dict[str, int]:
        """Files without a tunnel of ours or SoftEther's."""
        return {"n": self.benign.n, "flagged": self.benign.flagged, "confirmed": self.benign.confirmed}

    def text(self) -> str:
        """For people."""
        return alert_report.text(self.details())


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


def fresh(folder: Path, *, quick: bool) -> Iterator[Label]:
    """Captures made now: look-alikes first, then tunnels. Needs root."""
    from bench import alert_fresh
    from lab import look_alikes as harmless

    chosen = harmless.rows(harmless.QUICK) if quick else harmless.TABLE
    made = harmless.record(folder / "look-alikes", seconds=20.0 if quick else harmless.SECONDS, chosen=chosen)
    harmless.write_labels(folder / "look-alikes", made)
    yield from labels(folder / "look-alikes")
    alert_fresh.write_labels(folder / "tunnels", alert_fresh.record(folder / "tunnels", quick))
    yield from labels(folder / "tunnels")


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


def judge_corpus(folder: Path, condition: str = "full") -> Table:
    """Judge every capture of a folder with labels."""
    return judge_all(labels(folder), condition)


def judge_all(captures: Iterable[Label], condition: str = "full") -> Table:
    """Judge them under a condition of `CONDITIONS`; the time is that of judging, not of changing."""
    table, change = Table(), CONDITIONS[condition]
    with tempfile.TemporaryDirectory() as folder:
        for label in captures:
            path, known = label.path, label
            if change is not None:
                try:
                    path = rewritten(path, change, Path(folder))
                    if condition == BLIND:
                        known = label._replace(clients=())
                except (ValueError, OSError, EOFError) as error:
                    table.unreadable.append(f"{label.path.name}: {error}")
                    continue
            begin = time.process_time()
            findings, alert, trouble = judge(path)
            table.cpu_s += time.process_time() - begin
            if path != label.path:
                path.unlink()
            table.packets += alert.packets
            table.flows += alert.flows
            table.files[label.label] += 1
            if trouble:
                table.unreadable.append(trouble)
            enter(table, known, findings)
    return table


def enter(table: Table, label: Label, findings: Sequence[Finding]) -> None:
    """Count the findings of one capture."""
    name = label.path.name
    confirmed = [finding for finding in findings if finding.verdict is Verdict.CONFIRMED]
    told = [
        f"{name}: {finding.verdict.value}, {finding.family.value}, rule {finding.rule}, score {finding.score:.1f}"
        f" ({', '.join(f'{reason.name} {reason.score:+.1f}' for reason in finding.reasons)}), {finding.client}"
        for finding in findings
    ]
    if label.label == IMITATION:
        table.imitations += told if confirmed else []
        return
    if label.label not in POSITIVE:
        table.benign.n += 1
        table.benign.flagged += bool(findings)
        table.benign.confirmed += bool(confirmed)
        table.false_alarms += told if confirmed else []
        table.probable_on_others += told if findings and not confirmed else []
        return
    tally = table.tallies.setdefault((label.transport, label.label), Tally())
    good = [finding for finding in confirmed if finding.family.name.lower() == label.label]
    flagged = [finding for finding in findings if finding.family.name.lower() == label.label and not finding.again]
    tally.n += label.expect
    tally.confirmed += min(len(good), label.expect)
    tally.flagged += min(max(len(flagged), len(good)), label.expect)
    tally.delays += [finding.decided - finding.begin for finding in good]
    if len(good) < label.expect:
        table.missed.append(f"{name}: {len(good)} of {label.expect}" + "".join(f"; {words}" for words in told))
    if len(confirmed) > label.expect:
        table.doubled.append(f"{name}: {len(confirmed)} lines for {label.expect}")
    table.late += [
        f"{name}: {finding.decided - finding.begin:.1f} s by rule {finding.rule}"
        for finding in good
        if finding.decided - finding.begin > LATEST_S
    ]
    for finding in confirmed:
        if finding.outer is not OUTER[label.transport] and not finding.rule.startswith("5"):
            table.wrong_transport.append(f"{name}: {finding.outer.value}")
        if label.clients and (str(finding.client) not in label.clients or str(finding.server) != label.server):
            table.wrong_ends.append(f"{name}: {finding.client} {finding.server}")


def conditions(captures: Sequence[Label], names: Iterable[str]) -> dict[str, Table]:
    """A table for each condition, with progress."""
    found = {}
    for name in names:
        progress(f"judging {len(captures)} captures: {name}")
        found[name] = judge_all(captures, name)
        print(f"\n{name}\n{found[name].text()}", flush=True)
    return found


def ndpi(captures: Sequence[Label]) -> dict[str, Any]:
    """nDPI's names for the same captures; says so if it is not there."""
    if gone := alert_ndpi.missing():
        return {"skipped": f"not installed: {gone}"}
    progress(f"asking ndpiReader about {len(captures)} captures")
    return alert_ndpi.table(
        (
            label.path,
            label.label if label.label in POSITIVE else "",
            label.label == "foreign" or bool(OTHERS_TUNNEL.search(f"{label.path.name} {label.words}")),
        )
        for label in captures
    )


def mutations(*, quick: bool) -> list[dict[str, Any]]:
    """Recall for each change of either family; quick: of SoftEther's alone, whose captures are there."""
    from bench import alert_mutations as changed

    found = []
    with tempfile.TemporaryDirectory() as folder:
        ours = () if quick else changed.own(Path(folder), changed.OWN, changed.SECONDS)
        for result in (*ours, *changed.standard(Path(folder), "")):
            progress(f"changed: {result.family}, {result.change}: {result.confirmed} of {result.sessions}")
            found.append(result._asdict())
    return found


def speed(*, quick: bool) -> dict[str, float]:
    """Million packets a second of each reader; what else there is to say about it goes to standard error."""
    from bench import alert_speed

    found = alert_speed.measure(**({"packets": 300_000, "rounds": 1} if quick else {}))
    progress(f"speed: {found.get('about')}")
    return {name: value for name, value in found.items() if isinstance(value, float | int)}


def progress(line: str) -> None:
    """Onto standard error."""
    print(f"bench alert: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; with --json FILE write them as JSON too. Status 1: a false alarm."""
    parser = argparse.ArgumentParser(prog="bench alert", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path, default=[CORPUS], metavar="FOLDER")
    parser.add_argument("--fresh", action="store_true", help="make captures and judge those, too")
    parser.add_argument("--mutations", action="store_true", help="recall for changed tunnels")
    parser.add_argument("--speed", action="store_true", help="packets a second beside other readers")
    parser.add_argument("--all", action="store_true", help="all of it")
    parser.add_argument("--quick", action="store_true", help="of the parts that take long, the small ones")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where fresh captures stay; a new or empty folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--docs", action="store_true", help="write docs/detection-results.md")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ukihashi-alert-") as temporary:
        captures = [label for folder in options.folders for label in labels(folder)]
        made: list[Label] = []
        if options.fresh or options.all:
            made = list(fresh(options.keep or Path(temporary), quick=options.quick))
            captures += made
        found = conditions(captures, CONDITIONS)
        result: dict[str, Any] = {
            "rows": found["full"].rows(),
            "benign": found["full"].harmless(),
            "mpps": speed(quick=options.quick) if options.speed or options.all else {},
            "conditions": {name: table.details() for name, table in found.items()},
            "mutations": mutations(quick=options.quick) if options.mutations or options.all else [],
            "ndpi": ndpi(captures),
        }
    print(alert_report.extras(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.docs:
        from bench.relay import about

        print(alert_report.write(result, about(), fresh=len(made), folders=[folder.name for folder in options.folders]))
    return int(bool(found["full"].false_alarms))


if __name__ == "__main__":
    sys.exit(main())
