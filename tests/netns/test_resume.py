"""Card and hub through freezes, black holes, resets and the hub's death, times divided by ten."""

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.capture import Capture
from lab.flow import Probe
from lab.net import Net
from lab.numbered import End, Numbered
from lab.pairs import Pair, ours
from lab.ukihashi import FAST_CARD, FAST_HUB, Card, Hub
from lab.wait import pause, until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

SUSPECT_S = FAST_CARD["times"]["suspect"]
DEAD_S = FAST_CARD["times"]["dead"]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def joined(net: Net) -> tuple[Hub, Card]:
    """A hub with its own host port and one card, nothing between."""
    machine, host = net.lan("hub", "a")
    hub, card = Hub(machine), Card(host)
    hub.configure(FAST_HUB)
    hub.start()
    card.join_with(hub.invite("a"), FAST_CARD)
    return hub, card


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two cards at a hub, for tests that leave it as they found it."""
    with Net() as net, ours(net, fast=True) as made:
        yield made


def programs(pair: Pair) -> tuple[Hub, Card]:
    assert pair.programs is not None
    return pair.programs


@pytest.mark.peer("nft")
def test_the_ends_of_a_pair_are_where_they_say(pair: Pair) -> None:
    """So that what the others find is not said of an empty line."""
    assert pair.one == End(pair.hosts["c"], "uklan")
    with Numbered(pair.one, pair.other, rate=100, seed=1) as frames:
        pause(0.5)
        pair.relay.black_hole("both")
        pause(0.5)
        held = frames.result()
        assert 0 < held.up.received < held.up.sent
        pair.relay.heal()
        frames.flows_again(frames.began + 1.0, seconds=10.0)
    assert {one.how for one in pair.relay.connections} <= {"", "closed", "stop", "reset by the card"}


@pytest.mark.peer("nft")
@pytest.mark.parametrize("which", ["pid", "data_pid", "worker"])
def test_a_process_that_stood_still_goes_on_and_nothing_is_lost(pair: Pair, which: str) -> None:
    """60 s of SIGSTOP, divided by ten: four times what makes a link dead."""
    hub, card = programs(pair)
    before = card.status()
    pid = hub.rows("hub", "status")[0]["worker"]["pid"] if which == "worker" else before[which]
    with Numbered(pair.one, pair.other, rate=50, seed=1) as frames:
        pause(0.5)
        with frozen(pid):
            pause(6.0)
        frames.flows_again(frames.began + 6.5, seconds=20.0)
        result = frames.finish()
    for counts in (result.up, result.down):
        assert (counts.lost, counts.doubled, counts.reordered) == (0, 0, 0)
    row = card.status()
    assert (row["logins"], row["state"]) == (before["logins"], "online")
    if which == "pid":
        assert row["ledger"]["cuts"] == before["ledger"]["cuts"]  # the data process did not need it


@pytest.mark.peer("nft", "tcpdump", "tshark")
def test_a_black_hole_is_dialled_around_between_suspect_and_dead(pair: Pair) -> None:
    _hub, card = programs(pair)
    with Capture(pair.hosts["c"], pair.outer_interface, expression="tcp port 443") as capture:
        pause(1.0)
        pair.relay.black_hole("both")
        until(lambda: card.status()["state"] == "reconnecting", seconds=20, what="the link being given up")
        pair.relay.heal()
        until(lambda: card.status()["state"] == "online", seconds=20, what="the session going on")
    heard, dialled = silence_before_syn(capture.path, pair.hosts["f"].ipv4)
    assert dialled - heard >= SUSPECT_S
    assert dialled - heard < DEAD_S + 0.5  # half a second of a busy machine
    row = card.status()
    assert row["logins"] == 1
    assert row["gap_s"] > 0
    assert row["last_cut"] is not None


def silence_before_syn(path: Path, hub: str) -> tuple[float, float]:
    """When the last byte came from the hub before the first SYN in a capture, and when that SYN went out."""
    argv = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch", "-e", "ip.src", "-e", "tcp.len"]
    out = subprocess.run([*argv, "-e", "tcp.flags.syn"], capture_output=True, text=True, check=True, timeout=60).stdout
    heard = 0.0
    for line in out.splitlines():
        at, source, length, syn = line.split("\t")
        if source == hub and int(length):
            heard = float(at)
        if syn in {"1", "True"} and source != hub:
            assert heard, "nothing came before"
            return heard, float(at)
    raise AssertionError("no SYN was sent")


@pytest.mark.peer("nft")
def test_resets_are_a_moment_each(pair: Pair) -> None:
    _hub, card = programs(pair)
    before = card.status()
    gaps = []
    with Probe(pair.hosts["c"], pair.hosts["b"], pair.addresses[1]) as probe:
        for _ in range(10):
            pause(0.3)
            since = probe.sent[-1]
            pair.relay.reset()
            gaps.append(probe.flows_again(since, seconds=20.0))
    print(sorted(gaps))
    row = card.status()
    assert row["resumes"] == before["resumes"] + 10
    assert row["ledger"]["lost"] == 0
    numbers = [number for _at, number in probe.arrived]
    assert numbers == sorted(set(numbers))  # none twice, none out of order


@pytest.mark.peer("nft")
def test_what_was_kept_is_on_its_way_within_a_tenth_of_a_second_of_the_answer(pair: Pair) -> None:
    """A27. On the wire: the hub's third turn on a new connection is the answer, and the card waits for nothing else."""
    with Numbered(pair.one, pair.other, rate=200, seed=7) as frames:
        waits = []
        for _ in range(5):
            pause(0.5)
            pair.relay.refuse(1.0)
            pair.relay.reset()
            pause(1.0)
            back = time.monotonic()
            frames.flows_again(back, seconds=10.0)
            answered = pair.relay.alive[-1].turn(3, "down")
            assert answered is not None
            first = [arrival_after_gap(stream.arrived_at, back) for stream in (frames.up, frames.down)]
            waits.append([round(at - answered, 4) for at in first])
        print(waits)
        assert frames.finish().total("lost") == 0
    for way in zip(*waits, strict=True):
        assert statistics.median(way) <= 0.1


def arrival_after_gap(arrivals: Sequence[float], since: float) -> float:
    """When the first frame came in after `since`; those sent during the cut are the first."""
    return min(at for at in arrivals if at > since)


def test_a_hub_that_was_killed_is_joined_again_when_it_returns(net: Net) -> None:
    hub, card = joined(net)
    host, gateway = card.host, card.address(4).rpartition(".")[0] + ".1"
    host.pings(gateway)
    interface = host.run(["cat", f"/sys/class/net/{card.interface()}/ifindex"])
    assert hub.process is not None
    rows = json.loads(hub.run("hub", "status", "--json")).values()
    for pid in {hub.process.popen.pid, *(row["pid"] for row in rows if isinstance(row, dict) and "pid" in row)}:
        os.kill(pid, signal.SIGKILL)
    until(lambda: card.status()["state"] == "reconnecting", seconds=10, what="the cut")
    with_frames = card.status()["ledger"]["sent"]
    host.ask(["ping", "-n", "-c3", "-i0.2", "-W1", gateway])
    hub.start(first=False)
    until(lambda: card.status()["state"] == "online", seconds=60, what="the card being back")
    host.pings(gateway)
    row = card.status()
    assert row["logins"] == 2
    assert row["last_loss"]["carried"] > 0
    assert row["ledger"]["lost"] == row["last_loss"]["lost"] <= with_frames
    assert "may or may not have arrived" in card.run("card", "status")
    assert "a session ended with frames under way" in card.log()
    assert host.run(["cat", f"/sys/class/net/{card.interface()}/ifindex"]) == interface


def test_a_hub_that_stops_says_so_and_is_joined_again(net: Net) -> None:
    hub, card = joined(net)
    hub.stop()
    row = until(lambda: _if_state(card, "reconnecting"), seconds=10, what="the goodbye being heard")
    assert row["last_cut"]["text"].startswith("the hub's program ends")
    hub.start(first=False)
    until(lambda: _if_state(card, "online"), seconds=20, what="the card being back")


def _if_state(card: Card, state: str) -> dict[str, Any] | None:
    row = card.status()
    return row if row["state"] == state else None


def test_leaving_frees_the_session_at_once_and_a_killed_card_leaves_it_for_a_while(net: Net) -> None:
    hub, card = joined(net)
    account = card.status()["account"]
    card.leave(account)
    assert hub.sessions() == []
    card.up(account)
    row = card.status()
    os.kill(row["pid"], signal.SIGKILL)  # the data process says goodbye for both
    until(lambda: hub.sessions() == [], seconds=10, what="the session ending")


def test_times_change_while_connected(net: Net) -> None:
    hub, card = joined(net)
    account = card.status()["account"]
    path = card.config_dir / "card.d" / f"{account}.toml"
    before = path.read_text()
    path.write_text(before.replace("keepalive = 0.5", "keepalive = 0.2"))
    card.run("card", "reload", account)
    since = card.status()["keepalives_out"]
    until(lambda: card.status()["keepalives_out"] >= since + 5, seconds=10, what="keep-alives in a quicker pace")
    path.write_text("nonsense = [")
    assert card.ask("card", "reload", account).returncode == 2
    assert card.status()["state"] == "online"
    assert hub.sessions()
