"""How `./run bench alert` shows what it found: intervals, tables, the page of the documentation."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "detection-results.md"
METHOD: Final = (
    "Judged are the labelled captures of {folders}{fresh}. Intervals are Wilson's, 95 %. *Flagged* is PROBABLE or"
    " CONFIRMED; a log line is CONFIRMED. Delay: from the begin of the connection to the verdict."
)
WRITTEN: Final = "Written by `./run bench alert --docs`: {date}, commit {commit}, {machine}."
FRESH: Final = " and {} fresh ones, made for this run by real programs in network namespaces"
Z: Final = 1.959964  # of a two-sided interval of 95 %


def interval(found: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, each 0..1, to four digits; (0, 1) if there is nothing to count.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if of <= 0:
        return 0.0, 1.0
    share, weight = found / of, Z * Z / of
    middle = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    return (
        0.0 if found == 0 else round(max(0.0, middle - half), 4),
        1.0 if found == of else round(min(1.0, middle + half), 4),
    )


def median(values: Sequence[float]) -> float | None:
    """To two digits; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2, 2)


def worst(values: Sequence[float]) -> float | None:
    """The largest, to two digits; None of nothing."""
    return round(max(values), 2) if values else None


def percent(share: tuple[float, float]) -> str:
    """An interval for people."""
    return f"{100 * share[0]:.1f}–{100 * share[1]:.1f} %"


def seconds(value: float | None) -> str:
    """A delay for people."""
    return "–" if value is None else f"{value:.1f} s"


def text(details: Mapping[str, Any]) -> str:
    """One condition, for a terminal."""
    lines = [f"{'kind':<11} {'family':<10} {'n':>4} {'flagged':>8} {'confirmed':>10}   95 % of them    median   worst"]
    lines += [
        f"{row['kind']:<11} {row['family']:<10} {row['n']:>4} {row['flagged']:>8} {row['confirmed']:>10}"
        f"   {percent(row['confirmed_95']):<15} {seconds(row['delay_s']):>7} {seconds(row['delay_worst_s']):>7}"
        for row in details["rows"]
    ]
    total = {name: sum(row[name] for row in details["rows"]) for name in ("n", "flagged", "confirmed")}
    lines.append(
        f"{'all':<22} {total['n']:>4} {total['flagged']:>8} {total['confirmed']:>10}"
        f"   {percent(interval(total['confirmed'], total['n']))}"
    )
    benign = details["benign"]
    lines.append(
        f"{'no tunnel (captures)':<22} {benign['n']:>4} {benign['flagged']:>8} {benign['confirmed']:>10}"
        f"   {percent(benign['confirmed_95'])}"
    )
    lines.append(f"files: {', '.join(f'{count} {label}' for label, count in sorted(details['files'].items()))}")
    rate = details["packets"] / details["cpu_seconds"] / 1e6 if details["cpu_seconds"] else 0.0
    lines.append(
        f"{details['packets']} packets, {details['tcp_connections']} TCP connections, {rate:.3f} M packets/s of CPU,"
        " reading many small files"
    )
    for name, values in details.items():
        if isinstance(values, list) and name != "rows":
            lines.append(f"{name.replace('_', ' ')}: {len(values)}" + "".join(f"\n    {value}" for value in values))
    return "\n".join(lines)


def extras(result: Mapping[str, Any]) -> str:
    """nDPI, speed and mutations, for a terminal."""
    lines = ["", "nDPI (ndpiReader)"]
    said = result["ndpi"]
    if "skipped" in said:
        lines.append(f"    {said['skipped']}")
    else:
        lines[-1] += f" {said['version']}, of captures"
        for family, row in sorted(said["families"].items()):
            lines.append(f"    {family}: {row['n']}, named a VPN {row['vpn']}, SoftEther {row['softether']}")
        row = said["benign"]
        lines.append(
            f"    no tunnel of these: {row['n']}, named a VPN {row['vpn']}, SoftEther {row['softether']}, wrongly"
            f" {len(row['wrongly'])}" + "".join(f"\n        {value}" for value in row["wrongly"])
        )
    for name in ("mpps", "mutations"):
        if result[name]:
            lines += [{"mpps": "million packets a second", "mutations": "mutations"}[name], *_shown(result[name])]
    return "\n".join(lines)


def _shown(value: Any, depth: int = 1) -> list[str]:
    """Whatever another part of the bench measured, a line a figure."""
    pad = "    " * depth
    if isinstance(value, Mapping):
        found = []
        for name, inner in value.items():
            if isinstance(inner, Mapping | list | tuple) and inner:
                found += [f"{pad}{name}", *_shown(inner, depth + 1)]
            else:
                found.append(f"{pad}{name}: {inner:.3g}" if isinstance(inner, float) else f"{pad}{name}: {inner}")
        return found
    if isinstance(value, list | tuple):
        return [line for inner in value for line in ([f"{pad}{inner}"] if not isinstance(inner, Mapping) else [
            pad + ", ".join(f"{name} {part}" for name, part in inner.items())])]  # fmt: skip
    return [f"{pad}{value}"]


def page(result: Mapping[str, Any], when: Mapping[str, str], *, fresh: int, folders: Sequence[str]) -> str:
    """The page of the documentation, Markdown."""
    lines = [
        "# What the detector finds, measured", "",
        *textwrap.wrap(WRITTEN.format(**when), 120), "",
        *textwrap.wrap(METHOD.format(folders=", ".join(folders), fresh=FRESH.format(fresh) if fresh else ""), 120),
    ]  # fmt: skip
    for name, table in result["conditions"].items():
        lines += ["", f"## {_title(name)}", "", *_markdown(table)]
    said = result["ndpi"]
    if "skipped" not in said:
        lines += ["", f"## nDPI {said['version']}", "", "| captures | n | named a VPN | named SoftEther | wrongly |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for family, row in sorted(said["families"].items()):
            lines.append(f"| {family} | {row['n']} | {row['vpn']} | {row['softether']} | |")
        row = said["benign"]
        lines.append(f"| neither | {row['n']} | {row['vpn']} | {row['softether']} | {len(row['wrongly'])} |")
        lines += ["", "*Wrongly* leaves out captures that do hold somebody else's tunnel."]
    if result["mpps"]:
        lines += ["", "## Million packets a second", "", "```", *(line[4:] for line in _shown(result["mpps"])), "```"]
    if result["mutations"]:
        lines += ["", "## Changed builds", "", *_grid(result["mutations"])]
    return "\n".join(lines) + "\n"


def _grid(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return lines + [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]


def _title(name: str) -> str:
    return {
        "full": "Whole captures",
        "5 % loss": "5 % of the packets lost",
        "client to server": "Only what clients send",
        "server to client": "Only what servers send",
        "begin not seen": "The first 15 s not captured",
        "other bytes and ports": "Other bytes in place of all that is encrypted, other ports",
    }.get(name, name)


def _markdown(table: Mapping[str, Any]) -> list[str]:
    lines = ["| kind | family | n | flagged | confirmed | interval | median delay | worst |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    lines += [
        f"| {row['kind']} | {row['family']} | {row['n']} | {row['flagged']} | {row['confirmed']}"
        f" | {percent(row['confirmed_95'])} | {seconds(row['delay_s'])} | {seconds(row['delay_worst_s'])} |"
        for row in table["rows"]
    ]
    benign = table["benign"]
    lines.append(
        f"| no tunnel | (captures) | {benign['n']} | {benign['flagged']} | {benign['confirmed']}"
        f" | {percent(benign['confirmed_95'])} | | |"
    )
    return lines


def write(result: Mapping[str, Any], when: Mapping[str, str], *, fresh: int, folders: Sequence[str]) -> Path:
    """Write the page; where it is."""
    PAGE.write_text(page(result, when, fresh=fresh, folders=folders), encoding="utf-8")
    return PAGE
