"""The figures of `./run bench relay` as tables, pages and pictures; all of it out of the JSON it writes."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.figures import FIGURES, WITHOUT_TLS, ratio_text, text
from bench.plot import Bar, bars

Row = Mapping[str, Any]
Column = Mapping[str, Row]  # product -> its figures

WIDTH: Final = 120  # of a page's lines
NO_PRODUCTS: Final = ("bbr", "run")  # of the JSON's top level
MARK: Final = "<!-- from here to the next mark: written by ./run bench relay --docs -->"
END: Final = "<!-- end of what ./run bench relay --docs writes -->"
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "A → hub → B": ("relay_mbit", "relay_back_mbit", "relay_4_mbit", "relay_4_back_mbit", "cpu_s_per_gb"),
    "Single tunnel, A → an address of the hub's own machine": (
        "single_mbit", "single_back_mbit", "single_4_mbit", "single_4_back_mbit", "single_cpu_s_per_gb",
    ),
    "Packets a second that arrive, A → hub → B": (
        "kpps_64", "cpu_us_per_packet_64", "kpps_1400", "cpu_us_per_packet_1400",
    ),
    "Ping, A → hub → B": ("idle_p50_ms", "idle_p99_ms", "loaded_p50_ms", "loaded_p99_ms", "loaded_mbit"),
    "A line of 200 Mbit/s, 20 ms and 1 % loss between A and the hub; A → hub → B": (
        "lossy_mbit", "lossy_back_mbit", "lossy_loaded_p50_ms", "lossy_loaded_p99_ms",
    ),
    "Memory (PSS of all processes on the hub's machine) and TLS handshakes there": (
        "hub_mib", "session_mib", "handshake_cpu_ms", "handshakes_per_s",
    ),
    "Two busy sessions among many idle ones": ("crowd_mbit", "crowd_keep_ratio"),
    "Ours with TLS, and with TLS taken out behind its handshake": (
        "tls_relay_mbit", "tls_relay_cpu_s_per_gb", "tls_single_mbit", "tls_single_cpu_s_per_gb",
    ),
}  # fmt: skip
COMPARED: Final = (
    "relay_mbit", "cpu_s_per_gb", "single_mbit", "single_cpu_s_per_gb", "kpps_64", "loaded_p99_ms", "loaded_mbit",
    "lossy_mbit",
)  # fmt: skip
NAMED: Final[dict[str, str]] = {  # where a column's title needs its section
    "relay_mbit": "A → B",
    "cpu_s_per_gb": "its CPU s/GB",
    "single_mbit": "A → H",
    "single_cpu_s_per_gb": "its CPU s/GB",
    "kpps_64": "64-byte packets",
    "loaded_p99_ms": "ping p99 beside a stream",
    "loaded_mbit": "that stream",
    "lossy_mbit": "slow line",
}
PICTURES: Final[dict[str, tuple[str, tuple[tuple[str, str, str], ...]]]] = {
    # file -> title, (name of the series, congestion control, figure)
    "bench-throughput": ("Mbit/s, one stream", (("A → hub → B", "", "relay_mbit"), ("A → hub", "", "single_mbit"))),
    "bench-cpu": (
        "CPU seconds for each GB (less is better)",
        (("A → hub → B", "", "cpu_s_per_gb"), ("A → hub", "", "single_cpu_s_per_gb")),
    ),
    "bench-packets": (
        "Thousand packets a second, A → hub → B",
        (("64 B", "", "kpps_64"), ("1,400 B", "", "kpps_1400")),
    ),
    "bench-latency": (
        "Ping beside a stream, ms (less is better)",
        (("median", "", "loaded_p50_ms"), ("p99", "", "loaded_p99_ms")),
    ),
    "bench-lossy": (
        "Mbit/s over 200 Mbit/s, 20 ms, 1 % loss",
        (("hosts on cubic", "", "lossy_mbit"), ("hosts on bbr", "bbr", "lossy_mbit")),
    ),
}


class Sheet(NamedTuple):
    """A table."""

    title: str
    head: list[str]
    rows: list[list[str]]


def sheets(result: Mapping[str, Any]) -> list[Sheet]:
    """All tables that there are figures for."""
    found = [sheet for control, column in columns(result) for sheet in _sections(control, column)]
    return [*found, *(sheet for control, column in columns(result) if (sheet := _ratios(control, column)).rows)]


def columns(result: Mapping[str, Any]) -> list[tuple[str, Column]]:
    """Congestion control of the hosts, and the products measured with it."""
    first = {name: row for name, row in result.items() if name not in NO_PRODUCTS}
    found: list[tuple[str, Column]] = [(result["run"]["control"][0], first)]
    return [*found, ("bbr", result["bbr"])] if "bbr" in result else found


def _sections(control: str, column: Column) -> list[Sheet]:
    found = []
    for title, figures in SECTIONS.items():
        there = [figure for figure in figures if any(figure in row for row in column.values())]
        rows = [
            [row["title"], *(text(row, figure) for figure in there)]
            for row in column.values()
            if any(figure in row for figure in there)
        ]
        if rows:
            found.append(Sheet(f"{title} (hosts on {control})", ["", *(FIGURES[name].title for name in there)], rows))
    return found


def _ratios(control: str, column: Column) -> Sheet:
    there = [figure for figure in COMPARED if any(ratio_text(row, figure) for row in column.values())]
    rows = [
        [f"to {row['title']}", *(ratio_text(row, figure) for figure in there)]
        for name, row in column.items()
        if name not in ("ours", WITHOUT_TLS) and any(ratio_text(row, figure) for figure in there)
    ]
    return Sheet(f"Ours to each, round by round (hosts on {control})", ["", *(NAMED[name] for name in there)], rows)


def show(result: Mapping[str, Any], console: Console) -> None:
    """For a terminal."""
    for sheet in sheets(result):
        table = Table(title=escape(sheet.title))
        for number, title in enumerate(sheet.head):
            table.add_column(escape(title), justify="right" if number else "left")
        for row in sheet.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for line in remarks(result):
        console.print(line, highlight=False, markup=False)


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What has to be said beside the figures."""
    run, said = result["run"], []
    keeps = [result["ours"].get(name) for name in ("tls_keep_ratio", "tls_keep_ratio_single")]
    if all(keeps):
        said.append(f"TLS keeps {keeps[0]:.0%} of the speed A → hub → B and {keeps[1]:.0%} of a single tunnel's.")
    for name, row in result.items():
        if name not in NO_PRODUCTS and (setting := row.get("setting")):
            used = {value: [figure for figure in setting if setting[figure] == value] for value in setting.values()}
            said += [f"{value} counts for: {', '.join(figures)}." for value, figures in used.items()]
    if stolen := run["repeated_for_steal"]:
        worst = max(stolen)
        said.append(
            f"{len(stolen)} measurements repeated: the host took more than 10 % of the CPU ({worst:.0%} at worst)."
        )
    else:
        said.append("No measurement had to be repeated because the host took CPU away.")
    said += [f"Not measured: {name}, which needs the Debian package {gone}." for name, gone in run["missing"].items()]
    return [*said, *(f"Failed: {what}." for what in run["failed"])]


# -- for docs ------------------------------------------------------------------------------------------------------


def write_docs(result: Mapping[str, Any], folder: Path) -> None:
    """The part of benchmarks.md between the marks, and its pictures."""
    page = folder / "benchmarks.md"
    made = pictures(result)
    for name, svg in made.items():
        (folder / f"{name}.svg").write_text(svg)
    page.write_text(replaced(page.read_text(), markdown(result, list(made))))


def replaced(page: str, part: str) -> str:
    """The page with another part between the marks. Raises: ValueError: it has none."""
    if MARK not in page or END not in page:
        raise ValueError("the page has no place for it")
    return re.sub(f"{re.escape(MARK)}.*?{re.escape(END)}", lambda _: f"{MARK}\n{part}\n{END}", page, flags=re.DOTALL)


def markdown(result: Mapping[str, Any], names: Sequence[str]) -> str:
    """The part of the page."""
    run = result["run"]
    how = f"{run['rounds']} rounds, in each of them ours, a peer, ours, the next peer; streams of {run['seconds']:g} s"
    when = f"{run['date']}, commit {run['commit']}, {run['machine']}."
    about = textwrap.fill(f"{when} `./run bench relay`: {how}; median (least..most).", WIDTH)
    lines = ["## Beside every peer", "", about, ""]
    for name in names:
        lines += [f"![{PICTURES[name][0]}]({name}.svg)", ""]
    for sheet in sheets(result):
        lines += [f"### {sheet.title}", "", _line(sheet.head), _line(["---"] * len(sheet.head))]
        lines += [*map(_line, sheet.rows), ""]
    said = (textwrap.fill(f"- {remark}", WIDTH, subsequent_indent="  ") for remark in remarks(result))
    return "\n".join([*lines, *said])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def pictures(result: Mapping[str, Any]) -> dict[str, str]:
    """Those that there are figures for, by their files' names. Without plain cables, which would dwarf the others."""
    found, there = {}, dict(columns(result))
    first = next(iter(there))
    for name, (title, series) in PICTURES.items():
        rows = []
        for product, about in there[first].items():
            group = [_bar(there.get(control or first, {}).get(product, {}), figure) for _, control, figure in series]
            if any(group) and (product != "veth" or name == "bench-lossy"):
                rows.append((about["title"], group))
        if rows:
            found[name] = bars(title, [one for one, _, _ in series], rows, digits=FIGURES[series[0][2]].digits)
    return found


def _bar(row: Row, figure: str) -> Bar | None:
    rounds = row.get(f"{figure}_rounds")
    return Bar(row[figure], min(rounds), max(rounds)) if rounds else None
