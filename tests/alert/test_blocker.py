"""Which tunnels are blocked, renewed, confirmed, undone: events in, a wall that remembers, time as a number."""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import pytest

from ukihashi.alert.blocker import EFFECT_S, MAX_BLOCKS, MAX_MATCHES, Action, Blocker, Notice, Policy
from ukihashi.alert.conntrack import others
from ukihashi.alert.nftables import Match
from ukihashi.errors import EnvironmentLacks, UsageError


class Wall:
    def __init__(self, versions: frozenset[int] = frozenset((4, 6))) -> None:
        self.versions = versions
        self.up: dict[Match, float] = {}
        self.counted: dict[Match, int] = {}
        self.full = False

    def put(self, match: Match, seconds: float) -> None:
        if self.full:
            raise EnvironmentLacks("no room")
        self.up[match] = seconds
        self.counted[match] = 0

    def remove(self, matches: Iterable[Match]) -> None:
        for match in list(matches):
            self.up.pop(match, None)

    def counts(self) -> dict[Match, int]:
        return {match: self.counted[match] for match in self.up}


class Bench:
    """A blocker, its wall, and what it told."""

    def __init__(self, policy: Policy = Policy(600.0, 60.0), wall: Wall | None = None, *, dry: bool = False) -> None:  # noqa: B008
        self.wall = wall or Wall()
        self.told: list[Notice] = []
        self.blocker = Blocker(None if dry else self.wall, policy, self.told.append, lambda _match, _own: ())

    @property
    def actions(self) -> list[Action]:
        return [notice.action for notice in self.told]


def alert(
    client: str = "10.0.0.7:4000", server: str = "192.0.2.1:443", transport: str = "TCP", **ours: Any
) -> dict[str, Any]:
    (source, source_port), (target, port) = client.rsplit(":", 1), server.rsplit(":", 1)
    return {
        "event_type": "alert",
        "src_ip": source.strip("[]"),
        "src_port": int(source_port),
        "dest_ip": target.strip("[]"),
        "dest_port": int(port),
        "community_id": f"1:{client}",
        "ukihashi": {
            "family": "softether",
            "transport": transport,
            "verdict": "CONFIRMED",
            "allowed": None,
            "evidence": {"connections": [{"src_port": int(source_port)}]},
            **ours,
        },
    }


DIRECT = Match("10.0.0.7", 0, "192.0.2.1", 443)


def test_a_direct_tunnel_is_blocked_by_client_server_and_port() -> None:
    bench = Bench()
    bench.blocker.take(alert(), 100.0)
    assert bench.wall.up == {DIRECT: 60.0}  # the trial's time: the kernel undoes it even if we hang
    assert bench.actions == [Action.BLOCKED]


def test_ipv6() -> None:
    bench = Bench()
    bench.blocker.take(alert("[2001:db8::7]:4000", "[2001:db8::1]:443"), 100.0)
    assert list(bench.wall.up) == [Match("2001:db8::7", 0, "2001:db8::1", 443)]


@pytest.mark.parametrize("transport", ["HTTP Proxy", "SOCKS Proxy", "SSH"])
def test_through_a_relay_exactly_its_connections_are_blocked(transport: str) -> None:
    bench = Bench()
    found = alert(server="192.0.2.9:3128", transport=transport)
    found["ukihashi"]["evidence"]["connections"].append({"src_port": 4001})
    bench.blocker.take(found, 100.0)
    bench.blocker.take({"event_type": "vpn_connection", "session": "1:10.0.0.7:4000", "src_port": 4002}, 101.0)
    assert {match.client_port for match in bench.wall.up} == {4000, 4001, 4002}
    assert {(match.client, match.server, match.port) for match in bench.wall.up} == {("10.0.0.7", "192.0.2.9", 3128)}
    assert bench.actions == [Action.BLOCKED, Action.RENEWED]


@pytest.mark.parametrize(
    "event",
    [
        alert(verdict="PROBABLE"),
        alert(allowed={"id": "a1"}),
        {"event_type": "vpn_connection", "session": "1:10.0.0.7:4000", "src_port": 1, "allowed": True},
        {"event_type": "stats"},
        {"event_type": "alert"},
        {"event_type": "hello", "findings": [{**alert(), "ukihashi": {**alert()["ukihashi"], "ended": "2026"}}]},
        {"event_type": "hello", "findings": 7},
        {**alert(), "src_ip": "10.0.0.7 } ; flush ruleset"},
        {**alert(), "dest_port": "x"},
    ],
)
def test_what_is_not_a_tunnel_to_be_blocked_blocks_nothing(event: dict[str, Any]) -> None:
    bench = Bench()
    bench.blocker.take(event, 100.0)
    assert not bench.wall.up
    assert not bench.told


def test_what_was_found_before_the_blocker_came_is_blocked_if_it_lives() -> None:
    bench = Bench()
    bench.blocker.take({"event_type": "hello", "findings": [alert()]}, 100.0)
    assert list(bench.wall.up) == [DIRECT]


def test_each_detection_makes_the_time_whole_again() -> None:
    bench = Bench(Policy(600.0, None))
    bench.blocker.take(alert(), 100.0)
    bench.blocker.take(alert("10.0.0.7:4444"), 400.0)
    assert bench.wall.up == {DIRECT: 600.0}
    bench.blocker.tick(999.0)
    assert bench.wall.up
    bench.blocker.tick(1000.0)
    assert not bench.wall.up
    assert bench.actions == [Action.BLOCKED, Action.RENEWED, Action.NO_EFFECT, Action.EXPIRED]


def test_a_block_that_nobody_confirms_is_undone_and_stays_so() -> None:
    bench = Bench()
    bench.blocker.take(alert(), 100.0)
    bench.blocker.take(alert(), 150.0)  # a trial is not made longer by a detection
    bench.blocker.tick(159.0)
    assert bench.wall.up[DIRECT] == 10.0
    bench.blocker.tick(160.0)
    assert not bench.wall.up
    bench.blocker.take(alert(), 161.0)
    assert not bench.wall.up
    assert bench.actions == [
        Action.BLOCKED, Action.RENEWED, Action.NO_EFFECT, Action.UNCONFIRMED, Action.LEFT_ALONE
    ]  # fmt: skip


def test_a_confirmed_block_stays_and_comes_back_without_a_trial() -> None:
    bench = Bench()
    bench.blocker.take(alert(), 100.0)
    assert bench.blocker.confirm(1, 110.0).trial_until is None
    assert bench.wall.up == {DIRECT: 600.0}
    bench.blocker.tick(710.0)
    assert not bench.wall.up
    bench.blocker.take(alert(), 711.0)
    assert bench.wall.up == {DIRECT: 600.0}
    assert bench.blocker.blocks[2].trial_until is None


def test_undone_by_hand_it_is_left_alone() -> None:
    bench = Bench()
    bench.blocker.take(alert(), 100.0)
    bench.blocker.confirm(1, 101.0)
    bench.blocker.undo(1, 102.0)
    bench.blocker.take(alert(), 103.0)
    assert not bench.wall.up
    assert bench.actions[-2:] == [Action.UNDONE, Action.LEFT_ALONE]


@pytest.mark.parametrize("ask", ["confirm", "undo"])
def test_an_unknown_number_is_refused(ask: str) -> None:
    with pytest.raises(UsageError, match="no block 7"):
        getattr(Bench().blocker, ask)(7, 1.0)


def test_packets_are_counted_over_renewals_and_none_at_all_is_told_once() -> None:
    bench = Bench(Policy(600.0, None))
    bench.blocker.take(alert(), 100.0)
    bench.blocker.take(alert("10.0.0.8:1"), 100.0)
    bench.wall.counted[DIRECT] = 5
    bench.blocker.tick(101.0)
    bench.wall.counted[DIRECT] = 9
    bench.blocker.tick(102.0)
    bench.blocker.take(alert(), 103.0)  # the kernel counts from 0 again
    bench.wall.counted[DIRECT] = 2
    for second in range(20):
        bench.blocker.tick(100.0 + EFFECT_S + second)
    assert bench.blocker.blocks[1].packets == 11
    silent = [notice for notice in bench.told if notice.action is Action.NO_EFFECT]
    assert [notice.key[0] for notice in silent] == ["10.0.0.8"]


def test_never_and_the_other_version_of_ip_are_left_alone_with_a_reason() -> None:
    bench = Bench(Policy(600.0, None, (ip_network("192.0.2.0/24"),)), Wall(frozenset((4,))))
    bench.blocker.take(alert(), 100.0)
    bench.blocker.take(alert("[2001:db8::7]:4000", "[2001:db8::1]:443"), 100.0)
    assert not bench.wall.up
    assert [str(notice.why) for notice in bench.told] == [
        "the address is one that is never to be blocked",
        "this machine does not forward this version of IP",
    ]


def test_a_kernel_that_refuses_leaves_nothing_half_done() -> None:
    bench = Bench()
    bench.wall.full = True
    bench.blocker.take(alert(), 100.0)
    assert not bench.blocker.blocks
    assert str(bench.told[0].why) == "no room"


def test_bounds() -> None:
    bench = Bench(Policy(600.0, None))
    for number in range(MAX_BLOCKS + 1):
        bench.blocker.take(alert(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}:1"), 100.0)
    assert len(bench.blocker.blocks) == MAX_BLOCKS
    assert bench.told[-1].action is Action.LEFT_ALONE
    relay = Bench(Policy(600.0, None))
    relay.blocker.take(alert(transport="SSH"), 100.0)
    for port in range(5000, 5000 + 2 * MAX_MATCHES):
        relay.blocker.take({"event_type": "vpn_connection", "session": "1:10.0.0.7:4000", "src_port": port}, 101.0)
    assert len(relay.blocker.blocks[1].matches) == MAX_MATCHES


def test_a_dry_run_tells_once_and_blocks_nothing() -> None:
    bench = Bench(dry=True)
    bench.blocker.take(alert(), 100.0)
    bench.blocker.take(alert(), 101.0)
    bench.blocker.tick(200.0)
    assert bench.actions == [Action.WOULD_BLOCK]
    assert bench.told[0].matches == (DIRECT,)


def test_the_preview_names_what_else_would_be_hit() -> None:
    known = [Match("10.0.0.7", port, "192.0.2.1", 443) for port in (4000, 4001, 5000)]
    known += [Match("10.0.0.8", 5000, "192.0.2.1", 443), Match("10.0.0.7", 5000, "192.0.2.1", 80)]
    assert others(DIRECT, {4000, 4001}, known) == [Match("10.0.0.7", 5000, "192.0.2.1", 443)]
    assert others(Match("10.0.0.7", 4000, "192.0.2.1", 443), {4000}, known) == []
