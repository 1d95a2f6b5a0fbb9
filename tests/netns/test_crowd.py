"""Very many sessions at one hub: all are served, and each costs little memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from lab.crowd import BROADCAST, Crowd
from lab.net import Net
from lab.ukihashi import HUB, Hub

pytestmark = pytest.mark.netns

MIB: Final = 1024  # KiB
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


def gather(net: Net, cards: int, processes: int) -> tuple[Hub, Crowd]:
    """A hub that serves, and a crowd that has not joined."""
    machine, host = net.lan("hub", "crowd")
    hub = Hub(machine)
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
def test_a_thousand_sessions_are_served_in_little_memory(net: Net) -> None:
    hub, crowd = gather(net, 1000, 4)
    assert hub.process is not None
    with crowd:
        crowd.join()
        joined = pss_kib(hub.process.pid)
        check_all_are_served(hub, crowd)
        crowd.wait(20.0)  # keep-alives of all, four times
        check_all_are_served(hub, crowd)
        served = pss_kib(hub.process.pid)
    print(f"1,000 sessions: {joined / MIB:.1f} MiB PSS as they joined, {served / MIB:.1f} MiB after their traffic")
    assert served < TOGETHER_MIB * MIB
