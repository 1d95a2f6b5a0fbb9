"""Which port a frame leaves by: the virtual hub as a learning switch (protocol section 18).

Works on batches: what one read brought in on one port. Frames that follow each other mostly have the same header, so a
decision is kept for the batch and reused while nothing that it rests on has changed. What a port's rules ask of single
frames is in `switch.port`; only ports that have such rules pay for them.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from ukihashi.ether import arp
from ukihashi.ether.frame import ARP, BROADCAST, HEADER, IPV4, IPV6, NO_MAC, VLAN, vlan_id
from ukihashi.ether.offload import NONE, Kind, SuperFrame
from ukihashi.ether.packet import lease, parse
from ukihashi.ether.segment import finish, finish_all
from ukihashi.switch.access import AccessList, Rule
from ukihashi.switch.claims import is_run, relayed
from ukihashi.switch.guards import Guards
from ukihashi.switch.headers import NOTHING, SENDERS, bridge, deciding, source_address
from ukihashi.switch.ip_table import EXCLUSIVE_S, AddressRow, IpTable
from ukihashi.switch.loop_guard import ETHERTYPE as PROBE
from ukihashi.switch.loop_guard import LOOP, read_probe
from ukihashi.switch.mac_table import AGEING_S, TABLE_LIMIT, MacTable, Row, Station
from ukihashi.switch.port import Port, Put, nowhere
from ukihashi.switch.reasons import (
    ARP_SHORT,
    OWN_PORT,
    PORT_FULL,
    SIZE,
    SOURCE,
    STATION_TAKEN,
    TABLE_FULL,
    TRUNK,
)
from ukihashi.switch.reasons import VLAN as OTHER_VLAN
from ukihashi.switch.rules import GuardRules, HubRules, PortRules
from ukihashi.switch.storm import Chance
from ukihashi.units import PortId
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME

if TYPE_CHECKING:
    from collections import Counter

_VLAN_TYPE: Final = VLAN.to_bytes(2, "big")
_ARP_TYPE: Final = ARP.to_bytes(2, "big")
_IPV4_TYPE: Final = IPV4.to_bytes(2, "big")
_IPV6_TYPE: Final = IPV6.to_bytes(2, "big")
_UNCACHED: Final = frozenset((_VLAN_TYPE, _ARP_TYPE))  # what decides lies behind the header
_BRIDGES: Final = b"\x01\x80\xc2\0\0\0"

MEMO_S: Final = 0.25  # a decision about a known station holds so long, and its sender is not noted anew meanwhile
MEMO_MOST: Final = 512  # decisions that a port remembers
RUN: Final = 16  # frames of a batch, from which on it pays to look whether all are alike

_NO_RULES: Final = PortRules()
_NO_GUARD: Final = GuardRules()


class Watch(Protocol):
    """Who looks for loops (`switch.loop_guard`)."""

    def probe_came(self, frame: bytes, port: PortId, now: float) -> bool:
        """`frame`, which came in at `port`, may be a probe. True: it is one of this hub's and goes nowhere."""

    def station_moved(self, before: PortId, after: PortId, now: float) -> None:
        """A station was heard on another port than before, whether it may be there or not."""


class Switch:
    """The ports of one virtual hub and what they learned. Knows nothing of sessions, queues or sockets."""

    def __init__(
        self,
        *,
        ageing: float = AGEING_S,
        limit: int = TABLE_LIMIT,
        own_mac: bytes | None = None,
        chance: Chance = lambda: 1.0,
    ) -> None:
        """`own_mac`: a sender address that only the hub itself may use. `chance`: decides what a storm lets through."""
        self._table = MacTable(ageing=ageing, limit=limit)
        self._addresses = IpTable(limit=limit)
        self.guards = Guards(self._table, self._addresses, limit=limit)
        self._own_mac = own_mac
        self._own_port: PortId | None = None  # where `own_mac` is
        self._chance = chance
        self._ports: dict[PortId, Port] = {}
        self._monitors: list[PortId] = []
        self._hub = HubRules()
        self._access = AccessList(())
        self._delivers = False  # some port asks about frames that go to it
        self._snoops = False  # some port may use leased addresses only
        self._changes = 0  # of anything that a decision rests on
        self.drops: dict[PortId, Counter[str]] = {}  # by reason; in by port of entry, out by the port it would leave by
        self._held: set[PortId] = set()
        self.watch: Watch | None = None
        self.learned: list[bytes] | None = None  # stations that are new on their port, for who asks and takes them out

    @property
    def ports(self) -> tuple[PortId, ...]:
        """All ports in the order they were added."""
        return tuple(self._ports)

    def set_own(self, mac: bytes | None, port: PortId | None) -> None:
        """The hub's own station, and its port: it is always there, and nobody else may send as it."""
        self._changes += 1
        self._own_mac, self._own_port = mac, port

    def set_ageing(self, seconds: float) -> None:
        """Another ageing time, from now on and for what was learned before."""
        self._changes += 1
        self._table.set_ageing(seconds)

    def set_rules(self, hub: HubRules, access: Sequence[Rule] = (), guard: GuardRules = _NO_GUARD) -> None:
        """The hub's rules and access list, from now on; `guard`: what its guards need to know.

        Raises: ValueError for a rule that is none; nothing has changed then.
        """
        self._access = AccessList(access)
        self._hub = hub
        self.guards.set_rules(hub, guard)
        self._addresses.private_v4_only = hub.private_ipv4_only
        self._addresses.local_v6_only = hub.local_ipv6_only
        self._prepare(self._ports.values())

    def add_port(
        self, port: PortId, rules: PortRules = _NO_RULES, *, max_stations: int = 0, kinds: Kind = NONE
    ) -> None:
        """A session or host port comes up.

        Args:
            max_stations: source addresses it may use, 0 = as the rules say.
            kinds: of super-frames, that it takes and that its own frames may be; those must be without a flaw.
        Raises: ValueError if the port exists.
        """
        if port in self._ports:
            raise ValueError(f"port {port} exists")
        made = self._ports[port] = Port(port, rules, max_stations, self._chance, kinds)
        self.drops[port] = made.drops
        if rules.monitor:
            self._monitors.append(port)
        self._prepare([made])

    def remove_port(self, port: PortId) -> None:
        """It goes down: its stations, addresses and counters are forgotten. An unknown port is no error."""
        if self._ports.pop(port, None) is not None:
            self._table.forget_port(port)
            self._addresses.forget_port(port)
            self._held.discard(port)
            self.guards.forget_port(port)
            del self.drops[port]
            self._monitors = [monitor for monitor in self._monitors if monitor != port]
            self._prepare([])

    def watch_port(self, port: PortId, *, guarded: bool = True, blocked: bool = False) -> None:
        """Look for probes in all that comes in at `port`; `blocked`: and let nothing else pass, neither way."""
        entry = self._ports.get(port)
        if entry is not None:
            self._changes += 1
            entry.is_guarded, entry.is_blocked = guarded or blocked, blocked

    def _prepare(self, changed: Iterable[Port]) -> None:
        self._changes += 1
        for port in changed:
            port.prepare(self._hub, self._access, self._addresses)
            self.guards.prepare(port)
        self._delivers = any(port.deliver is not None for port in self._ports.values())
        self._snoops = any(port.rules.policy.dhcp_force for port in self._ports.values())

    # -- frames -----------------------------------------------------------------------------------------------------

    def forward(self, frames: Sequence[bytes], port: PortId, now: float) -> dict[PortId, list[bytes]]:
        """Learn from `frames`, which came in on `port`, and say where each goes.

        Returns: for each port that gets something its frames, in order, finished as far as it needs them so.
        Raises: KeyError if `port` does not exist.
        Cost: a dictionary look-up a frame while headers repeat; O(ports) for a flooded one.
        """
        entry = self._ports[port]
        if entry.is_guarded and not (frames := self._guarded(frames, entry, now)):
            return {}
        if entry.admit is not None:
            frames = entry.admit(finish_all(list(frames)) if entry.kinds else frames, now)
        asks = entry.asks
        if self._snoops and not entry.is_judged:
            self._snoop(frames, now)
        out: dict[PortId, list[bytes]] = {}
        if len(frames) >= RUN and self._is_run(out, frames, entry, now):
            return self._left(out, entry, now)
        known: dict[bytes, Put] = {}  # header -> what hands its frames on
        narrow: dict[bytes, tuple[slice, dict[bytes, Put]]] = {}  # the same where another part decides, too
        last: bytes | None = None  # header of the frame before, if `put` is right for it
        window: slice | None = None  # and for this part of the frame, if there is one
        part = b""
        put: Put = nowhere
        size = entry.header
        for frame in frames:
            head = frame[:size]
            if (
                head != last
                or (window is not None and frame[window] != part)
                or (len(frame) > MAX_FRAME and frame.__class__ is not SuperFrame)
            ):
                found = None if _is_too_long(frame) else known.get(head)
                window = None
                if found is None:
                    if head in narrow and not _is_too_long(frame):
                        window, puts = narrow[head]
                        part = frame[window]
                        found = puts.get(part)
                    if found is None:
                        last, before = None, self._changes
                        if asks is not None and asks(frame, entry, now):
                            continue
                        reason, target = self._decided(frame, head, entry, now)
                        if self._changes != before:
                            known.clear()
                            narrow.clear()
                        if reason:
                            entry.drops[reason] += 1
                            continue
                        found = self._way(out, entry, frame, target, now)
                        if head[-2:] in _UNCACHED or head[:6] == _BRIDGES:  # each is decided by itself
                            found(frame)
                            continue
                        window = deciding(head, flooded=target is None, exact=entry.is_exact)
                        if entry.is_judged:
                            found(frame)  # which was asked about
                            if len(frames) == 1:
                                break
                            window, found = self.guards.stand_before(found, frame, window, entry, now)
                        if window is None:
                            known[head] = found
                        else:
                            part = frame[window]
                            narrow.setdefault(head, (window, {}))[1][part] = found
                        if entry.is_judged:
                            put, last = found, head
                            continue
                put, last = found, head
            put(frame)
        return self._left(out, entry, now)

    def _guarded(self, frames: Sequence[bytes], entry: Port, now: float) -> Sequence[bytes]:
        """What of the frames goes on: no probe of this hub, and nothing at all while the port is blocked."""
        watch = self.watch
        if watch is not None and any(PROBE in frame[12:18] for frame in frames):
            frames = [one for one in frames if PROBE not in one[12:18] or not watch.probe_came(one, entry.number, now)]
        if entry.is_blocked:
            entry.drops[LOOP] += len(frames)
            return ()
        return frames

    def _is_run(self, out: dict[PortId, list[bytes]], frames: Sequence[bytes], entry: Port, now: float) -> bool:
        """Put a batch of one sender's for one receiver on its way as a whole; False: it is none, or not so simple."""
        if entry.is_exact or self._monitors or entry.header != HEADER or not is_run(frames, judged=entry.is_judged):
            return False
        reason, target = self._decided(frames[0], frames[0][:HEADER], entry, now)
        if reason or target is None:
            return False
        out[target] = list(frames)
        return True

    def _left(self, out: dict[PortId, list[bytes]], entry: Port, now: float) -> dict[PortId, list[bytes]]:
        """What leaves, when all that came in has been put on its way."""
        if self.guards.relays:  # not everybody who was to get a frame does
            out = {number: frames for number, frames in out.items() if frames}
        if self.guards.questions:
            self.guards.ask(out, self._ports, entry)
        if entry.brings:
            self._finish(out, entry.brings)
        return self._delivered(out, entry, now) if self._delivers else out

    def _decided(self, frame: bytes, head: bytes, entry: Port, now: float) -> tuple[str, PortId | None]:
        """As `_decide`, or as it did a moment ago if nothing has changed since and it was a known station's frame."""
        key = head + frame[SENDERS[entry.header].get(head[-2:], NOTHING)] if entry.is_exact else head
        memo = entry.memo.get(key)
        if memo is not None and memo[1] == self._changes and 0 <= now - memo[2] < MEMO_S and not _is_too_long(frame):
            return "", memo[0]
        reason, target = self._decide(frame, entry, now)
        if not reason and target is not None and head[-2:] not in _UNCACHED:
            if len(entry.memo) >= MEMO_MOST:
                entry.memo.clear()
            entry.memo[key] = target, self._changes, now
        return reason, target

    def _decide(self, frame: bytes, entry: Port, now: float) -> tuple[str, PortId | None]:
        """Reason of a drop or "", and port to leave by (None = all others)."""
        if len(frame) < MIN_FRAME or _is_too_long(frame):
            return SIZE, None
        destination, source = frame[:6], frame[6:12]
        is_own = entry.number == self._own_port
        if source in (NO_MAC, BROADCAST, destination) or (source == self._own_mac and not is_own):
            return SOURCE, None
        if PROBE in frame[12:18] and self.watch is not None and self.watch.probe_came(frame, entry.number, now):
            return LOOP, None
        vlan, suffix = 0, b""
        if frame[12:14] in _UNCACHED:
            if arp.is_cut_short(frame):
                return ARP_SHORT, None
            vlan = vlan_id(frame)
            suffix = vlan.to_bytes(2, "big") if vlan and self._hub.vlans_apart else b""
        elif destination == _BRIDGES and self._hub.bridges_by_id:
            source = bridge(frame) or source
        # a group address is no station (802.1Q, 8.7), though such frames pass
        if not source[0] & 1 and not is_own and (reason := self._learn(source + suffix, entry, now)):
            return reason, None
        address = source_address(frame)
        if address and not is_own and (reason := self._addresses.note(address, entry.number, now, entry.addresses)):
            return reason, None
        if frame[34:36] == b"\0\x43" and frame[23] == 17:  # might come from a DHCP server
            self._snoop([frame], now)
        target = None if destination[0] & 1 else self._table.find(destination + suffix, now)
        if destination == self._own_mac:
            target = self._own_port
        if target is None:
            return "", None
        if target == entry.number:
            return OWN_PORT, target
        if entry.is_trunk and self._ports[target].is_trunk:
            return TRUNK, target
        bound = self._ports[target].vlan
        return (OTHER_VLAN if bound and bound != vlan else ""), target

    def _learn(self, station: bytes, entry: Port, now: float) -> str:
        """Note the sender; the reason if it may not send here, else ""."""
        table = self._table
        before = table.find(station, now)
        if entry.is_judged and (reason := self.guards.owned(station, before, entry, now)):
            return reason
        if before != entry.number:
            if before in self._held and entry.is_trunk:
                return ""
            if before is not None and self.watch is not None:
                self.watch.station_moved(before, entry.number, now)
            if before is not None and entry.checks_stations and table.silent_s(station, now) < EXCLUSIVE_S:
                return STATION_TAKEN
            if entry.max_stations and table.count(entry.number) >= entry.max_stations:
                table.expire(now)
                if table.count(entry.number) >= entry.max_stations:
                    return PORT_FULL
            self._changes += 1
            if self.learned is not None and not entry.is_trunk:
                self.learned.append(station)
        return "" if table.learn(station, entry.number, now) else TABLE_FULL

    def _snoop(self, frames: Sequence[bytes], now: float) -> None:
        """Note the addresses that a DHCP server gives."""
        for frame in frames:
            if frame[12:14] != _VLAN_TYPE and (frame[34:36] != b"\0\x43" or frame[12:14] != _IPV4_TYPE):
                continue
            given = lease(parse(frame))
            if given is None:
                continue
            address, station = given
            vlan = vlan_id(frame)
            suffix = vlan.to_bytes(2, "big") if vlan and self._hub.vlans_apart else b""
            port = self._table.find(station + suffix, now)
            if port is not None:
                self._addresses.lease(address, port, now)

    def _way(self, out: dict[PortId, list[bytes]], entry: Port, frame: bytes, target: PortId | None, now: float) -> Put:
        """What puts a frame into the lists of all ports that it goes to."""
        if target is not None:
            if not self._monitors:
                return out.setdefault(target, []).append
            receivers = [target, *self._monitors]
        else:
            vlan = vlan_id(frame)
            # another hub's probe is for whom a loop can go through; who idles must not hear of it
            probe = PROBE in frame[12:18] and self.watch is not None and read_probe(frame) is not None
            receivers = [
                other.number
                for other in self._ports.values()
                if other is not entry
                and not other.is_blocked
                and not (entry.is_trunk and other.is_trunk)
                and (not other.vlan or other.vlan == vlan or other.rules.monitor)
                and (not probe or other.is_guarded or other.is_trunk)
            ]
        if target is None and self.guards.relays:
            servers = [number for number in receivers if self.guards.may_serve(number) or number in self._monitors]
            to_servers = entry.copier([out.setdefault(number, []) for number in servers], frame, now)
            return relayed(to_servers, entry.copier([out.setdefault(number, []) for number in receivers], frame, now))
        lists = [out.setdefault(number, []) for number in receivers]
        return entry.copier(lists, frame, now, flooded=target is None)

    def _finish(self, out: dict[PortId, list[bytes]], brings: int) -> None:
        """Finish what a port does not take, once for all that take the same. `brings`: kinds that may be there."""
        made: dict[int, dict[int, list[bytes]]] = {}  # by kinds not taken and by frame; all of these live on meanwhile
        for number, frames in out.items():
            port = self._ports[number]
            if brings & port.refuses:
                out[number] = _finished(frames, port.takes, made.setdefault(port.refuses, {}))

    def _delivered(self, out: dict[PortId, list[bytes]], entry: Port, now: float) -> dict[PortId, list[bytes]]:
        """What is left when the ports that ask have been asked."""
        left = {}
        for number, frames in out.items():
            deliver = self._ports[number].deliver
            passed = frames if deliver is None else list(deliver(frames, entry, now))
            if passed:
                left[number] = passed
        return left

    # -- tables -----------------------------------------------------------------------------------------------------

    def stations(self, port: PortId) -> list[Station]:
        """What was learned on `port`, to be put back in another process."""
        return self._table.stations(port)

    def rules_of(self, port: PortId) -> PortRules:
        """As they were given. Raises: KeyError if `port` does not exist."""
        return self._ports[port].rules

    def enter_as(self, port: PortId, rules: PortRules) -> None:
        """What comes in on this trunk from now on entered the hub by a port with these rules."""
        self._ports[port].rules = rules

    def hold(self, port: PortId) -> None:
        """What is behind `port` stays there until it is removed, whatever comes from other switches of the hub."""
        self._held.add(port)

    def hear(self, port: PortId, stations: Iterable[Station], addresses: Iterable[AddressRow] = ()) -> None:
        """The switch behind the trunk `port` has heard these on its own ports."""
        if self._held:
            held = {station.key for port in self._held for station in self._table.stations(port)}
            stations = [station for station in stations if station.key not in held]
        if self._table.hear(port, stations):
            self._changes += 1
        self._addresses.hear(port, addresses)

    def lose(self, port: PortId, stations: Iterable[bytes], addresses: Iterable[bytes] = ()) -> None:
        """Those of them that are behind `port` are there no more."""
        self._changes += 1
        self._table.lose(port, stations)
        self._addresses.lose(port, addresses)

    def forget_all(self, port: PortId) -> None:
        """What was learned on `port`."""
        self._changes += 1
        self._table.forget_port(port)
        self._addresses.forget_port(port)

    def recent(self, since: float) -> tuple[list[tuple[PortId, Station]], list[AddressRow]]:
        """Stations and addresses heard after `since`."""
        return list(self._table.recent(since)), list(self._addresses.recent(since))

    def put_back(self, port: PortId, stations: Iterable[Station]) -> None:
        """See `MacTable.put_back`."""
        self._changes += 1
        self._table.put_back(port, stations)

    def rows(self, now: float) -> list[Row]:
        """The MAC table, the station silent longest first."""
        return self._table.rows(now)

    def forget_station(self, key: int) -> bool:
        """Remove a row of it; False if there is none with that key."""
        self._changes += 1
        return self._table.forget(key)

    def addresses(self, port: PortId) -> list[AddressRow]:
        """The IP addresses learned on `port`, to be put back in another process."""
        return self._addresses.addresses(port)

    def put_back_addresses(self, port: PortId, rows: Iterable[AddressRow]) -> None:
        """See `IpTable.put_back`."""
        self._addresses.put_back(port, rows)

    def address_rows(self, now: float) -> list[AddressRow]:
        """The IP table, the address silent longest first."""
        return self._addresses.rows(now)

    def forget_address(self, key: int) -> bool:
        """Remove a row of it; False if there is none with that key."""
        self._changes += 1
        return self._addresses.forget(key)


def _is_too_long(frame: bytes) -> bool:
    return len(frame) > MAX_FRAME and frame.__class__ is not SuperFrame


def _finished(frames: Sequence[bytes], kinds: Kind, made: dict[int, list[bytes]]) -> list[bytes]:
    """`frames` for who takes `kinds`; `made`: what became of frames for somebody before, by their `id`."""
    done: list[bytes] = []
    for frame in frames:
        if frame.__class__ is SuperFrame:
            parts = made.get(id(frame))
            if parts is None:
                parts = made[id(frame)] = finish(frame, kinds)
            done += parts
        else:
            done.append(frame)
    return done
