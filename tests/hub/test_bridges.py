"""Bridges of a hub, the supervisor's side, with real interfaces in a network of the test's own."""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from lab.own_network import own_network
from ukihashi.config.hub import HubConfig
from ukihashi.errors import UkihashiError
from ukihashi.hub.bridges import JOURNAL, Bridges, Wanted, wanted_bridges
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import BridgeGone, BridgePut, Message

pytestmark = pytest.mark.netns


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


def everything() -> list[str]:
    return [ip(command) for command in ("link", "addr", "route show table all", "-6 route show table all")]


class House:
    """A supervisor that only listens."""

    limits = Limits()

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sent: list[Message] = []

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        assert name == "worker"
        assert len(fds) == isinstance(message, BridgePut)
        for fd in fds:
            os.fstat(fd)
        self.sent.append(message)

    def tell(self, error: UkihashiError) -> None:
        self.told.append(str(error))


class Place:
    """A hub's supervisor in `folder`, started anew as often as one likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL
        self.house = House()
        self.poll = select.poll()
        self.bridges = self.another()

    def another(self) -> Bridges:
        return Bridges(self.house, self.folder, self.poll)

    def die(self) -> None:
        """As SIGKILL does it."""
        self.bridges.forget()
        self.bridges = self.another()

    def watch(self, until: Callable[[], bool]) -> None:
        """Do as the supervisor's loop does until that holds."""
        end = time.monotonic() + 5.0
        while not until():
            assert time.monotonic() < end, self.house.told
            patience = self.bridges.patience_s
            found = self.poll.poll(min(1.0, patience if patience is not None else 1.0) * 1000)
            self.bridges.look({fd for fd, _ in found})

    def state(self, interface: str = "eth1") -> str:
        return next(str(row["state"]) for row in self.bridges.rows() if row["interface"] == interface)


def members(bridge: str) -> set[str]:
    return {line.split(": ")[1].partition("@")[0] for line in ip(f"-o link show master {bridge}").splitlines()}


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        for which in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")
        for name in ("eth1", "eth2"):
            ip(f"link add {name} type veth peer name far-{name}")
            ip(f"link set far-{name} up")
            ip(f"link set {name} up")
        ip("addr add 10.3.0.2/24 dev eth2")
        ip("route add default via 10.3.0.1")
        ip("-6 addr flush scope link")
        yield


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    with contextlib.suppress(OSError):
        made.bridges.close()


def test_what_hub_toml_says() -> None:
    config = HubConfig(bridges={"LAN": ("eth1", "br0"), "B": ("eth2",)}, bridge_addresses=("eth2",))
    assert wanted_bridges(config) == {
        "eth1": Wanted("LAN", False), "br0": Wanted("LAN", False), "eth2": Wanted("B", True),
    }  # fmt: skip


def test_from_start_to_end_nothing_is_left(place: Place) -> None:
    before = everything()
    place.bridges.open({"eth1": Wanted("LAN", False), "eth2": Wanted("LAN", True)})
    assert members("ukbr-eth1") == {"eth1", "ukt-eth1"}
    assert members("ukbr-eth2") == {"eth2", "ukt-eth2"}
    assert "default via 10.3.0.1 dev ukbr-eth2" in ip("route")
    assert place.house.sent == [BridgePut("LAN", "eth1", "ukt-eth1"), BridgePut("LAN", "eth2", "ukt-eth2")]
    assert place.house.told == ["eth1 is joined to virtual hub LAN", "eth2 is joined to virtual hub LAN"]
    row = place.bridges.rows()[0]
    assert (row["state"], row["members"], row["problem"]) == ("joined", ["eth1", "ukt-eth1"], None)
    place.house.sent.clear()
    place.bridges.give()  # to a new worker
    assert len(place.house.sent) == 2
    place.bridges.close()
    assert everything() == before
    assert not place.journal.exists()


def test_only_what_differs_is_touched_by_a_reload(place: Place) -> None:
    place.bridges.open({"eth1": Wanted("LAN", False)})
    index = ip("-o link show ukbr-eth1").partition(":")[0]
    place.bridges.want({"eth1": Wanted("LAN", False), "eth2": Wanted("LAN", True)})
    assert ip("-o link show ukbr-eth1").partition(":")[0] == index
    place.house.sent.clear()
    place.bridges.want({"eth1": Wanted("OTHER", False)})
    assert "ukbr-eth2" not in ip("link")
    assert "default via 10.3.0.1 dev eth2" in ip("route")
    assert place.house.sent == [
        BridgeGone("eth1"), BridgeGone("eth2"), BridgePut("OTHER", "eth1", "ukt-eth1"),
    ]  # fmt: skip


def test_after_sigkill_the_next_start_undoes_all(place: Place) -> None:
    before = everything()
    place.bridges.open({"eth1": Wanted("LAN", False), "eth2": Wanted("LAN", True)})
    place.die()
    assert "10.3.0.2/24" in ip("addr show dev ukbr-eth2")  # the machine keeps its address meanwhile
    place.bridges.open({})
    assert everything() == before
    assert not place.journal.exists()
    assert any(told.startswith("left over by a hub that was killed, undone: ukbr-eth2") for told in place.house.told)


def test_a_start_after_sigkill_joins_again(place: Place) -> None:
    before = everything()
    wanted = {"eth2": Wanted("LAN", True)}
    place.bridges.open(wanted)
    place.die()
    place.bridges.open(wanted)
    assert place.state("eth2") == "joined"
    assert "10.3.0.2/24" in ip("addr show dev ukbr-eth2")
    place.bridges.close()
    assert everything() == before


def test_an_upgrade_leaves_all_as_it_is(place: Place) -> None:
    before = everything()
    wanted = {"eth1": Wanted("LAN", False), "eth2": Wanted("LAN", True)}
    place.bridges.open(wanted)
    during = everything()
    left = [msgspec.structs.replace(one, fd=os.dup(one.fd)) for one in place.bridges.leave()]
    place.die()  # no: it becomes another program, and keeps these descriptors
    place.house.sent.clear()
    place.bridges.adopt(left, wanted)
    assert everything() == during
    assert place.house.sent == []
    place.bridges.give()
    assert len(place.house.sent) == 2
    assert place.state() == "joined"
    place.bridges.close()
    assert everything() == before
    assert not place.journal.exists()


def test_what_cannot_be_is_told_once_and_tried_again(place: Place) -> None:
    place.bridges.open({"eth2": Wanted("LAN", False), "eth9": Wanted("LAN", False)})
    assert len(place.house.told) == 2
    assert place.house.told[0].startswith("eth2 is not joined to virtual hub LAN: eth2 has addresses of its own")
    assert place.house.told[1] == "eth9 is not joined to virtual hub LAN: there is no network interface eth9"
    assert place.state("eth2") == "apart"
    assert "ukt-eth" not in ip("link")
    ip("link add eth9 type veth peer name far-eth9")
    ip("addr del 10.3.0.2/24 dev eth2")
    place.watch(lambda: place.state("eth9") == "joined")
    place.bridges.look(set())
    assert len(place.house.told) <= 4


def test_an_ethernet_that_is_pulled_and_comes_again(place: Place) -> None:
    place.bridges.open({"eth1": Wanted("LAN", False)})
    ip("link del eth1")
    place.watch(lambda: place.state() == "apart")
    assert place.house.told[-1] == "eth1 is not joined to virtual hub LAN: there is no network interface eth1"
    ip("link add eth1 type veth peer name far-eth1")
    place.watch(lambda: place.state() == "joined")
    assert members("ukbr-eth1") == {"eth1", "ukt-eth1"}
    assert place.house.told[-1] == "eth1 is joined to virtual hub LAN"
    assert len(place.house.sent) == 1  # it is the same TAP all the time
    ip("link set eth1 nomaster")
    place.watch(lambda: place.state() == "apart")
    assert "stays out" in place.house.told[-1]


def test_a_bridge_that_is_there_may_go_and_come_again(place: Place) -> None:
    ip("link add br0 type bridge")
    place.bridges.open({"br0": Wanted("LAN", False)})
    assert members("br0") == {"ukt-br0"}
    assert not place.journal.exists()
    ip("link del br0")
    place.watch(lambda: place.state("br0") == "apart")
    ip("link add br0 type bridge")
    place.watch(lambda: place.state("br0") == "joined")
    assert members("br0") == {"ukt-br0"}


def test_a_tap_that_somebody_removed_is_made_anew(place: Place) -> None:
    place.bridges.open({"eth1": Wanted("LAN", False)})
    ip("link del ukt-eth1")
    place.watch(lambda: len(place.house.sent) == 3)
    assert members("ukbr-eth1") == {"eth1", "ukt-eth1"}
