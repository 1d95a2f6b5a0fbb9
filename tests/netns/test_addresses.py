"""Addresses and names of a virtual hub, as programs of others get them: DHCP, router advertisements, DNS."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from lab import peers
from lab.crowd import BROADCAST, Cards, LightCard
from lab.net import Host, Net
from lab.ukihashi import HUB, Card, Hub
from lab.wait import until
from ukihashi.errors import PeerViolation
from ukihashi.ether import datagram, dhcp

pytestmark = [pytest.mark.netns, pytest.mark.slow]

CARDS: Final = 200
ALL_S: Final = 10.0  # for all of them
NETWORKD: Final = Path("/lib/systemd/systemd-networkd")

Lan = tuple[Hub, dict[str, Card]]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Two cards at a hub, each user with an own address that the card itself does not set."""
    with Net() as net:
        machine, *hosts = net.lan("hub", "a", "b")
        hub = Hub(machine)
        hub.start()
        cards = {host.name: Card(host) for host in hosts}
        for name, card in cards.items():
            card.join(hub.invite(name))
            card.host.run(["ip", "-4", "addr", "flush", "dev", card.interface()])
        yield hub, cards


def service(hub: Hub) -> dict[str, Any]:
    return hub.tell("addresses", hub=HUB)[0]


def leases(hub: Hub) -> dict[str, dict[str, Any]]:
    """By address."""
    return {row["address"]: row for row in hub.tell("leases", hub=HUB)}


def numbered(hub: Hub, number: int) -> str:
    return str(ip_network(service(hub)["subnet4"])[number])


class Dhclient:
    """ISC's client on a card's interface; it stays until `stop`."""

    def __init__(self, card: Card, host_name: str) -> None:
        self.host, self.interface = card.host, card.interface()
        folder = self.host.folder
        self._files = folder / "dhclient.conf", folder / "dhclient.leases", folder / "dhclient.pid"
        self.told: Final = folder / "dhclient.env"
        script = folder / "dhclient-script"
        wanted = "subnet-mask, routers, domain-name, domain-name-servers, domain-search, code121"
        code = "option code121 code 121 = array of unsigned integer 8;"
        self._files[0].write_text(f'{code}\ntimeout 20;\nsend host-name "{host_name}";\nrequest {wanted};\n')
        script.write_text(
            f"#!/bin/sh\nenv >> {self.told}\n[ $reason != BOUND ] || ip addr add $new_ip_address/24 dev $interface\n"
            "[ $reason != RELEASE ] || ip -4 addr flush dev $interface\nexit 0\n"
        )
        script.chmod(0o755)
        self._argv = ["dhclient", "-4", "-1", "-sf", str(script)]
        for option, path in zip(("-cf", "-lf", "-pf"), self._files, strict=True):
            self._argv += [option, str(path)]

    def ask(self, *words: str) -> dict[str, str]:
        """Run it until it has an address (or has given it back); what its script was told last."""
        self.told.unlink(missing_ok=True)
        self.host.run([*self._argv, *words, self.interface], timeout_s=30.0)
        told = dict(line.partition("=")[::2] for line in self.told.read_text().splitlines())
        return {name.removeprefix("new_"): value for name, value in told.items() if name.startswith("new_")}

    def stop(self) -> None:
        self.host.ask([*self._argv, "-x", self.interface])


def udhcpc(card: Card, *words: str) -> str:
    """Address that udhcpc gets; it has gone when this returns. Raises `Ended` if it gets none."""
    argv = ["udhcpc", "-i", card.interface(), "-n", "-q", "-f", "-t", "8", "-T", "1", "-s", "/bin/true", *words]
    done = card.host.ask(argv, timeout_s=30.0)
    found = re.search(r"lease of (\S+) obtained", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return found[1]


def dig(host: Host, server: str, *words: str) -> tuple[str, list[str]]:
    """Status of the answer, and the data of its records."""
    argv = ["dig", f"@{server}", "+noall", "+comments", "+answer", "+tries=3", "+time=2", *words]
    out = host.run(argv, timeout_s=20.0)
    status = re.search(r"status: (\w+)", out)
    assert status, out
    return status[1], [line.split()[-1] for line in out.splitlines() if line and not line.startswith(";")]


def test_dhclient_gets_the_users_own_address_and_all_that_goes_with_it(lan: Lan) -> None:
    hub, cards = lan
    a, said = cards["a"], service(hub)
    gateway = numbered(hub, 9)
    hub.tell("addresses_set", hub=HUB, routes=[f"192.168.77.0/24,{gateway}"], router=numbered(hub, 1))
    client = Dhclient(a, "nova")
    try:
        told = client.ask()
        own = next(row["address"] for row in leases(hub).values() if row["user"] == "a")
        assert told["ip_address"] == own
        assert told["subnet_mask"] == "255.255.255.0"
        assert (told["dhcp_server_identifier"], told["domain_name_servers"]) == (said["service4"], said["service4"])
        assert (told["domain_name"], told["domain_search"]) == ("lan.internal", "lan.internal.")
        assert (told["routers"], told["dhcp_lease_time"]) == (numbered(hub, 1), "86400")
        ways = bytes(int(number) for number in told["code121"].split())
        assert [str(network) for network, _ in dhcp.read_routes(ways)] == ["0.0.0.0/0", "192.168.77.0/24"]
        row = leases(hub)[own]
        assert (row["state"], row["fixed"], row["host"]) == ("leased", "user", "nova")
        client.ask("-r")
        assert leases(hub)[own]["state"] == "kept"
    finally:
        client.stop()
        hub.tell("addresses_set", hub=HUB, routes=[], router="auto")


def test_names_of_users_and_stations_are_answered_and_others_refused(lan: Lan) -> None:
    hub, cards = lan
    a, b, said = cards["a"].host, cards["b"].host, service(hub)
    address = udhcpc(cards["a"], "-x", "hostname:laptop-7")
    b.run(["ip", "addr", "add", numbered(hub, 200) + "/24", "dev", cards["b"].interface()])
    try:
        for server in (said["service4"], said["service6"]):
            assert dig(b, server, "a.lan.internal") == ("NOERROR", [address])
            assert dig(b, server, "laptop-7.LAN.internal") == ("NOERROR", [address])
            assert dig(b, server, "-x", address) == ("NOERROR", ["a.lan.internal."])
            assert dig(b, server, "nobody.lan.internal") == ("NXDOMAIN", [])
            assert dig(b, server, "example.org")[0] == "REFUSED"
        assert dig(b, said["service4"], "hub.lan.internal") == ("NOERROR", [numbered(hub, 1)])
        assert dig(b, said["service4"], "hub.lan.internal", "AAAA")[1] == [str(ip_network(said["subnet6"])[1])]
        hub.tell("addresses_set", hub=HUB, domain="corp.example")
        assert dig(b, said["service4"], "laptop-7.corp.example") == ("NOERROR", [address])
        assert dig(b, said["service4"], "laptop-7.lan.internal")[0] == "NXDOMAIN"
        assert a.ask(["ping", "-c1", "-W1", said["service4"]]).returncode in (0, 1, 2)  # no program of ours minds
    finally:
        hub.tell("addresses_set", hub=HUB, domain="")
        b.run(["ip", "-4", "addr", "flush", "dev", cards["b"].interface()])


def test_fixed_and_released_addresses_and_a_service_that_is_off_are_felt_at_once(lan: Lan) -> None:
    hub, cards = lan
    b = cards["b"]
    own = udhcpc(b)
    mac = b.host.run(["cat", f"/sys/class/net/{b.interface()}/address"]).strip()
    assert leases(hub)[own]["mac"] == mac
    fixed = numbered(hub, 99)
    hub.tell("lease_fix", hub=HUB, who=mac, address=fixed)
    assert udhcpc(b, "-r", own) == fixed
    assert leases(hub)[fixed]["fixed"] == "station"
    hub.tell("lease_unfix", hub=HUB, who=mac)
    hub.tell("lease_fix", hub=HUB, who="b", address=numbered(hub, 98))
    hub.tell("lease_release", hub=HUB, address=fixed)
    assert udhcpc(b) == numbered(hub, 98)
    assert udhcpc(b, "-B") == numbered(hub, 98)  # it asks for broadcasts
    hub.tell("addresses_set", hub=HUB, dhcp="off")
    argv = ["udhcpc", "-i", b.interface(), "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true"]
    assert b.host.ask(argv, timeout_s=30.0).returncode != 0
    hub.tell("addresses_set", hub=HUB, dhcp="serve")
    assert udhcpc(b) == numbered(hub, 98)


def test_router_advertisements_carry_prefix_and_resolver_and_stop_when_told(lan: Lan) -> None:
    hub, cards = lan
    a, said = cards["a"], service(hub)
    out = a.host.run(["rdisc6", "-1", "-w", "4000", a.interface()], timeout_s=20.0)
    assert re.search(rf"Prefix +: {said['subnet6']}", out), out
    assert re.search(rf"Recursive DNS server +: {said['service6']}", out), out
    assert re.search(r"DNS search list +: lan.internal", out), out
    assert re.search(r"Router lifetime +: +0 ", out), out
    takes = [f"net.ipv6.conf.{a.interface()}.{name}=" for name in ("accept_ra", "autoconf")]
    a.host.run(["sysctl", "-qw", *(f"{name}1" for name in takes)])
    try:
        with_prefix = re.compile(rf"inet6 {re.escape(said['subnet6'].split('::')[0])}\S+ scope global.*dynamic")
        hub.tell("addresses_set", hub=HUB, ra=False)
        assert a.host.ask(["rdisc6", "-1", "-w", "1500", "-r", "1", a.interface()], timeout_s=20.0).returncode != 0
        hub.tell("addresses_set", hub=HUB, ra=True)  # told to all at once
        argv = ["ip", "addr", "show", "dev", a.interface()]
        until(lambda: with_prefix.search(a.host.run(argv)), seconds=20.0, what="an address of the kernel's own making")
        assert "default" not in a.host.run(["ip", "-6", "route", "show", "dev", a.interface()])
    finally:
        a.host.run(["sysctl", "-qw", *(f"{name}0" for name in takes)])


@pytest.mark.skipif(not NETWORKD.exists(), reason="no systemd-networkd here")
def test_systemd_networkd_gets_an_address(lan: Lan) -> None:
    _hub, cards = lan
    b, conf = cards["b"], cards["b"].host.folder / "network"
    conf.mkdir()
    (conf / "10-card.network").write_text(f"[Match]\nName={b.interface()}\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n")
    own = udhcpc(b)
    # with /sys read-only it does not wait for udev
    mounts = (
        f"mount --bind {conf} /etc/systemd/network && mount -t tmpfs t /run/systemd && mount -o remount,bind,ro /sys"
    )
    script = f"{mounts} && mkdir /run/systemd/netif && exec {NETWORKD}"
    process = b.host.spawn(["unshare", "-m", "sh", "-c", script], log="networkd")
    try:
        until(
            lambda: f" {own}/24 " in b.host.run(["ip", "-4", "addr", "show", "dev", b.interface()]),
            seconds=30.0,
            what="an address set by systemd-networkd",
        )
    finally:
        process.stop()


def test_leases_and_fixed_addresses_survive_restarts_of_every_part(lan: Lan) -> None:
    hub, cards = lan
    before, asked = udhcpc(cards["a"], "-x", "hostname:stays"), service(hub)
    mac = "02:00:00:00:00:42"
    hub.tell("lease_fix", hub=HUB, who=mac, address=numbered(hub, 66))
    assert hub.process is not None

    def check() -> None:
        until(lambda: leases(hub)[before]["state"] == "leased", seconds=30.0, what="the lease again")
        assert leases(hub)[numbered(hub, 66)]["mac"] == mac
        again = service(hub)
        assert [again[name] for name in ("service4", "service_mac")] == [asked["service4"], asked["service_mac"]]
        assert udhcpc(cards["a"], "-r", before) == before

    for has_database in (True, False):  # control, then the worker
        children = Path(f"/proc/{hub.process.pid}/task/{hub.process.pid}/children").read_text().split()
        state = hub.state_dir / "hub"
        victims = [int(pid) for pid in children if (Path(f"/proc/{pid}/cwd").resolve() == state) == has_database]
        assert len(victims) == 1
        os.kill(victims[0], signal.SIGKILL)
        place = Path(f"/proc/{victims[0]}")
        until(lambda where=str(place): not Path(where).exists(), seconds=10.0, what="its end")  # type: ignore[misc]
        check()
    hub.run("hub", "upgrade")
    check()
    assert hub.stop() == 0
    hub.start()
    until(lambda: {row["user"] for row in hub.sessions()} >= {"a", "b"}, seconds=40.0, what="the cards again")
    check()


# -- very many at once --------------------------------------------------------------------------------------------


class Asking(LightCard):
    """A light card that gets an address; `floods`: under ever new names, and takes none."""

    answers = 0

    def begin(self, *, floods: int = 0) -> None:
        self.address: IPv4Address | None = None
        self.asked_at = time.monotonic()
        if floods:
            stations = [b"\x06" + os.urandom(5) for _ in range(floods)]
            self.send(*(self._message(dhcp.DISCOVER, mac=station, source=self.station) for station in stations))
        else:
            self.send(self._message(dhcp.DISCOVER))

    def again(self, now: float) -> None:
        """As every client does."""
        if self.address is None and now - self.asked_at > 3.0:
            self.begin()

    def _message(self, kind: int, *, mac: bytes = b"", source: bytes = b"", **options: bytes) -> bytes:
        given = {dhcp.MESSAGE_TYPE: bytes([kind])}
        if options:
            given |= {dhcp.REQUESTED: options["requested"], dhcp.SERVER_ID: options["server"]}
        message = dhcp.Message(dhcp.BOOT_REQUEST, 7, mac or self.station, options=given)
        frame = dhcp.client_frame(message)
        return frame[:6] + mac + frame[12:] if source and mac else frame

    def _take(self, plain: bytes) -> None:
        frames = self._decoder.feed(plain)
        self._decoder.controls.clear()
        self._have += len(frames)
        for frame in frames:
            try:
                found = datagram.parse(frame)
            except PeerViolation:
                continue
            if (
                found is None
                or found.destination_port != dhcp.CLIENT_PORT
                or frame[:6] not in (self.station, BROADCAST)
            ):
                continue
            told = dhcp.parse(found.payload)
            self.answers += told.mac == self.station
            server = told.options.get(dhcp.SERVER_ID, b"")
            if told.mac == self.station and told.kind == dhcp.OFFER:
                self.send(self._message(dhcp.REQUEST, requested=told.your.packed, server=server))
            elif told.mac == self.station and told.kind == dhcp.ACK:
                self.address = told.your


class AskingCards(Cards):
    """Many of them."""

    made = Asking


def everyone_has_an_address(cards: AskingCards, asking: Sequence[Asking], *, seconds: float) -> float:
    """Let them ask; the time until the last has one, or `seconds`."""
    began = time.monotonic()
    for card in asking:
        card.begin()
    while (past := time.monotonic() - began) < seconds and not all(card.address for card in asking):
        cards.turn(0.1)
        for card in asking:
            card.again(time.monotonic())
    return past


def test_two_hundred_cards_at_once_have_distinct_addresses_within_ten_seconds(net: Net) -> None:
    machine, host = net.lan("hub", "crowd")
    hub = Hub(machine)
    hub.start()
    for name in ("crowd", "mallory"):
        hub.tell("user_create", name=name, hub=HUB, anonymous=True)
    with host.inside():
        cards = AskingCards((machine.ipv4, 443), ["crowd"], HUB, BROADCAST)
        joined = cards.join(range(CARDS))
        asking = [card for card in joined if isinstance(card, Asking)]
        took = everyone_has_an_address(cards, asking, seconds=ALL_S)
        got = {card.address for card in asking if card.address is not None}
        print(json.dumps({"cards": CARDS, "distinct": len(got), "seconds": round(took, 2)}))
        assert len(got) == CARDS
        assert took < ALL_S
        subnet = ip_network(service(hub)["subnet4"])
        assert all(address in subnet for address in got)
        held = {ip_address(row["address"]) for row in leases(hub).values() if row["state"] == "leased"}
        assert held == got  # on the disk, too, for it is read from there
        cards.close()

        # who asks for everything under ever new names leaves the rest to others
        floods = AskingCards((machine.ipv4, 443), ["mallory"], HUB, BROADCAST)
        (flood,) = floods.join([500])
        late = AskingCards((machine.ipv4, 443), ["crowd"], HUB, BROADCAST)
        newcomers = [card for card in late.join(range(501, 506)) if isinstance(card, Asking)]
        assert isinstance(flood, Asking)
        for _ in range(20):
            flood.begin(floods=100)
            floods.turn(0.05)
        took = everyone_has_an_address(late, newcomers, seconds=ALL_S)
        assert len({card.address for card in newcomers} - {None} - got) == len(newcomers), took
        for one in (floods, late):
            one.close()


# -- others' client, and several workers --------------------------------------------------------------------------


@pytest.mark.peer("vpnclient", "vpncmd")
def test_the_official_client_gets_an_address_by_dhcp_and_is_reached_by_name(net: Net) -> None:
    machine, other = net.lan("hub", "b")
    hub = Hub(machine)
    hub.configure({"workers": 2})
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", HUB, "--json"))
    client = peers.Client(other)
    client.start()
    interface = client.create_account(
        "v1", server=machine.ipv4, port=443, hub=HUB, user="taro", password=made["password"]
    )
    client.connect("v1")
    script = other.folder / "set-address"
    script.write_text("#!/bin/sh\n[ $1 != bound ] || ip addr add $ip/$mask dev $interface\n")
    script.chmod(0o755)
    other.run(["udhcpc", "-i", interface, "-n", "-q", "-f", "-t", "8", "-s", str(script), "-x", "hostname:windows"])
    (row,) = [row for row in leases(hub).values() if row["user"] == "taro"]
    machine.pings(row["address"])
    assert dig(other, service(hub)["service4"], "windows.lan.internal") == ("NOERROR", [row["address"]])
    assert row["name"] == "taro.lan.internal"
    client.disconnect("v1")


def test_over_two_workers_each_station_has_its_own_address_and_one_answer(net: Net) -> None:
    machine, host = net.lan("hub", "crowd")
    hub = Hub(machine)
    hub.configure({"workers": 2})
    hub.start()
    hub.tell("user_create", name="crowd", hub=HUB, anonymous=True)
    with host.inside():
        cards = AskingCards((machine.ipv4, 443), ["crowd"], HUB, BROADCAST)
        asking = [card for card in cards.join(range(12)) if isinstance(card, Asking)]
        assert {row["worker"] for row in hub.tell("sessions", hub=HUB)} == {0, 1}
        everyone_has_an_address(cards, asking, seconds=ALL_S)
        assert len({card.address for card in asking} - {None}) == len(asking)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # what a second service would say comes, too
            cards.turn(0.1)
        assert {card.answers for card in asking} == {2}  # an offer and an acknowledgement each
        cards.close()
