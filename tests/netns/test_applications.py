"""What people run over the LAN does not notice whatever happens to the TCP connection below it (A23 to A28)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab.applications import Bulk, Shell, Steady
from lab.faults import FaultRelay
from lab.net import Host, Net
from lab.ukihashi import FAST_CARD, FAST_HUB, Card, Hub
from lab.wait import until

pytestmark = [
    pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("sshd", "ssh", "nft"), pytest.mark.timeout(240),
]  # fmt: skip


@dataclass
class Scene:
    """a (card) ---- f (relay) ---- h (hub) ---- b (card)"""

    a: Host
    b: Host
    hub: Hub
    card: Card
    other: Card
    relay: FaultRelay


@contextmanager
def scene(net: Net, *, fast: bool) -> Iterator[Scene]:
    a, f, h, b = (net.host(name) for name in "afhb")
    for near, far in ((f, a), (h, f), (h, b)):
        net.link(near, far)
    hub = Hub(h)
    if fast:
        hub.configure(FAST_HUB)
    hub.start()
    at_f, at_b = h.addresses[0], next(address for address in h.addresses[2:] if "." in address)
    card, other = Card(a), Card(b)
    with FaultRelay(f, listen=(f.ipv4, 443), target=(at_f, 443)) as relay:
        card.join_with(hub.invite("ann", address=f.ipv4), FAST_CARD if fast else {})
        other.join_with(hub.invite("bob", address=at_b), FAST_CARD if fast else {})
        a.pings(other.address(4))
        yield Scene(a, b, hub, card, other, relay)


def survive(stage: Scene, trouble: object, *, rate: float = 2e6) -> None:
    """An ssh session and streams both ways live through `trouble()`, in the same processes; nothing below moves."""
    target, home = stage.other.address(4), stage.card.address(4)
    interface = stage.card.interface()
    with (
        Steady(stage.a, interface) as steady,
        Shell(stage.a, stage.b, target) as shell,
        Bulk(stage.a, stage.b, target, rate=rate) as there,
        Bulk(stage.b, stage.a, home, rate=rate) as back,
    ):
        assert shell.process is not None
        pid = shell.process.pid
        assert callable(trouble)
        trouble()
        assert shell.answers() < 30.0
        assert there.finish() > rate / 4
        assert back.finish() > rate / 4
        assert (shell.process.pid, shell.process.poll()) == (pid, None)
        assert steady.events() == []


def agrees(stage: Scene) -> None:
    """The ledgers of both ends say the same, and that nothing was lost."""

    def look() -> bool:
        card = stage.card.status()["ledger"]
        hub = next(row for row in stage.hub.sessions() if row["user"] == "ann")["ledger"]
        return bool(
            card["lost"] == hub["lost"] == 0
            and card["received"] == hub["sent"]
            and hub["received"] == card["sent"]
            and card["waiting"] == hub["waiting"] == 0
        )

    until(look, seconds=15.0, what="ledgers that agree", step_s=0.5)


def test_a_black_out_and_six_kills(net: Net) -> None:
    """Times divided by ten: a black-out of 2 s, then a relay that kills every connection after 2 s, six times."""
    with scene(net, fast=True) as stage:

        def trouble() -> None:
            stage.relay.black_hole("both", 2.0)
            time.sleep(4.0)
            before = len(stage.relay.connections)
            stage.relay.kill_every(2.0)
            until(lambda: len(stage.relay.connections) >= before + 6, seconds=60.0, what="six kills", step_s=0.2)
            stage.relay.kill_every(0.0)

        survive(stage, trouble)
        assert stage.card.status()["ledger"]["resumes"] >= 7
        agrees(stage)


def upgrades(net: Net, *, times: int, rate: float) -> None:
    with scene(net, fast=False) as stage:
        session = stage.card.status()["session"]
        assert stage.hub.process is not None
        pid = stage.hub.process.pid

        def trouble() -> None:
            for _ in range(times):
                stage.hub.run("hub", "upgrade", timeout_s=60.0)
                time.sleep(1.0)

        survive(stage, trouble, rate=rate)
        assert stage.hub.process.running
        assert stage.hub.process.pid == pid
        assert stage.card.status()["session"] == session
        agrees(stage)


def test_an_upgrade_of_the_hub_under_load(net: Net) -> None:
    upgrades(net, times=1, rate=5e5)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_two_upgrades_of_the_hub_under_a_greater_load(net: Net) -> None:
    upgrades(net, times=2, rate=2e6)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_same_at_full_length(net: Net) -> None:
    """A black-out of 20 s and twenty kills, 30 s apart, with the usual times."""
    with scene(net, fast=False) as stage:

        def trouble() -> None:
            stage.relay.black_hole("both", 20.0)
            time.sleep(30.0)
            before = len(stage.relay.connections)
            stage.relay.kill_every(30.0)
            until(lambda: len(stage.relay.connections) >= before + 20, seconds=700.0, what="twenty kills", step_s=1.0)
            stage.relay.kill_every(0.0)

        survive(stage, trouble)
        agrees(stage)
