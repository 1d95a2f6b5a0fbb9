"""Both kinds of peers at our hub for ten minutes of coming, going, changing and flooding: no growth, nothing hangs.

a (card) --- f (relay that cuts) --- h (hub) --- b (vpnclient), c (vpnclient that comes and goes), s (strangers)
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from lab import peers
from lab.beside import BROADCAST, frame, mac
from lab.faults import FaultRelay
from lab.flow import Probe
from lab.net import Host, Net
from lab.plain import Plain, turn
from lab.ukihashi import HUB, Card, Hub
from lab.wait import pause, until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnclient", "vpncmd")]

STEADY: Final = {"ann", "ben", "cho"}  # card, vpnclient, vpnclient that comes and goes
GROWTH: Final = 1.10
FLOOD: Final = 300  # frames in a row
STATIONS: Final = 200  # forged source addresses in a row
BROKEN: Final = ("Traceback (most recent call last)", "internal_error")


class Extent(NamedTuple):
    """How much happens."""

    seconds: float
    cuts: int  # of the card's link
    rejoins: int  # of the vpnclient that comes and goes
    sessions: int  # short ones
    changes: int  # of users
    floods: int

    def part(self, share: float) -> "Extent":
        """So much of it."""
        return Extent(self.seconds * share, *(max(1, round(count * share)) for count in self[1:]))


FULL: Final = Extent(600.0, cuts=400, rejoins=100, sessions=2000, changes=200, floods=60)


class Weight(NamedTuple):
    """What all processes of the hub hold together."""

    pss_kib: int
    descriptors: int


def weigh(host: Host) -> Weight:
    """PSS without files: how many other programs here share Python's own changes from minute to minute."""
    pss = descriptors = 0
    for pid in host.pids():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kib = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
        pss += kib["Pss:"] - kib["Pss_File:"]
        descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Weight(pss, descriptors)


@dataclass
class Field:
    """Everything that takes part."""

    hub: Hub
    card: Card
    account: str  # its name there
    relay: FaultRelay
    steady: peers.Client
    coming: peers.Client
    stranger: Host
    address: str  # of the hub, for strangers
    inside: dict[str, str]  # user -> address on the virtual LAN
    failed: list[str] = field(default_factory=list)

    def cut(self) -> None:
        """Reset the card's link, and wait until it goes on."""
        resumes = self.resumes()
        self.relay.reset()
        until(lambda: self.resumes() > resumes, seconds=20, what="the card going on", step_s=0.1)

    def resumes(self) -> int:
        """Of the card, so far."""
        return int(self.card.tell(self.account)[0]["resumes"])

    def rejoin(self) -> None:
        self.coming.disconnect("v")
        self.coming.connect("v")

    def short_session(self) -> None:
        with Plain(self.stranger, self.address, hub=HUB, user="visitor") as guest:
            guest.send(*(frame(BROADCAST, mac(1)) for _ in range(5)))
            turn([guest], 0.02)

    def change(self) -> None:
        """A user comes, gets another password, goes."""
        name = f"u{secrets.token_hex(4)}"
        self.hub.tell("user_create", name=name, hub=HUB)
        self.hub.tell("user_password", name=name, hub=HUB)
        self.hub.tell("user_delete", name=name, hub=HUB)

    def flood(self) -> None:
        """A storm of broadcasts, forged stations, unknown targets."""
        with Plain(self.stranger, self.address, hub=HUB, user="visitor", bridge=True) as guest:
            guest.send(*(frame(BROADCAST, mac(2)) for _ in range(FLOOD)))
            guest.send(*(frame(mac(3), b"\x02" + secrets.token_bytes(5)) for _ in range(STATIONS)))
            turn([guest], 0.1)


def paced(work: Callable[[], None], count: int, seconds: float, failed: list[str]) -> threading.Thread:
    """Do something `count` times, spread over `seconds`, in a thread; the first failure is told."""

    def run() -> None:
        begin = time.monotonic()
        for number in range(count):
            pause(begin + number * seconds / count - time.monotonic())
            try:
                work()
            except Exception as error:  # noqa: BLE001 - told at the end, whatever it is
                failed.append(f"{work.__name__} {number}: {type(error).__name__} {error}")
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@contextmanager
def peopled(net: Net, *, timeout_s: float) -> Iterator[Field]:
    """All of them up."""
    a, f, h, b, c, s = (net.host(name) for name in "afhbcs")
    for near, far in ((f, a), (h, f), (h, b), (h, c), (h, s)):
        net.link(near, far)
    hub = Hub(h)
    hub.configure({"session_timeout_s": timeout_s})
    hub.start()
    at_f, at_b, at_c, at_s = [address for address in h.addresses if "." in address]
    hub.tell("user_create", name="visitor", hub=HUB, anonymous=True)
    card = Card(a)
    with FaultRelay(f, listen=(f.ipv4, 443), target=(at_f, 443)) as relay:
        card.join(hub.invite("ann", address=relay.address[0]))
        own = card.address(4)
        base = own.rpartition(".")[0]
        inside = {"ann": own, "ben": f"{base}.201", "cho": f"{base}.202"}
        clients = []
        for host, user, address in ((b, "ben", at_b), (c, "cho", at_c)):
            password = hub.tell("user_create", name=user, hub=HUB)[0]["password"]
            client = peers.Client(host)
            client.start()
            client.create_account(
                "v", server=address, port=443, hub=HUB, user=user, password=password, max_tcp=4,
                cidrs=[f"{inside[user]}/24"],
            )  # fmt: skip
            client.connect("v")
            clients.append(client)
        account = next((card.config_dir / "card.d").glob("*.toml")).stem
        yield Field(hub, card, account, relay, clients[0], clients[1], s, at_s, inside)


def live(stage: Field, extent: Extent) -> Weight:
    """So much of everything; then a calm, in which nothing but the steady peers is left."""
    works = (
        (stage.cut, extent.cuts),
        (stage.rejoin, extent.rejoins),
        (stage.short_session, extent.sessions),
        (stage.change, extent.changes),
        (stage.flood, extent.floods),
    )
    threads = [paced(work, count, extent.seconds, stage.failed) for work, count in works]
    for thread in threads:
        thread.join(4 * extent.seconds + 60.0)
        assert not (thread.is_alive() and stage.failed == []), "it hangs"
    assert stage.failed == []
    until(
        lambda: sorted(row["user"] for row in stage.hub.tell("sessions", hub=HUB)) == sorted(STEADY),
        seconds=60, what="only the steady sessions being left", step_s=0.5,
    )  # fmt: skip
    return weigh(stage.hub.host)


def soak(net: Net, extent: Extent, *, first: float, timeout_s: float) -> None:
    """Live through all of it; the hub's weight after the share `first` of it and at the end."""
    with peopled(net, timeout_s=timeout_s) as stage:
        a, b = stage.card.host, stage.steady.host
        for host, user in ((a, "ben"), (a, "cho"), (b, "ann")):
            host.pings(stage.inside[user])
        worker = stage.hub.tell("status")[0]["worker"]["pid"]
        with (
            Probe(a, b, stage.inside["ben"], period_s=0.05) as there,
            Probe(b, a, stage.inside["ann"], period_s=0.05) as back,
        ):
            early = live(stage, extent.part(first))
            late = live(stage, extent.part(1 - first))
            for probe in (there, back):
                probe.flows_again(time.monotonic(), seconds=10.0)
        print(f"early {early}, late {late}; probes {len(there.arrived)}/{len(there.sent)}")
        for host, user in ((a, "ben"), (a, "cho"), (b, "ann")):
            host.pings(stage.inside[user])
        assert late.pss_kib <= GROWTH * early.pss_kib
        assert late.descriptors <= GROWTH * early.descriptors
        assert stage.hub.tell("status")[0]["worker"]["pid"] == worker
        assert stage.card.status()["ledger"]["lost"] == 0
        assert [line for line in stage.hub.log().splitlines() if any(word in line for word in BROKEN)] == []


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_half_a_minute_of_it(net: Net) -> None:
    soak(net, FULL.part(0.05), first=0.3, timeout_s=5.0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_minutes_of_it(net: Net) -> None:
    soak(net, FULL, first=0.1, timeout_s=20.0)
