"""A virtual hub's address service in one worker: it answers who asks at the worker's own ports, and nobody else.

It is plugged into the switch as a trunk is: what comes from other workers never gets to it, for their own services have
answered already. So all the services of a hub are one station, which each port finds right behind it. What it says to
one station leaves by the port where the question came in.

Addresses and names are decided by control (`leases`): a question under way has a deadline, and there are so many of
them for a port and for a worker and no more. What can be answered here is: ARP, neighbour and router solicitations.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ukihashi.errors import N_, PeerViolation
from ukihashi.ether import arp, datagram, dhcp, dns, ndp
from ukihashi.ether.datagram import Datagram
from ukihashi.ether.frame import ARP, BROADCAST, IPV4, IPV6
from ukihashi.ether.packet import ICMPV6, NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION, UDP
from ukihashi.hub import lan_dhcp
from ukihashi.hub.cascade_port import CascadePort
from ukihashi.hub.lan_plan import LanService
from ukihashi.hub.loop import Loop, Timer
from ukihashi.hub.messages import LeaseAnswered, LeaseAsked, Names
from ukihashi.hub.ports import Encodings, VirtualHub
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import PortRules
from ukihashi.units import PortId

if TYPE_CHECKING:
    from ukihashi.switch.ip_table import AddressRow

NAME: Final = "service"  # in listings
FRAMES_A_TURN: Final = 32
FRAMES_WAITING: Final = 1024  # of all ports
FRAMES_OF_PORT: Final = 64
ASKED_MOST: Final = 2048  # questions to control under way
ANSWER_S: Final = 4.0  # control has so long; the station has asked again by then
ADVERTISE_S: Final = 200.0  # between two router advertisements to all, at most (RFC 4861, 6.2.1)
SEEN_S: Final = 2.0  # how old the list of addresses in use may be


class Share(NamedTuple):
    """What one port may ask."""

    burst: float  # questions at once
    rate: float  # and a second
    waiting: int  # of them under way


ADDRESSES: Final = Share(40.0, 10.0, 32)
BRIDGED_ADDRESSES: Final = Share(400.0, 80.0, 256)  # with many stations behind
NAMES: Final = Share(300.0, 60.0, 64)
BRIDGED_NAMES: Final = Share(1500.0, 300.0, 256)

_TRUNK: Final = PortRules(is_trunk=True)
_ARP_TYPE, _IPV4_TYPE, _IPV6_TYPE = (kind.to_bytes(2, "big") for kind in (ARP, IPV4, IPV6))
_DHCP_PORT: Final = dhcp.SERVER_PORT.to_bytes(2, "big")

Tell = Callable[[LeaseAsked | Names], bool]  # False: control can't be asked now


class Inbox(PortQueue):
    """What waits for the service, with the port where it came in."""

    __slots__ = ("_hub", "_of_port", "_wants", "waiting")

    def __init__(self, hub: VirtualHub, wants: Callable[[bytes], bool]) -> None:
        super().__init__(0)
        self._hub = hub
        self._wants = wants
        self._of_port: dict[PortId, int] = {}
        self.waiting: list[tuple[PortId, bytes]] = []

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def is_crowded(self) -> bool:
        return False  # nobody waits for it: what is too much is dropped

    def put(self, frames: Sequence[bytes], source: int = 0) -> int:  # noqa: ARG002 - a mesh has one line for all
        port = self._hub.entry
        for frame in frames:
            if not self._wants(frame):
                continue
            count = self._of_port.get(port, 0)
            if count >= FRAMES_OF_PORT or len(self.waiting) >= FRAMES_WAITING:
                self.dropped[self._reason] += 1
                continue
            self._of_port[port] = count + 1
            self.waiting.append((port, frame))
        return 0

    def some(self) -> list[tuple[PortId, bytes]]:
        """The oldest, as many as one turn handles."""
        taken = self.waiting[:FRAMES_A_TURN]
        del self.waiting[:FRAMES_A_TURN]
        for port, _frame in taken:
            left = self._of_port[port] - 1
            if left:
                self._of_port[port] = left
            else:
                del self._of_port[port]
        return taken


@dataclass(slots=True)
class _Bucket:
    """What a port may ask still."""

    left: float
    at: float


@dataclass(slots=True)
class _Waiting:
    """A question that control has."""

    service: "Service"
    port: PortId
    until: float
    question: dhcp.Message | Datagram


class Service:
    """Of one virtual hub."""

    def __init__(self, hub: VirtualHub, plan: LanService, services: "Services") -> None:
        self.plan = plan
        self.hub: Final = hub
        self.name = NAME
        self._services = services
        self._loop = services.loop
        self._inbox = Inbox(hub, self._is_for_us)
        self.queue: PortQueue = self._inbox
        self._buckets: OrderedDict[tuple[PortId, bool], _Bucket] = OrderedDict()
        self._seen: dict[bytes, PortId] = {}
        self._seen_at = float("-inf")
        self._timer: Timer | None = None
        self.port = hub.plug(self, _TRUNK)
        hub.switch.set_own(plan.mac, self.port)
        self._advertise_soon()

    def set_plan(self, plan: LanService) -> None:
        """This holds from now on."""
        if plan == self.plan:
            return
        before, self.plan = self.plan, plan
        self.hub.switch.set_own(plan.mac, self.port)
        if before.ra and not plan.ra:
            self._send(ndp.router_advertisement(lan_dhcp.farewell(before)), None)
        if before.ra and before.router6 and not (plan.ra and plan.router6 == before.router6):
            self._send(ndp.router_advertisement(lan_dhcp.way_out(before, lifetime_s=0)), None)
        self._advertise_soon()

    def close(self) -> None:
        """Pull the plug."""
        if self._timer is not None:
            self._timer.cancel()
        self.hub.switch.set_own(None, None)
        self.hub.unplug(self.port)

    # -- as a port ------------------------------------------------------------------------------------------------

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - it takes frames
        """Answer what has come in."""
        for port, frame in self._inbox.some():
            asker = self.hub.ports.get(port)
            if asker is None or isinstance(asker, CascadePort):  # who is behind has a hub of his own
                continue
            try:
                self._handle(port, frame)
            except PeerViolation:
                self._inbox.dropped["malformed"] += 1
        return len(self._inbox) > 0

    def _is_for_us(self, frame: bytes) -> bool:
        """A quick look, at whatever is flooded or sent to us."""
        kind = frame[12:14]
        if frame[:6] == self.plan.mac:
            return True
        if kind == _ARP_TYPE:
            return frame[38:42] == self.plan.address4.packed
        if kind == _IPV4_TYPE:
            return frame[:6] == BROADCAST and frame[23] == UDP and frame[36:38] == _DHCP_PORT
        return (
            kind == _IPV6_TYPE
            and len(frame) > 54
            and frame[20] == ICMPV6
            and frame[54] in (ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION)
        )

    def _handle(self, port: PortId, frame: bytes) -> None:
        kind, plan = frame[12:14], self.plan
        if kind == _ARP_TYPE:
            asked = arp.parse(frame)
            if asked is not None and asked.operation == arp.REQUEST and asked.target == plan.address4:
                self._send(arp.reply(asked, plan.mac), port)
            return
        if kind == _IPV6_TYPE and (neighbour := ndp.parse(frame)) is not None:
            self._handle_neighbour(port, neighbour)
            return
        found = datagram.parse(frame)
        if found is None:
            return
        if found.destination_port == dhcp.SERVER_PORT and found.destination.version == 4:
            self._handle_dhcp(port, found)
        elif found.destination_port == dns.PORT and found.destination in (plan.address4, plan.address6):
            self._handle_name(port, found)

    def _handle_neighbour(self, port: PortId, said: ndp.Neighbourly) -> None:
        plan = self.plan
        if isinstance(said, ndp.NeighbourSolicitation) and said.target in (plan.address6, plan.link_local):
            self._send(ndp.neighbour_advertisement(said, plan.mac), port)
        elif isinstance(said, ndp.RouterSolicitation) and plan.ra and self._may_ask(port, ADDRESSES):
            self._advertise_to(port)

    # -- router advertisements ------------------------------------------------------------------------------------

    def _advertise_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.at(self._loop.now, self._advertise) if self.plan.ra else None

    def _advertise_to(self, port: PortId | None) -> None:
        self._send(ndp.router_advertisement(lan_dhcp.advertisement(self.plan)), port)
        if self.plan.router6:
            self._send(ndp.router_advertisement(lan_dhcp.way_out(self.plan)), port)

    def _advertise(self) -> None:
        self._advertise_to(None)
        pause = ADVERTISE_S * random.uniform(0.75, 1.0)  # noqa: S311 - so that hubs don't speak in step
        self._timer = self._loop.at(self._loop.now + pause, self._advertise)

    # -- what control decides -------------------------------------------------------------------------------------

    def _handle_dhcp(self, port: PortId, found: Datagram) -> None:
        plan = self.plan
        if plan.dhcp != "serve":
            return
        message, rules = dhcp.parse(found.payload), self.hub.switch.rules_of(port)
        is_bridge = _is_bridge(rules)
        if message.mac != found.source_mac and not is_bridge:
            raise PeerViolation(N_("a DHCP message of another station"))
        asked = lan_dhcp.asked(plan, message)
        share = BRIDGED_ADDRESSES if is_bridge else ADDRESSES
        if asked is None or not self._may_ask(port, share):
            return
        busy: tuple[int, ...] = ()
        if message.kind == dhcp.DISCOVER:
            base = int(plan.network4.network_address)
            busy = tuple(
                int.from_bytes(address, "big") - base
                for address, there in self._addresses_in_use().items()
                if there != port and len(address) == 4
            )
        self._services.ask(
            self,
            port,
            share.waiting,
            message,
            lambda number: LeaseAsked(
                number,
                self.hub.name,
                self.hub.ports[port].name,
                rules.user,
                message.kind,
                message.mac,
                message.mac,  # whichever of a machine's programs asks, it is the same station
                asked.wanted,
                asked.chosen,
                asked.host,
                is_bridge,
                busy,
            ),
        )

    def _handle_name(self, port: PortId, found: Datagram) -> None:
        plan = self.plan
        if not plan.dns or not (
            found.source in plan.network4 or found.source in plan.network6 or found.source.is_link_local
        ):
            return
        share = BRIDGED_NAMES if _is_bridge(self.hub.switch.rules_of(port)) else NAMES
        if len(found.payload) > dns.EDNS_LIMIT or not self._may_ask(port, share):
            return
        self._services.ask(
            self,
            port,
            share.waiting,
            found,
            lambda number: Names(
                number,
                found.payload,
                self.hub.name,
                tuple(address for address in self._addresses_in_use() if len(address) == 16),
            ),
        )

    def leased(self, waiting: _Waiting, answer: LeaseAnswered) -> None:
        """Control has decided."""
        if answer.kind and isinstance(waiting.question, dhcp.Message) and self.plan.dhcp == "serve":
            self._send(lan_dhcp.reply(self.plan, waiting.question, answer), waiting.port)

    def named(self, waiting: _Waiting, answer: Names) -> None:
        """Control has an answer."""
        asked = waiting.question
        if isinstance(asked, Datagram) and answer.data:
            back = Datagram(
                self.plan.mac,
                asked.source_mac,
                asked.destination,
                asked.source,
                asked.destination_port,
                asked.source_port,
                answer.data,
            )
            self._send(datagram.encode(back), waiting.port)

    def _addresses_in_use(self) -> dict[bytes, PortId]:
        """Addresses of the hub's subnets heard of lately, and where."""
        now, plan = self._loop.now, self.plan
        if now - self._seen_at > SEEN_S:
            self._seen_at = now
            rows: list[AddressRow] = self.hub.switch.address_rows(now)
            prefix4, prefix6 = plan.network4.network_address.packed[:3], plan.network6.network_address.packed[:8]
            self._seen = {
                row.address: row.port
                for row in rows
                if row.address.startswith((prefix4, prefix6)[len(row.address) > 4])
            }
        return self._seen

    def _may_ask(self, port: PortId, share: Share) -> bool:
        """Takes one of the port's questions: about names, or about all else."""
        burst, rate, key = share.burst, share.rate, (port, share in (NAMES, BRIDGED_NAMES))
        now, bucket = self._loop.now, self._buckets.pop(key, None)
        if bucket is None:
            bucket = _Bucket(burst, now)
            while len(self._buckets) > 2 * len(self.hub.ports):
                self._buckets.popitem(last=False)  # of a port that is gone, or has asked nothing for long
        bucket.left = min(burst, bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        self._buckets[key] = bucket
        if bucket.left < 1:
            self._inbox.dropped["too_many"] += 1
            return False
        bucket.left -= 1
        return True

    # -- out ------------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes, port: PortId | None) -> None:
        """To the station behind `port`, or to all of this worker's ports."""
        hub = self.hub
        out = hub.switch.forward([frame], self.port, self._loop.now)
        for number, run in out.items():
            target = hub.ports[number]
            if port is None and isinstance(target, CascadePort):
                continue
            if port is None or number == port:
                target.queue.put(run, hub.line(self.port))
                hub.outbox.mark(target)


def _is_bridge(rules: PortRules) -> bool:
    """Many stations may be behind a port with these rules."""
    return rules.bridge or rules.is_hub_port or rules.is_local_bridge


class Services:
    """Of one worker: a service for each virtual hub that has one, and the questions to control."""

    def __init__(self, loop: Loop, tell: Tell) -> None:
        self.loop: Final = loop
        self._tell = tell
        self._services: dict[str, Service] = {}  # by virtual hub, casefolded
        self._asked: OrderedDict[int, _Waiting] = OrderedDict()  # oldest first
        self._of_port: dict[tuple[Service, PortId], int] = {}  # questions under way
        self._last = 0

    def settle(self, hub: VirtualHub) -> None:
        """Its settings may have changed."""
        plan, key = hub.settings.service if hub.settings.online else None, hub.name.casefold()
        service = self._services.get(key)
        if service is not None and (plan is None or service.hub is not hub):
            self.remove(hub.name)
            service = None
        if plan is None:
            return
        if service is None:
            self._services[key] = Service(hub, plan, self)
        else:
            service.set_plan(plan)

    def remove(self, hub: str) -> None:
        """That hub has none any more."""
        service = self._services.pop(hub.casefold(), None)
        if service is not None:
            service.close()

    def ask(
        self,
        service: Service,
        port: PortId,
        most: int,
        question: dhcp.Message | Datagram,
        make: Callable[[int], LeaseAsked | Names],
    ) -> None:
        """Ask control; what is too much, and what can't be asked now, is dropped: the station asks again.

        `most`: questions of this port under way.
        """
        self._expire()
        place = (service, port)
        if len(self._asked) >= ASKED_MOST or self._of_port.get(place, 0) >= most:
            return
        self._last += 1
        if self._tell(make(self._last)):
            self._asked[self._last] = _Waiting(service, port, self.loop.now + ANSWER_S, question)
            self._of_port[place] = self._of_port.get(place, 0) + 1

    def answered(self, answer: LeaseAnswered | Names) -> None:
        """Control says so."""
        waiting = self._asked.get(answer.ask)
        if waiting is None or waiting.service not in self._services.values():
            return
        self._done(answer.ask)
        if self.loop.now > waiting.until:
            return
        if isinstance(answer, LeaseAnswered):
            waiting.service.leased(waiting, answer)
        else:
            waiting.service.named(waiting, answer)

    def _expire(self) -> None:
        while self._asked:
            number, waiting = next(iter(self._asked.items()))
            if waiting.until >= self.loop.now:
                return
            self._done(number)

    def _done(self, number: int) -> None:
        waiting = self._asked.pop(number)
        place = (waiting.service, waiting.port)
        left = self._of_port[place] - 1
        if left:
            self._of_port[place] = left
        else:
            del self._of_port[place]
