"""Ethernets joined to a TAP by real bridges, in a network of the test's own: all comes back byte for byte."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ukihashi.errors import EnvironmentLacks, UkihashiError, UsageError
from ukihashi.tap import bridge, netlink
from ukihashi.tap.bridge import Joined
from ukihashi.tap.device import Tap, open_tap

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("own_network")]

TAP_MAC = bytes.fromhex("02000000000a")


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


def lines(*commands: str) -> None:
    for command in commands:
        ip(command)


def everything() -> dict[str, str]:
    """All that a bridge might change, as `ip` shows it."""
    shown = {
        command: ip(command)
        for command in ("link", "addr", "rule", "-6 rule", "route show table all", "-6 route show table all")
    }
    return shown | {"details": ip("-d link show wan")}


@pytest.fixture(autouse=True)
def wan(own_network: None) -> None:
    """An interface `wan` as an admin may have set it up, up, without any address yet."""
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")
    lines("link add wan type veth peer name far", "link set far up", "link set wan up", "-6 addr flush scope link")


def give_addresses() -> None:
    lines(
        "addr add 10.1.0.2/24 brd 10.1.0.255 dev wan",
        "addr add 10.1.0.3/24 dev wan label wan:1",
        "addr add 10.2.0.2/30 dev wan metric 50",
        "addr add fd01::2/64 dev wan",
        "addr add fd01::3/64 dev wan nodad",
        "addr add fd02::2/64 dev wan noprefixroute",
        "route add default via 10.1.0.1 metric 20 mtu lock 1400",
        "route add 10.9.0.0/16 via 10.1.0.7 src 10.1.0.3",
        "route add 192.0.2.0/24 dev wan scope link proto static",
        "route add 198.51.100.7 via 10.7.7.7 dev wan onlink",
        "route add 10.10.0.0/16 table 77 via 10.1.0.9",
        "route add 10.11.0.0/16 nexthop via 10.1.0.7 weight 2 nexthop via 10.1.0.8",
        "-6 route add default via fd01::1 metric 99",
        "-6 route add fd09::/48 via fe80::1 dev wan pref high",
        "-6 route add fd0a::/48 table 77 via fd01::7",
    )


@pytest.fixture
def tap() -> Iterator[Tap]:
    opened = open_tap("uklan", offload=True)
    netlink.set_mac("uklan", TAP_MAC)
    yield opened
    opened.close()


class Journal:
    """What was noted, and how the machine was when it was: before what it announces."""

    def __init__(self) -> None:
        self.entries: list[Joined] = []

    def note(self, joined: Joined) -> None:
        self.entries.append(bridge.copy(joined))


def join(interface: str = "wan", *, takes: bool = False) -> tuple[Joined, Journal]:
    joined, journal = bridge.plan(interface, "uklan", takes=takes), Journal()
    bridge.join(joined, journal.note)
    bridge.set_up_tap("uklan", 500)
    return joined, journal


def members(name: str) -> set[str]:
    return {link["ifname"] for link in json.loads(ip(f"-j link show master {name}"))}


def details(interface: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ip(f"-j -d link show {interface}"))[0]
    return found


def addresses(interface: str) -> list[str]:
    found = json.loads(ip(f"-j addr show dev {interface} scope global"))
    return [f"{one['local']}/{one['prefixlen']}" for link in found for one in link.get("addr_info", []) if one]


def test_a_bridge_of_ours_takes_no_part_in_anything(tap: Tap) -> None:
    before = everything()
    joined, journal = join()
    assert (joined.bridge, joined.made) == ("ukbr-wan", True)
    assert members("ukbr-wan") == {"wan", "uklan"}
    made = details("ukbr-wan")
    assert (made["mtu"], details("uklan")["mtu"]) == (1500, 1500)
    assert made["address"] == details("wan")["address"]
    data = made["linkinfo"]["info_data"]
    assert (data["stp_state"], data["mcast_snooping"], data["group_fwd_mask"]) == (0, 0, "0")
    assert details("wan")["promiscuity"] >= 1
    assert "inet" not in ip("addr show dev ukbr-wan")  # not even link-local: nobody can give it routes
    assert "inet" not in ip("addr show dev uklan")
    for path, value in (("ipv4/conf/ukbr-wan/arp_ignore", "1"), ("ipv4/conf/ukbr-wan/forwarding", "0")):
        assert (Path("/proc/sys/net") / path).read_text().strip() == value
    assert bridge.is_member(joined)
    assert bridge.warnings(joined) == []
    row = bridge.row(joined)
    assert row["members"] == ["uklan", "wan"]
    assert set(row["counters"]) == {"uklan", "wan"}

    assert bridge.part(joined, journal.note) == ["ukbr-wan"]
    bridge.release(joined, TAP_MAC)
    assert netlink.mac_of("uklan") == TAP_MAC
    netlink.set_down("uklan")
    netlink.set_up("uklan")
    netlink.set_down("uklan")
    lines("link set uklan mtu 1500")
    after = everything()
    assert {key: after[key] for key in after if key not in {"link", "addr"}} == {
        key: before[key] for key in before if key not in {"link", "addr"}
    }
    tap.close()
    assert "uklan" not in ip("link")
    assert "ukbr" not in ip("link")


def test_an_interface_that_was_down_is_down_again(tap: Tap) -> None:
    lines("link set wan down")
    tap.close()
    before = everything()
    made = open_tap("uklan")
    joined, journal = join()
    assert "UP" in details("wan")["flags"]
    bridge.part(joined, journal.note)
    made.close()
    assert everything() == before


def test_a_bridge_that_is_there_gets_the_tap_and_keeps_its_address(tap: Tap) -> None:
    lines("link add br0 type bridge", "link add vm type veth peer name vm-far", "link set vm master br0")
    lines("link set br0 up", "link set vm up", "addr add 10.5.0.1/24 dev br0")
    mac = details("br0")["address"]
    before = {name: details(name) for name in ("br0", "vm")}
    joined, journal = join("br0")
    assert (joined.bridge, joined.made) == ("br0", False)
    assert members("br0") == {"vm", "uklan"}
    assert details("br0")["address"] == mac  # not the TAP's, though 02:... might be lower than that
    assert details("uklan")["address"].startswith("fe:")
    assert journal.entries == []  # nothing of it outlives the TAP
    assert bridge.part(joined, journal.note) == []
    tap.close()
    for name, was in before.items():
        now = details(name)
        for shifting in ("gc_timer", "hello_timer", "topology_change_timer", "tcn_timer"):
            for one in (now, was):
                one["linkinfo"].get("info_data", {}).pop(shifting, None)
        assert now == was


@pytest.mark.parametrize("killed", [False, True])
def test_addresses_and_routes_move_to_the_bridge_and_back(killed: bool) -> None:
    give_addresses()
    before = everything()
    made = open_tap("uklan")
    joined, journal = join(takes=True)
    assert addresses("wan") == []
    assert set(addresses("ukbr-wan")) == {
        "10.1.0.2/24", "10.1.0.3/24", "10.2.0.2/30", "fd01::2/64", "fd01::3/64", "fd02::2/64",
    }  # fmt: skip
    routes = ip("route show table all"), ip("-6 route show table all")
    for text in routes:
        assert "dev wan" not in text.replace("dev wan proto kernel", "").replace("multicast ff00::/8 dev wan", "")
    assert "default via 10.1.0.1 dev ukbr-wan metric 20 mtu lock 1400" in routes[0]
    assert "10.10.0.0/16 via 10.1.0.9 dev ukbr-wan table 77" in routes[0]
    assert "nexthop via 10.1.0.7 dev ukbr-wan weight 2" in routes[0]
    assert "fd09::/48 via fe80::1 dev ukbr-wan metric 1024 pref high" in routes[1]
    assert "default via fd01::1 dev ukbr-wan metric 99" in routes[1]
    assert "tentative" not in ip("addr show dev ukbr-wan")
    made.close()  # as the end of its process does it
    again = journal.entries[-1] if killed else joined
    assert "ukbr-wan" in bridge.part(again, journal.note)
    assert everything() == before


def test_whenever_it_is_killed_everything_comes_back() -> None:
    """After each thing noted the process ends, and another one undoes what it finds."""

    class Killed(Exception):
        pass

    give_addresses()
    before = everything()
    for step in range(1, 6):  # the last one is not killed
        made = open_tap("uklan")
        seen: list[Joined] = []

        def note(joined: Joined, step: int = step, seen: list[Joined] = seen) -> None:
            seen.append(bridge.copy(joined))
            if len(seen) == step:
                raise Killed

        joined = bridge.plan("wan", "uklan", takes=True)
        try:
            bridge.join(joined, note)
            bridge.part(joined, note)
        except Killed:
            pass
        made.close()
        bridge.part(seen[-1], lambda _joined: None)
        assert everything() == before, step
        assert len(seen) == min(step, 4)


def test_what_an_admin_changed_meanwhile_goes_along(tap: Tap) -> None:
    give_addresses()
    joined, journal = join(takes=True)
    lines("addr del 10.1.0.3/24 dev ukbr-wan", "addr add 10.1.0.77/24 dev ukbr-wan", "route del 192.0.2.0/24")
    lines("route replace default via 10.1.0.99 metric 20")
    lines(
        "addr add fd0b::7/64 dev ukbr-wan mngtmpaddr nodad valid_lft 900 preferred_lft 800"
    )  # by the far side's router
    lines("-6 route add default via fe80::b dev ukbr-wan proto ra metric 2000")
    bridge.part(joined, journal.note)
    found = addresses("wan")
    assert "10.1.0.77/24" in found
    assert "10.1.0.3/24" not in found
    assert "192.0.2.0/24" not in ip("route")
    assert not any(address.startswith("fd0b:") for address in found)
    assert "fe80::b" not in ip("-6 route")
    assert "default via 10.1.0.99 dev wan metric 20" in ip("route")


def test_a_machine_does_not_stay_without_its_addresses_when_the_bridge_was_removed_by_hand(tap: Tap) -> None:
    give_addresses()
    before = set(addresses("wan"))
    joined, journal = join(takes=True)
    lines("link del ukbr-wan")
    assert addresses("wan") == []
    bridge.part(joined, journal.note)
    assert set(addresses("wan")) == before

    tap.close()
    again = open_tap("uklan")
    joined, journal = join(takes=True)
    again.close()
    lines("link del ukbr-wan", "addr add 10.1.0.200/24 dev wan")  # somebody has taken care
    bridge.part(joined, journal.note)
    assert addresses("wan") == ["10.1.0.200/24"]


def test_a_bridge_of_ours_that_somebody_uses_stays(tap: Tap) -> None:
    joined, journal = join()
    lines("link add vm type veth peer name vm-far", "link set vm master ukbr-wan")
    assert bridge.part(joined, journal.note) == []
    tap.close()
    assert members("ukbr-wan") == {"vm"}


def test_an_interface_that_is_pulled_and_comes_again(tap: Tap) -> None:
    joined, journal = join()
    lines("link del wan")
    assert not bridge.is_member(joined)
    assert not bridge.take_in(joined, journal.note)
    lines("link add wan type veth peer name far")
    assert bridge.take_in(joined, journal.note)
    assert bridge.is_member(joined)
    assert members("ukbr-wan") == {"wan", "uklan"}
    lines("link set wan nomaster")  # somebody wants it so
    assert not bridge.take_in(joined, journal.note)
    assert members("ukbr-wan") == {"uklan"}
    bridge.part(joined, journal.note)


def test_an_interface_may_come_later(tap: Tap) -> None:
    lines("link del wan")
    joined, journal = join()
    assert members("ukbr-wan") == {"uklan"}
    lines("link add wan type veth peer name far")
    assert bridge.take_in(joined, journal.note)
    assert members("ukbr-wan") == {"wan", "uklan"}
    bridge.part(joined, journal.note)


@pytest.mark.parametrize("mtu", [9000, 1400])
def test_another_mtu_is_said_and_the_bridge_has_its_own(tap: Tap, mtu: int) -> None:
    lines(f"link set wan mtu {mtu}")
    joined, journal = join()
    assert details("ukbr-wan")["mtu"] == 1500
    assert details("wan")["mtu"] == mtu
    said = [str(one) for one in bridge.warnings(joined)]
    assert len(said) == 1
    assert said[0].startswith(f"wan has an MTU of {mtu}, the virtual LAN one of 1500: longer packets are lost")
    bridge.part(joined, journal.note)
    assert details("wan")["mtu"] == mtu


def test_addresses_that_will_end_are_said(tap: Tap) -> None:
    lines("addr add 10.1.0.2/24 dev wan valid_lft 600 preferred_lft 500")
    joined, journal = join(takes=True)
    assert "came from a DHCP server or a router" in str(bridge.warnings(joined)[0])
    bridge.part(joined, journal.note)
    found = json.loads(ip("-j addr show dev wan"))[0]["addr_info"][0]
    assert 580 < found["valid_life_time"] <= 600
    assert 480 < found["preferred_life_time"] <= 500


def test_what_router_advertisements_gave_is_set_aside(tap: Tap) -> None:
    lines(
        "addr add fd07::7/64 dev wan valid_lft 3000 preferred_lft 2000 mngtmpaddr nodad",
        "-6 route add default via fe80::1 dev wan proto ra metric 1024 expires 600",
    )
    assert "(fd07::7/64)" in refused("wan")  # this machine has no other address
    lines("link add eth0 type veth peer name eth0-far", "addr add 10.8.0.1/24 dev eth0")
    joined, journal = join()
    assert addresses("wan") == []
    assert "default via fe80::1" not in ip("-6 route")
    bridge.part(journal.entries[-1], journal.note)
    assert addresses("wan") == ["fd07::7/64"]
    assert "mngtmpaddr" in ip("addr show dev wan")
    assert re.search("default via fe80::1 dev wan proto ra metric 1024 expires (5..|600)sec", ip("-6 route"))
    assert bridge.plan("wan", "uklan").made
    lines("addr add 10.1.0.2/24 dev wan")
    assert "(10.1.0.2/24)" in refused("wan")
    bridge.part(joined, journal.note)


def refused(interface: str, *, takes: bool = False) -> str:
    with pytest.raises(UsageError) as told:
        bridge.plan(interface, "uklan", takes=takes)
    return str(told.value)


def test_what_cannot_be_bridged_is_said(tap: Tap) -> None:
    lines("addr add 10.1.0.2/24 dev wan", "addr add fd01::2/64 dev wan nodad")
    said = refused("wan")
    assert "(10.1.0.2/24, fd01::2/64)" in said
    assert "--take-addresses" in said
    assert "loopback" in refused("lo")
    assert "is an interface of ukihashi itself" in refused("uklan")
    other = open_tap("ukother")
    assert "is an interface of ukihashi itself" in refused("ukother")
    other.close()
    lines("link add br0 type bridge", "link add vm type veth peer name vm-far", "link set vm master br0")
    assert refused("vm") == "vm is a member of the bridge br0 already; name br0 instead"
    lines("link add ukbr-vm type bridge", "link set vm master ukbr-vm")
    assert refused("vm") == "vm is bridged already by another card or hub of ukihashi (ukbr-vm)"
    assert "is an interface of ukihashi itself" in refused("ukbr-vm")
    lines("tuntap add tun7 mode tun")
    assert "carries no Ethernet frames" in refused("tun7", takes=True)
    assert refused("a b").startswith("'a b' can't name a network interface")
    assert bridge.plan("eth9", "uklan").index == 0  # it may come


def test_a_name_that_is_taken_is_said(tap: Tap) -> None:
    lines("link add ukbr-wan type veth peer name other")
    before = everything()
    joined = bridge.plan("wan", "uklan")
    with pytest.raises(EnvironmentLacks, match="ukbr-wan exists already"):
        bridge.join(joined, lambda _joined: None)
    assert everything() == before


def test_a_wireless_card_is_told_by_the_kernels_refusal(
    tap: Tap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(interface: str, _bridge: str) -> None:
        raise EnvironmentLacks("the kernel refused the settings of {interface}: no", interface=interface)

    joined = bridge.plan("wan", "uklan")
    bridge.join(joined, lambda _joined: None)
    lines("link set wan nomaster")
    joined.index = 0
    monkeypatch.setattr(netlink, "set_master", refuse)
    with pytest.raises(UkihashiError, match="the kernel refused"):
        bridge.take_in(joined, lambda _joined: None)
    (tmp_path / "wan" / "phy80211").mkdir(parents=True)
    monkeypatch.setattr(bridge, "_SYSFS", tmp_path)
    with pytest.raises(UkihashiError, match="4-address mode"):
        bridge.take_in(joined, lambda _joined: None)
    assert joined.index == 0


def test_names_fit_whatever_the_interface_is_called() -> None:
    assert bridge.bridge_name("eth0") == "ukbr-eth0"
    assert bridge.tap_name("enp0s31f6") == "ukt-enp0s31f6"
    long = "enx001122334455"
    assert len(bridge.bridge_name(long)) <= 15
    assert bridge.bridge_name(long) != bridge.bridge_name(long[:-1] + "6")
