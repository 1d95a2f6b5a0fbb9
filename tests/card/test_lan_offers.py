"""What a hub leases and offers, on a real TAP in a network of the test's own; `wan` is the physical network."""

import asyncio
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ukihashi.card import journal, resolver
from ukihashi.card.dhcp_client import FOR_EVER_S, Lease
from ukihashi.card.lan import Lan
from ukihashi.card.routes import MARK
from ukihashi.config.card import CardConfig, Hub, Interface, Route
from ukihashi.ether import dhcp
from ukihashi.tap import adverts
from ukihashi.tap.device import Tap, open_tap

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network", "own_places")]

GATEWAY = IPv4Address("10.9.0.1")
LEASED = "10.9.0.7/24"
BEFORE = b"nameserver 192.0.2.53\n"


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


def everything() -> dict[str, str]:
    """All that a card might change, as `ip` shows it."""
    commands = ("rule", "-6 rule", "route show table all", "-6 route show table all", "addr")
    strict = {path.parent.name: path.read_text() for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter")}
    return {command: ip(command) for command in commands} | {"rp_filter": str(strict)}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where names are looked up."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(BEFORE)
    monkeypatch.setattr(resolver.Resolver.__init__, "__defaults__", (path,))
    monkeypatch.setattr(resolver, "NAMESPACES", tmp_path / "netns")
    return path


@pytest.fixture
def before(own_network: None) -> dict[str, str]:
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")
    ip("link add wan type veth peer name wan-far")
    for command in ("link set wan-far up", "link set wan up", "addr add 10.1.0.2/24 dev wan"):
        ip(command)
    ip("route add default via 10.1.0.1")
    ip("-6 addr flush scope link")
    return everything()


@pytest.fixture
def tap(before: dict[str, str]) -> Iterator[Tap]:
    opened = open_tap("uklan")
    yield opened
    opened.close()


def lan(*, accept: list[Any], outer: list[str] | None = None, **changes: Any) -> Lan:
    return Lan("lan", config(accept=accept, **changes), outer=lambda: outer or ["198.51.100.1"])


def config(name: str = "uklan", **changes: Any) -> CardConfig:
    interface = Interface(name=name, mac="02:00:00:00:00:02", **changes)
    return CardConfig(hub=Hub(host="hub.example", hub="LAN", user="alice"), interface=interface)


def lease(*routes: tuple[str, str], address: str = LEASED, names: bool = True) -> Lease:
    told = {dhcp.ROUTES: dhcp.write_routes([(IPv4Network(to), IPv4Address(via)) for to, via in routes])}
    if names:
        told |= {dhcp.DNS: GATEWAY.packed, dhcp.DOMAIN: b"lan.internal"}
    return Lease("10.9.0.1", b"", address, 0.0, lasts_s=FOR_EVER_S, options=told)


def hears(card: Lan, told: Lease | None) -> None:
    asyncio.run(card._heard(told))


def states(card: Lan) -> dict[str, str]:
    return {str(row.get("to") or row["kind"]): str(row["state"]) for row in card.status()["offers"]}


NEAR, EVERYTHING = ("10.20.0.0/16", "10.9.0.1"), ("0.0.0.0/0", "10.9.0.1")


def test_a_lease_sets_the_address_and_nothing_else_without_consent(
    tap: Tap, before: dict[str, str], file: Path
) -> None:
    card = lan(accept=[])
    assert card.mark == 0
    card.set_up("uklan")
    hears(card, lease(NEAR, EVERYTHING))
    assert "10.9.0.7/24" in ip("addr show dev uklan")
    assert card.addresses[0] == LEASED
    assert states(card) == {"10.20.0.0/16": "offered", "0.0.0.0/0": "offered", "dns": "offered"}
    assert "10.20.0.0" not in ip("route show table all")
    assert file.read_bytes() == BEFORE
    hears(card, None)  # it has run out
    assert "10.9.0.7" not in ip("addr show dev uklan")
    assert card.undo() == []
    tap.close()
    assert everything() == before


def test_with_consent_all_of_it_comes_and_goes(tap: Tap, before: dict[str, str], file: Path) -> None:
    card = lan(accept=["dns", "routes", "default"])
    assert card.mark == MARK  # before anything is offered: the connection to the hub is made once
    card.set_up("uklan")
    hears(card, lease(NEAR, EVERYTHING))
    assert set(states(card).values()) == {"applied"}
    assert "dev uklan" in ip("route get 203.0.113.9")
    assert "dev wan" in ip(f"route get 203.0.113.9 mark {MARK}")
    assert file.read_text().splitlines()[1:] == ["nameserver 10.9.0.1", "search lan.internal"]  # nobody else is asked
    assert card.undo() == []
    tap.close()
    assert everything() == before
    assert file.read_bytes() == BEFORE
    assert journal.accounts() == []


def test_a_renewal_with_other_words_changes_what_is_set(tap: Tap, file: Path) -> None:
    card = lan(accept=["dns", "routes"])
    card.set_up("uklan")
    hears(card, lease(NEAR))
    hears(card, lease(("10.30.0.0/16", "10.9.0.1"), address="10.9.0.8/24", names=False))
    shown = ip("route")
    assert "10.30.0.0/16" in shown
    assert "10.20.0.0/16" not in shown
    assert "10.9.0.8/24" in ip("addr show dev uklan")
    assert "10.9.0.7" not in ip("addr show dev uklan")
    assert file.read_bytes() == BEFORE
    assert card.undo() == []


def test_consent_may_be_given_and_taken_back_while_connected(tap: Tap, file: Path) -> None:
    card = lan(accept=[])
    card.set_up("uklan")
    hears(card, lease(NEAR, EVERYTHING))
    applied = asyncio.run(card.apply(config(accept=["dns", "default"])))
    assert applied.redial  # the packets of the tunnel need their mark now
    assert "dev uklan" in ip("route get 203.0.113.9")
    assert file.read_bytes() != BEFORE
    applied = asyncio.run(card.apply(config(accept=[])))
    assert applied.redial
    assert "dev wan" in ip("route get 203.0.113.9")
    assert file.read_bytes() == BEFORE
    assert card.undo() == []


@pytest.mark.parametrize(
    ("network", "why"), [("198.51.0.0/16", "the way to the hub"), ("10.1.0.128/25", "wan"), ("10.0.0.0/8", "wan")]
)
def test_what_would_cut_this_machine_off_is_refused(tap: Tap, network: str, why: str) -> None:
    card = lan(accept=["routes"])
    card.set_up("uklan")
    with capture_logs() as logs:
        hears(card, lease((network, "10.9.0.1"), NEAR))
    assert states(card) == {network: "refused", "10.20.0.0/16": "applied", "dns": "offered"}
    assert why in next(log["reason"] for log in logs if log["event"] == "offer_refused")
    assert network not in ip("route")
    card.undo()


@pytest.mark.parametrize("address", ["10.1.0.77/24", "198.51.100.77/24", "10.77.0.1/8"])
def test_neither_is_an_address_whose_network_would(tap: Tap, address: str) -> None:
    before = ip("route")
    card = lan(accept=["routes"])
    card.set_up("uklan")
    hears(card, lease(address=address))
    assert states(card)[address] == "refused"
    assert ip("route") == before
    card.undo()


def test_when_the_machine_comes_to_a_network_that_overlaps_the_route_goes(tap: Tap) -> None:
    card = lan(accept=["routes"])
    card.set_up("uklan")
    hears(card, lease(NEAR))
    ip("addr add 10.20.3.4/24 dev wan")
    card._look()
    assert states(card)["10.20.0.0/16"] == "refused"
    assert "10.20.0.0/16" not in ip("route")
    ip("addr del 10.20.3.4/24 dev wan")
    card._look()
    assert states(card)["10.20.0.0/16"] == "applied"
    card.undo()


def test_a_gateway_out_of_reach_is_told_and_ends_nothing(tap: Tap) -> None:
    card = lan(accept=["routes"])
    card.set_up("uklan")
    hears(card, lease(("10.30.0.0/16", "172.31.0.1"), NEAR))
    assert states(card)["10.30.0.0/16"] == "not set"
    assert states(card)["10.20.0.0/16"] == "applied"
    assert card.status()["warnings"]
    assert card.undo() == []


def test_the_second_card_gets_what_the_first_has_when_that_goes(tap: Tap) -> None:
    second = open_tap("uktwo")
    one = lan(accept=["routes", "default"])
    two = Lan("two", config("uktwo", accept=["routes", "default"]), outer=lambda: ["198.51.100.2"])
    one.set_up("uklan")
    two.set_up("uktwo")
    hears(one, lease(NEAR, EVERYTHING))
    hears(two, lease((NEAR[0], "10.8.0.1"), (EVERYTHING[0], "10.8.0.1"), address="10.8.0.2/24"))
    assert states(two) == {"10.20.0.0/16": "refused", "0.0.0.0/0": "refused", "dns": "offered"}
    assert "dev uklan" in ip("route get 203.0.113.9")
    one.undo()
    two._look()
    assert states(two)["0.0.0.0/0"] == "applied"
    assert "dev uktwo" in ip("route get 203.0.113.9")
    assert two.undo() == []
    second.close()


def test_the_second_card_gets_the_names_when_the_first_leaves(tap: Tap, file: Path) -> None:
    second = open_tap("uktwo")
    one, two = lan(accept=["dns"]), Lan("two", config("uktwo", accept=["dns"]))
    one.set_up("uklan")
    two.set_up("uktwo")
    hears(one, lease())
    with capture_logs() as logs:
        hears(two, lease(address="10.8.0.2/24"))
        two._look()
        two._look()
    assert states(two) == {"dns": "refused"}
    assert [log["event"] for log in logs].count("names_not_set") == 1  # not again and again
    one.undo()
    assert file.read_bytes() == BEFORE
    two._look()
    assert states(two) == {"dns": "applied"}
    assert two.undo() == []
    assert file.read_bytes() == BEFORE
    second.close()


def test_names_of_a_card_that_was_killed_make_room_for_another(tap: Tap, file: Path) -> None:
    lost = open_tap("uklost")
    card = Lan("lost", config("uklost", accept=["dns"]))
    card.set_up("uklost")
    hears(card, lease())
    lost.close()  # as a kill does it
    assert b"10.9.0.1" in file.read_bytes()
    other = lan(accept=["dns"])
    other.set_up("uklan")
    hears(other, lease())
    assert states(other)["dns"] == "applied"
    other.undo()
    assert file.read_bytes() == BEFORE


def test_what_is_left_after_a_kill_is_taken_back(tap: Tap, before: dict[str, str], file: Path) -> None:
    card = lan(accept=["dns", "routes", "default"])
    card.set_up("uklan")
    hears(card, lease(NEAR, EVERYTHING))
    tap.close()
    assert everything() != before
    assert str(file) in journal.clean("lan")
    assert everything() == before
    assert file.read_bytes() == BEFORE
    assert journal.clean("lan") == []


class TestRouterAdvertisements:
    def heeded(self, name: str) -> int:
        return int(Path(f"/proc/sys/net/ipv6/conf/uklan/{name}").read_text())

    def test_addresses_are_made_and_nothing_else_without_consent(self, tap: Tap) -> None:
        card = lan(accept=[])
        card.set_up("uklan")
        assert [self.heeded(one) for one in ("accept_ra", "autoconf", "accept_ra_defrtr")] == [2, 1, 0]
        assert self.heeded("accept_ra_rt_info_max_plen") == 0
        asyncio.run(card.apply(config(accept=["routes", "default"])))
        assert self.heeded("accept_ra_defrtr") == 1
        assert self.heeded("ra_defrtr_metric") == adverts.LAST_METRIC
        assert self.heeded("accept_ra_rt_info_max_plen") == adverts.LONGEST_ROUTE
        card.undo()

    def test_no_route_of_a_stranger_may_lead_over_the_way_to_the_hub(self, tap: Tap) -> None:
        card = lan(accept=["routes"], outer=["2001:db8::1"])
        card.set_up("uklan")
        assert self.heeded("accept_ra_rt_info_max_plen") == 0
        card.undo()

    def test_an_account_with_addresses_of_its_own_gets_no_further_ones(self, tap: Tap) -> None:
        card = lan(accept=[], addresses=["10.9.0.2/24", "fd09::2/64"])
        card.set_up("uklan")
        assert self.heeded("autoconf") == 0
        card.undo()

    def test_off_is_off(self, tap: Tap) -> None:
        card = lan(accept=[], dhcp="off")
        card.set_up("uklan")
        assert self.heeded("accept_ra") == 0
        card.undo()

    def test_an_advertised_router_becomes_the_default_route_by_consent(self, tap: Tap) -> None:
        card = lan(accept=["default"], addresses=["fd09::2/64"])
        card.set_up("uklan")
        ip(f"-6 route add default via fe80::1 dev uklan proto ra metric {adverts.LAST_METRIC}")  # as the kernel does
        card._look()
        assert states(card) == {"::/0": "applied"}
        assert "via fe80::1 dev uklan table 75000" in ip("-6 route get 2001:db8::9")
        asyncio.run(card.apply(config(accept=[], addresses=["fd09::2/64"])))
        assert "default" not in ip("-6 route show table all")
        assert card.undo() == []


def test_the_accounts_own_route_is_not_replaced(tap: Tap) -> None:
    card = lan(accept=["routes"], addresses=["10.9.0.2/24"], routes=[Route(to="10.20.0.0/16", via="10.9.0.9")])
    card.set_up("uklan")
    hears(card, lease(NEAR, address=""))
    assert states(card)["10.20.0.0/16"] == "own"
    assert "via 10.9.0.9" in ip("route show 10.20.0.0/16")
    card.undo()
