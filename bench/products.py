"""What `./run bench relay` measures: each product up and running, on hosts of its own.

a ---- h ---- b      a member on A, the product's middle on H, a member on B; H does not forward by itself
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lab import fastd, openvpn, peers, tinc
from lab.crowd import Crowd
from lab.line import Line, Quality
from lab.net import CONTROL, Host, Net, run
from lab.plain import Plain, Seat
from lab.ukihashi import HUB, Card, Hub, gateway
from lab.wait import pause
from lab.without_tls import switch_off

HIGHEST: Final = -20  # nice: SoftEther's programs give it to themselves, so all get it
INSIDE: Final = "10.78.0"  # the virtual LAN of products that are given addresses: H .1, A .2, B .3
SETTLE_S: Final = 9.0  # a client opens one more connection a second
LOGIN_S: Final = 1.15  # between two logins at vpnserver, which takes quicker ones for an attack
SETTINGS: Final = {"softether": ("softether-1", "softether-8")}  # a product's settings, of which the best counts


class Place(NamedTuple):
    """Where a product is put up."""

    net: Net
    control: str = "cubic"  # TCP's congestion control on its hosts
    quality: Quality | None = None  # of the line between A and H; None = a plain cable
    seed: int = 0  # of that line's losses

    def hosts(self, prefix: str) -> dict[str, Host]:
        """A, H and B of one product."""
        found = {name: self.net.host(prefix + name) for name in ("a", "h", "b")}
        for host in found.values():
            host.set_sysctl(CONTROL, self.control)
        line = Line(self.net, self.quality, seed=self.seed) if self.quality else None
        self.net.link(found["h"], found["a"], lay=line)
        self.net.link(found["h"], found["b"])
        return found


@dataclass
class Product:
    """One product, running."""

    name: str  # as in JSON
    title: str
    hosts: dict[str, Host]  # by letter
    target: str  # B's address inside, as A sees it
    middle: str  # H's own address inside; "" = it has none
    writes: Callable[[], dict[str, int]] | None = None  # where -> TLS writes so far
    members: Callable[[int], AbstractContextManager[None]] | None = None  # so many more sessions at H, for the block
    port: int = 0  # of H, where TLS is spoken
    reference: bool = False  # no peer: need not be measured right behind ours

    def pids(self, *letters: str) -> list[int]:
        """The processes of the product, on these hosts or on all."""
        return [pid for letter in letters or self.hosts for pid in self.hosts[letter].pids()]

    def settle(self) -> None:
        """Wait until it carries frames; all of its processes get the same priority as everybody's."""
        for address in filter(None, (self.target, self.middle)):
            self.hosts["a"].pings(address)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, pid, HIGHEST)


def towards(hosts: dict[str, Host]) -> list[str]:
    """H's address as A sees it, and as B does."""
    return [address for address in hosts["h"].addresses if "." in address]


# -- one function each -------------------------------------------------------------------------------------------------


def veth(place: Place) -> Product:
    """The cables themselves, with a bridge on H."""
    hosts = place.hosts("v")
    hosts["h"].ip("link add br0 type bridge mcast_snooping 0")
    for port in ("to-va", "to-vb"):
        hosts["h"].ip(f"link set {port} master br0")
    hosts["h"].ip("link set br0 up")
    ends = (("h", "br0"), ("a", "to-vh"), ("b", "to-vh"))
    for number, (letter, interface) in enumerate(ends, start=1):
        hosts[letter].add_address(interface, f"{INSIDE}.{number}/24")
    title = "the line itself, no tunnel" if place.quality else "plain veth and bridge"
    return Product("veth", title, hosts, f"{INSIDE}.3", f"{INSIDE}.1", reference=True)


def ours(place: Place, *, tls: bool = True, congestion: str = "") -> Product:
    """Hub and cards of ours as they come, resume on. `congestion`: their own option; "" = what the hosts have."""
    hosts = place.hosts("u" if tls else "n")
    hub, cards = Hub(hosts["h"]), {name: Card(hosts[name]) for name in ("a", "b")}
    programs: tuple[Hub | Card, ...] = (hub, *cards.values())
    for program in programs:
        if not tls:
            switch_off(program)
    if congestion:
        hub.configure({"congestion": congestion})
    hub.start()
    words = ("--congestion", congestion) if congestion else ()
    links = [
        str(hub.tell("invite", user=name, hub=HUB, host_name=address)[0]["link"])
        for name, address in zip(cards, towards(hosts), strict=True)
    ]
    with ThreadPoolExecutor() as pool:  # each takes its time to start Python
        list(pool.map(lambda card, link: card.join(link, *words), cards.values(), links))
    hub.tell("user_create", name="more", hub=HUB, anonymous=True)
    target = cards["b"].address(4)
    account = next((cards["a"].config_dir / "card.d").glob("*.toml")).stem

    def writes() -> dict[str, int]:
        found = {f"hub to {row['user'].upper()}": int(row["tls_writes"]) for row in hub.tell("sessions", hub=HUB)}
        return {"card A": int(cards["a"].tell(account)[0]["tls_writes"]), **found}

    @contextmanager
    def members(count: int) -> Iterator[None]:
        with Crowd(hosts["a"], towards(hosts)[0], users=["more"], hub=HUB, cards=count, processes=1) as crowd:
            crowd.join()
            yield

    name, title = ("ours", "ukihashi") if tls else ("ours-without-tls", "ukihashi, its TLS taken out")
    title += f", its option congestion = {congestion}" if congestion else ""
    return Product(name, title, hosts, target, gateway(target), writes, members, hub.port)


def softether(place: Place, connections: int) -> Product:
    """The official server and clients, with so many TCP connections each."""
    hosts = place.hosts(f"s{connections}")
    server = peers.Server(hosts["h"])
    server.start()
    server.create_hub(HUB)
    server.bridge(HUB, "hub", cidrs=[f"{INSIDE}.1/24"])
    for number, (name, address) in enumerate(zip("ab", towards(hosts), strict=True)):
        server.create_user(HUB, name, f"bench-{name}")
        client = peers.Client(hosts[name])
        client.start()
        client.create_account(
            "v1", server=address, port=peers.ADMIN_PORT, hub=HUB, user=name, password=f"bench-{name}",
            max_tcp=connections, cidrs=[f"{INSIDE}.{number + 2}/24"],
        )  # fmt: skip
        client.connect("v1")
    if connections > 1:
        pause(SETTLE_S)
    server.create_user(HUB, "more")

    @contextmanager
    def members(count: int) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(count):
                pause(LOGIN_S)
                more = Plain(hosts["a"], towards(hosts)[0], port=peers.ADMIN_PORT, hub=HUB, user="more")
                stack.callback(Seat(more).close)
            yield

    title = f"SoftEther {peers.version().partition('.967')[0]}, {connections} connection{'s' * (connections > 1)}"
    return Product(
        f"softether-{connections}", title, hosts, f"{INSIDE}.3", f"{INSIDE}.1", None, members, peers.ADMIN_PORT
    )


def openvpn_tap(place: Place, *, udp: bool) -> Product:
    """OpenVPN with TAPs."""
    hosts = place.hosts("ou" if udp else "ot")
    server = openvpn.Server(hosts["h"], udp=udp)
    server.start()
    hosts["h"].add_address(openvpn.SWITCH, f"{INSIDE}.1/24")
    for number, (name, address) in enumerate(zip("ab", towards(hosts), strict=True)):
        client = openvpn.Client(hosts[name], server, name, remote=(address, server.port))
        client.start()
        hosts[name].add_address(client.interface, f"{INSIDE}.{number + 2}/24")

    @contextmanager
    def members(count: int) -> Iterator[None]:
        with ExitStack() as stack:
            for number in range(count):
                more = openvpn.Client(hosts["a"], server, f"m{number}", remote=(towards(hosts)[0], server.port))
                stack.callback(more.stop)
                more.start()
            yield

    kind = "UDP" if udp else "TCP"
    title = f"OpenVPN {openvpn.version().partition('-')[0]}, TAP over {kind}"
    return Product(f"openvpn-{kind.lower()}", title, hosts, f"{INSIDE}.3", f"{INSIDE}.1", None, members)


def mesh(place: Place, peer: Any, prefix: str, title: str) -> Product:
    """tinc or fastd: no clients and servers, members of which H is one."""
    hosts = place.hosts(prefix)
    first, second = towards(hosts)
    cidrs = {hosts[letter]: f"{INSIDE}.{number}/24" for number, letter in enumerate("hab", start=1)}
    peer.start(hosts["h"], {hosts["a"]: first, hosts["b"]: second}, cidrs)
    return Product(peer.PACKAGE, title, hosts, f"{INSIDE}.3", f"{INSIDE}.1")


# -- all of them -------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """How one comes about."""

    start: Callable[[Place], Product]
    missing: Callable[[], str] = str  # the Debian packages that are not installed


KINDS: Final[dict[str, Kind]] = {
    "veth": Kind(veth),
    "ours": Kind(ours),
    "softether-1": Kind(lambda place: softether(place, 1), lambda: peers.missing("vpnserver", "vpnclient")),
    "softether-8": Kind(lambda place: softether(place, 8), lambda: peers.missing("vpnserver", "vpnclient")),
    "openvpn-tcp": Kind(lambda place: openvpn_tap(place, udp=False), openvpn.missing),
    "openvpn-udp": Kind(lambda place: openvpn_tap(place, udp=True), openvpn.missing),
    "tinc": Kind(lambda place: mesh(place, tinc, "t", f"tinc {_short(tinc.version())}"), tinc.missing),
    "fastd": Kind(lambda place: mesh(place, fastd, "f", f"fastd {_short(fastd.version())}, UDP"), fastd.missing),
}
PEERS: Final = ("softether", "openvpn-tcp", "openvpn-udp", "tinc", "fastd")  # as a user names them


def _short(version: str) -> str:
    return version.partition("-")[0]


def kinds_of(names: Sequence[str]) -> list[str]:
    """Every setting of the products named, in order."""
    return [kind for name in names for kind in SETTINGS.get(name, (name,))]


def processor() -> str:
    """For reports."""
    lines = run(["lscpu"]).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model name:")), "unknown")
