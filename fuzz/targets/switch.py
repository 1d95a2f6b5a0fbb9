"""The switch with every rule a port can have, and what it reads of a frame."""

from fuzz.targets.ether import A, B, _join, _split
from fuzz.targets.ether import seeds as plain_seeds
from ukihashi.ether import packet
from ukihashi.switch.access import Rule
from ukihashi.switch.forward import Switch
from ukihashi.switch.rules import GuardRules, HubRules, PortRules
from ukihashi.units import PortId
from ukihashi.wire.constants import MAX_FRAME, MIN_FRAME
from ukihashi.wire.policy import FLAGS, Policy

ALLOWED = ()
TOKENS = [
    *(
        b"\x81\0",
        b"\x88\xa8",
        b"\x08\x06",
        b"\x08\0",
        b"\x86\xdd",
        b"\xff" * 6,
        b"\x01\x80\xc2\0\0\0",
        b"\xaa\xaa\3\0\0\0",
    ),
    *(b"\0\x43\0\x44", b"\x02\x22\x02\x23", b"\x63\x82\x53\x63", b"\x35\1\5", b"\x3a", b"\x2c", b"\x86\0", b"\x50\x12"),
]
GUARD = GuardRules(on=True, addresses=(b"\x0a\0\0\1", b"\xfe\x80" + bytes(14)), stations=(A,), trusted=("a",))
LIMIT = 16
PLAIN = PortRules()
STRICT = [  # flags that stop nearly everything are left out, or no frame would come further
    PortRules(policy=Policy(**{name: True for name in FLAGS if not name.startswith(("filter_", "dhcp", "arp"))})),
    PortRules(policy=Policy(dhcp_force=True, dhcp_no_server=True, dhcpv6_no_server=True, max_mac=3), user="a"),
    PortRules(policy=Policy(filter_non_ip=True, arp_dhcp_only=True, max_upload=100_000, max_download=50_000)),
    PortRules(policy=Policy(vlan_id=5, check_mac=True, check_ip=True), confined=True),
    PortRules(policy=Policy(privacy_filter=True, no_ipv6_default_router_in_ra=True), user="b"),
    PortRules(monitor=True),
    PortRules(is_hub_port=True, policy=Policy(filter_ipv6=True, dhcp_filter=True)),
    PLAIN,
]
LISTS = [
    (),
    (Rule(source_mac="02:00:00:00:00:00/ff:00:00:00:00:00", protocol=6, established=False),),
    (Rule(destination_user="b", ipv6=True, destination="fe80::/10"), Rule(discard=False)),
]


def seeds() -> list[bytes]:
    """Frames of what filters look for; the first four bytes choose the rules."""
    udp = b"\x45\0\1\x30\0\0\0\0\x40\x11\0\0\x0a\0\0\1\x0a\0\0\2\0\x43\0\x44\1\x1c\0\0"
    ack = udp + b"\2\1\6\0" + bytes(12) + b"\x0a\0\0\7" + bytes(8) + A + bytes(202) + b"\x63\x82\x53\x63\x35\1\5\xff"
    head6 = b"\x60\0\0\0\0\x20\0\x40" + b"\xfe\x80" + bytes(14) + b"\xff\2" + bytes(14)
    advertised = head6[:6] + b"\0" + head6[7:] + b"\x3a\0" + bytes(6) + b"\x86\0\1\2\x40\0\7\x08" + bytes(8)
    tcp = b"\x45\0\0\x28\0\0\0\0\x40\6\0\0\x0a\0\0\1\x0a\0\0\2\0\x50\1\1" + bytes(8) + b"\x50\x12" + bytes(6)
    made = [(0, A + B + b"\x08\0" + ack), (1, B + A + b"\x86\xdd" + advertised), (2, B + A + b"\x08\0" + tcp)]
    made += [(port, frame[:12] + b"\x81\0\0\5" + frame[12:]) for port, frame in made]
    streams = [*plain_seeds(), _join(made), _join([(n % 5, made[n % 6][1]) for n in range(30)])]
    return [bytes([number, number + 3, number + 5, number]) + stream for number, stream in enumerate(streams)]


def run(data: bytes) -> object:
    """Nothing fails; tables are bounded; what leaves came in, but for a tag more or less; each drop is counted."""
    choice, frames = data[:4].ljust(4, b"\0"), _split(data[4:])
    switch, now = Switch(limit=LIMIT, own_mac=b"\x02HUBHU", chance=lambda: 0.5), 0.0
    ports = [PortId(number) for number in range(1, 6)]
    rules = [*(STRICT[byte % len(STRICT)] for byte in choice[:3]), PLAIN, PortRules(monitor=True)]
    for port, its in zip(ports, rules, strict=True):
        switch.add_port(port, its)
    switch.set_rules(
        HubRules(vlans_apart=bool(choice[3] & 4), privacy_drops_arp=False),
        LISTS[choice[3] % 3],
        GUARD if choice[3] & 8 else GuardRules(relay=bool(choice[3] & 16)),
    )
    seen = set()
    for order, frame in frames:
        now += order / 16
        port = ports[order % 5]
        before = sum(drops.total() for drops in switch.drops.values())
        out = switch.forward([frame, frame], port, now)
        dropped = sum(drops.total() for drops in switch.drops.values()) - before
        assert port not in out
        for left in out.values():
            assert left
            assert len(left) <= 2
            assert all(MIN_FRAME <= len(each) <= MAX_FRAME for each in left)
            assert all(abs(len(each) - len(frame)) in (0, 4) for each in left)
        assert out or dropped or not frame, "a plain port and a monitor are always there, so it went somewhere"
        assert len(switch.rows(now)) <= LIMIT
        assert len(switch.address_rows(now)) <= LIMIT
        found = packet.parse(frame)
        packet.target(found)
        seen.add((found.kind in (0x0800, 0x86DD, 0x0806), found.hidden, packet.lease(found) is not None, found.message))
    reasons = frozenset(reason for drops in switch.drops.values() for reason in drops)
    return reasons, frozenset(seen), any(row.leased for row in switch.address_rows(now))
