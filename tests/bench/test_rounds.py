"""Rounds: who is measured when, what is compared with what, and what happens when something goes wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.progress import Progress

from bench import rounds
from bench.figures import FIGURES, best, column, ratio, ratio_text, text
from bench.machine import Usage
from bench.products import Product
from bench.rounds import Book, Figures, Measure, order, run_rounds
from lab.net import LabError


def product(name: str) -> Product:
    return Product(name, name.upper(), {}, "", "")


OURS, ONE, TWO = product("ours"), product("one"), product("two")


@pytest.fixture(autouse=True)
def steal(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Shares of the CPU that will be stolen, one for each measurement; then none."""
    stolen: list[float] = []

    class Watch:
        def __init__(self, groups: object) -> None:
            pass

        def stop(self) -> Usage:
            return Usage({}, stolen.pop(0) if stolen else 0.0, 1.0)

    monkeypatch.setattr(rounds, "Watch", Watch)
    return stolen


def measured(take: Callable[[Product], Figures], products: list[Product], count: int = 1) -> Book:
    book = Book()
    with Progress(disable=True) as progress:
        run_rounds(products, [Measure("it", take)], count, book, progress)
    return book


def test_each_peer_is_measured_right_behind_ours_and_nobody_is_always_first() -> None:
    seen: list[str] = []

    def take(what: Product) -> Figures:
        seen.append(what.name)
        return {"relay_mbit": float(len(seen))}

    book = measured(take, [OURS, ONE, TWO], 2)
    assert seen == ["ours", "one", "ours", "two", "ours", "two", "ours", "one"]
    assert book.values["ours"]["relay_mbit"] == [1.0, 3.0, 5.0, 7.0]
    assert book.values["two"]["relay_mbit"] == [4.0, 6.0]
    assert book.ratios["one"]["relay_mbit"] == [1 / 2, 7 / 8]
    assert order([], 3) == []


def test_what_is_no_peer_has_its_turn_once_at_the_end_of_each_round() -> None:
    seen: list[str] = []

    def take(what: Product) -> Figures:
        seen.append(what.name)
        return {"relay_mbit": float(len(seen))}

    cables = replace(product("veth"), reference=True)
    book = measured(take, [OURS, cables, ONE, TWO], 2)
    assert seen[:5] == ["ours", "one", "ours", "two", "veth"]
    assert seen[5:] == ["ours", "two", "ours", "one", "veth"]
    assert book.ratios["veth"]["relay_mbit"] == [3 / 5, 8 / 10]
    seen.clear()
    measured(take, [OURS, cables], 2)
    assert seen == ["ours", "veth"] * 2


def test_where_pairs_do_not_matter_each_has_one_turn_a_round() -> None:
    seen: list[str] = []

    def take(what: Product) -> Figures:
        seen.append(what.name)
        return {}

    with Progress(disable=True) as progress:
        run_rounds([OURS, ONE, TWO], [Measure("it", take)], 1, Book(), progress, paired=False)
    assert seen == ["ours", "one", "two"]


def test_ours_alone_is_measured_once_a_round() -> None:
    assert measured(lambda _: {"relay_mbit": 1.0}, [OURS], 3).values == {"ours": {"relay_mbit": [1.0] * 3}}


def test_a_disturbed_measurement_is_repeated_and_the_stolen_share_is_kept(steal: list[float]) -> None:
    steal += [0.11, 0.3, 0.1]
    taken: list[str] = []

    def take(what: Product) -> Figures:
        taken.append(what.name)
        return {"relay_mbit": float(len(taken))}

    book = measured(take, [OURS])
    assert book.stolen == [0.11, 0.3]
    assert book.values["ours"]["relay_mbit"] == [3.0]


def test_what_is_always_disturbed_counts_in_the_end(steal: list[float]) -> None:
    steal += [0.5] * 10
    book = measured(lambda _: {"relay_mbit": 1.0}, [OURS])
    assert len(book.stolen) == rounds.REPEATS
    assert book.values["ours"]["relay_mbit"] == [1.0]


def test_who_fails_again_and_again_is_left_out_and_the_others_go_on() -> None:
    tries: list[str] = []

    def take(what: Product) -> Figures:
        tries.append(what.name)
        if what is ONE:
            raise LabError("the line is dead\nand more")
        return {"relay_mbit": 2.0}

    book = measured(take, [OURS, ONE, TWO], 4)
    assert tries.count("one") == rounds.GIVE_UP
    assert book.failed == ["it: ONE: the line is dead"] * rounds.GIVE_UP
    assert "one" not in book.ratios
    assert book.ratios["two"]["relay_mbit"] == [1.0] * 4


def test_a_product_that_has_no_such_figure_is_not_compared_in_it() -> None:
    book = measured(lambda what: {} if what is ONE else {"hub_mib": 3.0}, [OURS, ONE])
    assert book.ratios == {}
    assert column(book) == {"ours": {"hub_mib": 3.0, "hub_mib_rounds": [3.0]}}


def test_of_several_settings_the_best_counts_figure_by_figure_with_its_own_ratios() -> None:
    book = Book()
    book.note("ours", {"relay_mbit": 1000.0, "cpu_s_per_gb": 2.0})
    for name, mbit, cpu in (("softether-1", 400.0, 9.0), ("softether-8", 500.0, 10.0)):
        book.note(name, {"relay_mbit": mbit, "cpu_s_per_gb": cpu})
        book.compare(name, {"relay_mbit": 1000.0, "cpu_s_per_gb": 2.0}, {"relay_mbit": mbit, "cpu_s_per_gb": cpu})
    row = column(book)["softether"]
    assert (row["relay_mbit"], row["cpu_s_per_gb"]) == (500.0, 9.0)
    assert row["setting"] == {"relay_mbit": "softether-8", "cpu_s_per_gb": "softether-1"}
    assert row["ours_to_it"]["relay_mbit"]["median"] == 2.0
    assert row["ours_to_it"]["cpu_s_per_gb"]["median"] == 0.222
    assert best(book, ("softether-1", "softether-8"), "kpps_64") == ""


def test_how_much_speed_is_left_with_tls_is_a_ratio_like_any_other() -> None:
    book = Book()
    for with_it, without in ((90.0, 100.0), (80.0, 100.0), (70.0, 100.0)):
        book.note("ours", {"tls_relay_mbit": with_it})
        book.compare("ours-without-tls", {"tls_relay_mbit": with_it}, {"tls_relay_mbit": without})
    ours = column(book)["ours"]
    assert ours["tls_keep_ratio"] == 0.8
    assert ours["tls_keep_ratio_rounds"] == [0.9, 0.8, 0.7]


def test_figures_and_ratios_are_told_with_their_spread() -> None:
    row = {
        "relay_mbit": 1234.5, "relay_mbit_rounds": [1200.0, 1234.5, 1300.0], "idle_p50_ms": 0.5,
        "idle_p50_ms_rounds": [0.5], "ours_to_it": {"relay_mbit": ratio([2.0, 3.0, 2.5])},
    }  # fmt: skip
    assert text(row, "relay_mbit") == "1,234 (1,200..1,300)"
    assert text(row, "idle_p50_ms") == "0.50"
    assert text(row, "kpps_64") == ""
    assert ratio_text(row, "relay_mbit") == "2.50 (2.00..3.00)"
    assert ratio_text(row, "kpps_64") == ""


def test_the_promised_names_are_there() -> None:
    assert {"relay_mbit", "single_mbit", "cpu_s_per_gb", "kpps_64", "loaded_p99_ms", "lossy_mbit"} <= set(FIGURES)
