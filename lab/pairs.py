"""Two members of one virtual LAN with our fault relay in the way of the first, for each product that is compared.

c ---- f ---- h ---- b       c: a card, f: the relay, h: the hub or server, b: a second member directly at it

with ours(net, buffer_kib=1024, fast=True) as pair:
    with Numbered(pair.one, pair.other, rate=500, seed=1) as frames:
        pair.relay.reset()
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab import openvpn, peers
from lab.faults import FaultRelay
from lab.net import Host, Net
from lab.numbered import End
from lab.ukihashi import FAST_CARD, FAST_HUB, HUB, Card, Hub

FAST_PART: Final = 10  # `fast` divides the times of ukihashi by this


@dataclass
class Pair:
    """A product, up and running."""

    name: str  # as in JSON
    title: str
    relay: FaultRelay
    hosts: dict[str, Host]  # by letter: c, f, h, b
    one: End  # c's interface on the virtual LAN
    other: End  # b's
    addresses: tuple[str, str]  # IPv4 of both on the virtual LAN
    blind_s: float  # a path that says nothing may go unnoticed for so long, until the first dial
    revive: Callable[[], None]  # start its programs anew, because it did not come back by itself
    ledgers: Callable[[], dict[str, dict[str, Any]]]  # where -> ledger; {} where there is none
    buffer_bytes: int = 0  # what it keeps over a cut, each way; 0 = nothing promised
    programs: tuple[Hub, Card] | None = None  # ours: the hub, and c's card

    @property
    def outer_interface(self) -> str:
        """Where c's TCP connection passes."""
        return f"to-{self.hosts['f'].name}"


def _hosts(net: Net, prefix: str) -> dict[str, Host]:
    hosts = {letter: net.host(prefix + letter) for letter in "cfhb"}
    net.link(hosts["f"], hosts["c"])
    net.link(hosts["h"], hosts["f"])
    net.link(hosts["h"], hosts["b"])
    return hosts


def _at_hub(hosts: dict[str, Host]) -> tuple[str, str]:
    """The hub's addresses: as the relay sees it, as b sees it."""
    first, second = [address for address in hosts["h"].addresses if "." in address]
    return first, second


@contextmanager
def _relay(hosts: dict[str, Host], port: int, seed: int) -> Iterator[FaultRelay]:
    listen = hosts["f"].ipv4, port
    with FaultRelay(hosts["f"], listen=listen, target=(_at_hub(hosts)[0], port), seed=seed) as relay:
        yield relay


@contextmanager
def ours(net: Net, *, buffer_kib: int = 8192, fast: bool = False, seed: int = 0, workers: int = 1) -> Iterator[Pair]:
    """Hub and cards of ours. Nothing but what the caller sends is on the virtual LAN: no IPv6, no echo guard.

    Args:
        buffer_kib: what each end keeps over a cut.  fast: keep-alives, deadlines and redials divided by ten.
        workers: of the hub.
    """
    hosts = _hosts(net, "u")
    hub = Hub(hosts["h"])
    hub.configure({**(FAST_HUB if fast else {}), "resume": {"buffer_kib": buffer_kib}, "workers": workers})
    hub.start(first=False)
    hub.run("hub", "create", HUB)  # without a port for the hub's own machine, which would speak up when it likes
    settings = {**(FAST_CARD if fast else {}), "resume": {"buffer_kib": buffer_kib}, "echo_guard": {"enabled": False}}
    card, other = Card(hosts["c"]), Card(hosts["b"])
    with _relay(hosts, hub.port, seed) as relay:
        account = card.join_with(hub.invite("c", address=relay.address[0]), settings)
        other.join_with(hub.invite("b", address=_at_hub(hosts)[1]), settings)
        addresses = card.address(4), other.address(4)
        for host in (hosts["c"], hosts["b"]):
            _no_ipv6(host)

        def revive() -> None:
            card.leave(account)
            card.up(account)
            _no_ipv6(hosts["c"])

        def ledgers() -> dict[str, dict[str, Any]]:
            found = {"card c": card.status(), "card b": other.status()}
            found |= {f"hub to {row['user']}": row for row in hub.sessions()}
            return {where: row["ledger"] for where, row in found.items() if row.get("ledger")}

        yield Pair(
            "ours", f"ukihashi{', times divided by ten' if fast else ''}", relay, hosts,
            End(hosts["c"], card.interface()), End(hosts["b"], other.interface()), addresses,
            1.5 if fast else 15.0, revive, ledgers, buffer_kib * 1024, (hub, card),
        )  # fmt: skip


@contextmanager
def softether(net: Net, *, seed: int = 0) -> Iterator[Pair]:
    """SoftEther's own server and clients, one TCP connection a session, its shortest retry interval (5 s)."""
    hosts = _hosts(net, "s")
    server = peers.Server(hosts["h"])
    server.start()
    server.create_hub("LAB")
    clients = {letter: peers.Client(hosts[letter]) for letter in "cb"}
    with _relay(hosts, peers.ADMIN_PORT, seed) as relay:
        for number, (letter, client) in enumerate(clients.items()):
            address = relay.address[0] if letter == "c" else _at_hub(hosts)[1]
            server.create_user("LAB", letter, "cuts-" + letter)
            client.start()
            client.create_account(
                "v", server=address, port=peers.ADMIN_PORT, hub="LAB", user=letter, password="cuts-" + letter,
                cidrs=[f"10.78.0.{number + 2}/24"],
            )  # fmt: skip
            client.connect("v")

        def revive() -> None:  # both ends: a poisoned one does not recover (lab/peers.py)
            for program in (*clients.values(), server):
                program.stop()
            server.start()
            for client in clients.values():
                client.start()

        yield Pair(
            "softether", "SoftEther VPN 5.01, 1 connection", relay, hosts, End(hosts["c"], "vpn_v"),
            End(hosts["b"], "vpn_v"), ("10.78.0.2", "10.78.0.3"), 20.0, revive, dict,
        )  # fmt: skip


@contextmanager
def openvpn_tcp(net: Net, *, seed: int = 0) -> Iterator[Pair]:
    """OpenVPN over TCP with TAPs, set for a quick return (lab/openvpn.py)."""
    hosts = _hosts(net, "o")
    server = openvpn.Server(hosts["h"])
    server.start()
    with _relay(hosts, openvpn.PORT, seed) as relay:
        clients = [
            openvpn.Client(hosts["c"], server, "c", remote=relay.address),
            openvpn.Client(hosts["b"], server, "b", remote=(_at_hub(hosts)[1], openvpn.PORT)),
        ]

        def begin() -> None:
            for number, client in enumerate(clients):
                client.start()
                client.host.add_address(client.interface, f"10.79.0.{number + 2}/24")

        def revive() -> None:
            for client in clients:
                client.stop()
            begin()

        begin()
        ends = [End(client.host, client.interface) for client in clients]
        yield Pair(
            "openvpn", "OpenVPN 2.6, TCP, keepalive 2 8", relay, hosts, ends[0], ends[1],
            ("10.79.0.2", "10.79.0.3"), 8.0, revive, dict,
        )  # fmt: skip


def _no_ipv6(host: Host) -> None:
    """No address, and so no advertisement, on our interfaces there."""
    with host.inside():
        for path in Path("/proc/sys/net/ipv6/conf").glob("uk*/disable_ipv6"):
            path.write_text("1")
