"""Every bench runs by its name and writes the figures it promises; none of them is judged here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import names
from bench.machine import Median, Watch


@pytest.mark.parametrize("name", names())
def test_every_bench_has_an_entry(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)


def test_an_unknown_bench_is_told_which_there_are(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in names())


def test_the_core_is_measured(repository: Path, tmp_path: Path) -> None:
    result = tmp_path / "core.json"
    subprocess.run(
        [sys.executable, "-m", "bench", "core", "--quick", "--json", result], cwd=repository, check=True, timeout=100
    )
    assert all(rate > 0 for rate in json.loads(result.read_text()).values())


@pytest.mark.slow
@pytest.mark.netns
@pytest.mark.peer("iperf3", "vpnserver", "vpnclient")
@pytest.mark.timeout(240)
def test_the_relay_is_measured_beside_veth_and_softether(repository: Path, tmp_path: Path) -> None:
    result = tmp_path / "relay.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "relay", "--quick", "--json", result],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    assert all(figures[product]["relay_mbit"] > 0 for product in ("veth", "ours", "softether"))
    assert set(figures["ours"]["frames_per_tls_write"]) == {"card A", "hub to B"}
    assert min(figures["ours"]["frames_per_tls_write"].values()) >= 8  # batches, never a write per frame
    assert "frames_per_tls_write" in done.stdout


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
