"""What the switch does with frames, measured at a real server and at our hub by the same code (protocol section 18).

Raw frames of plain clients; both sides get the same ones, in the storms at the same moments.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lab.beside import BROADCAST, PLAIN_USERS, Sent, Side, beside, frame, mac, passed, play, stream
from lab.net import Net
from lab.plain import Plain, turn
from ukihashi.errors import Refused
from ukihashi.wire.constants import Code

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("vpnserver", "vpncmd")]

SETTLE_S = 0.4  # frames on a local wire have come by then, or never will


@pytest.fixture(scope="module")
def sides() -> Iterator[list[Side]]:
    with Net() as net, beside(net) as both:
        yield both


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def join(stack: ExitStack, side: Side, user: str, **how: Any) -> Plain:
    return stack.enter_context(side.join(user, **how))


def three(stack: ExitStack, side: Side, **how: Any) -> tuple[Plain, Plain, Plain]:
    a, b, c = (join(stack, side, user, **how) for user in PLAIN_USERS)
    return a, b, c


def learned(clients: list[Plain], client: Plain, station: bytes) -> None:
    """Let the switch know where `station` is."""
    client.send(frame(BROADCAST, station))
    turn(clients, SETTLE_S)
    for one in clients:
        one.frames.clear()


def got(clients: tuple[Plain, ...], sender: Plain, sent: bytes) -> list[int]:
    """Send one frame; how often it came to each of the clients."""
    sender.send(sent)
    turn(clients, SETTLE_S)
    return [client.frames.count(sent) for client in clients]


def by_second(plan: list[Sent], receiver: Plain) -> list[int]:
    """How many of the frames sent in each second came."""
    return [passed([sent for sent in plan if n <= sent.at < n + 1], receiver) for n in range(1, 6)]


def test_storms_are_thinned_out_as_measured(sides: list[Side], stack: ExitStack) -> None:
    """18.4: 28/s pass; 60/s for a second; 300/s for a second, none after some; a slow sender is let through again."""
    groups = [{user: join(stack, side, user, bridge=True) for user in ("a", "b")} for side in sides]
    slow, middle, fast, lost, known, target = (mac(100 + n) for n in range(6))
    nobody = mac(999)
    plans = {
        "28/s": stream("a", BROADCAST, slow, rate=28, since=1, until=5),
        "60/s": stream("a", BROADCAST, middle, rate=60, since=1, until=5),
        "300/s": stream("a", BROADCAST, fast, rate=300, since=1, until=5.5),
        "unknown": stream("a", nobody, lost, rate=300, since=1, until=5.5),
        "known": stream("a", target, known, rate=100, since=1, until=5),
        "after": stream("a", BROADCAST, fast, rate=1, since=6.5, until=16.5),
    }
    prime = [Sent(0.0, "b", frame(BROADCAST, target))]
    play([*prime, *(sent for plan in plans.values() for sent in plan)], groups)
    for side, group in zip(sides, groups, strict=True):
        b = group["b"]
        seconds = {name: by_second(plan, b) for name, plan in plans.items() if name != "after"}
        after = [sent.frame in set(b.frames) for sent in plans["after"]]
        print(side.name, seconds, after)
        assert min(seconds["28/s"][:4]) >= 26  # a machine that stood still for a moment brings them closer together
        assert seconds["known"][:4] == [100] * 4
        assert seconds["60/s"][0] >= 50
        assert sum(seconds["60/s"][2:4]) <= 20
        for flooded in ("300/s", "unknown"):
            assert seconds[flooded][0] >= 270
            assert sum(seconds[flooded][1:3]) <= 200
            assert passed([sent for sent in plans[flooded] if sent.at >= 4.9], b) == 0
        assert not after[0]
        assert after[-1]


def test_a_member_has_three_stations_and_a_bridge_as_many_as_it_likes(sides: list[Side], stack: ExitStack) -> None:
    """18.2, 18.6: the fourth source address of a session that is no bridge is dropped."""
    found = {}
    for side in sides:
        a, b = join(stack, side, "a"), join(stack, side, "b", bridge=True)
        frames = {number: frame(BROADCAST, mac(number)) for number in range(1, 6)}
        for sent in frames.values():
            a.send(sent)
            turn([a, b], 0.05)
        again = frame(BROADCAST, mac(3))  # those who have a place keep it
        member = [number for number, sent in frames.items() if got((b,), a, sent)[0] > 0]
        kept = got((b,), a, again)
        wide = {number: frame(BROADCAST, mac(number)) for number in range(11, 19)}
        for sent in wide.values():
            b.send(sent)
            turn([a, b], 0.05)
        turn([a, b], SETTLE_S)
        found[side.name] = member, kept, [number for number, sent in wide.items() if sent in a.frames]
    print(found)
    assert set(map(str, found.values())) == {str(([1, 2, 3], [1], list(range(11, 19))))}


def test_a_station_moves_with_the_first_frame_from_elsewhere(sides: list[Side], stack: ExitStack) -> None:
    """18.2, 18.3: the newest speaker has it; what goes to one's own port goes nowhere."""
    for side in sides:
        a, b, c = everybody = three(stack, side)
        moving, fixed = mac(30), mac(31)
        learned([*everybody], a, moving)
        learned([*everybody], c, fixed)
        assert got(everybody, c, frame(moving, fixed)) == [1, 0, 0], side.name
        learned([*everybody], b, moving)
        assert got(everybody, c, frame(moving, fixed)) == [0, 1, 0], side.name
        assert got(everybody, b, frame(moving, mac(32))) == [0, 0, 0], side.name  # its own port
        assert got(everybody, c, frame(mac(39), fixed)) == [1, 1, 0], side.name  # known to nobody: to all others


def test_a_monitor_hears_everything_once_and_says_nothing(sides: list[Side], stack: ExitStack) -> None:
    """18.7, and who may be one."""
    for side in sides:
        with pytest.raises(Refused) as refused:
            side.join("a", monitor=True)
        assert refused.value.code == Code.MONITOR_MODE_DENIED
        a, b, monitor = everybody = (
            join(stack, side, "a"),
            join(stack, side, "b"),
            join(stack, side, "monitor", monitor=True),
        )
        learned([*everybody], a, mac(40))
        learned([*everybody], b, mac(41))
        assert got(everybody, a, frame(mac(41), mac(40))) == [0, 1, 1], side.name
        assert got(everybody, b, frame(BROADCAST, mac(41))) == [1, 0, 1], side.name
        assert got(everybody, a, frame(mac(49), mac(40))) == [0, 1, 1], side.name
        assert got(everybody, monitor, frame(BROADCAST, mac(42))) == [0, 0, 0], side.name
        assert got(everybody, monitor, frame(mac(40), mac(42))) == [0, 0, 0], side.name


def test_who_may_neither_bridge_nor_route_is_no_bridge(sides: list[Side], stack: ExitStack) -> None:
    """18.6."""
    for side in sides:
        with pytest.raises(Refused) as refused:
            side.join("bound", bridge=True)
        assert refused.value.code == Code.BRIDGE_MODE_DENIED, side.name
        join(stack, side, "bound")


def frames_to_accept(to: bytes, by: bytes) -> dict[str, tuple[bytes, bool]]:
    """Each kind of frame of section 18.1: the frame, and whether it passes."""
    other = mac(77)

    def tail(data: bytes, source: bytes = by, target: bytes = to) -> bytes:
        return target + source + data

    fill = bytes(range(46))
    return {
        "13 bytes": (tail(b"\x88"), False),
        "14 bytes": (tail(b"\x88\xb5"), True),
        "1600 bytes": (frame(to, by, size=1600), True),
        "1601 bytes": (frame(to, by, size=1601), False),
        "source of zeros": (tail(b"\x88\xb5" + fill, source=bytes(6)), False),
        "source of ones": (tail(b"\x88\xb5" + fill, source=BROADCAST), False),
        "source is destination": (tail(b"\x88\xb5" + fill, source=to), False),
        "source is a group": (tail(b"\x88\xb5" + fill, source=b"\x03" + by[1:]), True),
        "ARP cut short": (tail(b"\x08\x06" + fill[:27]), False),
        "ARP of a strange kind": (tail(b"\x08\x06" + b"\xee" * 28), True),
        "IPv4 that is none": (tail(b"\x08\x00\x51" + fill), True),
        "unknown EtherType": (tail(b"\x9a\xbc" + fill), True),
        "802.3 with LLC": (tail(b"\x00\x10\xf0\xf0\x03" + fill), True),
        "VLAN tag": (tail(b"\x81\x00\x00\x0a\x88\xb5" + fill, source=other), True),
        "LLDP": (tail(b"\x88\xcc" + fill, target=bytes.fromhex("0180c200000e")), True),
        "PAUSE": (tail(b"\x88\x08\x00\x01" + fill, target=bytes.fromhex("0180c2000001")), True),
        "BPDU": (tail(b"\x00\x26\x42\x42\x03" + bytes(35), target=bytes.fromhex("0180c2000000")), True),
    }


def test_what_is_a_frame_and_what_is_not(sides: list[Side], stack: ExitStack) -> None:
    """18.1."""
    for side in sides:
        a, b = join(stack, side, "a", bridge=True), join(stack, side, "b")
        target = mac(71)
        learned([a, b], b, target)
        kinds = frames_to_accept(target, mac(70))
        for sent, _passes in kinds.values():
            a.send(sent)
            turn([a, b], 0.06)
        turn([a, b], SETTLE_S)
        came = {name: sent in b.frames for name, (sent, _passes) in kinds.items()}
        print(side.name, came)
        assert came == {name: passes for name, (_sent, passes) in kinds.items()}, side.name
