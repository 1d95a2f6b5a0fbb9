"""Guards against members that give themselves out as somebody else: rogue DHCP servers and routers, forged ARP and ND.

The guards are asked about what comes in at a port that is not trusted; each switch of a hub guards its own ports. Of
what comes in at others (trusted ones, trunks) they only learn who has which address.

Nobody plays DHCP server, relay or router there, and no frame may hide that it does: tags and SNAP headers are looked
through, IPv6 headers followed, and what can't be read to the end of its headers is stopped (RFC 6980, RFC 7113). An
address belongs

1. to the hub, if it is its own or its gateway's: no other station may have it;
2. to the station that it was leased to;
3. else to the station that claimed it first, as long as that one is there: if it was silent for a while it is asked,
   and only if it says nothing may another have the address (FCFS SAVI, RFC 6620). A station may be on another port than
   before, and behind one port nobody stands between stations, so neither is looked at.

Claims are what makes others change their ARP or neighbour tables: the sender in any ARP, and the target of a neighbour
advertisement or the source of a solicitation, each with all link-layer addresses that go along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ukihashi.ether.frame import ARP, HEADER, IPV4, IPV6, TAG
from ukihashi.ether.offload import NO_SPLIT, SuperFrame
from ukihashi.ether.packet import (
    ICMPV6,
    NEIGHBOUR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    TCP,
    UDP,
    is_dhcpv6_reply,
)
from ukihashi.ether.segment import finish
from ukihashi.switch import reasons
from ukihashi.switch.claims import (
    ARP_BODY,
    ARP_IPV4,
    ENDLESS,
    LLC,
    NO_IPV6,
    TAGS,
    Put,
    arp_claims,
    dhcp4,
    nd_claims,
    network,
    question,
    read6,
    target,
)
from ukihashi.switch.ip_table import NOBODYS, IpTable
from ukihashi.switch.mac_table import MacTable
from ukihashi.switch.port import Port
from ukihashi.switch.rules import GuardRules, HubRules, PortRules
from ukihashi.switch.shares import Shares
from ukihashi.units import PortId

QUIET_S: Final = 13.0  # a station heard that recently is there; as long as with `CheckIP` (protocol 18.5)
ANSWER_S: Final = 1.0  # one that was asked has so long to say something (RFC 6620: TENT_LT, 0.5 s)
TRUNK_ANSWER_S: Final = 4.0  # the same behind another worker, which tells what it hears every 3 s
TRIAL_S: Final = 3.0  # a station that looks whether an address is free isn't told so often that it is not (RFC 5227)
TABLE_LIMIT: Final = 65536  # addresses
PORT_LIMIT: Final = 256  # of a port that is no bridge

REDIRECT: Final = 137
_ND: Final = range(ROUTER_SOLICITATION, REDIRECT + 1)
_MAY_CLAIM: Final = frozenset((b"\x08\x06", b"\x86\xdd", b"\x81\0"))
_IPV4_TYPE, _IPV6_TYPE = b"\x08\0", b"\x86\xdd"
_JUDGED: Final = frozenset((_IPV4_TYPE, _IPV6_TYPE, *(kind.to_bytes(2, "big") for kind in (ARP, *TAGS))))
_PROTOCOL: Final = {  # where the protocol stands, by the header's length and its type
    HEADER: {_IPV4_TYPE: slice(23, 24), _IPV6_TYPE: slice(20, 21)},
    HEADER + TAG: {_IPV4_TYPE: slice(27, 28), _IPV6_TYPE: slice(24, 25)},
}
_TCP: Final = b"\6"


@dataclass(slots=True)
class _Bound:
    """An address's station."""

    mac: bytes
    port: PortId  # where it came from, for the share of the table
    since: float
    asked: float = -1.0  # when we asked it; before 0: not since it spoke


class Guards:
    """The guards of one virtual hub's switch."""

    def __init__(self, stations: MacTable, addresses: IpTable, *, limit: int = TABLE_LIMIT) -> None:
        """`stations`, `addresses`: what the switch has learned. `limit`: addresses bound to stations."""
        self.rules = GuardRules()
        self.is_on = False
        self.trusted: set[PortId] = set()
        self.trunks: set[PortId] = set()
        self.bridges: set[PortId] = set()
        self.questions: list[tuple[PortId, bytes]] = []  # frames that are to leave by these ports
        self.caught: dict[PortId, tuple[str, str]] = {}  # what was dropped last at a port: why, and more about it
        self._detail = ""
        self._stations = stations
        self._addresses = addresses
        self._limit = limit
        self._vlans_apart = True
        self._names: frozenset[str] = frozenset()
        self._never: frozenset[bytes] = frozenset()
        self._own_stations: frozenset[bytes] = frozenset()
        self._leases: dict[bytes, tuple[bytes, float, float]] = {}  # address -> station, since and until when
        self._bound: dict[bytes, _Bound] = {}  # by address and VLAN
        self._tagged: set[bytes] = set()  # addresses that were claimed in a VLAN
        self._shares = Shares()

    def set_rules(self, hub: HubRules, rules: GuardRules) -> None:
        """From now on."""
        self.rules = rules
        self.is_on = rules.on
        self._vlans_apart = hub.vlans_apart
        self._names = frozenset(name.casefold() for name in rules.trusted)
        self._never = frozenset(rules.addresses)
        self._own_stations = frozenset(rules.stations)
        if not rules.on:
            self._bound.clear()
            self._tagged.clear()
            self._shares = Shares()

    def trusts(self, rules: PortRules) -> bool:
        """A port with these rules may say what it likes."""
        if rules.is_hub_port or (rules.is_local_bridge and self.rules.relay):
            return True
        return bool(rules.user) and rules.user.casefold() in self._names

    def prepare(self, port: Port) -> None:
        """It exists, or rules have changed."""
        rules, number = port.rules, port.number
        for ports, belongs in (
            (self.trunks, rules.is_trunk),
            (self.trusted, not rules.is_trunk and self.trusts(rules)),
            (self.bridges, rules.bridge or rules.is_trunk),
        ):
            (ports.add if belongs else ports.discard)(number)
        port.is_judged = self.is_on and not rules.monitor and number not in self.trunks | self.trusted
        port.asks = (self._judged if port.is_judged else self._heard) if self.is_on and not rules.monitor else None

    def forget_port(self, port: PortId) -> None:
        """It is gone, and what was claimed there."""
        for ports in (self.trusted, self.trunks, self.bridges):
            ports.discard(port)
        self.caught.pop(port, None)
        for key in self._shares.drop(port):
            del self._bound[key]

    def lease(self, address: bytes, station: bytes, now: float, until: float) -> None:
        """`address` (4 or 16 bytes) is `station`'s, if nobody calls `release` before."""
        known = self._leases.get(address)
        since = known[1] if known is not None and known[0] == station else now
        self._leases[address] = station, since, until

    def release(self, address: bytes) -> None:
        """It is leased to nobody."""
        self._leases.pop(address, None)

    def release_all(self) -> None:
        """No address is leased."""
        self._leases.clear()

    # -- at the switch ----------------------------------------------------------------------------------------------

    def _judged(self, frame: bytes, entry: Port, now: float) -> str:
        size = len(frame)
        if size < HEADER or (size > 37 and frame[12:14] == _IPV4_TYPE and (frame[23] == TCP or _is_plain_udp(frame))):
            return ""
        reason = self.judge(frame, entry.number, now)
        return self._caught(reason, entry) if reason else ""

    def _heard(self, frame: bytes, entry: Port, now: float) -> str:
        trusted = entry.rules.is_trusted or not entry.is_trunk
        reason = self.hear(frame, entry.number, now, trusted=trusted)
        return self._caught(reason, entry) if reason else ""

    def _caught(self, reason: str, entry: Port) -> str:
        entry.drops[reason] += 1
        self.caught[entry.number] = reason, self._detail
        self._detail = ""
        return reason

    def stand_before(
        self, put: Put, frame: bytes, window: slice | None, entry: Port, now: float
    ) -> tuple[slice | None, Put]:
        """What hands on frames with the header of `frame`, and on which part of a frame that rests.

        `put` does so if we agree; `window`: what beside the header has decided so far. TCP without tags needs nobody's
        agreement, and types that nobody reads.
        """
        size = entry.header
        kind = frame[size - 2 : size]
        if window is None and (window := _PROTOCOL[size].get(kind)) is not None and frame[window] == _TCP:
            return window, put
        if kind not in _JUDGED and int.from_bytes(kind, "big") >= LLC:
            return window, put
        if kind == _IPV4_TYPE and size == HEADER:

            def judged(frame: bytes) -> None:
                if (len(frame) > 37 and _is_plain_udp(frame)) or not self._judged(frame, entry, now):
                    put(frame)

        else:

            def judged(frame: bytes) -> None:
                if not self._judged(frame, entry, now):
                    put(frame)

        return window, judged

    def ask(self, out: dict[PortId, list[bytes]], ports: Mapping[PortId, Port], entry: Port) -> None:
        """Put our questions on their way, beside what leaves."""
        questions, self.questions = self.questions, []
        for number, frame in questions:
            if number in ports and number != entry.number:
                out.setdefault(number, []).append(frame)

    # -- frames -----------------------------------------------------------------------------------------------------

    def judge(self, frame: bytes, port: PortId, now: float) -> str:
        """Why a frame that comes in at the guarded `port` may not pass, or "" if it may.

        Cost: O(1) over time.
        """
        if frame.__class__ is SuperFrame and frame[-9] == NO_SPLIT:
            # its trailer may name any place behind the first headers for the checksum; judge what will be there
            frame = finish(frame)[0]
        kind, at = network(frame)
        if kind == IPV4:
            return dhcp4(frame, at)
        if kind == ARP:
            return self._arp(frame, at, port, now)
        if kind == IPV6:
            return self._ipv6(frame, at, port, now)
        return self._refused(reasons.HIDDEN, "tags") if kind == ENDLESS else ""

    def hear(self, frame: bytes, port: PortId, now: float, *, trusted: bool) -> str:
        """A frame that came in at a trusted port, or at another switch, whose guard it has passed.

        That guard may not know what this one does; so claims of ports that are not trusted are judged once more. Gives
        the reason for a drop, or "".
        """
        if frame[12:14] not in _MAY_CLAIM:
            return ""
        kind, at = network(frame)
        if kind == ARP:
            claims = arp_claims(frame, at)
        elif kind == IPV6 and frame[at + 6 : at + 7] == b"\x3a":
            claims = nd_claims(read6(frame, at))
        else:
            return ""
        for address, mac in claims:
            if address in NOBODYS or address in self._never:
                continue
            if trusted:
                self._bind(address + self._vlan(frame), mac, port, now)
            elif self._is_forged(address, mac, frame, port, now):
                return self._refused(reasons.FORGED, address.hex())
        return ""

    def owned(self, station: bytes, before: PortId | None, entry: Port, now: float) -> str:
        """A frame came in at the guarded port `entry` from `station`, last heard at `before`.

        Gives the reason if it can't be that station's, else "".
        """
        if station[:6] not in self._own_stations and (
            before not in self.trusted or self._stations.silent_s(station, now) >= QUIET_S
        ):
            return ""
        self.caught[entry.number] = reasons.FORGED_STATION, station[:6].hex(":")
        return reasons.FORGED_STATION

    @property
    def relays(self) -> bool:
        """What asks for a DHCP server goes to who may serve only."""
        return self.rules.relay or self.rules.serve

    def may_serve(self, port: PortId) -> bool:
        """A DHCP server may be behind that port."""
        return port in self.trusted or port in self.trunks

    def _refused(self, reason: str, detail: str) -> str:
        self._detail = detail
        return reason

    def _arp(self, frame: bytes, at: int, port: PortId, now: float) -> str:
        if len(frame) < at + ARP_BODY:
            return ""  # no receiver reads it; the switch drops it
        if not frame.startswith(ARP_IPV4, at + 2):
            return reasons.HIDDEN
        sender = frame[at + 14 : at + 18]
        if not any(sender):
            return self._tried(frame[at + 24 : at + 28], frame[at + 8 : at + 14], frame, port, now)
        return self._claimed(sender, frame[at + 8 : at + 14], frame, port, now)

    def _ipv6(self, frame: bytes, at: int, port: PortId, now: float) -> str:
        packet = read6(frame, at)
        if packet.message in _ND:
            if packet.message in (ROUTER_ADVERTISEMENT, REDIRECT):
                return reasons.ROGUE_ROUTER
            if packet.start != HEADER + 40:  # such a message has no extension headers, least of all a fragment's
                return reasons.HIDDEN
            for address, mac in nd_claims(packet):
                if reason := self._claimed(address, mac, frame, port, now):
                    return reason
            if packet.message == NEIGHBOUR_SOLICITATION and packet.source == NO_IPV6:
                return self._tried(target(packet), frame[6:12], frame, port, now)
            return ""
        if is_dhcpv6_reply(packet):
            return reasons.ROGUE_DHCP
        return reasons.HIDDEN if packet.hidden and packet.protocol in (-1, UDP, ICMPV6) else ""

    # -- addresses --------------------------------------------------------------------------------------------------

    def _claimed(self, address: bytes, mac: bytes, frame: bytes, port: PortId, now: float) -> str:
        """A frame says that `address` is at `mac`."""
        if address in NOBODYS:
            return ""
        if address in self._never or self._is_forged(address, mac, frame, port, now):
            return self._refused(reasons.FORGED, address.hex())
        return ""

    def _is_forged(self, address: bytes, mac: bytes, frame: bytes, port: PortId, now: float) -> bool:
        leased = self._lease(address, now)
        if leased is not None:
            return leased[0] != mac
        vlan = self._vlan(frame)
        if mac != frame[6:12] and self._stations.find(mac + vlan, now) not in (None, port):
            return True  # speaks for a station that is somewhere else
        bound = self._bound.get(address + vlan)
        if bound is not None and bound.mac != mac and self._is_there(bound, address, vlan, port, now):
            return True
        if bound is None and not vlan and address not in self._tagged:
            # as far as the IP table knows, then, which is shared, goes through an upgrade, and knows no VLANs
            used = self._addresses.used_by(address, now)
            if used not in (None, port, self._stations.find(mac + vlan, now)):
                return True
        self._bind(address + vlan, mac, port, now)
        return False

    def _lease(self, address: bytes, now: float) -> tuple[bytes, float] | None:
        known = self._leases.get(address)
        return known[:2] if known is not None and now < known[2] else None

    def _tried(self, address: bytes, mac: bytes, frame: bytes, port: PortId, now: float) -> str:
        """A station, `mac`, looks whether an address is free (RFC 5227, 2.1.1; RFC 4862, 5.4).

        Whoever has it must hear that, but nobody may spoil its first look.
        """
        if not any(address):
            return ""
        vlan = self._vlan(frame)
        bound = self._bound.get(address + vlan)
        holder = self._lease(address, now) or ((bound.mac, bound.since) if bound is not None else None)
        if holder is None:
            if address not in self._never:
                self._bind(address + vlan, mac, port, now)
            return ""
        home = self._stations.find(holder[0] + vlan, now)
        if holder[0] != mac and now - holder[1] < TRIAL_S and home != port:
            return self._refused(reasons.FORGED, address.hex())
        return ""

    def _is_there(self, bound: _Bound, address: bytes, vlan: bytes, port: PortId, now: float) -> bool:
        """Is the address's station alive on another port than `port`? One that is quiet is asked."""
        station = bound.mac + vlan
        home = self._stations.find(station, now)
        if home is None or home == port:
            return False
        silent = self._stations.silent_s(station, now)
        if home in self.trusted or silent < QUIET_S:
            bound.asked = -1.0
            return True
        answers_s = TRUNK_ANSWER_S if home in self.trunks else ANSWER_S
        if bound.asked < 0 or now - bound.asked > QUIET_S:
            bound.asked = now
            self.questions.append((home, question(address, bound.mac, vlan)))
            return True
        return now - bound.asked < answers_s

    def _bind(self, key: bytes, mac: bytes, port: PortId, now: float) -> None:
        bound = self._bound.get(key)
        if bound is not None:
            if bound.mac != mac:
                bound.mac, bound.since, bound.asked = mac, now, -1.0
            if bound.port != port:
                self._shares.discard(bound.port, key)
                self._shares.add(port, key)
                bound.port = port
            return
        victim: bytes | None = None
        if port not in self.bridges and port not in self.trunks and self._shares.count(port) >= PORT_LIMIT:
            victim = next(iter(self._shares.of(port)))
        elif len(self._bound) >= self._limit:
            victim = self._shares.victim(port, self._limit)
            if victim is None:
                return
        if victim is not None:
            self._shares.discard(self._bound.pop(victim).port, victim)
        self._bound[key] = _Bound(mac, port, now)
        if len(key) not in (4, 16):
            if len(self._tagged) >= self._limit:
                self._tagged.clear()
            self._tagged.add(key[:-2])
        self._shares.add(port, key)

    def _vlan(self, frame: bytes) -> bytes:
        """As it stands in a station's key."""
        if not self._vlans_apart or frame[12:14] != b"\x81\0":
            return b""
        vlan = (frame[14] & 0x0F) << 8 | frame[15]
        return vlan.to_bytes(2, "big") if vlan else b""


def _is_plain_udp(frame: bytes) -> bool:
    """UDP between ports above those of DHCP, in a finished frame of IPv4 without options: most of what is not TCP."""
    return bool(
        frame[23] == UDP and frame[14] == 0x45 and frame[34] and frame[36] and frame.__class__ is bytes  # nothing moves
    )
