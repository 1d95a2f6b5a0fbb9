"""What the detector does under load: it loses nothing that it can read in time, and counts what it loses."""

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.mirror import silence
from lab.net import Host, Net, Process
from lab.wait import until

PYTHON = [sys.executable, "-m", "ukihashi.cli.main"]
ROOT = Path(__file__).resolve().parents[2]


def wire(net: Net) -> tuple[Host, str, Host, str]:
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    silence(a, near)
    silence(b, far)
    return a, near, b, far


def detector(host: Host, card: str, *words: str) -> Process:
    process = host.spawn([*PYTHON, "alert", "-i", card, *words], log="alert")
    process.wait_for(r"Starting Capture Packets at \[", seconds=100)
    return process


def flood(host: Host, card: str, kind: str, rate: float, seconds: float) -> tuple[int, float]:
    """Frames that reached the other end of the wire, and how many a second."""
    before = dropped(host, card)
    argv = [sys.executable, "-m", "lab.flood", card, kind, rate, seconds]
    done = json.loads(host.run(list(map(str, argv)), timeout_s=seconds + 60, env={"PYTHONPATH": str(ROOT)}))
    return done["sent"] - (dropped(host, card) - before), done["sent"] / done["seconds"]


def dropped(host: Host, card: str) -> int:
    """Frames for which the other end's queue had no room: never on the wire."""
    (told,) = json.loads(host.run(["ip", "-j", "-s", "link", "show", card]))
    return int(told["stats64"]["tx"]["dropped"])


def ended(process: Process) -> tuple[int, int]:
    """Packets that were seen, and that were dropped, as it says at its end."""
    assert process.stop(signal.SIGTERM, grace_s=60) == 0, process.output()
    (told,) = re.findall(r"(\d+) packets seen, (\d+) dropped by the kernel", process.output())
    return int(told[0]), int(told[1])


def processes(host: Host, count: int) -> list[int]:
    """The pids of a detector and its workers."""

    def look() -> list[int]:
        found = []
        for pid in host.pids():
            with contextlib.suppress(OSError):  # it has just ended
                if "python" in Path(f"/proc/{pid}/exe").resolve().name:
                    found.append(pid)
        return found if len(found) == count else []

    return until(look, seconds=20, what=f"{count} processes")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_lost_is_counted_and_told(net: Net, workers: int) -> None:
    """A small ring, and a detector that gets no time: sent less seen is what it says it lost (B31)."""
    a, near, b, far = wire(net)
    process = detector(b, far, "--ring", "2", "--workers", str(workers))
    pids = processes(b, 1 if workers == 1 else 3)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    sent = 0
    while sent < 20_000:
        sent += flood(a, near, "bulk", 40_000, 0.3)[0]
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    process.wait_for(r"\d+ packets were lost for lack of time", seconds=60)
    seen, lost = ended(process)
    assert lost > 5000
    assert seen > 0
    assert seen + lost == sent
    told = re.findall(r"(\d+) packets were lost for lack of time", process.output())
    assert sum(map(int, told)) == lost


def test_a_worker_that_dies_ends_all_with_a_sentence_and_none_outlives_the_first(net: Net) -> None:
    _, _, b, far = wire(net)
    process = detector(b, far, "--ring", "1", "--workers", "2")
    worker = next(pid for pid in processes(b, 3) if pid != process.pid)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(seconds=30) == 3
    assert "a process that reads packets ended by itself" in process.output()
    assert until(lambda: not b.pids(), seconds=10, what="the other worker's end")
    process = detector(b, far, "--ring", "1", "--workers", "2")
    processes(b, 3)
    process.popen.kill()
    assert until(lambda: not b.pids(), seconds=10, what="the workers' end")


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_300_000_packets_a_second_for_30_s_without_a_drop(net: Net, lacks: Callable[[str], None]) -> None:
    a, near, b, far = wire(net)
    process = detector(b, far)
    sent, rate = flood(a, near, "bulk", 300_000, 30)
    seen, lost = ended(process)
    print(f"{rate / 1e6:.3f} million packets a second, {sent} sent, {seen} seen, {lost} dropped")
    assert seen + lost == sent
    assert lost == 0
    if rate < 295_000:
        lacks(f"this machine could send only {rate:.0f} packets a second")


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_as_fast_as_it_goes_what_was_not_seen_is_what_was_dropped(net: Net) -> None:
    a, near, b, far = wire(net)
    process = detector(b, far, "--ring", "4")
    sent, rate = flood(a, near, "bulk", 0, 20)
    seen, lost = ended(process)
    print(f"{rate / 1e6:.3f} million packets a second, {sent} sent, {seen} seen, {lost} dropped")
    assert seen + lost == sent


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_five_million_syns_need_less_than_300_mb(net: Net) -> None:
    a, near, b, far = wire(net)
    process = detector(b, far)
    sent = most = 0
    while sent < 5_000_000:
        sent += flood(a, near, "syn", 0, 5)[0]
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        most = max(most, int(re.findall(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)[0]))
    seen, lost = ended(process)
    print(f"{sent} SYNs, {seen} seen, {lost} dropped, at most {most / 1000:.0f} MB")
    assert seen + lost == sent
    assert seen > sent / 2
    assert most < 300_000
