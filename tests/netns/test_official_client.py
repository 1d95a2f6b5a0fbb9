"""The official virtual LAN card against our hub: many connections, both families, both ways to log in.

No connection is cut by force here: a reset without TLS close_notify leaves version 5.01 of that client unable to resume
until it is restarted (protocol section 22, trap T1).
"""

import json

import pytest

from lab import peers
from lab.net import Net
from lab.ukihashi import Card, Hub
from lab.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.peer("vpnclient", "vpncmd")]


def test_eight_connections_carry_one_session_that_outlives_a_restart_of_the_hub(net: Net) -> None:
    machine, host, other = net.lan("hub", "a", "b")
    hub, card = Hub(machine), Card(host)
    hub.start()
    card.join(hub.invite("a"))
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    client = peers.Client(other)
    client.start()
    own = card.address(4)
    theirs = ".".join([*own.split(".")[:3], "200"])
    client.create_account(
        "v1",
        server=machine.ipv4,
        port=443,
        hub="LAN",
        user="taro",
        password=made["password"],
        cidrs=[f"{theirs}/24"],
        max_tcp=8,
    )
    client.connect("v1")

    def row() -> dict[str, object]:
        return next(one for one in hub.sessions() if one["user"] == "taro")

    host.pings(theirs, seconds=30)
    until(lambda: row()["connections"] == 8, seconds=30, what="eight connections")
    host.pings(theirs, seconds=10)
    assert row()["session"] == "SID-TARO-2"
    hub.stop()
    hub.start()  # every connection was ended with close_notify, or this client could never come back (trap T1)
    host.pings(theirs, seconds=60)
    client.disconnect("v1")
    until(lambda: all(one["user"] != "taro" for one in hub.sessions()), seconds=40, what="the session's end")


def test_over_ipv6_with_the_password_itself(net: Net) -> None:
    machine, other = net.lan("hub", "b")
    hub = Hub(machine)
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    client = peers.Client(other)
    client.start()
    client.create_account(
        "v1", server=machine.ipv6, port=443, hub="LAN", user="taro", password=made["password"], plain=True
    )
    client.connect("v1")
    (row,) = hub.sessions()
    assert row["peer"].startswith(f"[{other.ipv6}]:")
    client.disconnect("v1")


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("encrypted", [False, True])
def test_everything_it_can_ask_for_at_once_outlives_an_upgrade(net: Net, encrypted: bool) -> None:
    """Eight connections in half duplex, compressed, and without TLS where the hub's option allows it."""
    machine, other = net.lan("hub", "b")
    hub = Hub(machine)
    hub.configure({"standard": {"allow_plaintext": True}})
    hub.start()
    made = json.loads(hub.run("hub", "user", "create", "taro", "--hub", "LAN", "--json"))
    client = peers.Client(other)
    client.start()
    network = json.loads(hub.run("hub", "list", "--json"))["subnet4"].rpartition(".")[0]
    client.create_account(
        "v1",
        server=machine.ipv4,
        port=443,
        hub="LAN",
        user="taro",
        password=made["password"],
        cidrs=[f"{network}.200/24"],
        max_tcp=8,
        half=True,
        compress=True,
    )
    if not encrypted:
        client.say("AccountEncryptDisable v1")
    client.connect("v1")

    def row_of() -> dict[str, object]:
        (one,) = hub.sessions()
        return one

    machine.pings(f"{network}.200", seconds=30)
    until(lambda: row_of()["connections"] == 8, seconds=30, what="eight connections")
    other.pings(f"{network}.1", seconds=10)
    before = row_of()
    assert (before["half_duplex"], before["compression"], before["encrypted"]) == (True, True, encrypted)
    hub.run("hub", "upgrade")
    other.pings(f"{network}.1", seconds=30)
    machine.pings(f"{network}.200", seconds=10)
    until(lambda: row_of()["connections"] == 8, seconds=40, what="eight connections again")
    kept = ("session", "since", "half_duplex", "compression", "encrypted", "node", "max_connections")
    assert [row_of()[key] for key in kept] == [before[key] for key in kept]
    assert row_of()["drops"].get("inflate", 0) == 0  # type: ignore[attr-defined]
    client.disconnect("v1")
    until(lambda: not hub.sessions(), seconds=40, what="the session's end")
