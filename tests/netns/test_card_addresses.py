"""Addresses, routes and names that come and go with a card, as its user has them.

         wire                      virtual LAN
card ---------- hub ------------------------------ web.lan.test, a web server on the member `inside`
                 |  .1: a real dnsmasq: leases, routes, names
                 +-- behind: reached by the default route or the route that is offered
"""

import json
import re
import signal
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from lab import peers
from lab.net import Host, Net
from lab.ukihashi import FAST_CARD, HUB, Card, Hub
from lab.wait import until
from ukihashi.auth.link import Link

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("dnsmasq")]

BEFORE = "# as it was\nnameserver 192.0.2.53\noptions timeout:1 attempts:1\n"
BEHIND = "198.18.7.7"  # on the hub's machine, so that nobody has to forward
SERVE = (
    "import http.server, sys\n"
    "class Page(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers()\n"
    "        self.wfile.write(f'hello {self.client_address[0]}'.encode())\n"
    "server = http.server.ThreadingHTTPServer((sys.argv[1], 80), Page)\n"
    "print('serves', flush=True)\n"
    "server.serve_forever()\n"
)
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


class World:
    """The machines, and a link for a card with the right to make others."""

    def __init__(self, net: Net) -> None:
        self.hub_host, self.host, self.inside = net.lan("hub", "card", "inside")
        self.path = self.host.own_etc("resolv.conf", BEFORE)
        self.hub = Hub(self.hub_host)
        self.hub.start()
        self.host_port = next(
            one["ifname"]
            for one in json.loads(self.hub_host.run(["ip", "-j", "link"]))
            if one["ifname"].startswith("uk")
        )
        self.router = self._address(self.hub_host, self.host_port)
        member = Card(self.inside)
        member.join(self.hub.invite("web"))
        self.web = member.address(4)
        self.inside.spawn(["python3", "-c", SERVE, self.web], log="web").wait_for("serves")
        self.hub_host.add_address("lo", f"{BEHIND}/32")
        self.hub_host.spawn(["python3", "-c", SERVE, BEHIND], log="behind").wait_for("serves")
        self.hub.tell("addresses_set", hub=HUB, dhcp="relay", ra=False)
        self._serve_names_and_leases()
        self.card = Card(self.host)
        self.before = self.state()

    @staticmethod
    def _address(host: Host, interface: str) -> str:
        def look() -> str:
            shown = json.loads(host.run(["ip", "-j", "-4", "addr", "show", "dev", interface]))
            return next((str(info["local"]) for one in shown for info in one.get("addr_info", ())), "")

        return until(look, seconds=10, what=f"an address of {interface}")

    def _serve_names_and_leases(self) -> None:
        network = ip_interface(f"{self.router}/24").network
        self.hub_host.spawn(
            [
                "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
                "--pid-file=", f"--dhcp-leasefile={self.hub_host.folder}/leases", "--log-facility=-", "--log-dhcp",
                f"--interface={self.host_port}", "--bind-interfaces", "--except-interface=lo", "--dhcp-authoritative",
                "--no-ping", "--enable-ra", f"--dhcp-range=::,constructor:{self.host_port},ra-only",
                f"--dhcp-range={network[200]},{network[210]},120", "--domain=lan.test", "--local=/lan.test/",
                f"--address=/web.lan.test/{self.web}", f"--dhcp-option=6,{self.router}",
                f"--dhcp-option=121,198.18.0.0/16,{self.router},0.0.0.0/0,{self.router},10.77.1.128/25,{self.router}",
            ],
            log="dnsmasq",
        ).wait_for("DHCP, IP range")  # fmt: skip

    def state(self) -> list[str]:
        """All that a card might change on its machine."""
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "addr"]
        found = [*map(self.host.ip, shown), self.path.read_text(), self.host.run(["nft", "list", "ruleset"])]
        with self.host.inside():
            found += [path.read_text() for path in sorted(Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"))]
        return found

    def fetch(self, name: str) -> str:
        return self.host.run(["python3", "-c", FETCH, f"http://{name}/"]).strip()

    def offers(self, account: str = "lan") -> dict[str, str]:
        """What is offered -> what became of it."""
        rows = self.card.tell(account)[0]["lan"]["offers"]
        return {str(row.get("to") or row["kind"]): str(row["state"]) for row in rows}


@pytest.fixture(scope="module")
def machines() -> Iterator[World]:
    with Net() as net:
        yield World(net)


@pytest.fixture
def world(machines: World) -> Iterator[World]:
    """Each test leaves the card's machine as it found it; an account of the name `lan` is made anew."""
    yield machines
    machines.card.leave_all()
    for path in (machines.card.config_dir / "card.d").glob("*.toml"):
        path.unlink()
    assert machines.state() == machines.before


def test_one_link_and_a_name_inside_is_reached_until_the_card_leaves(world: World) -> None:
    world.card.join(world.hub.invite("ann"), "--accept", "dns,routes")
    own = world.card.address(4)
    assert world.offers() == {
        "198.18.0.0/16": "applied", "0.0.0.0/0": "offered", "10.77.1.128/25": "refused", "dns": "applied",
    }  # fmt: skip
    assert world.fetch("web.lan.test") == f"hello {own}"
    assert world.fetch("web") == f"hello {own}"  # the domain that is offered completes it
    assert world.fetch(BEHIND) == f"hello {own}"
    shown = world.card.run("card", "status", "lan")
    assert "it overlaps 10.77.1.0/24, which eth0 has already" in shown
    assert f"name servers {world.router} for lan.test (applied)" in shown
    world.card.leave("lan")
    assert world.state() == world.before


def test_without_consent_nothing_is_applied_and_consent_may_come_and_go(world: World) -> None:
    world.card.join(world.hub.invite("bob"), "--dhcp", "auto")
    until(lambda: "dns" in world.offers(), seconds=10, what="the offers")
    assert set(world.offers().values()) == {"offered"}
    assert world.path.read_text() == BEFORE
    assert world.host.ask(["python3", "-c", FETCH, f"http://{BEHIND}/"]).returncode
    world.card.run("card", "set", "lan", "interface.accept", "dns")
    assert world.fetch("web.lan.test").startswith("hello")
    world.card.run("card", "unset", "lan", "interface.accept")
    assert world.path.read_text() == BEFORE
    assert set(world.offers().values()) == {"offered"}


def test_after_a_kill_clean_puts_everything_back(world: World) -> None:
    world.card.join(world.hub.invite("carl"), "--accept", "all")
    assert world.fetch("web.lan.test").startswith("hello")
    assert world.path.read_text() != BEFORE
    assert world.state()[0] != world.before[0]  # rules of the default route
    pid = int(world.card.tell("lan")[0]["pid"])
    world.host.run(["kill", f"-{signal.SIGKILL.value}", str(pid)])
    until(lambda: not world.host.has_interface("uklan"), seconds=10, what="the interface to go")
    assert world.path.read_text() != BEFORE
    said = world.card.run("card", "clean", "lan")
    assert "removed: /etc/resolv.conf" in said
    assert world.state() == world.before


def test_what_a_killed_card_left_the_next_start_puts_back_and_sets_anew(world: World) -> None:
    world.card.join(world.hub.invite("dora"), "--accept", "dns,default")
    world.host.run(["kill", "-9", str(world.card.tell("lan")[0]["pid"])])
    until(lambda: not world.host.has_interface("uklan"), seconds=10, what="the interface to go")
    world.card.up("lan")
    assert world.fetch("web.lan.test").startswith("hello")
    assert world.fetch(BEHIND).startswith("hello")  # by the default route
    world.card.leave("lan")
    assert world.state() == world.before


def test_a_lease_outlives_cuts_and_a_new_start(world: World) -> None:
    link = world.hub.invite("emil")
    world.card.prepare(link, {"interface": {"addresses": [], "dhcp": "auto", "accept": ["dns"]}})
    hook = "sh -c 'echo $UKIHASHI_EVENT $UKIHASHI_INTERFACE $UKIHASHI_ADDRESSES $UKIHASHI_DNS $UKIHASHI_DOMAIN'"
    world.card.configure("lan", {"hooks": {"up": hook, "down": hook}})
    world.card.up("lan")
    own = world.card.address(4)
    assert ip_interface(f"{own}/24").ip in [ip_interface(f"{world.router}/24").network[n] for n in range(200, 211)]
    assert world.fetch("web.lan.test") == f"hello {own}"
    row = world.card.tell("lan")[0]
    assert (row["lan"]["dhcp"]["state"], row["lan"]["dhcp"]["server"]) == ("bound", world.router)
    world.host.run(["ss", "-K", "dst", world.hub_host.ipv4], check=False)
    world.host.pings(world.router)
    assert world.card.address(4) == own
    world.card.leave("lan")
    assert world.state() == world.before
    world.card.up("lan")
    assert world.card.address(4) == own
    world.card.leave("lan")
    log = world.card.log()
    assert re.search(rf"up uklan {own}/24 (\S+/64 )?{world.router} lan\.test", log), log
    assert "down uklan" in log, log


@pytest.mark.soak
def test_of_two_cards_the_first_has_what_both_are_offered(world: World) -> None:
    world.card.join(world.hub.invite("fritz"), "--accept", "all")
    two = world.hub.invite("gerd")
    world.card.prepare(two, {"interface": {"dhcp": "auto", "accept": ["dns", "routes", "default"]}}, "two")
    world.card.up("two")
    until(lambda: "dns" in world.offers("two"), seconds=10, what="the offers")
    assert world.offers().items() >= {
        "198.18.0.0/16": "applied", "0.0.0.0/0": "applied", "10.77.1.128/25": "refused", "dns": "applied",
    }.items()  # fmt: skip
    assert set(world.offers("two").values()) == {"refused"}
    world.card.leave("two")
    assert world.fetch("web.lan.test").startswith("hello")


def test_an_advertised_router_is_the_default_route_of_ipv6_by_consent(world: World) -> None:
    world.card.join(world.hub.invite("ida"), "--accept", "default")
    until(lambda: world.offers().get("::/0") == "applied", seconds=15, what="the router's advertisement")
    assert "dev uklan table 75000" in world.host.ip("-6 route get 2001:db8::9")
    assert len([one for one in world.card.tell("lan")[0]["addresses"] if ":" in one]) == 1  # the link's
    world.card.run("card", "unset", "lan", "interface.accept")
    assert "uklan" not in world.host.ip("-6 route show default table all")


@pytest.mark.soak
def test_what_somebody_else_writes_meanwhile_stays(world: World) -> None:
    world.card.join(world.hub.invite("hans"), "--accept", "dns")
    world.path.write_text("nameserver 192.0.2.99\n")
    assert world.offers()["dns"] == "refused"
    world.card.leave("lan")
    assert world.path.read_text() == "nameserver 192.0.2.99\n"
    assert "changed by somebody else" in world.card.log()
    world.path.write_text(BEFORE)


@pytest.mark.soak
@pytest.mark.peer("vpnserver", "vpncmd")
def test_an_official_servers_secure_nat_gives_address_router_and_names() -> None:
    with Net() as net:
        far, near, outside = net.lan("hub", "card", "outside")
        path = near.own_etc("resolv.conf", BEFORE)
        server = peers.Server(far)
        server.start()
        server.create_hub("LAB")
        server.create_user("LAB", "alice", "wonderland")
        server.say("Hub LAB", "SecureNatEnable")
        outside.spawn(["python3", "-c", SERVE, outside.ipv4], log="web").wait_for("serves")
        card = Card(near)
        words = ("--server", f"{far.ipv4}:5555", "--hub", "LAB", "--user", "alice", "--password-file", "-")
        card.run("card", "create", "lab", *words, "--accept", "all", stdin="wonderland\n")
        card.up("lab")
        assert card.address(4).startswith("192.168.30.")
        states = {row["kind"]: row["state"] for row in card.tell("lab")[0]["lan"]["offers"]}
        assert states == {"default": "applied", "dns": "applied"}
        assert "nameserver 192.168.30.1\n" in path.read_text()
        near.pings("192.168.30.1")
        card.leave("lab")
        assert path.read_text() == BEFORE


class OwnService:
    """Our hub as it is without a word: it leases, advertises, and answers for names itself. `outside` is beyond it."""

    def __init__(self, net: Net) -> None:
        self.hub_host, self.host, self.inside = net.lan("hub", "card", "inside")
        self.path = self.host.own_etc("resolv.conf", BEFORE)
        outside = net.host("outside")
        net.link(self.hub_host, outside)
        self.outside = outside.ipv4
        outside.spawn(["python3", "-c", SERVE, self.outside], log="www").wait_for("serves")
        outside.spawn(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
             "--pid-file=", "--log-facility=-", f"--address=/www.outside.test/{self.outside}"],
            log="dnsmasq",
        ).wait_for("started")  # fmt: skip
        self.hub_host.own_etc("resolv.conf", f"nameserver {self.outside}\n")
        self.hub = Hub(self.hub_host)
        self.hub.start()
        member = Card(self.inside)
        member.join(self.hub.invite("web"))
        self.web = member.address(4)
        self.inside.spawn(["python3", "-c", SERVE, self.web], log="web").wait_for("serves")
        self.card = Card(self.host)

    def fetch(self, name: str) -> str:
        return self.host.run(["python3", "-c", FETCH, f"http://{name}/"]).strip()

    def state(self) -> list[str]:
        shown = ["rule", "-6 rule", "route show table all", "-6 route show table all", "addr"]
        return [*map(self.host.ip, shown), self.path.read_text(), self.host.run(["nft", "list", "ruleset"])]


@pytest.fixture(scope="module")
def own() -> Iterator[OwnService]:
    with Net() as net:
        yield OwnService(net)


def test_by_our_own_hub_a_card_gets_its_users_number_and_names(own: OwnService) -> None:
    link = own.hub.invite("ann")
    own.card.prepare(link, {"interface": {"addresses": [], "dhcp": "auto", "accept": ["dns"]}})
    own.card.up("lan")
    number = own.card.address(4)
    assert f"{number}/24" in Link.parse(link).addresses  # as the link would have said
    assert own.host.run(["python3", "-c", FETCH, "http://web.lan.internal/"]).strip() == f"hello {number}"
    until(lambda: len(own.card.tell("lan")[0]["addresses"]) == 2, seconds=10, what="an IPv6 address, too")
    assert "default" not in own.host.ip("-6 route")
    own.card.leave("lan")
    assert own.path.read_text() == BEFORE


@pytest.mark.parametrize("killed", [False, True], ids=["it leaves", "it is killed"])
def test_by_names_inside_and_outside_by_one_link_and_nothing_is_left(own: OwnService, killed: bool) -> None:
    own.hub.run("hub", "uplink", HUB, "--to", "to-outside")
    before = own.state()
    own.card.join(own.hub.invite("dora" if killed else "cora"), "--accept", "all", "--name", "all")
    number = own.card.address(4)
    assert own.fetch("web.lan.internal") == f"hello {number}"
    assert own.fetch("www.outside.test").startswith("hello ")
    assert own.state() != before
    if killed:
        own.host.run(["kill", "-9", str(own.card.tell("all")[0]["pid"])])
        until(lambda: not own.host.has_interface("ukall"), seconds=10, what="the interface to go")
        own.card.run("card", "clean")
    else:
        own.card.leave("all")
    own.card.run("card", "delete", "all")
    assert own.state() == before


@pytest.mark.soak
def test_a_lease_outlives_a_new_start_of_the_hub_and_the_card_stays_up(own: OwnService) -> None:
    settings = {"interface": {"addresses": [], "dhcp": "auto"}, **FAST_CARD}
    own.card.prepare(own.hub.invite("carl"), settings, "three")
    own.card.up("three")
    number = own.card.address(4)
    logins = own.card.tell("three")[0]["logins"]
    own.hub.stop()
    own.hub.start(first=False)
    until(lambda: own.card.tell("three")[0]["logins"] > logins, seconds=20, what="a login at the new hub")
    until(lambda: own.card.tell("three")[0]["lan"]["dhcp"]["state"] == "bound", seconds=20, what="its lease, confirmed")
    assert own.card.address(4) == number
    assert "is gone" not in own.card.log()
    own.card.leave("three")
