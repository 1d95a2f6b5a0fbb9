"""The guards against real programs: a member with dnsmasq, or forged ARP and ND, harms nobody unless it is trusted."""

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from lab.net import Net, Process
from lab.raw import Wire
from lab.ukihashi import HUB, Card, Hub
from lab.wait import until
from ukihashi.ether import arp, ndp, packet
from ukihashi.switch import reasons

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("dnsmasq", "udhcpc")]

ROGUE4, ROGUE6 = "192.168.66", "fd66:66:66:66:"
WORKERS = 2


class Lan:
    """A hub of two workers and three cards: a victim, a rogue member, and one that only listens."""

    def __init__(self, net: Net) -> None:
        machine, *hosts = net.lan("hub", "victim", "rogue", "other")
        self.hub = Hub(machine)
        self.hub.configure({"workers": WORKERS})
        self.hub.start()
        self.cards = {host.name: Card(host) for host in hosts}
        for host in hosts:
            self.cards[host.name].join(self.hub.invite(host.name))
        self.victim, self.rogue = self.cards["victim"], self.cards["rogue"]
        self.addresses = {name: (card.address(4), card.address(6)) for name, card in self.cards.items()}
        self.dnsmasq: Process | None = None

    def set(self, *words: str) -> None:
        self.hub.run("hub", "addresses", "set", HUB, *words)

    def serve(self) -> Process:
        """Real dnsmasq at the rogue: DHCP, router advertisements."""
        host, interface = self.rogue.host, self.rogue.interface()
        host.add_address(interface, f"{ROGUE4}.1/24")
        host.add_address(interface, f"{ROGUE6}:1/64")
        argv = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
            *("--pid-file=", f"--dhcp-leasefile={host.folder}/leases", "--log-facility=-", "--log-dhcp", "--port=0"),
            *(f"--interface={interface}", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--enable-ra"),
            *(f"--dhcp-range={ROGUE4}.100,{ROGUE4}.199,1h", f"--dhcp-range={ROGUE6}:,ra-only,64,1h"),
            f"--ra-param={interface},4,1800",
        ]
        process = host.spawn(argv, log="dnsmasq")
        process.wait_for("IPv6 router advertisement enabled")
        return process

    def lease(self, *, tries: int = 8) -> str:
        """What udhcpc gets the victim; "" if nothing."""
        argv = [
            "udhcpc",
            "-i",
            self.victim.interface(),
            "-n",
            "-q",
            "-f",
            "-t",
            str(tries),
            "-T",
            "1",
            "-s",
            "/bin/true",
        ]
        done = self.victim.host.ask(argv, timeout_s=40.0)
        found = re.search(r"lease of (\S+) obtained", done.stdout + done.stderr)
        return found[1] if found else ""

    def routers(self) -> list[str]:
        """Default routes of IPv6 and addresses that the victim has been given by advertisements."""
        host, interface = self.victim.host, self.victim.interface()
        routes = host.run(["ip", "-6", "route", "show", "default", "dev", interface]).split("\n")
        shown = json.loads(host.run(["ip", "-j", "-6", "addr", "show", "dev", interface]))
        given = [entry["local"] for link in shown for entry in link["addr_info"] if entry.get("dynamic")]
        return [line for line in routes if line] + given

    def caught(self, *wanted: str) -> dict[str, Any] | None:
        """What the hub's status says of the rogue, when it has these reasons."""
        for row in self.hub.tell("status")[0]["caught"]:
            if row["user"] == "rogue" and set(wanted) <= set(row["dropped"]):
                return dict(row)
        return None


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with Net() as net:
        yield Lan(net)


def test_a_rogue_dhcp_server_and_router_reach_nobody_and_are_reported(lan: Lan) -> None:
    victim = lan.victim.host
    subnet = lan.addresses["victim"][0].rpartition(".")[0]
    for name in ("accept_ra", "autoconf"):
        victim.run(["sysctl", "-qw", f"net.ipv6.conf.{lan.victim.interface()}.{name}=2"])
    lan.dnsmasq = lan.serve()
    assert lan.lease().startswith(subnet + "."), "the hub's own"
    assert "DHCPDISCOVER" not in lan.dnsmasq.output(), "who asks for an address is heard by the hub only"
    lan.set("--dhcp", "off")
    assert lan.lease(tries=3) == ""
    lan.dnsmasq.wait_for(rf"DHCPOFFER.* {ROGUE4}\.")  # it has tried
    lan.dnsmasq.wait_for("RTR-ADVERT")
    row = until(lambda: lan.caught(reasons.ROGUE_DHCP), seconds=20, what="the status saying so", step_s=0.2)
    assert row["session"].startswith("SID-ROGUE-")
    assert not [one for one in lan.routers() if ROGUE6 in one or "via" in one]
    said = lan.hub.run("hub", "status")
    assert re.search(rf"Guards of LAN: {row['session']} since .*: .*not trusted", said), said
    assert re.search(rf"another were dropped.*session={row['session']} user=rogue", lan.hub.log())
    sessions = {one["session"]: one["drops"] for one in lan.hub.sessions()}
    assert sessions[row["session"]][reasons.ROGUE_ROUTER] >= 1


def test_when_it_is_trusted_its_clients_talk_to_it_and_to_nobody_else(lan: Lan) -> None:
    other = lan.cards["other"]
    lan.set("--dhcp", "relay", "--trust", "rogue")
    with Wire(other.host, other.interface()) as listener:
        assert lan.lease().startswith(ROGUE4 + ".")
        heard = [packet.dhcp_message(packet.parse(frame)) for frame in listener.frames(seconds=0.2)]
        assert 1 not in heard, "a DISCOVER"
    until(lambda: any(ROGUE6 in one for one in lan.routers()), seconds=20, what="an address by advertisement")
    lan.set("--no-trust", "rogue")
    assert lan.lease(tries=2) == ""
    lan.set("--dhcp", "serve")
    assert lan.dnsmasq is not None
    lan.dnsmasq.stop()


def test_forged_arp_and_neighbour_discovery_change_nobodys_tables(lan: Lan) -> None:
    victim, rogue, interface = lan.victim.host, lan.rogue.host, lan.victim.interface()
    gateway = lan.hub.tell("addresses", hub=HUB)[0]["host_port"]
    own, own6 = lan.addresses["victim"]
    gateway6 = own6.rpartition(":")[0] + ":1"
    friend, friend6 = lan.addresses["other"]
    for address in (gateway, gateway6, friend, friend6):
        victim.pings(address)

    def neighbours() -> dict[str, str]:
        shown = json.loads(victim.run(["ip", "-j", "neigh", "show", "dev", interface]))
        return {entry["dst"]: entry["lladdr"] for entry in shown if "lladdr" in entry}

    right = neighbours()
    assert {gateway, gateway6, friend, friend6} <= set(right)
    to = bytes.fromhex(victim.run(["cat", f"/sys/class/net/{interface}/address"]).strip().replace(":", ""))
    with Wire(rogue, lan.rogue.interface()) as wire:

        def forge() -> None:
            for address in (IPv4Address(gateway), IPv4Address(friend)):
                asked = arp.Arp(arp.REQUEST, to, IPv4Address(own), bytes(6), address)
                wire.send(arp.reply(asked, wire.mac))
                wire.send(arp.announcement(wire.mac, address))
            for target in (IPv6Address(gateway6), IPv6Address(friend6)):
                question = ndp.NeighbourSolicitation(to, IPv6Address(own6), target)
                wire.send(ndp.neighbour_advertisement(question, wire.mac))

        forge()
        drops = next(row["drops"] for row in lan.hub.sessions() if row["user"] == "rogue")
        assert drops[reasons.FORGED] >= 6
        for address in (gateway, gateway6, friend, friend6):
            victim.pings(address)
        assert {address: neighbours()[address] for address in right} == right
        lan.set("--guard", "off")
        forge()
        forged = wire.mac.hex(":")
        until(
            lambda: [neighbours()[one] for one in (gateway, gateway6, friend, friend6)] == [forged] * 4,
            seconds=10,
            what="what the guards kept away",
        )
