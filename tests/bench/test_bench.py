"""Every bench runs by its name and writes the figures it promises; none of them is judged here."""

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import clients, core, cuts, relay
from bench.__main__ import names
from bench.cuts import Segment, detected, longest_gap
from bench.machine import Median, Watch
from bench.parts import PARTS
from bench.products import PEERS
from lab.cuts import KEPT_BYTES, KINDS, SHARE_MOST, draw, draw_cuts


@pytest.mark.parametrize("name", names())
def test_every_bench_has_an_entry(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)


def test_an_unknown_bench_is_told_which_there_are(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in names())


def test_the_core_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(core, "SECONDS", 0.05)
    result = tmp_path / "core.json"
    assert core.main(["--quick", "--json", str(result)]) == 0
    assert all(rate > 0 for rate in json.loads(result.read_text()).values())


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.peer("iperf3", "vpnserver", "vpnclient")
@pytest.mark.timeout(240)
def test_the_relay_is_measured_beside_veth_and_softether(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "relay.json"
    assert relay.main(["--quick", "--rounds", "1", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    promised = ("relay_mbit", "single_mbit", "kpps_64", "loaded_p99_ms")
    for product in ("veth", "ours", "softether"):
        assert min(figures[product][name] for name in promised) > 0
        assert len(figures[product]["relay_mbit_rounds"]) == figures["run"]["rounds"] == 1
    assert figures["ours"]["cpu_s_per_gb"] > 0
    assert (
        min(figures["ours"]["card_kib_per_write"], figures["ours"]["hub_kib_per_write"]) > 12
    )  # never a write a frame
    mine, theirs = (figures[product]["relay_mbit_rounds"] for product in ("ours", "softether"))
    ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
    assert figures["softether"]["ours_to_it"]["relay_mbit"]["rounds"] == pytest.approx(ratios, rel=0.01)
    assert "Ours to each, round by round" in capsys.readouterr().out


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.peer("iperf3", "vpnserver", "vpnclient", "openvpn", "tincd", "fastd")
@pytest.mark.timeout(1200)
def test_every_part_is_measured_with_every_peer(tmp_path: Path) -> None:
    file = tmp_path / "relay.json"
    parts = ["--parts", ",".join(PARTS), "--control", "cubic,bbr", "--only", ",".join(PEERS)]
    assert relay.main(["--quick", "--rounds", "1", "--json", str(file), *parts]) == 0
    figures = json.loads(file.read_text())
    names = {"relay_mbit", "single_mbit", "cpu_s_per_gb", "kpps_64", "loaded_p99_ms", "lossy_mbit", "hub_mib"}
    for product in ("ours", *PEERS):
        assert names <= set(figures[product])
        assert figures["bbr"][product]["lossy_mbit"] > 0
    assert figures["softether"]["handshake_cpu_ms"] > 0
    assert figures["softether"]["session_mib"] > 0
    assert 0 < figures["ours"]["tls_keep_ratio"] < 2
    assert figures["run"]["missing"] == {}


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.peer("iperf3", "vpnserver", "vpnclient")
@pytest.mark.timeout(240)
def test_two_official_clients_are_measured_at_both_hubs_in_the_same_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clients.json"
    assert clients.main(["--quick", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    ours, theirs = (figures[product]["relay_mbit_rounds"] for product in ("ours", "vpnserver"))
    assert len(ours) == len(theirs) == figures["run"]["rounds"] == 3
    assert min(*ours, *theirs) > 0
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    assert figures["vpnserver"]["ours_to_it"]["relay_mbit"]["rounds"] == pytest.approx(ratios, rel=0.01)
    assert "round by round" in capsys.readouterr().out


def test_a_median_is_told_with_its_spread() -> None:
    assert Median([3, 1, 2]).text() == "2 (1..3)"
    assert Median([4.0, 1.0]).middle == 2.5
    assert Median().text() == "-"


def test_the_watch_sees_the_cpu_of_a_process_and_of_children_it_waited_for() -> None:
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    work = f"subprocess.run([sys.executable, '-c', {spin!r}])"
    program = f"import subprocess, sys; input(); {work}; print('done', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        watch = Watch({"it": [child.pid]})
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"done\n"
        usage = watch.stop()
        child.stdin.write(b"\n")
    assert 0.3 <= usage.cpu_s["it"] <= 5
    assert usage.total_s == usage.cpu_s["it"]
    assert 0 <= usage.steal <= 1


def test_a_dead_path_was_noticed_when_the_first_new_syn_went_out() -> None:
    card = ["10.0.0.2"]
    heard = Segment(100.0, "10.0.0.1", syn=False, ack=True, payload=40)
    bare = Segment(100.2, "10.0.0.1", syn=False, ack=True, payload=0)  # an acknowledgement alone is no byte
    mine = Segment(101.0, "10.0.0.2", syn=False, ack=True, payload=40)
    syn = Segment(110.5, "10.0.0.2", syn=True, ack=False, payload=0)
    late = syn._replace(at=121.0)
    assert detected([heard, bare, mine, syn, late], card=card, since=100.1, until=120.1) == 10.5
    assert detected([heard, bare, mine, late], card=card, since=100.1, until=120.1) is None
    assert detected([heard, syn._replace(ack=True)], card=card, since=100.1, until=120.1) is None


def test_the_gap_around_a_reset_is_the_longest_that_ends_after_it() -> None:
    assert longest_gap([0.0, 5.0, 5.1, 5.4, 5.5], since=5.05) == pytest.approx(0.3)
    assert longest_gap([], since=0.0) == 0.0


def test_the_same_seed_draws_the_same_load_and_cuts_within_the_buffer() -> None:
    for seed in range(200):
        plan = draw(seed=seed, buffer=1 << 20, blind_s=1.5)
        assert plan == draw(seed=seed, buffer=1 << 20, blind_s=1.5)
        assert plan.rate * KEPT_BYTES * plan.worst_s <= SHARE_MOST * plan.buffer_bytes * 1.000001
        assert draw_cuts(plan, 50) == draw_cuts(plan, 50)
    assert {cut.kind for cut in draw_cuts(draw(seed=1, buffer=1 << 20, blind_s=1.5), 1000)} == set(KINDS)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.peer("tcpdump", "tshark", "nft")
@pytest.mark.timeout(240)
def test_cuts_are_measured_with_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "QUICK", cuts.Extent(resets=2, holes=1, cuts=3, fast=True))
    file = tmp_path / "cuts.json"
    assert cuts.main(["--quick", "--seed", "3", "--only", "ours", "--json", str(file)]) == 0
    row = json.loads(file.read_text())["ours"]
    assert (row["cuts"], row["resets"], row["drawn"]["seed"]) == (3, 2, 3)
    assert 0 < row["reset_gap_s_median"] <= row["reset_gap_s_worst"]
    assert len(row["blackhole_detect_s"]) == len(row["recover_s"]) == 1
    assert {"lost", "doubled", "reordered"} <= set(row)
    assert row["sent"] > 0


@pytest.mark.soak
@pytest.mark.netns
@pytest.mark.peer("openvpn", "vpnserver", "vpnclient")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["softether", "openvpn"])
def test_cuts_are_measured_with_the_others_and_what_they_lose_is_seen(name: str) -> None:
    extent = cuts.Extent(resets=1, holes=0, cuts=1, fast=True, give_up_s=3.0)
    row = cuts.as_json(cuts.measure(name, extent, 2, 1024, Console(file=io.StringIO())))
    assert row["cuts"] == row["resets"] == 1
    assert row["lost"] > 0
    assert row["damaged"] == row["uncounted"] == 0


def test_cuts_of_an_unknown_product_are_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        cuts.main(["--only", "nonsense"])


def test_what_was_measured_before_a_stop_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "relay.json"
    file.write_text("what an earlier run left")

    def stage(*words: Any) -> None:
        *_, book, titles, _progress, done = words
        titles["ours"] = "ukihashi"
        for value in (100.0, 300.0, 200.0):
            book.note("ours", {"relay_mbit": value})
        done()
        raise KeyboardInterrupt

    monkeypatch.setattr(relay, "_stage", stage)
    assert relay.main(["--quick", "--json", str(file)]) == 130
    assert f"are in {file}" in "".join(capsys.readouterr().err.splitlines())
    found = json.loads(file.read_text())
    assert (found["ours"]["title"], found["ours"]["relay_mbit"]) == ("ukihashi", 200)
    assert found["run"]["control"] == ["cubic"]
    assert relay.main(["--from", str(file)]) == 0
