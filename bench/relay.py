"""`./run bench relay`: what passes from A through the hub to B, ours beside plain cables and every peer installed.

    a ---- h ---- b      a card on A, the hub on H, a card on B; H does not forward by itself

Parts: relay (A to B), single (A to H's own address), packets, latency, memory, handshakes, crowd (ours among a thousand
idle sessions), lossy (a slow line between A and H), tls (ours with and without). What is done: bench/rounds.py and
bench/parts.py; to what: bench/products.py.
"""

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.figures import WITHOUT_TLS, column
from bench.parts import FULL, LINE, PARTS, QUICK, Extent
from bench.products import KINDS, PEERS, Place, Product, kinds_of, ours, processor
from bench.report import show, write_docs
from bench.rounds import Book, run_rounds
from lab.net import LabError, Net, run
from lab.wait import TimeOver
from ukihashi.net.tls import client_context, tls_library

ROOT: Final = Path(__file__).resolve().parent.parent
CONTROLS: Final = ("cubic", "bbr")
OWN_CONTROL: Final = "bbr"  # the option that is recommended for slow lines (docs/performance.md)
QUICK_PARTS: Final = ("relay", "single", "packets", "latency")
QUICK_KINDS: Final = ("ours", "veth", "softether-1")


def main(argv: Sequence[str]) -> int:
    """Run the bench. 0 done, 1 something could not be measured, 2 wrong words."""
    words = _words(argv)
    console = Console(stderr=True)
    if words.old:
        result = json.loads(words.old.read_text())
    else:
        try:
            result = _measure(words, console)
        except (LabError, TimeOver, subprocess.TimeoutExpired) as error:
            console.print(f"could not be measured: {error}{_kept(words)}", style="red", markup=False)
            return 1
        except KeyboardInterrupt:
            console.print(f"stopped; everything is cleaned up{_kept(words)}", style="red", markup=False)
            return 130
    show(result, Console())
    if words.docs:
        write_docs(result, ROOT / "docs")
    return 1 if result["run"]["failed"] else 0


def _kept(words: argparse.Namespace) -> str:
    return f"; the parts that are done are in {words.json}" if words.json and words.json.exists() else ""


def _words(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench relay", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less than a minute: SoftEther alone, short, few parts")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, after each part")
    parser.add_argument("--only", metavar="NAMES", help=f"peers, of {','.join(PEERS)}; veth and ours always are there")
    parser.add_argument("--parts", metavar="NAMES", help=f"of {','.join(PARTS)}")
    parser.add_argument("--control", metavar="NAMES", help="TCP congestion control of all hosts [cubic,bbr]")
    parser.add_argument("--rounds", type=int, help=f"of each part [{FULL.rounds}]")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its pictures")
    parser.add_argument("--from", dest="old", metavar="FILE", type=Path, help="measure nothing, tell what FILE holds")
    words = parser.parse_args(argv)

    def chosen(name: str, usual: Sequence[str], known: Sequence[str]) -> list[str]:
        given = getattr(words, name)
        names = list(usual) if given is None else [part for part in given.split(",") if part]
        if unknown := sorted(set(names) - set(known)):
            parser.error(f"--{name}: unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    words.kinds = ["ours", "veth", *kinds_of(chosen("only", PEERS, PEERS))]
    if words.quick and words.only is None:
        words.kinds = list(QUICK_KINDS)
    words.parts = chosen("parts", QUICK_PARTS if words.quick else tuple(PARTS), tuple(PARTS))
    words.control = chosen("control", CONTROLS[:1] if words.quick else CONTROLS, CONTROLS)
    return words


# -- measuring -----------------------------------------------------------------------------------------------------


def _measure(words: argparse.Namespace, console: Console) -> dict[str, Any]:
    extent = QUICK if words.quick else FULL
    extent = extent._replace(rounds=words.rounds or extent.rounds)
    missing = {kind: gone for kind in words.kinds if (gone := KINDS[kind].missing())}
    for kind, gone in missing.items():
        console.print(f"{kind} is not measured: missing Debian package {gone}", style="yellow", markup=False)
    kinds = [kind for kind in words.kinds if kind not in missing]
    books: dict[str, Book] = {}
    titles: dict[str, str] = {}
    if words.json:
        words.json.unlink(missing_ok=True)

    def found() -> dict[str, Any]:
        result = _figures(books, titles)
        result["run"] |= {"parts": words.parts, "rounds": extent.rounds, "seconds": extent.long_s, "missing": missing}
        if words.json:
            words.json.write_text(json.dumps(result, indent=1) + "\n")
        return result

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    for control in words.control:
        books[control] = Book()
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            for starts, names in _stages(kinds, words.parts, control, first=control == words.control[0]):
                _stage(starts, names, control, extent, books[control], titles, progress, found)
    return found()


def _figures(books: Mapping[str, Book], titles: Mapping[str, str]) -> dict[str, Any]:
    """What the books hold; the first one's figures stand at the top."""
    result: dict[str, Any] = {}
    for control, book in books.items():
        rows = {name: {"title": titles.get(name, name), **row} for name, row in column(book).items()}
        for row in rows.values():
            row["title"] = titles.get(next(iter(row.get("setting", {}).values()), ""), row["title"])
        result |= {control: rows} if result else rows
    result["run"] = {
        **about(),
        "control": list(books),
        "line": {**LINE._asdict(), "each_way": True},
        "repeated_for_steal": [round(share, 3) for book in books.values() for share in book.stolen],
        "failed": [f"{control}: {what}" for control, book in books.items() for what in book.failed],
    }
    return result


Start = tuple[str, Callable[[Net], Product]]


def _stages(
    kinds: Sequence[str], parts: Sequence[str], control: str, *, first: bool
) -> list[tuple[list[Start], list[str]]]:
    """Products that are up at the same time, and the parts measured with them."""
    parts = [part for part in parts if first or PARTS[part].twice]

    def at(kind: str, *, slow: bool = False) -> Start:
        def start(net: Net) -> Product:
            place = Place(net, control, LINE if slow else None)
            if slow and kind == "ours" and control != OWN_CONTROL:
                return ours(place, congestion=OWN_CONTROL)
            return KINDS[kind].start(place)

        return kind, start

    stages: list[tuple[list[Start], list[str]]] = []
    if usual := [part for part in parts if part not in ("lossy", "tls")]:
        stages.append(([at(kind) for kind in kinds], usual))
    if "lossy" in parts:
        stages.append(([at(kind, slow=True) for kind in kinds], ["lossy"]))
    if "tls" in parts:
        stages.append(([at("ours"), (WITHOUT_TLS, lambda net: ours(Place(net, control), tls=False))], ["tls"]))
    return stages


def _stage(
    starts: Sequence[Start],
    parts: Sequence[str],
    control: str,
    extent: Extent,
    book: Book,
    titles: dict[str, str],
    progress: Progress,
    done: Callable[[], object],
) -> None:
    """`done` is called after each part."""
    with Net() as net:
        products: list[Product] = []
        task = progress.add_task("starting", total=len(starts))
        for name, start in starts:
            try:
                product = start(net)
                product.settle()
            except (LabError, TimeOver, subprocess.TimeoutExpired) as error:
                if not products:  # ours
                    raise
                book.failed.append(f"{name} did not start: {str(error).splitlines()[0]}")
                continue
            titles.setdefault(product.name, product.title)
            products.append(product)
            progress.update(task, advance=1, description=f"started {product.title}")
        progress.remove_task(task)
        for part in (PARTS[chosen] for chosen in parts):
            measures, rounds = part.measures(extent, control), part.rounds(extent.rounds)
            run_rounds(products, measures, rounds, book, progress, paired=part.paired)
            done()


def about() -> dict[str, str]:
    """Of what machine and what state of the source the figures are."""
    commit = run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], check=False).strip()
    changed = run(["git", "-C", str(ROOT), "status", "--porcelain", "src"], check=False).strip()
    machine = (
        f"{os.cpu_count()} processors ({processor()}), Linux {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, {tls_library(client_context())}"
    )
    now = dt.datetime.now(dt.UTC)
    return {"date": f"{now:%Y-%m-%d}", "commit": commit + (" and changes" if changed else ""), "machine": machine}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
