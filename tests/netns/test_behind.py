"""The hub behind real HAProxy and real nginx, and beside a real web server, set up as the guide says."""

import json
import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import balancers, peers
from lab.balancers import BALANCER, SITE, HAProxy, Nginx
from lab.net import Host, Net
from lab.ukihashi import Card, Hub
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("haproxy", "nginx", "curl")]

HUB_TOML = "/etc/ukihashi/hub.toml"
LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"  # the start of a TLS handshake


@dataclass
class Behind:
    """Host `hub` with two balancers before it and a web server beside it, and two hosts behind the balancers."""

    hub: Hub
    haproxy: HAProxy
    nginx: Nginx
    web: Nginx
    a: Host
    b: Host

    def peers(self) -> dict[str, str]:
        """User -> address that the hub sees, as `hub sessions --json` tells it."""
        return {row["user"]: row["peer"].rpartition(":")[0].strip("[]") for row in self.hub.sessions()}


def settings(proxies: list[str]) -> dict[str, Any]:
    """What the guide writes into hub.toml, for these balancers."""
    front, web = (tomllib.loads(text) for text in balancers.snippets()[HUB_TOML])
    assert front == {"front": {"proxies": [BALANCER]}}
    return {"front": {"proxies": proxies}, **web}


def made(net: Net, *, version: int = 2) -> Behind:
    machine, first, second, a, b = net.lan("hub", "haproxy", "nginx", "a", "b")
    hub, web = Hub(machine), Nginx(machine, "website")
    root = web.serve()
    (root / "index.html").write_text("the web site")
    (root / "long.bin").write_bytes(bytes(range(256)) * 12_000)
    hub.configure(settings([first.ipv4, f"{first.ipv6}/128", second.ipv4]))
    hub.start()
    haproxy, nginx, tls_site = HAProxy(first), Nginx(second), Nginx(first, "tls-site")
    (tls_site.serve_tls() / "index.html").write_text("the site behind TLS")
    haproxy.start(machine, version=version)
    nginx.balance(machine)
    return Behind(hub, haproxy, nginx, web, a, b)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with Net() as net:
        yield made(net)


def curl(host: Host, *words: str | Path) -> str:
    return host.run(["curl", "-sk", "--max-time", "15", *words])


def status(host: Host, url: str, *words: str) -> str:
    return curl(host, url, *words, "-o", "/dev/null", "-w", "%{http_code}")


def complaints(hub: Hub) -> list[str]:
    return re.findall(r".*did not say whom it brings.*", hub.log())


def test_cards_join_through_both_and_are_seen_where_they_are(behind: Behind) -> None:
    one, other = Card(behind.a), Card(behind.b)
    hub = behind.hub
    one.join(hub.invite("ann", address=behind.haproxy.host.ipv4))
    other.join(hub.invite("bob", address=behind.nginx.host.ipv4))
    behind.a.pings(other.address(4))
    assert behind.peers() == {"ann": behind.a.ipv4, "bob": behind.b.ipv4}
    opened = [line for line in hub.log().splitlines() if "a session began" in line]
    assert [re.search(r"peer=(\S+):", line)[1] for line in opened] == [behind.a.ipv4, behind.b.ipv4]  # type: ignore[index]
    other.leave_all()
    one.leave_all()
    assert complaints(hub) == []  # though HAProxy looks every 2 s whether we are there


@pytest.mark.soak
@pytest.mark.peer("vpnclient", "vpncmd")
def test_an_official_client_joins_through_haproxy(behind: Behind) -> None:
    password = json.loads(behind.hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))["password"]
    client = peers.Client(behind.b)
    client.start()
    server = behind.haproxy.host.ipv6
    client.create_account("v1", server=server, port=443, hub="LAN", user="taro", password=password, max_tcp=4, udp=True)
    client.connect("v1")
    assert behind.peers()["taro"] == behind.b.ipv6
    until(lambda: behind.hub.sessions()[0]["connections"] == 4, seconds=30, what="four connections")
    assert behind.hub.sessions()[0]["udp"] is False
    client.disconnect("v1")
    client.stop()


def ended(host: Host, address: str, said: bytes) -> bytes:
    """What a connection gets that says this; it must be closed within seconds."""
    with host.inside(), closing(socket.create_connection((address, 443), timeout=10)) as sock:
        sock.sendall(said)
        got = b""
        try:
            while data := sock.recv(4096):
                got += data
        except ConnectionResetError:
            pass
        return got


def test_who_lies_about_an_address_is_rubbish_and_a_balancer_that_says_none_is_told_of(behind: Behind) -> None:
    machine = behind.hub.host.ipv4
    for said in (LINE + HELLO, balancers_v2() + HELLO):
        assert b"PROXY" not in ended(behind.a, machine, said)
    assert "203.0.113.9" not in behind.hub.log()
    assert complaints(behind.hub) == []
    assert ended(behind.haproxy.host, machine, HELLO) == b""
    (line,) = until(lambda: complaints(behind.hub), seconds=5, what="a line in the log")
    assert f"peer={behind.haproxy.host.ipv4}:" in line
    assert "no PROXY protocol header came" in line


def balancers_v2() -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 192, 0, 2, 1, 18, 103, 1, 187])


def test_the_web_site_is_at_the_hubs_address_and_at_its_own(behind: Behind, tmp_path: Path) -> None:
    root = f"https://{behind.haproxy.host.ipv4}"
    assert curl(behind.a, f"{root}/") == "the web site"
    assert curl(behind.a, f"https://{behind.nginx.host.ipv4}/") == "the web site"
    assert "<h1" in curl(behind.a, f"{root}/ukihashi/")
    curl(behind.a, f"{root}/long.bin", "-o", tmp_path / "long.bin")
    assert (tmp_path / "long.bin").read_bytes() == bytes(range(256)) * 12_000
    assert status(behind.a, f"{root}/nothing") == "404"
    assert status(behind.a, f"{root}/.%2e/%2e%2e/etc/passwd") == "400"
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    assert status(behind.a, f"{root}/ws", *(word for line in upgrade for word in ("-H", line))) == "501"
    (tmp_path / "upload").write_bytes(bytes(70_000))
    assert status(behind.a, f"{root}/form", "--data-binary", f"@{tmp_path}/upload") == "413"
    assert status(behind.a, f"{root}/long.bin", "--head") == "200"
    asked = f"{behind.a.ipv4} GET /index.html https {behind.haproxy.host.ipv4} 200"
    until(lambda: asked in behind.web.log(), seconds=5, what="nginx' log")
    resolved = f"{SITE}:443:{behind.haproxy.host.ipv4}"
    assert curl(behind.a, "--resolve", resolved, f"https://{SITE}/") == "the site behind TLS"


def test_without_its_web_server_the_hub_says_so_and_no_more(behind: Behind) -> None:
    behind.web.stop()
    answer = curl(behind.a, f"https://{behind.haproxy.host.ipv4}/", "-w", "\n%{http_code}")
    assert answer.endswith("\n502")
    assert "8080" not in answer
    assert (
        "port=8080"
        in until(
            lambda: re.search(r".*gave no answer that can be passed on.*", behind.hub.log()), seconds=5, what="the log"
        )[0]
    )


@pytest.mark.soak
def test_version_1_through_haproxy_and_a_change_while_the_hub_runs(net: Net) -> None:
    behind = made(net, version=1)
    card, hub = Card(behind.a), behind.hub
    link = hub.invite("ann", address=behind.haproxy.host.ipv4)
    hub.run("hub", "set", "front.proxies", "")
    assert card.ask("card", "join", "-", stdin=f"{link}\n").returncode
    hub.run("hub", "set", "front.proxies", f"{behind.haproxy.host.ipv4}/31, {behind.nginx.host.ipv4}")
    card.join(link)
    assert behind.peers() == {"ann": behind.a.ipv4}
    hub.run("hub", "upgrade")
    behind.a.pings(f"{card.address(4).rpartition('.')[0]}.1", seconds=30)
    assert behind.peers() == {"ann": behind.a.ipv4}
    card.leave_all()
