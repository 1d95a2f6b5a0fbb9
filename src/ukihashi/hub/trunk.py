"""One virtual hub over several workers: each has a switch of its own, and in it a trunk to each other worker.

What comes in on a trunk goes to the worker's own ports only, so nothing runs in circles. Frames cross with what the
rules of the ports they leave by need to know of the port they entered by: user and group where the access list asks
for the receiver, and the privacy filter. The switches tell each other what they learn (`neighbours`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import msgspec

from ukihashi.config.hub import MAX_WORKERS
from ukihashi.ether.offload import ALL
from ukihashi.hub.mesh import Crowded, Link
from ukihashi.hub.messages import HubPut
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.switch.ip_table import AddressRow
from ukihashi.switch.mac_table import Station
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import PortRules
from ukihashi.units import PortId
from ukihashi.wire.policy import DEFAULT, Policy

QUEUE: Final = 1 << 20  # bytes of a virtual hub's frames that wait for one worker
BATCH: Final = 256 * 1024  # bytes of frames in one piece
CROWD_S: Final = 0.02  # how often it is said, or looked, whether a queue over there is crowded still

OWN: Final = -1  # in place of a worker's number: this one
KEYS: Final = MAX_WORKERS  # a row's number in the tables of all workers is its own times this, and the worker's number

_TRUNK: Final = PortRules(is_trunk=True)
_PRIVATE: Final = Policy(privacy_filter=True)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What frames carry of the port they entered by."""

    hub: str
    user: str = ""
    group: str = ""
    private: bool = False
    trusted: bool = False  # by the guards

    @property
    def rules(self) -> PortRules:
        """As those of a port."""
        policy = _PRIVATE if self.private else DEFAULT
        return PortRules(user=self.user, group=self.group, policy=policy, is_trunk=True, is_trusted=self.trusted)


class Mesh(Protocol):
    """What a virtual hub needs of the worker's links to the others."""

    number: int  # of this worker

    @property
    def links(self) -> dict[int, Link]:
        """By the other worker's number."""

    def has_news(self, hub: "MeshedHub") -> None:
        """It has learned something that the others may not know."""

    def gone(self, hub: "MeshedHub", stations: Sequence[bytes]) -> None:
        """It has these stations no more."""

    def at(self, after_s: float, hub: "MeshedHub") -> None:
        """Call `hub.look_at_crowds` so much later."""

    def now(self) -> float:
        """The monotonic time."""


class TrunkQueue(PortQueue):
    """A queue that keeps apart what entered by different ports, and knows how it stands where its frames go."""

    __slots__ = ("_heads", "_hub", "crowded_until")

    def __init__(self, hub: "MeshedHub") -> None:
        super().__init__(QUEUE)
        self._hub = hub
        self._heads: list[tuple[bytes, int]] = []  # how many of the frames entered so, in order
        self.crowded_until = 0.0  # as the other worker says

    @property
    def is_crowded(self) -> bool:
        return super().is_crowded or self._hub.mesh.now() < self.crowded_until

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:
        before, head = len(self), self._hub.head
        dropped = super().put(frames, source)
        count = len(self) - before
        if count:
            if self._heads and self._heads[-1][0] == head:
                count += self._heads.pop()[1]
            self._heads.append((head, count))
        return dropped

    def take_runs(self, limit_bytes: int) -> Iterator[tuple[bytes, list[bytes]]]:
        """As `take`, by what they entered by."""
        frames, at = self.take(limit_bytes), 0
        while at < len(frames):
            head, count = self._heads[0]
            run = frames[at : at + count]
            if len(run) < count:
                self._heads[0] = head, count - len(run)
            else:
                del self._heads[0]
            at += len(run)
            yield head, run


class Trunk:
    """The port of a worker's switch behind which another worker's is."""

    def __init__(self, hub: "MeshedHub", link: Link) -> None:
        self.link = link
        self.name = f"worker {link.number}"
        self.runs = TrunkQueue(hub)
        self.queue: PortQueue = self.runs
        self.frames_out = self.frames_in = 0
        self.crowd: PortQueue | None = None  # into which it has sent much, as it was told
        self.port = hub.plug(self, _TRUNK, kinds=ALL)

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - a worker takes frames
        """Hand on what waits as far as the link takes it; the rest goes when it has room (`Ear.drained`)."""
        while self.queue and not self.link.is_full:
            self._send()
        return False

    def push(self) -> None:
        """Hand on all that waits: what is said over the link next comes behind it."""
        while self.queue:
            self._send()

    def _send(self) -> None:
        for head, frames in self.runs.take_runs(BATCH):
            self.frames_out += len(frames)
            self.link.send(head, frames)


class MeshedHub(VirtualHub):
    """A virtual hub of several workers, as one of them has it."""

    def __init__(self, settings: HubPut, outbox: Outbox, mesh: Mesh) -> None:
        self.mesh = mesh
        self.trunks: dict[int, Trunk] = {}  # by the other worker's number
        self.origin = OWN  # the worker by whose port the frames that are on their way entered
        self.head = b""  # and how, as it is said to others
        self._workers: dict[PortId, int] = {}  # the trunks' ports
        self._heads: dict[PortId, bytes] = {}
        self._heads_of = settings  # that they were made by
        self._moves: PortId | None = None  # the port whose stations go along with a session
        self.untold: set[PortId] = set()  # ports whose stations are on their way: the move itself tells of them
        super().__init__(settings, outbox)
        self.switch.learned = []
        for link in mesh.links.values():
            self.connect(link)

    # -- links ----------------------------------------------------------------------------------------------------

    def connect(self, link: Link) -> None:
        """There is a link to another worker, and no trunk over it yet."""
        trunk = self.trunks[link.number] = Trunk(self, link)
        self._workers[trunk.port] = link.number

    def disconnect(self, worker: int) -> None:
        """That worker is gone, with all its stations."""
        trunk = self.trunks.pop(worker, None)
        if trunk is not None:
            del self._workers[trunk.port]
            super().unplug(trunk.port)

    # -- frames ---------------------------------------------------------------------------------------------------

    def forward(self, frames: Sequence[bytes], source: PortId, now: float) -> PortQueue | None:
        worker = self._workers.get(source)
        if worker is None:
            if self._heads_of is not self._settings:
                self._heads.clear()
                self._heads_of = self._settings
            self.origin = OWN
            self.head = self._heads.get(source) or self._make_head(source)
        else:
            self.origin = worker
        crowded = super().forward(frames, source, now)
        if self.switch.learned:
            self.mesh.has_news(self)
        return crowded

    def line(self, source: PortId) -> int:  # noqa: ARG002 - all come in one
        """A session may move here any time: what it sends then must not pass what it sent before, over a trunk."""
        return 0

    def arrived(self, worker: int, rules: PortRules, frames: list[bytes], now: float) -> None:
        """Frames that entered the hub at another worker, by a port with these rules."""
        trunk = self.trunks.get(worker)
        if trunk is None:
            return
        self.switch.enter_as(trunk.port, rules)
        trunk.frames_in += len(frames)
        crowded = self.forward(frames, trunk.port, now)
        if crowded is not None and trunk.crowd is None:
            trunk.crowd = crowded
            trunk.link.tell(Crowded(self.name, True))
            self.mesh.at(CROWD_S, self)

    def look_at_crowds(self) -> None:
        """Are the queues still crowded that others were told of?"""
        again = False
        for trunk in self.trunks.values():
            if trunk.crowd is not None:
                if not trunk.crowd.is_crowded:
                    trunk.crowd = None
                again |= trunk.crowd is not None
                trunk.link.tell(Crowded(self.name, trunk.crowd is not None), comes_again=True)
        if again:
            self.mesh.at(CROWD_S, self)

    def crowd(self, worker: int, crowded: bool) -> None:
        """Another worker says so of a queue of its own that we fill."""
        trunk = self.trunks.get(worker)
        if trunk is not None:
            trunk.runs.crowded_until = self.mesh.now() + 3 * CROWD_S if crowded else 0.0

    def _make_head(self, source: PortId) -> bytes:
        """Told only as far as rules may ask: what is told alike goes in one piece."""
        rules = self.switch.rules_of(source)
        named = any(rule.active and rule.destination_user for rule in self._settings.access)
        entry = Entry(
            self.name,
            rules.user if named else "",
            rules.group if named else "",
            rules.policy.privacy_filter,
            source in self.switch.guards.trusted,
        )
        head = self._heads[source] = msgspec.msgpack.encode(entry)
        return head

    # -- ports and tables -----------------------------------------------------------------------------------------

    def unplug(self, number: PortId) -> None:
        if number in self.ports and number != self._moves:
            self.forget_stations(number)
        self._heads.pop(number, None)
        self.untold.discard(number)
        super().unplug(number)

    def unplug_silently(self, number: PortId) -> None:
        """Its stations go on somewhere else, and the others hear of that."""
        self.untold.discard(number)
        super().unplug(number)

    @contextmanager
    def moving(self, number: PortId) -> Iterator[None]:
        """What is unplugged meanwhile goes on somewhere else."""
        self._moves = number
        try:
            yield
        finally:
            self._moves = None

    def is_trunk(self, number: PortId) -> bool:
        """Behind that port is another worker."""
        return number in self._workers

    def is_told(self, number: PortId) -> bool:
        """The others hear what is behind that port: it is our own, and stays."""
        return number not in self._workers and number not in self.untold

    def own_stations(self) -> list[Station]:
        """What its own ports have learned."""
        return [station for port in self.ports if self.is_told(port) for station in self.switch.stations(port)]

    def own_addresses(self) -> list[AddressRow]:
        """The same of IP addresses."""
        return [row for port in self.ports if self.is_told(port) for row in self.switch.addresses(port)]

    def forget_stations(self, number: PortId) -> None:
        """What was learned on one of its own ports, here and at the others."""
        keys = [station.key for station in self.switch.stations(number)]
        super().forget_stations(number)
        if keys:
            self.mesh.gone(self, keys)

    def mac_rows(self, now: float) -> Iterator[dict[str, Any]]:
        """Its own ports' rows; their keys are unlike those of other workers."""
        yield from self._own(super().mac_rows(now))

    def ip_rows(self, now: float) -> Iterator[dict[str, Any]]:
        yield from self._own(super().ip_rows(now))

    def _own(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        trunks = {trunk.name for trunk in self.trunks.values()}
        for row in rows:
            if row["session"] not in trunks:
                yield row | {"key": _common(row["key"], self.mesh.number)}

    def forget_station(self, key: int) -> bool:
        """By the key of a row of ours."""
        for row in self.switch.rows(self.mesh.now()):
            if not self.is_trunk(row.port) and _common(row.key, self.mesh.number) == key:
                station = row.mac + (row.vlan.to_bytes(2, "big") if row.vlan else b"")
                self.mesh.gone(self, [station])
                return self.switch.forget_station(row.key)
        return False

    def forget_address(self, key: int) -> bool:
        """By the key of a row of ours."""
        for row in self.switch.address_rows(self.mesh.now()):
            if not self.is_trunk(row.port) and _common(row.key, self.mesh.number) == key:
                return self.switch.forget_address(row.key)
        return False

    def trunk_rows(self) -> list[dict[str, Any]]:
        """For listings."""
        return [
            {
                "hub": self.name,
                "worker": worker,
                "frames_in": trunk.frames_in,
                "frames_out": trunk.frames_out,
                "drops": dict(+(Counter(self.switch.drops.get(trunk.port, {})) + trunk.queue.dropped)),
            }
            for worker, trunk in self.trunks.items()
        ]


def _common(key: int, worker: int) -> int:
    """A row's key among those of all workers; it fits into the four bytes that tools of others have for it."""
    return (key * KEYS + worker) & 0xFFFFFFFF
