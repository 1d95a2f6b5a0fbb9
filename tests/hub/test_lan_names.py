"""What the hub's DNS says of users and stations."""

from ipaddress import IPv4Address, IPv6Network, ip_address

import pytest

from ukihashi.ether import dns, ndp
from ukihashi.hub.lan_names import Zone
from ukihashi.hub.lan_plan import LanService
from ukihashi.store.leases import Lease

PLAN = LanService(b"\x02SERVE", "10.81.7.0/24", "fd3c:1:2::/64", 254, domain="lan.internal")
MAC = b"\x02\0\0\0\0\x0a"
MADE = ndp.interface_address(IPv6Network(PLAN.subnet6), MAC)


def lease(number: int, user: str, host: str = "", kind: str = "leased", began: float = 0.0) -> Lease:
    return Lease(number, user, MAC, MAC, host, kind, began, 1e9)  # type: ignore[arg-type]


def zone(*leases: Lease, users: tuple[tuple[str, int], ...] = (), host_port: bool = True) -> Zone:
    return Zone(PLAN, users, leases, host_port=host_port)


def ask(one: Zone, name: str, kind: int = dns.A, seen: tuple[bytes, ...] = ()) -> tuple[int, list[str]] | None:
    answer = one.answer(dns.parse(dns.query(1, name, kind)), seen)
    if answer is None:
        return None
    said = dns.parse_answer(answer)
    texts = [
        dns.read_name(record.data, 0)[0] if record.kind in (dns.PTR, dns.NS) else str(dns.address_of(record) or "")
        for record in said.records
    ]
    return said.code, texts


def test_a_user_has_the_own_number_or_what_was_leased() -> None:
    one = zone(lease(40, "bob"), users=(("Ann", 7), ("bob", 0), ("eve", 0)))
    assert ask(one, "ann.lan.internal") == (0, ["10.81.7.7"])
    assert ask(one, "ANN.lan.internal", dns.AAAA) == (0, ["fd3c:1:2::7"])  # set at the card, as the join link says
    assert ask(one, "bob.lan.internal") == (0, ["10.81.7.40"])
    assert ask(one, "eve.lan.internal") == (dns.NO_SUCH_NAME, [])


def test_an_address_that_a_station_makes_itself_is_told_if_it_is_in_use() -> None:
    one = zone(lease(7, "ann"), users=(("ann", 7),))
    assert ask(one, "ann.lan.internal", dns.AAAA) == (0, [])
    assert ask(one, "ann.lan.internal", dns.AAAA, (MADE.packed,)) == (0, [str(MADE)])
    assert ask(one, MADE.reverse_pointer, dns.PTR) == (0, ["ann.lan.internal"])


def test_a_station_has_the_name_it_gave_itself_unless_it_is_somebody_elses() -> None:
    one = zone(
        lease(40, "bob", "printer", began=2.0),
        lease(41, "eve", "printer", began=1.0),
        lease(42, "eve", "ann"),
        lease(43, "eve", "wpad"),
        lease(44, "eve", "hub"),
        users=(("ann", 7),),
    )
    assert ask(one, "printer.lan.internal") == (0, ["10.81.7.41"])  # who had it first
    assert ask(one, "ann.lan.internal") == (0, ["10.81.7.7"])
    assert ask(one, "wpad.lan.internal") == (dns.NO_SUCH_NAME, [])
    assert ask(one, "hub.lan.internal") == (0, ["10.81.7.1"])
    assert ask(zone(host_port=False), "hub.lan.internal") == (0, ["10.81.7.254"])


def test_the_way_back() -> None:
    one = zone(lease(40, "bob", "printer"), users=(("ann", 7),))
    for address, name in (
        ("10.81.7.7", "ann"),
        ("10.81.7.40", "printer"),
        ("fd3c:1:2::7", "ann"),
        ("10.81.7.1", "hub"),
    ):
        assert ask(one, ip_address(address).reverse_pointer, dns.PTR) == (0, [f"{name}.lan.internal"])
    assert ask(one, IPv4Address("10.81.7.99").reverse_pointer, dns.PTR) == (dns.NO_SUCH_NAME, [])
    assert ask(one, IPv4Address("10.81.8.7").reverse_pointer, dns.PTR) is None


def test_what_is_not_the_hubs_to_know() -> None:
    one = zone()
    assert ask(one, "example.org") is None
    assert ask(one, "lan.internal.example.org") is None
    assert ask(one, "other.internal") == (dns.NO_SUCH_NAME, [])  # private by definition: nobody else is asked


@pytest.mark.parametrize(("kind", "texts"), [(dns.NS, ["hub.lan.internal"]), (dns.SOA, [""]), (dns.A, []), (16, [])])
def test_the_domain_itself(kind: int, texts: list[str]) -> None:
    assert ask(zone(), "lan.internal", kind) == (0, texts)


def test_what_is_no_plain_question_is_not_implemented() -> None:
    query = bytearray(dns.query(1, "hub.lan.internal", dns.A))
    query[2] |= 0x28  # an update
    answer = zone().answer(dns.parse(bytes(query)))
    assert answer is not None
    assert dns.parse_answer(answer).code == dns.NOT_IMPLEMENTED
