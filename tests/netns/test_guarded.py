"""In a guarded network `card join LINK` finds the way by itself: nothing on the command line, nothing in an account.

The firewalls drop without a word. The link names a SOCKS proxy and an SSH server, each of which is in one network only;
the HTTP proxy is in the environment there, its password in the file for that; the key is what that machine's ssh uses.
"""

import time
from collections.abc import Iterator

import pytest

from lab import small_proxies, squid
from lab.guarded import GUARDS, HUB_NAME, PROGRAMS, Region
from lab.net import Net
from lab.ukihashi import gateway

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
    assert card.host.pids() == []

    began = time.monotonic()
    card.up(row["account"])
    card.host.pings(there)
    print(f"{name}: the second time after {time.monotonic() - began:.1f} s")
    card.leave(row["account"])
