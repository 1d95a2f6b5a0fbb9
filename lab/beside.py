"""A real server and our hub on one wire, each with the same users, so that the same frames can be given to both.

with beside(net) as sides:
    for side in sides:
        with side.join("a") as a, side.join("b") as b: ...

Every user is anonymous and belongs to virtual hub LAB; `monitor` may listen to everything, `bound` may neither bridge
nor route.
"""

import itertools
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from lab import peers
from lab.net import Host, Net
from lab.plain import Plain, turn
from lab.ukihashi import Hub
from lab.wait import pause

HUB: Final = "LAB"
PLAIN_USERS: Final = ("a", "b", "c")
POLICIES: Final[Mapping[str, Mapping[str, int | bool]]] = {
    "monitor": {"MonitorPort": True},
    "bound": {"NoBridge": True, "NoRouting": True},
}
APART_S: Final = 1.15  # between two logins at a real server, which takes quicker ones for an attack (18.10)
BROADCAST: Final = b"\xff" * 6
EXPERIMENT: Final = 0x88B5  # EtherType for local experiments (IEEE 802, clause 9.2)


@dataclass
class Side:
    """One of the two."""

    name: str
    host: Host  # where clients live: none of the server's own addresses, whose sessions have other rights
    address: str
    apart_s: float
    _last: float = field(default=0.0, repr=False)

    def join(self, user: str, **how: Any) -> Plain:
        """A session of `user`; `how` as `Plain` takes it. Raises `Refused`."""
        pause(self._last + self.apart_s - time.monotonic())
        self._last = time.monotonic()
        return Plain(self.host, self.address, hub=HUB, user=user, **how)


@contextmanager
def beside(net: Net, policies: Mapping[str, Mapping[str, int | bool]] = POLICIES) -> Iterator[list[Side]]:
    """Both, up and running. `policies`: of further users, by their names."""
    real, own, clients = net.lan("real", "own", "clients")
    server, hub = peers.Server(real), Hub(own)
    server.start()
    server.create_hub(HUB)
    hub.start(first=False)
    hub.tell("create", name=HUB)
    hub.tell("addresses_set", hub=HUB, dhcp="off", dns=False, ra=False, guard=False)  # the other has no such things
    for user in (*PLAIN_USERS, *policies):
        server.create_user(HUB, user)
        hub.tell("user_create", name=user, hub=HUB, anonymous=True)
    for user, policy in policies.items():
        server.set_policy(HUB, user, policy)
        hub.set_policy(user, policy, hub=HUB)
    yield [Side("vpnserver", clients, real.ipv4, APART_S), Side("ukihashi", clients, own.ipv4, 0.0)]


def mac(number: int) -> bytes:
    """A station's address."""
    return b"\x02\x00\x5e" + number.to_bytes(3, "big")


def frame(to: bytes, by: bytes, *, size: int = 60, ethertype: int = EXPERIMENT) -> bytes:
    """A frame like no other."""
    head = to + by + ethertype.to_bytes(2, "big")
    return head + secrets.token_bytes(max(0, size - len(head)))


class Sent(NamedTuple):
    """One frame of a plan."""

    at: float  # seconds from the beginning
    by: str  # who sends it
    frame: bytes


def stream(by: str, to: bytes, station: bytes, *, rate: float, since: float, until: float) -> list[Sent]:
    """Frames at equal distances."""
    count = round((until - since) * rate)
    return [Sent(since + number / rate, by, frame(to, station)) for number in range(count)]


def play(plan: Iterable[Sent], sides: Sequence[Mapping[str, Plain]], *, rest_s: float = 0.5) -> None:
    """Send a plan on all sides at once, each frame at its time, and listen for a while longer."""
    everybody = [client for side in sides for client in side.values()]
    begin = time.monotonic()
    for at, batch in itertools.groupby(sorted(plan), key=lambda sent: sent.at):
        turn(everybody, max(0.0, begin + at - time.monotonic()))
        for sent in batch:
            for side in sides:
                side[sent.by].send(sent.frame)
    turn(everybody, rest_s)


def passed(sent: Iterable[Sent], receiver: Plain) -> int:
    """How many of these frames came to `receiver`, each counted once."""
    came = set(receiver.frames)
    return sum(one.frame in came for one in sent)
