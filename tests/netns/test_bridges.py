"""Two offices that become one Ethernet: hosts without any VPN program, gates that bridge by card or by hub (A8)."""

import difflib
import hashlib
import json
import os
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from lab import peers
from lab.net import Ended, Host, Net
from lab.offices import LAN, ROUTED4, ROUTED6, Member, Office, Town, web_server
from lab.raw import BROADCAST, Wire, crosses
from lab.ukihashi import HUB, Card, Hub
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]
needs = pytest.mark.peer("dnsmasq", "avahi-daemon", "udhcpc", "ethtool", "curl")

MIB = 1 << 20
ACCOUNT = "lan"


@dataclass
class Scene:
    """DHCP, router and Internet are in the west; the hub is there too, or in between."""

    town: Town
    west: Office
    east: Office
    hub: Hub
    cards: dict[str, Card]

    @property
    def here(self) -> Member:
        return self.west.hosts[0]

    @property
    def there(self) -> Member:
        return self.east.hosts[0]


def relayed(hub: Hub, trusted: str) -> None:
    """The virtual hub leaves addresses to the office that has a router, and that port is trusted."""
    hub.tell("addresses_set", hub=HUB, dhcp="relay", ra=False, trust=[trusted])


def by_card(hub: Hub, office: Office) -> Card:
    card = Card(office.gate)
    settings = {"interface": {"bridge": LAN, "addresses": []}}
    card.prepare(hub.invite(office.name, address=hub.host.ipv4), settings, ACCOUNT)
    card.up(ACCOUNT)
    return card


def index(host: Host, interface: str) -> int:
    return int(json.loads(host.run(["ip", "-j", "link", "show", interface]))[0]["ifindex"])


def snapshot(host: Host) -> list[str]:
    """All that a bridge might change, line by line."""
    commands = ("-d link", "addr", "rule", "-6 rule", "route show table all", "-6 route show table all")
    return [line for command in commands for line in host.ip(command).splitlines()]


def same(host: Host, before: list[str]) -> None:
    """All is as it was."""
    assert "\n".join(difflib.unified_diff(before, snapshot(host), "before", "after", n=0, lineterm="")) == ""


def shared(member: Member, size: int, *, port: int = 8080) -> str:
    """The member serves a file of random bytes; its SHA-256."""
    folder = member.host.folder / "files"
    folder.mkdir(exist_ok=True)
    data = os.urandom(size)
    (folder / "file").write_bytes(data)
    web_server(member.host, folder, port)
    return hashlib.sha256(data).hexdigest()


def own_ipv4(member: Member) -> str:
    return member.lease()["address"]


def fetched(member: Member, address: str, *, port: int = 8080, seconds: float = 120.0) -> str:
    host = f"[{address}]" if ":" in address else address
    return member.fetch_sum(f"http://{host}:{port}/file", seconds=seconds)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """West by its hub's own bridge, east by a card."""
    with Net() as net:
        town = Town(net)
        west, east = town.office("w", hosts=1), town.office("e", hosts=1)
        west.add_router()
        hub = Hub(west.gate)
        hub.configure({"times": {"keepalive_s": 0.5, "dead_s": 1.5}})
        hub.start()
        hub.run("hub", "bridge", HUB, LAN)
        relayed(hub, f"bridge {LAN}")
        card = by_card(hub, east)
        yield Scene(town, west, east, hub, {"e": card})


@needs
def test_hosts_of_two_offices_find_each_other(scene: Scene) -> None:
    here, there = scene.here, scene.there
    lease = there.lease()
    assert lease["address"].startswith(f"{ROUTED4}.")
    assert (lease["server"], lease["router"]) == (f"{ROUTED4}.1", f"{ROUTED4}.1")
    assert here.lease()["address"] != lease["address"]
    there.host.pings(own_ipv4(here))
    there.host.pings(here.ipv6(ROUTED6))
    here.host.pings(there.ipv6(ROUTED6))
    there.host.pings(scene.town.web.ipv4)  # out through the far office's router
    for member in (here, there):
        member.speak_mdns()
    assert there.hears_mdns(here) == own_ipv4(here)
    assert ip_address(here.hears_mdns(there, 6)).version == 6


@needs
def test_files_cross_in_both_directions(scene: Scene) -> None:
    here, there = scene.here, scene.there
    for owner, reader in ((here, there), (there, here)):
        total = shared(owner, 4 * MIB)
        assert fetched(reader, own_ipv4(owner)) == total
        assert fetched(reader, owner.ipv6(ROUTED6)) == total
    row = scene.cards["e"].status(ACCOUNT)
    assert row["super_frames_in"] > 0  # what the LAN brought left the tunnel as it came
    assert row["super_frames_out"] > 0


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@needs
def test_every_frame_that_leaves_a_gate_is_right(scene: Scene) -> None:
    """With a card at the gate's Ethernet that can't do anything by itself, as cheap ones can't."""
    here, there, gate = scene.here, scene.there, scene.east.gate
    gate.run(["ethtool", "-K", LAN, "tx", "off", "tso", "off", "gso", "off", "sg", "off"])
    total = shared(here, MIB, port=8081)
    with Wire(there.host, "eth0") as wire:
        assert fetched(there, own_ipv4(here), port=8081) == total
        seen = [frame for frame in wire.frames(seconds=0.5) if frame[12:14] == b"\x08\x00" and frame[23] == 6]
    gate.run(["ethtool", "-K", LAN, "tx", "on", "tso", "on", "gso", "on", "sg", "on"])
    assert len(seen) > 100
    for frame in seen:
        size = int.from_bytes(frame[16:18], "big")
        assert len(frame) <= 1514
        assert checksum(frame[14:34]) == 0xFFFF
        segment = frame[34 : 14 + size]
        assert checksum(frame[26:34] + struct.pack("!HH", 6, len(segment)) + segment) == 0xFFFF
    assert "TcpInCsumErrors 0" in " ".join(there.host.run(["nstat", "-asz", "TcpInCsumErrors"]).split())


@needs
def test_frames_with_a_vlan_tag_and_of_any_kind_pass(scene: Scene) -> None:
    here, there = scene.here.host, scene.there.host
    with Wire(here, "eth0") as one, Wire(there, "eth0") as other:
        body = bytes(range(256)) * 5
        for head in ("8100 0064 88b5", "8100 0064 0800", "88cc", "88b5", "9000"):
            kind = bytes.fromhex(head)
            for to in (BROADCAST, bytes.fromhex("01005e0000fb"), bytes.fromhex("3333000000fb")):
                crosses(one, other, to + one.mac + kind + body[:1400])
        bpdu = bytes.fromhex("0180c2000000") + one.mac + bytes.fromhex("0026 424203") + bytes(35)
        crosses(one, other, bpdu.ljust(60, b"\0"))  # a spanning tree of theirs
        full = BROADCAST + one.mac + bytes.fromhex("8100 0064 88b5") + body[:1280] + bytes(220)
        assert len(full) == 1518
        crosses(one, other, full)


@needs
def test_what_hub_and_card_say_of_their_bridges(scene: Scene) -> None:
    own_ipv4(scene.there)
    row = scene.cards["e"].status(ACCOUNT)["bridge"]
    assert (row["interface"], row["bridge"], row["state"]) == (LAN, f"ukbr-{LAN}", "joined")
    assert row["members"] == sorted([LAN, f"uk{ACCOUNT}"])
    assert row["counters"][LAN]["rx_packets"] > 0
    shown = scene.cards["e"].run("card", "status", ACCOUNT)
    assert f"Bridge: {LAN}, joined; ukbr-{LAN} of {LAN}, uk{ACCOUNT};" in shown
    session = next(one for one in scene.hub.sessions() if one["user"] == "e")
    assert session["mode"] == "bridge"
    assert f"Bridge: {LAN} and virtual hub {HUB}, joined; ukbr-{LAN} of {LAN}, ukt-{LAN};" in scene.hub.run(
        "hub", "status"
    )
    (row,) = scene.hub.rows("hub", "bridge")
    assert row["port"]["frames_in"] > 0
    assert row["warnings"] == []
    gate = scene.west.gate
    assert "inet" not in gate.ip(f"addr show dev ukbr-{LAN}")


@needs
def test_a_cut_leaves_the_bridge_as_it_is(scene: Scene) -> None:
    gate, card = scene.east.gate, scene.cards["e"]
    scene.there.host.pings(own_ipv4(scene.here))
    before, bridge = card.status(ACCOUNT)["resumes"], index(gate, f"ukbr-{LAN}")
    scene.town.outside.cut(gate)
    until(lambda: card.status(ACCOUNT)["state"] != "online", seconds=40, what="the card noticing")
    assert index(gate, f"ukbr-{LAN}") == bridge
    scene.town.outside.mend(gate)
    scene.there.host.pings(own_ipv4(scene.here), seconds=40)
    assert card.status(ACCOUNT)["resumes"] > before
    assert index(gate, f"ukbr-{LAN}") == bridge


@needs
def test_an_upgrade_leaves_the_bridge_as_it_is(scene: Scene) -> None:
    gate = scene.west.gate
    was = index(gate, f"ukbr-{LAN}"), index(gate, f"ukt-{LAN}")
    scene.hub.run("hub", "upgrade", timeout_s=90)
    scene.there.host.pings(own_ipv4(scene.here), seconds=40)
    assert (index(gate, f"ukbr-{LAN}"), index(gate, f"ukt-{LAN}")) == was
    (row,) = scene.hub.rows("hub", "bridge")
    assert row["state"] == "joined"


@needs
def test_eight_hosts_behind_one_card_and_a_hub_in_between(net: Net) -> None:
    """Both offices by cards; then they leave, and nothing of it is left."""
    town = Town(net)
    west, east = town.office("w", hosts=1), town.office("e", hosts=8)
    for gate in (west.gate, east.gate):  # else what router advertisements give would differ in age
        gate.set_sysctl(f"net/ipv6/conf/{LAN}/accept_ra", "0")
    before = [snapshot(office.gate) for office in (west, east)]
    west.add_router()
    hub = Hub(town.cloud)
    hub.start()
    cards = {office.name: by_card(hub, office) for office in (west, east)}
    relayed(hub, "w")
    leases = {member.lease()["address"] for member in east.hosts}
    assert len(leases) == 8
    assert all(address.startswith(f"{ROUTED4}.") for address in leases)
    for member in east.hosts:
        west.hosts[0].host.pings(member.ipv6(ROUTED6))
    stations = {row["session"] for row in hub.mac_table()}
    assert len([row for row in hub.mac_table() if row["session"].startswith("SID-E-")]) >= 8, stations
    for card in cards.values():
        card.leave(ACCOUNT)
    for office, once in zip((west, east), before, strict=True):
        same(office.gate, once)


@pytest.mark.soak
@pytest.mark.timeout(600)
@needs
def test_a_hundred_megabytes_each_way(net: Net) -> None:
    town = Town(net)
    west, east = town.office("w", hosts=1), town.office("e", hosts=1)
    west.add_router()
    hub = Hub(town.cloud)
    hub.start()
    for office in (west, east):
        by_card(hub, office)
    relayed(hub, "w")
    for owner, reader in ((west.hosts[0], east.hosts[0]), (east.hosts[0], west.hosts[0])):
        own_ipv4(reader)
        total = shared(owner, 100_000_000)
        assert fetched(reader, own_ipv4(owner), seconds=240) == total


def static_office(net: Net) -> tuple[Host, Host, Host]:
    """A hub outside; a gate with one interface only, which has the way there; a neighbour of it."""
    machine, gate, near = net.lan("hub", "gate", "near")
    gate.ip(f"route add default via {machine.ipv4}")
    gate.ip(f"-6 route add default via {machine.ipv6}")
    return machine, gate, near


def test_a_card_bridges_the_interface_that_it_dials_by_and_gives_all_back_after_sigkill(net: Net) -> None:
    machine, gate, _near = static_office(net)
    hub, card = Hub(machine), Card(gate)
    hub.start()
    before = snapshot(gate)
    card.prepare(hub.invite("gate"), {"interface": {"addresses": []}}, ACCOUNT)
    with pytest.raises(Ended, match="eth0 has addresses of its own"):
        card.run("card", "bridge", "eth0", "--account", ACCOUNT)
    card.run("card", "bridge", "eth0", "--account", ACCOUNT, "--take-addresses")
    card.up(ACCOUNT)
    assert "ukbr-eth0" in gate.ip("route show default")
    gate.pings(machine.ipv4)
    until(lambda: card.status(ACCOUNT)["state"] == "online", seconds=20, what="the card")
    os.kill(card.status(ACCOUNT)["pid"], signal.SIGKILL)
    until(lambda: not gate.has_interface(f"uk{ACCOUNT}"), seconds=10, what="its end")
    assert "ukbr-eth0" in gate.ip("route show default")  # this machine has its addresses all the time
    said = card.run("card", "clean")
    assert "removed: ukbr-eth0" in said
    same(gate, before)
    card.up(ACCOUNT)
    card.leave(ACCOUNT)
    same(gate, before)


def cable(net: Net, one: Host, other: Host) -> tuple[str, str]:
    """Two more interfaces, without addresses."""
    ends = net.link(one, other)
    for host, interface in zip((one, other), ends, strict=True):
        host.ip(f"addr flush dev {interface} scope global")
    return ends


def test_a_bridge_is_made_and_parted_while_the_card_is_up(net: Net) -> None:
    machine, host, far = net.lan("hub", "a", "b")
    lan = cable(net, host, far)[0]
    hub, card = Hub(machine), Card(host)
    hub.start()
    card.join(hub.invite("a"))
    own = card.address(4)
    account = str(card.status()["account"])
    card.run("card", "bridge", lan, "--account", account)
    assert own not in host.ip("addr")
    assert card.status()["bridge"]["state"] == "joined"
    assert [(row["mode"], row["state"]) for row in hub.sessions()] == [("bridge", "online")]  # the one before has left
    card.run("card", "bridge", lan, "--account", account, "--remove")
    assert card.address(4) == own
    host.pings(f"{own.rpartition('.')[0]}.1")
    assert f"ukbr-{lan}" not in host.ip("link")


def test_a_hub_may_forbid_it(net: Net) -> None:
    machine, gate, other = net.lan("hub", "gate", "other")
    lan = cable(net, gate, other)[0]
    hub, card = Hub(machine), Card(gate)
    hub.start()
    card.prepare(hub.invite("gate"), {"interface": {"addresses": [], "bridge": lan}}, ACCOUNT)
    hub.set_policy("gate", {"no_bridge": True})
    told = card.up(ACCOUNT) + str(card.run("card", "status", ACCOUNT))
    assert "the hub's policy for this user forbids bridging" in told
    card.leave(ACCOUNT)
    hub.set_policy("gate", {"no_bridge": True, "no_routing": True})
    with pytest.raises(Ended, match="may not join in bridge mode"):
        card.up(ACCOUNT)
    assert f"ukbr-{lan}" not in gate.ip("link")


def test_a_hub_that_was_killed_bridges_again(net: Net) -> None:
    machine, far = net.lan("hub", "far")
    lan, there = cable(net, machine, far)
    before = snapshot(machine)
    hub = Hub(machine)
    hub.start()
    own = f"{hub.tell('hub_show', name=HUB)[0]['subnet4'].partition('.0/')[0]}.1"
    far.add_address(there, f"{own[:-1]}77/24")
    hub.run("hub", "bridge", HUB, lan)
    far.pings(own)
    os.kill(hub.tell("status")[0]["worker"]["pid"], signal.SIGKILL)
    far.pings(own)  # by the next worker
    assert hub.process is not None
    os.kill(hub.process.pid, signal.SIGKILL)
    hub.process.wait()
    assert f"ukbr-{lan}" in machine.ip("link")
    hub.start()
    far.pings(own)
    hub.stop()
    same(machine, before)


@pytest.mark.peer("vpnserver", "vpncmd")
def test_a_card_bridges_to_a_real_server(net: Net) -> None:
    machine, gate, other = net.lan("server", "gate", "other")
    far = net.host("far")
    lan, there = cable(net, gate, far)
    server = peers.Server(machine)
    server.start()
    server.create_hub("LAN")
    for user in ("gate", "other"):
        server.create_user("LAN", user, "secret-of-both")
    cards = []
    for host, extra in ((gate, {"bridge": lan}), (other, {"addresses": ["10.99.0.2/24"]})):
        card = Card(host)
        card.create(ACCOUNT, standard_account(machine, host.name, extra))
        card.up(ACCOUNT)
        cards.append(card)
    far.add_address(there, "10.99.0.3/24")
    far.pings("10.99.0.2")
    assert cards[0].status(ACCOUNT)["bridge"]["state"] == "joined"


def standard_account(machine: Host, user: str, interface: dict[str, Any]) -> dict[str, Any]:
    return {
        "hub": {"host": machine.ipv4, "port": 443, "hub": "LAN", "user": user},
        "login": {"method": "password", "password": "secret-of-both"},
        "interface": {"name": f"uk{ACCOUNT}", "mac": "02:00:00:00:07:0" + str(len(user)), "dhcp": "off", **interface},
    }


@pytest.mark.peer("vpnclient", "vpncmd")
def test_an_official_client_reaches_hosts_behind_a_bridge_of_the_hub(net: Net) -> None:
    machine, other = net.lan("hub", "b")
    far = net.host("far")
    lan, there = cable(net, machine, far)
    hub = Hub(machine)
    hub.configure({"workers": 2})  # the bridge is with the first, the client with either
    hub.start()
    hub.run("hub", "bridge", HUB, lan)
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", HUB, "--json"))
    client = peers.Client(other)
    client.start()
    client.create_account(
        "v1", server=machine.ipv4, port=443, hub=HUB, user="taro", password=made["password"], cidrs=["10.99.0.2/24"]
    )
    client.connect("v1")
    far.add_address(there, "10.99.0.3/24")
    far.pings("10.99.0.2", seconds=30)
    client.disconnect("v1")
