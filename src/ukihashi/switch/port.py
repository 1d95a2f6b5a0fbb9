"""One port of the switch: its rules made ready, asked once a batch. What is not limited costs nothing.

On its way in a batch passes `admit`, on its way out `deliver`; both are None for a port without such rules.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from ukihashi.ether.frame import HEADER, TAG, VLAN
from ukihashi.ether.offload import ALL, NONE, Kind, SuperFrame
from ukihashi.ether.packet import NEIGHBOUR_ADVERTISEMENT, Packet, is_dhcp_pair, parse, target
from ukihashi.ether.segment import finish
from ukihashi.switch import filters, reasons
from ukihashi.switch.access import AccessList
from ukihashi.switch.headers import ip_addresses
from ukihashi.switch.ip_table import NOBODYS, AddressRules, IpTable
from ukihashi.switch.limiter import Limiter
from ukihashi.switch.rules import HubRules, PortRules, most_ipv4, most_ipv6, most_stations
from ukihashi.switch.storm import Chance, StormControl
from ukihashi.units import PortId
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME

Frames = Sequence[bytes]
Step = Callable[[Frames, float], Frames]  # what is dropped is counted
Delivery = Callable[[Frames, "Port", float], Frames]  # the port: that of entry
Asking = Callable[[bytes, "Port", float], str]  # the reason why it may not pass, or ""
Put = Callable[[bytes], None]
_TAGGED: Final = VLAN.to_bytes(2, "big")


class Port:
    """See the module."""

    def __init__(self, number: PortId, rules: PortRules, max_stations: int, chance: Chance, kinds: Kind = NONE) -> None:
        """`max_stations`: of this port, whatever the rules say; 0 = as they say. `kinds`: see `Switch.add_port`."""
        policy = rules.policy
        self.number = number
        self.rules = rules
        self.is_trunk = rules.is_trunk
        self.drops: Counter[str] = Counter()
        self.max_stations = max_stations or most_stations(rules)
        self.checks_stations = policy.check_mac or rules.is_hub_port  # 18.2: the hub's own port never takes one over
        self.addresses = AddressRules(most_ipv4(rules), most_ipv6(rules), policy.check_ip, policy.check_ipv6)
        self.is_exact = any(self.addresses)  # each frame's address is asked for, not just one of a run's
        self.memo: dict[bytes, tuple[PortId, int, float]] = {}  # what the switch decided lately: to, its changes, when
        self.storm: StormControl | None = None
        self.vlan = policy.vlan_id
        self.header = HEADER + TAG if policy.vlan_id else HEADER  # bytes of its frames, as the hub sees them
        self.admit: Step | None = None
        self.deliver: Delivery | None = None
        self.is_guarded = False  # against loops; `is_blocked`: for one (`switch.loop_guard`)
        self.is_blocked = False
        self.kinds = kinds
        self.takes = kinds
        self.refuses = 0  # kinds, as a number: the operators of an enumeration cost more than a look-up here
        self.brings = 0  # the same
        self.asks: Asking | None = None  # the hub's guards about a frame that comes in
        self.is_judged = False  # about each of them, and not only the first of those with the same header
        self._chance = chance
        self._tag = _TAGGED + policy.vlan_id.to_bytes(2, "big") if policy.vlan_id else b""
        self._upload = Limiter(policy.max_upload) if policy.max_upload else None
        self._download = Limiter(policy.max_download) if policy.max_download else None

    def prepare(self, hub: HubRules, access: AccessList, table: IpTable) -> None:
        """The hub's rules are these from now on."""
        if self.is_trunk or self.rules.policy.no_broadcast_limiter:
            self.storm = None
        elif self.storm is None or self.storm.threshold != hub.storm_threshold:
            self.storm = StormControl(hub.storm_threshold, self._chance)
        self.admit = None if self.is_trunk else self._admission(access, table)
        self.deliver = None if self.is_trunk else self._delivery(hub, access)
        # rules look into finished frames only
        self.takes = self.kinds if self.deliver is None else NONE
        self.refuses = ALL.value & ~self.takes.value
        self.brings = self.kinds.value if self.admit is None else 0

    # -- in ---------------------------------------------------------------------------------------------------------

    def _admission(self, access: AccessList, table: IpTable) -> Step | None:
        if self.rules.monitor:
            return self._refuse
        steps: list[Step] = []
        if self._upload is not None:
            steps.append(self._limited_up)
        verdicts = self._verdicts(access, table)
        if verdicts is not None:
            steps.append(verdicts)
        if self._tag:
            steps.append(self._tagged)
        return _chained(steps)

    def _verdicts(self, access: AccessList, table: IpTable) -> Step | None:
        verdict = filters.into_hub(self.rules.policy)
        rules, drops = self.rules, self.drops
        asks_access = bool(access) and not access.asks_receiver
        checks_v6, forces_dhcp = self.addresses.check_v6, rules.policy.dhcp_force
        if verdict is None and not asks_access and not checks_v6 and not forces_dhcp:
            return None

        def step(frames: Frames, now: float) -> Frames:
            passed = []
            for frame in frames:
                packet = parse(frame)
                if verdict is not None and (reason := verdict(packet)):
                    drops[reason] += 1
                elif asks_access and access.refuses(packet, rules):
                    drops[reasons.ACCESS] += 1
                elif checks_v6 and self._claims(packet, table, now):
                    drops[reasons.ADDRESS_TAKEN] += 1
                elif forces_dhcp and self._is_without_lease(packet, table, now):
                    drops[reasons.NO_LEASE] += 1
                else:
                    passed.append(frame)
            return passed

        return step

    def _claims(self, packet: Packet, table: IpTable, now: float) -> bool:
        """Says to be the neighbour that has another port's address."""
        return packet.message == NEIGHBOUR_ADVERTISEMENT and table.is_taken(target(packet), self.number, now)

    def _is_without_lease(self, packet: Packet, table: IpTable, now: float) -> bool:
        """From an IPv4 address that no DHCP server gave it; asking for one is allowed with any."""
        if not packet.source:
            return packet.hidden
        if len(packet.source) != 4 or packet.source in NOBODYS or is_dhcp_pair(packet):
            return False
        return not table.is_leased(packet.source, self.number, now)

    def _refuse(self, frames: Frames, _now: float) -> Frames:
        self.drops[reasons.MONITOR] += len(frames)
        return ()

    def _limited_up(self, frames: Frames, now: float) -> Frames:
        assert self._upload is not None
        passed = self._upload.admit(frames, now)
        if len(passed) < len(frames):
            self.drops[reasons.UPLOAD] += len(frames) - len(passed)
        return passed

    def _tagged(self, frames: Frames, _now: float) -> Frames:
        tag = self._tag
        fitting = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME - len(tag)]
        if len(fitting) < len(frames):
            self.drops[reasons.SIZE] += len(frames) - len(fitting)
        return [frame[:12] + tag + frame[12:] for frame in fitting]

    def copier(self, lists: Sequence[list[bytes]], frame: bytes, now: float, *, flooded: bool = True) -> Put:
        """What puts a frame like `frame`, which came in here, into all of `lists`."""
        if not lists:
            return nowhere
        if not flooded or self.storm is None:

            def copy(frame: bytes) -> None:
                for frames in lists:
                    frames.append(frame)

            return copy
        passes, drops = self.storm.flow(frame[6:12], ip_addresses(frame), now).passes, self.drops

        def flood(frame: bytes) -> None:
            # a storm is judged by the frames that arrive
            for part in finish(frame, Kind.CHECKSUM) if frame.__class__ is SuperFrame else (frame,):
                if passes(now):
                    for frames in lists:
                        frames.append(part)
                else:
                    drops[reasons.STORM] += 1

        return flood

    # -- out --------------------------------------------------------------------------------------------------------

    def _delivery(self, hub: HubRules, access: AccessList) -> Delivery | None:
        steps: list[Delivery] = []
        if not self.rules.monitor:
            asked = self._asked(hub, access)
            if asked is not None:
                steps.append(asked)
        if self._tag and not self.rules.monitor:
            steps.append(self._untagged)
        if self._download is not None:
            steps.append(self._limited_down)
        if not steps:
            return None

        def deliver(frames: Frames, entry: Port, now: float) -> Frames:
            for step in steps:
                frames = step(frames, entry, now)
            return frames

        return deliver

    def _asked(self, hub: HubRules, access: AccessList) -> Delivery | None:
        verdict = filters.out_of_hub(self.rules.policy)
        is_private, rewrites = self.rules.policy.privacy_filter, filters.rewrites_routers(self.rules)
        asks_access = bool(access) and access.asks_receiver
        if verdict is None and not is_private and not rewrites and not asks_access:
            return None
        rules, drops = self.rules, self.drops
        asks_all = verdict is not None or rewrites or asks_access

        def step(frames: Frames, entry: Port, _now: float) -> Frames:
            both_private = is_private and entry.rules.policy.privacy_filter
            if not asks_all and not both_private:
                return frames
            passed = []
            for frame in frames:
                packet = parse(frame)
                if both_private and filters.is_private(packet, hub):
                    drops[reasons.PRIVACY] += 1
                elif asks_access and access.refuses(packet, entry.rules, rules):
                    drops[reasons.ACCESS] += 1
                elif verdict is not None and (reason := verdict(packet)):
                    drops[reason] += 1
                else:
                    passed.append(filters.rewritten(packet) if rewrites else frame)
            return passed

        return step

    def _untagged(self, frames: Frames, _entry: "Port", _now: float) -> Frames:
        """Of its VLAN only (the switch floods no others to it, and sends it none), as if there were none."""
        return [frame[:12] + frame[16:] for frame in frames]

    def _limited_down(self, frames: Frames, _entry: "Port", now: float) -> Frames:
        assert self._download is not None
        passed = self._download.admit(frames, now)
        if len(passed) < len(frames):
            self.drops[reasons.DOWNLOAD] += len(frames) - len(passed)
        return passed


def nowhere(frame: bytes) -> None:
    """A frame for everybody, and nobody else is there."""


def _chained(steps: list[Step]) -> Step | None:
    if len(steps) < 2:
        return steps[0] if steps else None

    def step(frames: Frames, now: float) -> Frames:
        for each in steps:
            frames = each(frames, now)
        return frames

    return step
