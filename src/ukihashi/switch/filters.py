"""The filters in a member's policy (protocol appendix B), made ready for one port: a callable for each direction.

A filter that looks for something refuses frames that hide it, too (`Packet.hidden`).
"""

from collections.abc import Callable, Sequence
from functools import partial

from ukihashi.ether.frame import ARP, IPV4, IPV6
from ukihashi.ether.packet import (
    ACK,
    ICMPV6,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    SYN,
    TCP,
    UDP,
    Packet,
    is_dhcp,
    is_dhcp_reply,
    is_dhcpv6,
    is_dhcpv6_reply,
    without_router,
)
from ukihashi.switch import reasons
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.wire.policy import Policy

Test = Callable[[Packet], bool]  # may this one not pass?
Verdict = Callable[[Packet], str]  # the reason why not, or ""


def into_hub(policy: Policy) -> Verdict | None:
    """What is asked about a frame that comes from the member; None = nothing."""
    return _compiled(
        [
            *_both_ways(policy),
            (policy.dhcp_no_server, reasons.DHCP_SERVER, _is_dhcp_reply),
            (policy.dhcpv6_no_server, reasons.DHCP_SERVER, _is_dhcpv6_reply),
            (policy.no_server, reasons.TCP_SERVER, partial(_accepts, 4)),
            (policy.no_server_v6, reasons.TCP_SERVER, partial(_accepts, 6)),
            (policy.ra_filter, reasons.ROUTER, partial(_is_router, {ROUTER_ADVERTISEMENT})),
        ]
    )


def out_of_hub(policy: Policy) -> Verdict | None:
    """What is asked about a frame that goes to the member; None = nothing."""
    return _compiled(_both_ways(policy))


def rewrites_routers(rules: PortRules) -> bool:
    """Router advertisements to the member are told to be of no default router."""
    policy = rules.policy
    return policy.no_ipv6_default_router_in_ra or (policy.no_ipv6_default_router_in_ra_when_ipv6 and rules.over_ipv6)


def rewritten(packet: Packet) -> bytes:
    """The frame with that done, if it is one."""
    return without_router(packet) if packet.message == ROUTER_ADVERTISEMENT else packet.frame


def is_private(packet: Packet, hub: HubRules) -> bool:
    """A frame that does not pass between two members with the privacy filter (18.3)."""
    if packet.kind == ARP:
        return hub.privacy_drops_arp
    return hub.privacy_drops_broadcasts if packet.is_group else True


def _both_ways(policy: Policy) -> list[tuple[bool, str, Test]]:
    return [
        (policy.filter_ipv4, reasons.IPV4, lambda packet: packet.kind in (IPV4, ARP) or _is_endless(packet)),
        (policy.filter_ipv6, reasons.IPV6, lambda packet: packet.kind == IPV6 or _is_endless(packet)),
        (policy.filter_non_ip, reasons.NON_IP, lambda packet: packet.kind not in (IPV4, ARP, IPV6)),
        (policy.arp_dhcp_only, reasons.BROADCAST, _is_idle_broadcast),
        (policy.dhcp_filter, reasons.DHCP, lambda packet: is_dhcp(packet) or _hides(packet, IPV4, UDP)),
        (policy.dhcpv6_filter, reasons.DHCP, lambda packet: is_dhcpv6(packet) or _hides(packet, IPV6, UDP)),
        (
            policy.rs_and_ra_filter,
            reasons.ROUTER,
            partial(_is_router, {ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT}),
        ),
    ]


def _compiled(wanted: Sequence[tuple[bool, str, Test]]) -> Verdict | None:
    tests = [(reason, test) for asked, reason, test in wanted if asked]
    if not tests:
        return None

    def verdict(packet: Packet) -> str:
        for reason, test in tests:
            if test(packet):
                return reason
        return ""

    return verdict


def _hides(packet: Packet, kind: int, protocol: int) -> bool:
    """It may be of that protocol, and we can't see."""
    if not packet.hidden:
        return False
    return _is_endless(packet) or (packet.kind == kind and packet.protocol in (protocol, -1))


def _is_endless(packet: Packet) -> bool:
    """It has so many tags that we gave up."""
    return packet.hidden and packet.kind not in (IPV4, IPV6)


def _is_dhcp_reply(packet: Packet) -> bool:
    return is_dhcp_reply(packet) or _hides(packet, IPV4, UDP)


def _is_dhcpv6_reply(packet: Packet) -> bool:
    return is_dhcpv6_reply(packet) or _hides(packet, IPV6, UDP)


def _accepts(version: int, packet: Packet) -> bool:
    """TCP that answers a SYN; a member behind whom nobody does is no server."""
    if _hides(packet, IPV4 if version == 4 else IPV6, TCP):
        return True
    return packet.version == version and packet.flags >= 0 and packet.flags & (SYN | ACK) == SYN | ACK


def _is_router(messages: set[int], packet: Packet) -> bool:
    return packet.message in messages or _hides(packet, IPV6, ICMPV6)


def _is_idle_broadcast(packet: Packet) -> bool:
    """To many, and nothing that finding each other needs."""
    return packet.is_group and not (
        packet.kind == ARP
        or is_dhcp(packet)
        or is_dhcpv6(packet)
        or (packet.version == 6 and packet.protocol == ICMPV6)
    )
