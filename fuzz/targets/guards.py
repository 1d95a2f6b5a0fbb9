"""The guards: what leaves a guarded switch can be neither a DHCP server's nor a router's, read by another parser."""

from fuzz.targets.ether import A, B, _join, _split
from fuzz.targets.switch import TOKENS as SWITCH_TOKENS
from ukihashi.ether import packet
from ukihashi.switch import claims
from ukihashi.switch.forward import RUN, Switch
from ukihashi.switch.reasons import GUARDS
from ukihashi.switch.rules import GuardRules, HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.policy import Policy

ALLOWED = ()
TOKENS = [
    *SWITCH_TOKENS,
    b"\x91\0",
    b"\0\6\x08\0\6\4",
    b"\x88\0",
    b"\x89\0",
    b"\x2c\0",
    b"\x3c\0",
    b"\0\x44",
    b"\2\1\2",
]
OWN = b"\x0a\0\0\1", b"\xfe\x80" + bytes(13) + b"\1"
HUB = b"\2HUBHU"
LIMIT = 16
FREE = Policy(no_broadcast_limiter=True)


def seeds() -> list[bytes]:
    """ARP, ND, DHCP, and TCP among which they hide."""
    ip = b"\x45\0\1\x30\0\0\0\0\x40\x11\0\0\x0a\0\0\2\x0a\0\0\3"
    offer = ip + b"\0\x43\0\x44\1\x1c\0\0" + b"\2\1\6\0" + bytes(12) + b"\x0a\0\0\7" + bytes(220)
    ask = ip + b"\0\x44\0\x43\1\x1c\0\0" + b"\1\1\6\0" + bytes(236)
    tcp = ip[:9] + b"\6" + ip[10:] + bytes(20)
    arp = b"\0\1\x08\0\6\4\0\2" + A + b"\x0a\0\0\2" + B + b"\x0a\0\0\3"
    head6 = b"\x60\0\0\0\0\x20\x3a\xff" + b"\xfe\x80" + bytes(13) + b"\2\xff\2" + bytes(13) + b"\1"
    na = head6 + b"\x88\0\0\0\x20\0\0\0\xfe\x80" + bytes(13) + b"\2\2\1" + A
    ra = head6 + b"\x86\0\0\0\x40\0\7\x08" + bytes(24)
    behind = head6[:6] + b"\x3c" + head6[7:] + b"\x3a\0" + bytes(6) + ra[40:]
    kinds = [(b"\x08\0", offer), (b"\x08\0", ask), (b"\x08\0", tcp), (b"\x08\6", arp)]
    kinds += [(b"\x86\xdd", one) for one in (na, ra, behind)]
    made = [(n, B + A + kind + body) for n, (kind, body) in enumerate(kinds)]
    made += [(n, frame[:12] + b"\x81\0\0\5" + frame[12:]) for n, frame in made]
    return [_join([one]) for one in made] + [_join(made), _join([(n % 3, made[n % 7][1]) for n in range(40)])]


def run(data: bytes) -> object:
    """What leaves is harmless as `ether.packet` reads it; frames are judged alike alone and among others."""
    switch, now = Switch(limit=LIMIT), 0.0
    switch.set_rules(HubRules(), (), GuardRules(on=True, addresses=OWN, stations=(HUB,)))
    ports = [PortId(number) for number in range(1, 5)]
    for port, rules in zip(ports, ("a", "b", "c"), strict=False):
        switch.add_port(port, PortRules(user=rules, policy=FREE))
    switch.add_port(ports[3], PortRules(is_trunk=True))
    reasons = set()
    for order, frame in _split(data):
        now += order / 16
        port = ports[order % 3]
        before = switch.drops[port].total()
        copies = [1, 2, RUN][order // 3 % 3]
        out = switch.forward([frame] * copies, port, now)
        dropped = switch.drops[port].total() - before
        assert dropped in (0, copies), "each of them or none"
        assert not (dropped and any(frame in frames for frames in out.values()))
        for frames in out.values():
            for left in frames:
                if left[6:12] != claims.ASKER:
                    _look(left)
        reasons |= set(switch.drops[port]) & GUARDS
    claims.asks_server(data.ljust(14, b"\0"))
    return frozenset(reasons)


def _look(frame: bytes) -> None:
    found = packet.parse(frame)
    assert not packet.is_dhcp_reply(found)
    assert not packet.is_dhcpv6_reply(found)
    assert found.message not in (packet.ROUTER_ADVERTISEMENT, 137)
    assert found.kind != 0x0806 or found.source not in OWN
    assert packet.target(found) not in OWN or found.message != packet.NEIGHBOUR_ADVERTISEMENT
    assert packet.lease(found) is None
