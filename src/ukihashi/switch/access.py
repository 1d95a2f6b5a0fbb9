"""A virtual hub's access list: which frames pass. The first rule that fits a frame decides; if none does, it passes."""

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_network

import msgspec

from ukihashi.ether.packet import ACK, RST, TCP, UDP, Packet
from ukihashi.switch.rules import PortRules


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a frame must be for this rule to decide about it; what is left at its default is not asked."""

    discard: bool = True  # else: let pass, and ask no later rule
    note: str = ""
    active: bool = True
    priority: int = 1000  # the lowest is asked first
    ipv6: bool = False  # which of both the rule is about, if it asks for addresses, protocol or ports
    source: str = ""  # network, "192.0.2.0/24"
    destination: str = ""
    protocol: int = 0  # of IP; 0 = any
    source_ports: tuple[int, int] = (0, 0)  # first and last; 0 = any
    destination_ports: tuple[int, int] = (0, 0)
    source_user: str = ""  # the member it comes from, or that one's group
    destination_user: str = ""  # the member it goes to
    source_mac: str = ""  # "02:00:5e:00:00:01" or with a mask, "02:00:00:00:00:00/ff:00:00:00:00:00"
    destination_mac: str = ""
    established: bool | None = None  # TCP: belongs to a connection, or begins one


Test = Callable[[Packet, PortRules, PortRules | None], bool]  # packet, port of entry, port it leaves by


class AccessList:
    """Rules made ready."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Raises: ValueError for a rule that control should not have taken (`hub.filters.checked_rule`)."""
        asked = sorted((rule for rule in rules if rule.active), key=lambda rule: rule.priority)
        self._rules = [(rule.discard, _tests(rule)) for rule in asked]
        # Who gets a frame is known only where it leaves; then the whole list is asked there, to keep its order.
        self.asks_receiver = any(rule.destination_user for rule in asked)

    def __len__(self) -> int:
        return len(self._rules)

    def refuses(self, packet: Packet, entry: PortRules, leaves: PortRules | None = None) -> bool:
        """Is this frame to be dropped?"""
        for discard, tests in self._rules:
            for test in tests:
                if not test(packet, entry, leaves):
                    break
            else:
                return discard
        return False


def _tests(rule: Rule) -> tuple[Test, ...]:
    """All that must hold, the cheap ones first."""
    tests: list[Test] = []
    if rule.source_user:
        tests.append(partial(_is_from, rule.source_user.casefold()))
    if rule.destination_user:
        tests.append(partial(_goes_to, rule.destination_user.casefold()))
    for start, text in ((6, rule.source_mac), (0, rule.destination_mac)):
        if text:
            tests.append(partial(_has_mac, start, *_mac(text)))
    has_ports = rule.source_ports != (0, 0) or rule.destination_ports != (0, 0)
    if rule.source or rule.destination or rule.protocol or has_ports or rule.established is not None:
        tests.append(partial(_is_ip, 6 if rule.ipv6 else 4, rule.protocol))
    for at, text in (("source", rule.source), ("destination", rule.destination)):
        if text:
            tests.append(partial(_is_in, at, *_network(text, 6 if rule.ipv6 else 4)))
    if has_ports:
        tests.append(partial(_has_ports, rule.source_ports, rule.destination_ports))
    if rule.established is not None:
        tests.append(partial(_is_established, rule.established))
    return tuple(tests)


def _is_from(user: str, _packet: Packet, entry: PortRules, _leaves: PortRules | None) -> bool:
    return user in (entry.user.casefold(), entry.group.casefold())


def _goes_to(user: str, _packet: Packet, _entry: PortRules, leaves: PortRules | None) -> bool:
    return leaves is not None and user in (leaves.user.casefold(), leaves.group.casefold())


def _has_mac(start: int, wanted: int, mask: int, packet: Packet, _entry: PortRules, _leaves: PortRules | None) -> bool:
    return int.from_bytes(packet.frame[start : start + 6], "big") & mask == wanted


def _is_ip(version: int, protocol: int, packet: Packet, _entry: PortRules, _leaves: PortRules | None) -> bool:
    return packet.version == version and (not protocol or packet.protocol == protocol)


def _is_in(at: str, wanted: int, mask: int, packet: Packet, _entry: PortRules, _leaves: PortRules | None) -> bool:
    address = packet.source if at == "source" else packet.destination
    return int.from_bytes(address, "big") & mask == wanted


def _has_ports(
    source: tuple[int, int],
    destination: tuple[int, int],
    packet: Packet,
    _entry: PortRules,
    _leaves: PortRules | None,
) -> bool:
    if packet.protocol not in (TCP, UDP) or not packet.start:
        return False
    return (source == (0, 0) or source[0] <= packet.source_port <= source[1]) and (
        destination == (0, 0) or destination[0] <= packet.destination_port <= destination[1]
    )


def _is_established(wanted: bool, packet: Packet, _entry: PortRules, _leaves: PortRules | None) -> bool:
    return packet.flags >= 0 and bool(packet.flags & (ACK | RST)) == wanted


def _mac(text: str) -> tuple[int, int]:
    """Address (masked) and mask."""
    given, slash, masked = text.partition("/")
    address, mask = _six(given), _six(masked) if slash else 0xFFFFFFFFFFFF
    return address & mask, mask


def _six(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text.replace(":", "").replace("-", "")), "big")


def _network(text: str, version: int) -> tuple[int, int]:
    """First address and mask."""
    network = ip_network(text)
    if network.version != version:
        raise ValueError(text)
    return int(network.network_address), int(network.netmask)
