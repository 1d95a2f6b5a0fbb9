"""Rounds of one run: ours, a peer, ours, the next peer, ..., each round beginning with another peer.

Two runs at different times on a shared machine can't be compared, and two halves of one run hardly; so each peer is
measured right behind ours, and what counts is the ratio of the two, round by round. What was disturbed is repeated.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from rich.progress import Progress

from bench.machine import Watch
from bench.products import Product
from lab.net import LabError
from lab.wait import TimeOver

STEAL_LIMIT: Final = 0.10  # share of the CPU that the hypervisor gave to others; above it a measurement is disturbed
REPEATS: Final = 3  # of one measurement, for being disturbed
GIVE_UP: Final = 2  # failures of a product, then the measurement goes on without it

Figures = Mapping[str, float]


class Measure(NamedTuple):
    """Something that is measured in each round."""

    what: str  # for who watches
    take: Callable[[Product], Figures]


class Book:
    """All figures of a run."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}  # product -> figure -> round by round
        self.ratios: dict[str, dict[str, list[float]]] = {}  # product -> figure -> ours divided by its own
        self.stolen: list[float] = []  # share of the CPU, of each measurement that was repeated for it
        self.failed: list[str] = []  # what could not be measured

    def note(self, name: str, figures: Figures) -> None:
        """What was found of a product."""
        for figure, value in figures.items():
            self.values.setdefault(name, {}).setdefault(figure, []).append(value)

    def compare(self, name: str, ours: Figures, theirs: Figures) -> None:
        """What was found of a product right behind ours."""
        for figure in ours.keys() & theirs.keys():
            if theirs[figure]:
                self.ratios.setdefault(name, {}).setdefault(figure, []).append(ours[figure] / theirs[figure])


def order(others: Sequence[Product], turn: int) -> list[Product]:
    """The others of a round: peers, of whom nobody is always first, then what is only there for reference."""
    peers = [other for other in others if not other.reference]
    shift = turn % len(peers) if peers else 0
    return [*peers[shift:], *peers[:shift], *(other for other in others if other.reference)]


def run_rounds(
    products: Sequence[Product],
    measures: Sequence[Measure],
    rounds: int,
    book: Book,
    progress: Progress,
    *,
    paired: bool = True,
) -> None:
    """Measure the first product (ours) and each other one in turn, and enter it into the book.

    `paired`: each peer right behind ours; else ours has one turn a round, as all have.
    """
    ours, *others = products
    times = max(1, sum(paired and not other.reference for other in others)) + len(others)
    task = progress.add_task("", total=rounds * len(measures) * times)
    failures: dict[str, int] = {}

    def one(product: Product, turn: int, measure: Measure) -> Figures:
        progress.update(task, description=f"{measure.what}, round {turn + 1}: {product.title}")
        try:
            return {} if failures.get(product.name, 0) >= GIVE_UP else _undisturbed(measure, product, book)
        except (LabError, TimeOver, subprocess.TimeoutExpired) as error:
            failures[product.name] = failures.get(product.name, 0) + 1
            book.failed.append(f"{measure.what}: {product.title}: {str(error).splitlines()[0]}")
            return {}
        finally:
            progress.advance(task)

    for turn in range(rounds):
        for measure in measures:
            found = one(ours, turn, measure)
            book.note(ours.name, found)
            for number, other in enumerate(order(others, turn)):
                if paired and number and not other.reference:
                    found = one(ours, turn, measure)
                    book.note(ours.name, found)
                theirs = one(other, turn, measure)
                book.note(other.name, theirs)
                book.compare(other.name, found, theirs)
    progress.remove_task(task)


def _undisturbed(measure: Measure, product: Product, book: Book) -> Figures:
    """The last try counts, whatever happened to it."""
    left = REPEATS
    while True:
        watch = Watch({})
        figures = measure.take(product)
        steal = watch.stop().steal
        if steal <= STEAL_LIMIT or not left:
            return figures
        book.stolen.append(steal)
        left -= 1
