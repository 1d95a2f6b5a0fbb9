"""In a guarded network `card join LINK` finds the way by itself: nothing on the command line, nothing in an account.

The firewalls drop without a word. The link names a SOCKS proxy and an SSH server, each of which is in one network only;
the HTTP proxy is in the environment there, its password in the file for that; the key is what that machine's ssh uses.
"""

import json
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from lab import small_proxies, squid
from lab.guarded import GUARDS, HUB_NAME, PROGRAMS, Region
from lab.net import Net
from lab.ukihashi import FAST_CARD, Card, gateway
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer(*PROGRAMS), pytest.mark.timeout(240)]

FOUND_S = 30.0  # seconds to the first ping on a slow machine; printed
WAYS = {"http": "http://taro@", "socks": "socks5h://", "ssh": "ssh://", "ipv6": "direct:", "open": "direct:"}


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with Net() as net:
        made = Region(net)
        made.open()
        yield made
        print(net.logs())


@pytest.mark.parametrize("name", GUARDS)
def test_a_link_is_enough(region: Region, name: str) -> None:
    card = region.card(name)
    if name == "http":
        at = f"{region.gates[name].host.ipv4}:{squid.PORTS['basic']}"
        card.env["HTTPS_PROXY"] = f"http://{at}"
        secrets = card.config_dir / "paths.secret"
        secrets.parent.mkdir(parents=True)
        secrets.touch(mode=0o600)
        secrets.write_text(f"http://{squid.USER}@{at} {squid.SECRET}\n")
    ways = [
        f"socks5h://{region.gates['socks'].host.ipv4}:{small_proxies.DANTE_PORT}",
        f"ssh://{region.gates['ssh'].host.ipv4}",
    ]
    words = [word for way in ways for word in ("--via", way)]
    link = region.hub.invite(f"of-{name}", *words, address=HUB_NAME)
    assert found_by_doctor(card, link) == [WAYS[name]]

    began = time.monotonic()
    card.join(link, seconds=60.0)
    joined = time.monotonic() - began
    there = gateway(card.address(4))
    card.host.pings(there)
    took = time.monotonic() - began
    row = card.status()
    print(f"{name}: joined after {joined:.1f} s, the first ping after {took:.1f} s, over {row['via']}")
    try:
        assert (row["state"], row["logins"]) == ("online", 1)
        assert str(row["via"]).startswith(WAYS[name])
        region.hub_host.pings(card.address(6))
        assert took < FOUND_S
    finally:
        card.leave(row["account"])
    until(lambda: not card.host.pids(), seconds=10, what="the end of all that the card started")

    began = time.monotonic()
    card.up(row["account"])
    card.host.pings(there)
    print(f"{name}: the second time after {time.monotonic() - began:.1f} s")
    card.leave(row["account"])
    until(lambda: not card.host.pids(), seconds=10, what="the end of all that the card started")


def found_by_doctor(card: Card, link: str) -> list[str]:
    """The kinds of the ways that `card doctor` says lead to the hub; it spends nothing."""
    done = card.ask("card", "doctor", "-", "--json", "--seconds", "5", stdin=f"{link}\n", timeout_s=40.0)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print([(row["via"], row["kind"], row["seconds"]) for row in rows])
    assert done.returncode == 0, done.stderr
    return [row["via"].partition("1")[0] for row in rows if row["works"]]


CUT = """\
table inet cut {{
    chain forward {{
        type filter hook forward priority -10;
        ip daddr {address} tcp dport {port} reject with tcp reset
    }}
}}
"""


@pytest.mark.parametrize("name", ["http", pytest.param("socks", marks=pytest.mark.soak), "ssh"])
def test_the_own_path_stays_outside_a_default_route_through_the_card(region: Region, name: str) -> None:
    """The proxy is behind a router: what the card says to it must not go into the tunnel, not when it dials again."""
    card, gate = region.card("open"), region.gates[name]
    region.let_through(name)
    address, port = gate.host.ipv4, GUARDS[name][0][0]
    path = {"via": f"{WAYS[name]}{address}:{port}", "password": squid.SECRET if name == "http" else ""}
    if name == "ssh":
        path["ssh_config"] = str(gate.ssh_config(card.folder / "ssh_config"))
    account = card.prepare(region.hub.invite(f"all-{name}", address=HUB_NAME), {**FAST_CARD, "path": path})
    own = next(a for a in load(card, account)["interface"]["addresses"] if "." in a).partition("/")[0]
    there = gateway(own)
    card.configure(account, {"interface": {"routes": [{"to": "0.0.0.0/0", "via": there}]}, "times": {"redial": 1.0}})
    card.up(account)
    try:
        assert f"dev {card.interface()}" in card.host.ip("route get 192.0.2.1")
        card.host.pings(there)
        before = card.status()
        region.gates["open"].host.run(["nft", "-f", "-"], stdin=CUT.format(address=address, port=port))
        try:
            until(lambda: card.status()["state"] == "reconnecting", seconds=20, what="the cut being noticed")
        finally:
            region.gates["open"].host.run(["nft", "delete", "table", "inet", "cut"])
        until(lambda: card.status()["state"] == "online", seconds=30, what="the session going on")
        after = card.status()
        assert (after["session"], after["resumes"], after["logins"]) == (before["session"], 1, 1)
        card.host.pings(there)
    finally:
        card.leave(account)
    until(lambda: not card.host.pids(), seconds=10, what="the end of all that the card started")


def load(card: Card, account: str) -> dict[str, Any]:
    """The account as it is written."""
    return tomllib.loads((card.config_dir / "card.d" / f"{account}.toml").read_text())
