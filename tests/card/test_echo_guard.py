"""The echo guard: its schedule on a clock of the test's own, its packets on a real interface as tcpdump shows them."""

import asyncio
import itertools
import re
import socket
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from lab.capture import Capture
from lab.net import Host, Net
from ukihashi.card import echo_guard
from ukihashi.card.echo_guard import OPEN, EchoGuard, Schedule, Tally, auto_targets
from ukihashi.config.card import EchoGuard as Settings
from ukihashi.net.dial.names import Where

FAST = 0.5  # seconds; the least that may be set


@pytest.mark.parametrize(
    ("addresses", "gateways", "targets"),
    [
        (["10.9.0.2/24", "fd09::2/64"], [], ["10.9.0.1", "fd09::1"]),
        (["10.9.0.2/24", "fd09::2/64"], ["10.9.0.254"], ["10.9.0.254", "fd09::1"]),
        (["10.9.0.2/24", "fd09::2/64"], ["fd09::fe", "10.9.0.254"], ["fd09::fe", "10.9.0.254"]),
        (["10.9.0.1/24"], [], []),  # that is we ourselves
        (["10.9.0.2/24", "10.9.0.3/24", "10.8.1.7/16"], [], ["10.9.0.1", "10.8.0.1"]),
        (["10.9.0.2/32", "10.9.1.2/31", "fd09::2/128"], [], []),
        ([], [], []),
    ],
)
def test_whom_to_ask(addresses: list[str], gateways: list[str], targets: list[str]) -> None:
    assert auto_targets(addresses, gateways) == targets


def test_a_question_each_period() -> None:
    schedule = Schedule(100.0, 30.0)
    asked = []
    now = 100.0
    while now < 200.0:
        if now >= schedule.due_at:
            asked.append(now)
            schedule.asked(now + 0.2)  # a little late changes nothing
        now += 0.5
    assert asked == [100.0, 130.0, 160.0, 190.0]


def test_a_pause_of_the_machine_is_not_made_up_for() -> None:
    schedule = Schedule(0.0, 30.0)
    schedule.asked(0.0)
    schedule.asked(1000.0)
    assert schedule.due_at == 1030.0


@pytest.mark.parametrize(("now", "period", "due"), [(10.0, 15.0, 15.0), (20.0, 15.0, 20.0), (10.0, 60.0, 60.0)])
def test_another_period_counts_from_the_last_question(now: float, period: float, due: float) -> None:
    schedule = Schedule(0.0, 30.0)
    schedule.asked(0.0)
    schedule.change(now, period)
    assert schedule.due_at == due
    schedule.asked(due)
    assert schedule.due_at == due + period


def test_answers_are_counted_once_and_silence_in_rounds() -> None:
    tally, sequence = Tally(), 0
    for _ in range(3):
        sequence = tally.begin()
        tally.asked(4, sequence)
        tally.asked(6, sequence)
    assert (tally.sent, tally.answered, tally.unanswered) == (6, 0, 2)
    tally.heard(6, sequence, 5.0)
    tally.heard(6, sequence, 6.0)
    tally.heard(4, sequence + 1, 7.0)
    assert (tally.answered, tally.unanswered, tally.last_answer) == (1, 0, 5.0)
    tally.begin()
    assert tally.unanswered == 0
    tally.begin()
    assert tally.unanswered == 1
    tally.heard(4, 1, 8.0)  # late, but an answer
    assert (tally.answered, tally.unanswered) == (2, 0)


def test_what_is_remembered_is_bounded() -> None:
    tally = Tally()
    for _ in range(0x10000 + 10):
        tally.asked(4, tally.begin())
    tally.heard(4, 20, 1.0)  # of long ago
    assert tally.answered == 0
    tally.heard(4, 10, 1.0)
    assert tally.answered == 1
    assert len(tally._open) < OPEN + 1


# -- names, on a clock of our own ---------------------------------------------------------------------------------


class Asked(EchoGuard):
    """Whom it would ask, round by round, on a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(clock=lambda: self.now)

    async def round(self) -> list[str]:
        await self._find_targets(self.now)
        self._tally.asked(4, self._tally.begin())
        return list(self._targets)


def test_a_name_is_looked_up_every_ten_minutes_or_after_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def look_up(host: str, *_: object) -> list[Where]:
        asked.append(host)
        if len(asked) == 2:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server")
        number = len(asked)
        return [
            (socket.AF_INET6, (f"fd00::{number}", 0, 0, 0)),
            (socket.AF_INET, (f"192.0.2.{number}", 0)),
            (socket.AF_INET, ("192.0.2.99", 0)),
        ]

    monkeypatch.setattr(echo_guard, "look_up", look_up)

    async def scenario() -> None:
        guard = Asked()
        guard.change("uklan", Settings(target="echo.example", period=30.0), [])
        for _ in range(3):
            assert await guard.round() == ["fd00::1", "192.0.2.1"]  # the first of each family
            guard._tally.heard(4, guard._tally._sequence, guard.now)
            guard.now += 30
        assert len(asked) == 1
        guard.now += 600
        assert await guard.round() == ["fd00::1", "192.0.2.1"]  # the old ones, as the name can't be looked up now
        assert await guard.round() == ["fd00::3", "192.0.2.3"]  # and again with the next round
        for _ in range(3):
            assert await guard.round() == ["fd00::3", "192.0.2.3"]
        assert len(asked) == 3
        assert await guard.round() == ["fd00::4", "192.0.2.4"]  # nobody had answered
        guard.change("uklan", Settings(target="other.example"), [])
        await guard.round()
        assert asked[-1] == "other.example"

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [entry["event"] for entry in logs] == ["echo_guard_failed"]


def test_a_name_server_that_does_not_answer_is_waited_for_half_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: object) -> list[Where]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(echo_guard, "look_up", look_up)

    async def scenario() -> None:
        guard = Asked()
        guard.change("uklan", Settings(target="echo.example", period=FAST), [])
        async with asyncio.timeout(5):
            assert await guard.round() == []
        assert guard.status()["errors"] == 1

    asyncio.run(scenario())


# -- on the wire --------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(net: Net) -> tuple[Host, Host]:
    """Two hosts on a cable: `a` asks through `to-b`, `b` answers."""
    a, b = net.host("a"), net.host("b")
    net.link(b, a)
    return a, b


def wire(host: Host, scenario: Callable[[EchoGuard], Coroutine[Any, Any, None]]) -> tuple[EchoGuard, str]:
    """Run the guard on the host beside the scenario; what tcpdump has seen leave and come."""

    async def together() -> EchoGuard:
        guard = EchoGuard()
        task = asyncio.create_task(guard.run())
        async with asyncio.timeout(30):
            await scenario(guard)
        task.cancel()
        await asyncio.wait([task])
        return guard

    with Capture(host, "to-b", expression="icmp or icmp6") as capture, host.inside():
        guard = asyncio.run(together())
    argv = ["tcpdump", "-r", str(capture.path), "-n", "-tt", "-v"]
    return guard, subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def times(shown: str, kind: str, to: str) -> list[float]:
    """When packets of that kind went to an address."""
    flat = re.sub(r"\n\s+", " ", shown)
    pattern = rf"^(\d+\.\d+) .*> {re.escape(to)}: .*{kind}"
    return [float(found[1]) for found in re.finditer(pattern, flat, re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.peer("tcpdump")
def test_packets_are_as_configured_on_both_families(pair: tuple[Host, Host]) -> None:
    a, b = pair

    async def scenario(guard: EchoGuard) -> None:
        guard.change("to-b", Settings(period=FAST), [b.ipv4, b.ipv6])
        await asyncio.sleep(4.6 * FAST)

    guard, shown = wire(a, scenario)
    for address, own, size, kind in (
        (b.ipv4, a.ipv4, "length 28", "ICMP echo request"),
        (b.ipv6, a.ipv6, "payload length: 8", "ICMP6, echo request"),
    ):
        asked = times(shown, kind, address)
        assert len(asked) == 5
        gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert all(abs(gap - FAST) < FAST / 2 for gap in gaps), gaps
        assert len(times(shown, kind.replace("request", "reply"), own)) == 5
        assert size in shown
    lengths = re.findall(r"ICMP echo request, id \d+, seq \d+, length (\d+)", shown)
    lengths += re.findall(r"payload length: (\d+)\) .* echo request", shown)
    assert lengths == ["8"] * 10  # the header and nothing else
    assert "wrong" not in shown  # check sums
    status = guard.status()
    assert (status["sent"], status["answered"], status["errors"]) == (10, 10, 0)
    assert status["addresses"] == [b.ipv4, b.ipv6]
    assert 0 <= status["last_answer_s"] < 1


@pytest.mark.slow
@pytest.mark.peer("tcpdump")
def test_everything_can_be_changed_while_it_runs(pair: tuple[Host, Host]) -> None:
    a, b = pair
    b.add_address("to-a", "10.77.1.3/24")
    seen: list[dict[str, Any]] = []

    async def scenario(guard: EchoGuard) -> None:
        async def for_a_while(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(guard.status())

        guard.change("to-b", Settings(enabled=False), [b.ipv4])
        await for_a_while(0.3)
        guard.change("to-b", Settings(period=3600), [b.ipv4])  # at once, then in an hour
        await for_a_while(0.3)
        guard.change("to-b", Settings(period=FAST), [b.ipv4])
        await for_a_while(1.6 * FAST)
        guard.change("to-b", Settings(period=FAST, target="10.77.1.3"), [b.ipv4])
        await for_a_while(2 * FAST)
        guard.change("", Settings(period=FAST), [])
        await for_a_while(2 * FAST)

    _guard, shown = wire(a, scenario)
    assert [status["sent"] for status in seen[:2]] == [0, 1]
    assert seen[2]["sent"] > 1
    assert seen[2]["addresses"] == [b.ipv4]
    assert seen[3]["addresses"] == ["10.77.1.3"]
    assert seen[3]["sent"] == seen[4]["sent"]
    assert len(times(shown, "ICMP echo request", "10.77.1.3")) == seen[3]["sent"] - seen[2]["sent"]
    assert seen[4]["answered"] == seen[4]["sent"]


def test_no_error_ends_it_and_one_of_many_is_told(pair: tuple[Host, Host]) -> None:
    a, _b = pair

    async def scenario() -> dict[str, Any]:
        guard = EchoGuard()
        task = asyncio.create_task(guard.run())
        guard.change("uknone", Settings(period=FAST), ["10.77.1.1"])
        await asyncio.sleep(1.4 * FAST)
        broken = guard.status()
        guard.change("to-b", Settings(period=FAST), ["10.77.1.1", "fd77:0:0:1::1"])
        while guard.status()["answered"] < 2:
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        return broken

    with a.inside(), capture_logs() as logs:
        broken = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert (broken["sent"], broken["errors"], broken["last_answer_s"]) == (0, 2, None)
    assert [entry["event"] for entry in logs] == ["echo_guard_failed"]
