"""Very many sessions at one hub: all are served, and each costs little memory."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from lab.crowd import BROADCAST, BusyPair, Crowd
from lab.net import Net
from lab.ukihashi import HUB, Hub

pytestmark = pytest.mark.netns

MIB: Final = 1024  # KiB
IDLE: Final = 998
LEFT: Final = 0.75  # of the speed that two busy ones have without the idle ones
ROUNDS: Final = 6
ROUND_S: Final = 3.0
TOGETHER_MIB: Final = 200  # PSS of all the hub's processes with a thousand sessions
EACH_KIB: Final = 100  # PSS that one more session costs, at most
FIRST_MIB: Final = (
    24  # and what the first ones bring: pages that processes no longer share, code used for the first time
)


def family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def pss_kib(pid: int) -> int:
    """Memory of a process and its children, what they share counted once."""
    rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid)]
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:"))


def cpu_s(pid: int) -> float:
    """Processor time of a process and its children so far."""
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in family(pid)]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def gather(net: Net, cards: int, processes: int, *, workers: int = 1) -> tuple[Hub, Crowd]:
    """A hub that serves, and a crowd that has not joined."""
    machine, host = net.lan("hub", "crowd")
    hub = Hub(machine)
    hub.configure({"workers": workers})
    hub.start()
    hub.tell("user_create", name="crowd", hub=HUB, anonymous=True)
    return hub, Crowd(host, machine.ipv4, users=["crowd"], hub=HUB, cards=cards, processes=processes)


def check_all_are_served(hub: Hub, crowd: Crowd) -> None:
    """Each answers when it is asked, all answer when all are asked, and the hub knows them."""
    everyone = set(crowd.stations)
    assert crowd.ask(crowd.stations) == everyone
    for _ in range(3):
        assert crowd.ask([BROADCAST]) == everyone
    rows = hub.tell("sessions", hub=HUB)
    assert len(rows) == len(everyone) + 1
    assert {row["state"] for row in rows} == {"online"}
    assert not any(row["drops"] for row in rows)
    assert crowd.is_whole


def test_a_hundred_sessions_are_served(net: Net) -> None:
    hub, crowd = gather(net, 100, 2)
    assert hub.process is not None
    with crowd:
        before = pss_kib(hub.process.pid)
        crowd.join()
        check_all_are_served(hub, crowd)
        assert pss_kib(hub.process.pid) - before < 100 * EACH_KIB + FIRST_MIB * MIB


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 4])
def test_a_thousand_sessions_are_served_in_little_memory(net: Net, workers: int) -> None:
    hub, crowd = gather(net, 1000, 4, workers=workers)
    assert hub.process is not None
    with crowd:
        crowd.join()
        joined = pss_kib(hub.process.pid)
        check_all_are_served(hub, crowd)
        crowd.wait(20.0)  # keep-alives of all, four times
        check_all_are_served(hub, crowd)
        served = pss_kib(hub.process.pid)
    print(f"1,000 sessions, {workers} workers: {joined / MIB:.1f} MiB PSS as they joined,", end=" ")
    print(f"{served / MIB:.1f} MiB after their traffic")
    assert served < TOGETHER_MIB * MIB


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_that_are_busy_lose_little_speed_to_many_that_are_idle(net: Net) -> None:
    """Two hubs, one with idle sessions; a busy pair at each, that talk in turns.

    What bounds their speed is the processor time of the hub, of which the idle ones take a part by the clock, whoever
    else uses the machine. The speed by the clock is printed only.
    """
    machine, host, other = net.lan("hub", "crowd", "quiet")
    hubs = Hub(machine), Hub(other)
    for hub in hubs:
        hub.start()
        hub.tell("user_create", name="crowd", hub=HUB, anonymous=True)
    pids = [hub.process.pid for hub in hubs if hub.process is not None]
    crowd = Crowd(host, machine.ipv4, users=["crowd"], hub=HUB, cards=IDLE - 1, processes=4)  # and the one that asks
    with crowd:
        crowd.join()
        before, began = cpu_s(pids[0]), time.monotonic()
        crowd.wait(20.0)
        idle = (cpu_s(pids[0]) - before) / (time.monotonic() - began)
        with (
            BusyPair(host, machine.ipv4, user="crowd", hub=HUB, first=5000) as beside,
            BusyPair(host, other.ipv4, user="crowd", hub=HUB, first=5000) as alone,
        ):
            moved, spent, took = [0, 0], [0.0, 0.0], [0.0, 0.0]
            for _ in range(ROUNDS):
                for place, pair in enumerate((beside, alone)):
                    before, began = cpu_s(pids[place]), time.monotonic()
                    moved[place] += pair.talk(ROUND_S)
                    took[place] += time.monotonic() - began
                    spent[place] += cpu_s(pids[place]) - before
                    for one in (beside, alone):
                        one.rest()
                    crowd.wait(0.1)
        assert crowd.is_whole
    speeds = [count / seconds for count, seconds in zip(moved, spent, strict=True)]
    clock = [count / seconds for count, seconds in zip(moved, took, strict=True)]
    others = (spent[0] - moved[0] / speeds[1]) / took[0]  # of a core, beside what the busy ones took
    print(
        f"{IDLE} idle sessions take {idle * 100:.1f} % of a core, {others * 100:.1f} % beside two busy ones;", end=" "
    )
    print(f"those had {speeds[0] / 1e6:.1f} MB a CPU second of the hub, alone {speeds[1] / 1e6:.1f};", end=" ")
    print(f"by the clock {clock[0] / 1e6:.1f} and {clock[1] / 1e6:.1f} MB/s")
    assert 1 - others >= LEFT
