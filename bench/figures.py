"""What `./run bench relay` finds, by the names it has in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.machine import Median
from bench.products import SETTINGS
from bench.rounds import Book


class Figure(NamedTuple):
    """One of them."""

    title: str  # of a column
    digits: int
    less: bool = False  # is better


FIGURES: Final[dict[str, Figure]] = {
    "relay_mbit": Figure("A to B, Mbit/s", 0),
    "relay_back_mbit": Figure("B to A", 0),
    "relay_4_mbit": Figure("4 streams", 0),
    "relay_4_back_mbit": Figure("4 streams back", 0),
    "cpu_s_per_gb": Figure("CPU s/GB, A + H + B", 2, less=True),
    "card_kib_per_write": Figure("KiB in a TLS write, card A", 1),
    "hub_kib_per_write": Figure("hub to B", 1),
    "single_mbit": Figure("A to H, Mbit/s", 0),
    "single_back_mbit": Figure("H to A", 0),
    "single_4_mbit": Figure("4 streams", 0),
    "single_4_back_mbit": Figure("4 streams back", 0),
    "single_cpu_s_per_gb": Figure("CPU s/GB, A + H", 2, less=True),
    "kpps_64": Figure("64 B, thousand/s", 1),
    "cpu_us_per_packet_64": Figure("CPU µs each", 1, less=True),
    "kpps_1400": Figure("1,400 B, thousand/s", 1),
    "cpu_us_per_packet_1400": Figure("CPU µs each", 1, less=True),
    "idle_p50_ms": Figure("idle ping, ms", 2, less=True),
    "idle_p99_ms": Figure("p99", 2, less=True),
    "loaded_p50_ms": Figure("beside a stream", 2, less=True),
    "loaded_p99_ms": Figure("p99", 2, less=True),
    "loaded_mbit": Figure("and its Mbit/s", 0),
    "lossy_mbit": Figure("A to B, Mbit/s", 1),
    "lossy_back_mbit": Figure("B to A", 1),
    "lossy_loaded_p50_ms": Figure("ping beside A to B, ms", 1, less=True),
    "lossy_loaded_p99_ms": Figure("p99", 1, less=True),
    "hub_mib": Figure("H with two members, MiB", 1, less=True),
    "session_mib": Figure("each further session", 2, less=True),
    "handshake_cpu_ms": Figure("CPU ms each", 2, less=True),
    "handshakes_per_s": Figure("a second", 0),
    "crowd_mbit": Figure("A to B among them, Mbit/s", 0),
    "crowd_keep_ratio": Figure("share of the speed without them", 2),
    "tls_relay_mbit": Figure("A to B, Mbit/s", 0),
    "tls_relay_cpu_s_per_gb": Figure("CPU s/GB", 2, less=True),
    "tls_single_mbit": Figure("A to H, Mbit/s", 0),
    "tls_single_cpu_s_per_gb": Figure("CPU s/GB", 2, less=True),
}
WITHOUT_TLS: Final = "ours-without-tls"
KEEPS: Final = {"tls_keep_ratio": "tls_relay_mbit", "tls_keep_ratio_single": "tls_single_mbit"}


def column(book: Book) -> dict[str, Any]:
    """All products of a book, each with the median of every figure, its rounds, and the ratios of ours to it.

    Of a product with several settings the best counts, figure by figure, and it is said which that was.
    """
    found: dict[str, dict[str, Any]] = {}
    of = {setting: product for product, settings in SETTINGS.items() for setting in settings}
    for name in dict.fromkeys(of.get(name, name) for name in book.values):
        row = found[name] = {}
        for figure, about in FIGURES.items():
            if setting := best(book, SETTINGS.get(name, (name,)), figure):
                row |= _told(figure, book.values[setting][figure], about.digits)
                if ratios := book.ratios.get(setting, {}).get(figure):
                    row.setdefault("ours_to_it", {})[figure] = ratio(ratios)
                if name in SETTINGS:
                    row.setdefault("setting", {})[figure] = setting
    for field, figure in KEEPS.items():
        if ratios := book.ratios.get(WITHOUT_TLS, {}).get(figure):
            found["ours"] |= _told(field, ratios, 3)
    return found


def best(book: Book, settings: Sequence[str], figure: str) -> str:
    """The setting with the best median of that figure; "" if none has it."""
    medians = {
        setting: Median(values[figure]).middle
        for setting in settings
        if figure in (values := book.values.get(setting, {}))
    }
    choose = min if FIGURES[figure].less else max
    return choose(medians, key=lambda setting: medians[setting]) if medians else ""


def ratio(values: Sequence[float]) -> dict[str, Any]:
    """A ratio's median and spread."""
    middle = Median(values)
    return {
        "median": round(middle.middle, 3),
        "least": round(middle.values[0], 3),
        "most": round(middle.values[-1], 3),
        "rounds": [round(value, 3) for value in values],
    }


def _told(figure: str, values: Sequence[float], digits: int) -> dict[str, Any]:
    most = max(digits, 1)
    return {
        figure: round(Median(values).middle, most),
        f"{figure}_rounds": [round(value, most) for value in values],
    }


def text(row: Mapping[str, Any], figure: str, *, spread: bool = True) -> str:
    """`1,234 (1,100..1,300)`; "" if it was not measured."""
    rounds = row.get(f"{figure}_rounds")
    if not rounds:
        return ""
    digits = FIGURES[figure].digits if figure in FIGURES else 2
    return Median(rounds).text(digits) if spread and len(rounds) > 1 else f"{row[figure]:,.{digits}f}"


def ratio_text(row: Mapping[str, Any], figure: str) -> str:
    """`2.50 (2.31..2.77)`, ours to this product's; "" if there is none."""
    found = row.get("ours_to_it", {}).get(figure)
    return f"{found['median']:.2f} ({found['least']:.2f}..{found['most']:.2f})" if found else ""
