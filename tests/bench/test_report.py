"""What is found becomes tables, a part of a page, and pictures."""

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import relay
from bench.figures import ratio
from bench.plot import Bar, bars
from bench.report import END, MARK, markdown, pictures, replaced, sheets, show, write_docs


def row(title: str, ours_to_it: float = 0.0, **figures: float) -> dict[str, Any]:
    found: dict[str, Any] = {"title": title}
    for name, value in figures.items():
        found |= {name: value, f"{name}_rounds": [value * 0.9, value, value * 1.2]}
        if ours_to_it:
            found.setdefault("ours_to_it", {})[name] = ratio([ours_to_it])
    return found


RESULT: dict[str, Any] = {
    "ours": row("ukihashi", relay_mbit=2000.0, single_mbit=3000.0, lossy_mbit=170.0, tls_relay_mbit=1.0)
    | {"tls_keep_ratio": 0.7, "tls_keep_ratio_single": 0.65},
    "veth": row("plain <veth>", relay_mbit=20000.0, lossy_mbit=5.0),
    "softether": row("SoftEther", 2.5, relay_mbit=800.0, lossy_mbit=5.0) | {"setting": {"relay_mbit": "softether-8"}},
    "bbr": {"ours": row("ukihashi", lossy_mbit=171.0), "softether": row("SoftEther", 1.1, lossy_mbit=160.0)},
    "run": {
        "date": "2026-01-01", "commit": "abc", "machine": "a machine", "control": ["cubic", "bbr"], "rounds": 3,
        "seconds": 4.0, "repeated_for_steal": [0.2, 0.4], "missing": {"fastd": "fastd"},
        "failed": ["bbr: it: tinc: dead"],
    },
}  # fmt: skip


def test_there_is_a_table_for_each_part_measured_with_each_congestion_control() -> None:
    titles = [sheet.title for sheet in sheets(RESULT)]
    assert [title for title in titles if title.startswith("A → hub → B")] == ["A → hub → B (hosts on cubic)"]
    assert sum("1 % loss" in title for title in titles) == 2
    assert titles[-2:] == [f"Ours to each, round by round (hosts on {control})" for control in ("cubic", "bbr")]
    assert not any(title.startswith("Packets") for title in titles)
    last = sheets(RESULT)[-1]
    assert last.head == ["", "slow line"]
    assert last.rows == [["to SoftEther", "1.10 (1.10..1.10)"]]


def test_a_terminal_is_shown_all_of_it() -> None:
    out = io.StringIO()
    show(RESULT, Console(file=out, width=200))
    said = out.getvalue()
    for word in ("plain <veth>", "2,000 (1,800..2,400)", "TLS keeps 70% of the speed", "2 measurements repeated",
                 "softether-8 counts for: relay_mbit", "fastd", "tinc: dead"):  # fmt: skip
        assert word in said


def test_the_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Measured\n\nbefore\n\n{MARK}\nold\n{END}\n\nafter\n")
    for _ in range(2):
        write_docs(RESULT, tmp_path)
    text = page.read_text()
    assert text.startswith("# Measured\n\nbefore\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    assert text.count(MARK) == text.count("## Beside every peer") == 1
    assert "| ukihashi | 2,000 (1,800..2,400) |" in text
    for name in pictures(RESULT):
        assert f"]({name}.svg)" in text
        ET.parse(tmp_path / f"{name}.svg")
    with pytest.raises(ValueError, match="no place"):
        replaced("# Measured", "new")


def test_pictures_leave_out_what_dwarfs_the_rest_and_what_was_not_measured() -> None:
    made = pictures(RESULT)
    assert set(made) == {"bench-throughput", "bench-lossy"}
    assert "veth" not in made["bench-throughput"]
    assert "plain &lt;veth&gt;" in made["bench-lossy"]
    assert "171" not in markdown(RESULT, list(made)).partition("hosts on bbr")[0]


def test_bars_are_drawn_to_one_scale() -> None:
    svg = bars("speed", ["a", "b"], [("one", [Bar(50, 40, 100), None]), ("two", [Bar(100, 100, 100), Bar(0, 0, 0)])],
               digits=1)  # fmt: skip
    widths = [float(rect.get("width", "")) for rect in ET.fromstring(svg) if rect.get("height") == "12"]
    assert widths == [205.0, 410.0, 0.0]
    assert "50.0" in svg


def test_kept_figures_are_told_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(RESULT))
    assert relay.main(["--from", str(kept)]) == 1  # something had failed then
    assert "Ours to each" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--only", "nonsense"], ["--parts", "relay,nonsense"], ["--control", "reno"]])
def test_unknown_names_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        relay.main(words)
