"""Hubs that join hubs: ours to ours with cuts in the way, ours to a real server, and loops."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import peers
from lab.faults import FaultRelay
from lab.net import Host, Net
from lab.numbered import End, Numbered
from lab.raw import BROADCAST, Wire, crosses
from lab.ukihashi import FAST_CARD, FAST_HUB, HUB, Card, Hub
from lab.wait import pause, until
from ukihashi.errors import UkihashiError
from ukihashi.net.privileges import identity

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

A4, B4 = "10.200.0.1", "10.200.0.2"  # of the cards of both sites: one network


class Sites:
    """Two machines with a hub each, and a card at each hub.

    a ---- ha ==== hb ---- b      ==== the cascades
    """

    def __init__(self, net: Net, *, fast: bool = True, peer: bool = True) -> None:
        self.net = net
        self.ha, self.hb, self.a, self.b, self.relay = net.lan("ha", "hb", "a", "b", "relay")
        self.hub = self._hub(self.ha, fast)
        self.peer = self._hub(self.hb, fast) if peer else None
        self.settings: dict[str, Any] = {
            **(FAST_CARD if fast else {}),
            "echo_guard": {"enabled": False},
            "standard": {"bridge": True},
        }
        self.card_a = self.join(self.a, self.hub, A4)

    def _hub(self, host: Host, fast: bool) -> Hub:
        hub = Hub(host)
        hub.configure(FAST_HUB if fast else {})
        hub.start(first=False)
        hub.run("hub", "create", HUB)
        return hub

    def join(self, host: Host, hub: Hub, address: str) -> Card:
        card = Card(host)
        card.join_with(hub.invite(host.name), self.settings)
        for path in host.run(["sh", "-c", "echo /proc/sys/net/ipv6/conf/uk*/disable_ipv6"]).split():
            host.run(["sh", "-c", f"echo 1 > {path}"])
        host.add_address(card.interface(), f"{address}/24")
        return card

    def join_b(self) -> Card:
        assert self.peer is not None
        return self.join(self.b, self.peer, B4)

    def cascade(self, name: str, at: Hub, to: Hub, *, address: str = "", words: tuple[str, ...] = ()) -> None:
        link = to.invite(f"{at.host.name}-{name}", address=address)
        at.run("hub", "cascade", "create", name, "--to", link, *words)
        times = [word for key, value in FAST_CARD["times"].items() for word in (f"times.{key}", str(value))]
        at.run("hub", "cascade", "set", name, *times)


def row(hub: Hub, name: str) -> dict[str, Any]:
    return next(one for one in hub.tell("cascades") if one["name"] == name)


def in_state(hub: Hub, name: str, state: str, *, seconds: float = 20.0) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = row(hub, name)
        return found if found["state"] == state else None

    return until(look, seconds=seconds, what=f"cascade {name} being {state}")


def online(hub: Hub, name: str, *, seconds: float = 20.0) -> dict[str, Any]:
    return in_state(hub, name, "online", seconds=seconds)


def status_again(hub: Hub) -> bool:
    try:
        return bool(hub.tell("status"))
    except UkihashiError:
        return False


def goodbye(peer: Hub) -> None:
    """Wait until the other hub has no session of a cascade, but those of processes that were killed."""

    def look() -> bool:
        return not any("hq" in one["user"] and one["state"] == "online" for one in peer.sessions())

    until(look, seconds=10, what="the goodbye")


@contextmanager
def relay_to(host: Host, target: Host) -> Iterator[FaultRelay]:
    with FaultRelay(host, listen=(host.ipv4, 443), target=(target.ipv4, 443)) as relay:
        yield relay


def test_two_sites_are_one_network_and_cuts_between_them_cost_nothing(net: Net) -> None:
    sites = Sites(net)
    hub, peer = sites.hub, sites.peer
    assert peer is not None
    card_b = sites.join_b()
    with relay_to(sites.relay, sites.hb) as relay:
        sites.cascade("hq", hub, peer, address=relay.address[0])
        shown = online(hub, "hq")
        assert shown["extension"] > 0
        sites.a.pings(B4)
        sites.b.pings(A4)
        session = next(one for one in peer.sessions() if one["session"] == shown["session"])
        assert "(bridge)" in session["client"]
        assert session["peer"].startswith(relay.address[0])
        assert sum(one["session"] == "hq" for one in hub.mac_table()) == 1
        with Wire(sites.a, sites.card_a.interface()) as at_a, Wire(sites.b, card_b.interface()) as at_b:
            for number in range(8):  # a bridge may have any number of stations
                crosses(at_a, at_b, BROADCAST + bytes([2, 0, 0, 0, 9, number]) + b"\x88\xb5" + bytes(50))
        ends = End(sites.a, sites.card_a.interface()), End(sites.b, card_b.interface())
        with Numbered(*ends, rate=200, seed=3) as frames:
            for _ in range(5):
                pause(0.7)
                assert relay.reset() == 1
            pause(0.5)
            relay.black_hole("both")
            pause(4.0)
            relay.heal()
            pause(1.0)
            result = frames.finish()
        for counts in (result.up, result.down):
            assert counts.exact, counts
            assert counts.received > 1000
        shown = online(hub, "hq")
        assert (shown["logins"], shown["resumes"]) == (1, shown["reconnects"])
        assert shown["resumes"] >= 6
        assert shown["drops"] == {}
        assert "times back after a cut" in hub.run("hub", "cascade", "list")


@pytest.mark.soak
def test_it_outlives_its_processes_the_worker_and_an_upgrade_and_leaves_nothing(net: Net) -> None:
    sites = Sites(net)
    hub, peer = sites.hub, sites.peer
    assert peer is not None
    sites.join_b()
    sites.cascade("hq", hub, peer)
    online(hub, "hq")
    sites.a.pings(B4)

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def back(since: dict[str, Any]) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = row(hub, "hq")
            return found if found["state"] == "online" and found["pid"] != since["pid"] else None

        found = until(look, seconds=30, what="another process", step_s=0.1)
        sites.a.pings(B4)
        return found

    first = row(hub, "hq")
    status = sites.ha.run(["cat", f"/proc/{first['pid']}/status", f"/proc/{first['data_pid']}/status"])
    assert [line.split()[1:] for line in status.splitlines() if line.startswith("CapEff")] == [["0" * 16]] * 2
    owners = [line.split()[1] for line in status.splitlines() if line.startswith("Uid")]
    assert owners[0] == owners[1] != "0"
    kill(first["data_pid"])
    second = back(first)
    kill(second["pid"])
    third = back(second)
    pids = hub.tell("status")[0]
    kill(int(pids["worker"]["pid"]))
    sites.a.pings(B4, seconds=30)
    assert row(hub, "hq")["pid"] == third["pid"]  # the worker alone was replaced
    [control] = [pid for pid in sites.ha.pids() if Path(f"/proc/{pid}").stat().st_uid == identity("ukihashi").uid]
    kill(control)
    assert until(lambda: status_again(hub), seconds=20, what="control's return", step_s=0.2)
    assert online(hub, "hq")["pid"] == third["pid"]
    sites.a.pings(B4)
    assert "its process ended" in hub.output
    hub.run("hub", "upgrade", timeout_s=90)
    back(third)
    hub.run("hub", "cascade", "offline", "hq")
    goodbye(peer)
    assert sites.a.ask(["ping", "-n", "-c1", "-W1", B4]).returncode != 0
    hub.run("hub", "cascade", "online", "hq")
    online(hub, "hq")
    sites.a.pings(B4)
    hub.run("hub", "set", HUB, "--offline")
    goodbye(peer)
    hub.run("hub", "set", HUB, "--online")
    online(hub, "hq")
    assert hub.stop() == 0
    until(lambda: not sites.ha.pids(), seconds=10, what="every process being gone")
    goodbye(peer)


def test_a_wrong_password_is_told(net: Net) -> None:
    sites = Sites(net)
    hub, peer = sites.hub, sites.peer
    assert peer is not None
    peer.run("hub", "user", "create", "branch", "--hub", HUB)
    words = ("--server", sites.hb.ipv4, "--remote-hub", HUB, "--user", "branch", "--password-file", "-")
    hub.run("hub", "cascade", "create", "bad", *words, stdin="wrong password\n")
    refused = in_state(hub, "bad", "refused")
    assert "the name or the password is wrong" in refused["reason"]["text"]
    assert "the name or the password is wrong" in hub.run("hub", "cascade", "list")
    hub.run("hub", "cascade", "delete", "bad")
    assert hub.rows("hub", "cascade", "list") == []


@pytest.mark.soak
@pytest.mark.peer("vpnserver", "vpncmd")
def test_a_real_server_is_joined_as_a_bridge_with_eight_connections(net: Net) -> None:
    sites = Sites(net, fast=False, peer=False)
    server = peers.Server(sites.hb)
    server.start()
    server.create_hub("HQ")
    server.create_user("HQ", "branch", "secret-of-branch")
    interface = server.bridge("HQ", "sw", cidrs=[f"{B4}/24"])
    words = ("--server", f"{sites.hb.ipv4}:{peers.ADMIN_PORT}", "--remote-hub", "HQ", "--user", "branch")
    more = ("--password-file", "-", "--max-connections", "8")
    sites.hub.run("hub", "cascade", "create", "hq", *words, *more, stdin="secret-of-branch\n")
    shown = online(sites.hub, "hq")
    assert (shown["extension"], shown["method"]) == (0, "password")
    sites.a.pings(B4)
    sites.hb.pings(A4)
    until(lambda: row(sites.hub, "hq")["connections"] == 8, seconds=40, what="eight connections", step_s=0.3)
    with Wire(sites.a, sites.card_a.interface()) as at_a, Wire(sites.hb, interface) as at_b:
        for number in range(8):
            crosses(at_a, at_b, BROADCAST + bytes([2, 0, 0, 0, 9, number]) + b"\x88\xb5" + bytes(50))
    [session] = [one for one in server.sessions("HQ") if "BRANCH" in one["Session Name"]]
    assert session["TCP Connections"].replace(" ", "") == "8/8"
    pin = sites.hub.rows("hub", "cascade", "show", "hq")[0]["options"]["trust.pin"]
    assert len(pin) == 64
    server.stop()
    in_state(sites.hub, "hq", "reconnecting", seconds=30)
    server.start()
    online(sites.hub, "hq", seconds=60)
    until(lambda: sites.hb.has_interface(interface), seconds=20, what="the server's interface being there again")
    sites.hb.add_address(interface, f"{B4}/24")
    sites.hb.ip(f"link set {interface} up")
    sites.a.pings(B4, seconds=40)
    assert sites.hub.stop() == 0
    until(
        lambda: not [one for one in server.sessions("HQ") if "BRANCH" in one["Session Name"]],
        seconds=30,
        what="the session's end",
        step_s=0.5,
    )


def storm(at: Wire, other: Wire, *, seconds: float) -> int:
    """How many copies of one broadcast come out at the other end."""
    frame = BROADCAST + bytes([2, 0, 0, 0, 7, os.urandom(1)[0]]) + b"\x88\xb5" + os.urandom(50)
    at.send(frame)
    return sum(seen == frame for seen in other.frames(seconds=seconds))


@pytest.mark.parametrize("both_ways", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_loop_of_two_cascades_is_cut_within_five_seconds_and_heals(net: Net, both_ways: bool) -> None:
    sites = Sites(net)
    hub, peer = sites.hub, sites.peer
    assert peer is not None
    card_b = sites.join_b()
    sites.cascade("one", hub, peer)
    online(hub, "one")
    sites.a.pings(B4)
    ends = {"one": hub, "two": peer if both_ways else hub}
    sites.cascade("two", ends["two"], hub if both_ways else peer)

    def blocked() -> list[str]:
        """Cascades that either end has blocked: whose id is less."""
        found = [name for name, at in ends.items() if row(at, name).get("loop") == "blocked"]
        return found + [name for name, at in ends.items() if row(at, name).get("blocked")]

    online(ends["two"], "two")
    [name] = until(blocked, seconds=5, what="the loop being cut", step_s=0.05)
    if not both_ways:
        assert name == "two"  # the younger
        assert "a loop with" in hub.run("hub", "cascade", "list")
    assert "frames would go round for ever" in hub.output + peer.output
    pause(1.0)
    with Wire(sites.a, sites.card_a.interface()) as at_a, Wire(sites.b, card_b.interface()) as at_b:
        assert storm(at_a, at_b, seconds=2.0) == 1
        sites.a.pings(B4)
        [name] = blocked()  # and only one
        other = "one" if name == "two" else "two"
        ends[other].run("hub", "cascade", "delete", other)
        del ends[other]
        until(lambda: not blocked(), seconds=15, what="the other one being open", step_s=0.2)
        sites.a.pings(B4)
        assert storm(at_a, at_b, seconds=1.0) == 1


@pytest.mark.soak
@pytest.mark.peer("vpnserver", "vpncmd")
def test_a_loop_through_a_real_server_is_found(net: Net) -> None:
    sites = Sites(net, peer=False)
    server = peers.Server(sites.hb)
    server.start()
    server.create_hub("HQ")
    interface = server.bridge("HQ", "sw", cidrs=[f"{B4}/24"])
    for name in ("one", "two"):
        server.create_user("HQ", name)
        words = ("--server", f"{sites.hb.ipv4}:{peers.ADMIN_PORT}", "--remote-hub", "HQ", "--user", name)
        sites.hub.run("hub", "cascade", "create", name, *words, "--anonymous")
        online(sites.hub, name)
    until(lambda: row(sites.hub, "two")["loop"] == "blocked", seconds=5, what="the loop being cut", step_s=0.05)
    assert row(sites.hub, "one")["loop"] == "open"
    with Wire(sites.a, sites.card_a.interface()) as at_a, Wire(sites.hb, interface) as at_b:
        assert storm(at_a, at_b, seconds=2.0) == 1
    sites.a.pings(B4)


@pytest.mark.soak
@pytest.mark.peer("vpnserver", "vpncmd")
def test_a_real_server_that_joins_us_while_we_join_it_stays_and_one_way_is_cut(net: Net) -> None:
    """The server knows nothing of probes: they pass through it, and do it no harm."""
    sites = Sites(net, fast=False, peer=False)
    server = peers.Server(sites.hb)
    server.start()
    server.create_hub("HQ")
    server.create_user("HQ", "branch")
    server.bridge("HQ", "sw", cidrs=[f"{B4}/24"])
    sites.hub.run("hub", "user", "create", "hq", "--hub", HUB, "--anonymous")
    server.create_cascade("HQ", "site", server=sites.ha.ipv4, port=443, far_hub=HUB, user="hq")
    server.cascade("HQ", "site")
    sites.a.pings(B4, seconds=40)
    words = ("--server", f"{sites.hb.ipv4}:{peers.ADMIN_PORT}", "--remote-hub", "HQ", "--user", "branch", "--anonymous")
    sites.hub.run("hub", "cascade", "create", "one", *words)
    online(sites.hub, "one")

    def loops() -> list[dict[str, Any]]:
        return list(sites.hub.tell("status")[0]["worker"]["loops"])

    [blocked] = until(loops, seconds=5, what="the loop being cut", step_s=0.05)
    assert "back_at" in sites.hub.output
    sites.a.pings(B4)
    pause(5.0)
    [session] = [one for one in sites.hub.sessions() if one["user"] == "hq"]
    assert (session["state"], session["loop"]) == ("online", "blocked")  # a member gives way to a cascade
    assert (blocked["port"], blocked["with"]) == (session["session"], "one")
    sites.a.pings(B4)
    sites.hub.run("hub", "cascade", "offline", "one")
    until(lambda: not loops(), seconds=15, what="the server's way being open", step_s=0.2)
    sites.a.pings(B4, seconds=40)
