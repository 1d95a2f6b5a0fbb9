"""Super-frames through the data process: a kernel that leaves work undone on one side, a fake hub on the other."""

import fcntl
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.card.rig import SECONDS, Rig, frame
from tests.ether.super_frames import Packet

from lab.fake_hub import Conversation, FakeHub
from lab.wait import until
from ukihashi.card import session
from ukihashi.card.messages import Asked, Failed, Lost, Opened
from ukihashi.ether.offload import ALL, NONE, TRAILER, Kind, SuperFrame
from ukihashi.tap.device import TUNSETOFFLOAD

LONG = Packet(data=bytes(range(250)) * 100, each=1000)
SHORT = Packet(data=b"a checksum is missing")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel was told to leave undone."""
    words: list[int] = []
    real = fcntl.ioctl

    def listen(fd: int, request: int, argument: Any = 0, *more: Any) -> Any:
        if request != TUNSETOFFLOAD:
            return real(fd, request, argument, *more)
        words.append(argument)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", listen)
    return words


@pytest.fixture
def rig(hub: FakeHub, told: list[int]) -> Iterator[Rig]:
    hub.grace_s, hub.super_frames = 300, ALL
    made = Rig(hub, offload=True)
    try:
        yield made
    finally:
        made.close()


def join(rig: Rig) -> Opened:
    return rig.join(super_frames=ALL.value)


def give(rig: Rig, *frames: bytes) -> None:
    """From the kernel."""
    for one in frames:
        is_super = isinstance(one, SuperFrame)
        rig.kernel.send(one[-TRAILER:] + one[:-TRAILER] if is_super else bytes(TRAILER) + one)


def reaches_hub(rig: Rig, *frames: bytes) -> None:
    got = [rig.hub.frames.get(timeout=SECONDS) for _ in frames]
    assert [(type(one), one) for one in got] == [(type(one), one) for one in frames]
    assert rig.hub.frames.empty()


def taken(rig: Rig) -> bytes:
    """What the kernel gets next."""
    whole = rig.kernel.recv(1 << 17)
    header, inner = whole[:TRAILER], whole[TRAILER:]
    return SuperFrame(inner + header) if any(header) else inner


def test_super_frames_go_both_ways_as_they_are(rig: Rig, told: list[int]) -> None:
    opened = join(rig)
    assert (rig.hub.logins[-1].super_frames, opened.super_frames) == (ALL, ALL)
    assert told == [0x6F]  # all that a TAP can
    give(rig, SHORT.unfinished(), LONG.unfinished(), frame(1))
    reaches_hub(rig, SHORT.unfinished(), LONG.unfinished(), frame(1))
    rig.hub.send([LONG.unfinished(), frame(2), SHORT.unfinished()])
    assert [taken(rig) for _ in range(3)] == [LONG.unfinished(), frame(2), SHORT.unfinished()]
    counted = rig.counters()
    assert (counted.super_frames_out, counted.super_frames_in) == (1, 1)
    assert (counted.frames_out, counted.frames_in) == (3, 3)


def test_a_frame_whose_checksum_was_found_right_on_the_way_in_is_plain(rig: Rig) -> None:
    join(rig)
    rig.kernel.send(b"\x02" + bytes(TRAILER - 1) + frame(1))
    reaches_hub(rig, frame(1))


UNFIT = {
    "flags": LONG.unfinished()[:-10] + b"\0" + LONG.unfinished()[-9:],
    "kind": LONG.unfinished()[:-9] + b"\x09" + LONG.unfinished()[-8:],
    "segments of nothing": LONG.unfinished()[:-6] + b"\0\0" + LONG.unfinished()[-4:],
    "a thousand segments": LONG.unfinished()[:-6] + struct.pack("<H", 20) + LONG.unfinished()[-4:],
    "beyond the end": SHORT.unfinished()[:-4] + b"\xff\xff" + SHORT.unfinished()[-2:],
    "no frame": bytes(24),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_header_that_does_not_fit_never_reaches_the_kernel(rig: Rig, what: str) -> None:
    join(rig)
    rig.hub.send([SuperFrame(UNFIT[what]), frame(1)])
    assert taken(rig) == frame(1)
    counted = rig.counters()
    assert (counted.offload_header, counted.refused, counted.frames_in) == (1, 0, 1)
    assert counted.ledger["received"] == 2  # a record it was


def test_a_kind_that_was_not_granted_never_reaches_the_kernel(rig: Rig, told: list[int]) -> None:
    rig.hub.super_frames = Kind.CHECKSUM | Kind.TSO6
    join(rig)
    assert told == [0x01 | 0x04]
    rig.hub.send([LONG.unfinished(), SHORT.unfinished()])
    assert taken(rig) == SHORT.unfinished()
    assert rig.counters().offload_header == 1


def test_a_hub_that_grants_none_gets_none(rig: Rig, told: list[int]) -> None:
    rig.hub.super_frames = 0
    assert join(rig).super_frames == 0
    assert told == [0]
    give(rig, SHORT.unfinished(), LONG.unfinished())  # from before, so they are in the queue
    reaches_hub(rig, *SHORT.finished(), *LONG.finished())
    rig.hub.send([frame(1)])
    assert taken(rig) == frame(1)


def test_without_exact_resume_there_are_none(rig: Rig, told: list[int]) -> None:
    rig.hub.grace_s = 0
    assert join(rig).super_frames == 0
    assert told == [0]
    give(rig, LONG.unfinished())
    reaches_hub(rig, *LONG.finished())


def test_a_hub_that_sends_one_unasked_ends_the_session(rig: Rig) -> None:
    rig.join()
    assert rig.hub.logins[-1].super_frames == 0
    rig.hub.send([LONG.unfinished()])
    lost = rig.hear(Lost)
    assert lost.over
    assert "super-frame" in str(lost.trouble.error())


def test_after_a_cut_each_arrives_once_and_in_order(rig: Rig) -> None:
    opened = join(rig)
    rig.hub.heeded.clear()
    give(rig, LONG.unfinished(), frame(1))
    until(lambda: rig.counters().ledger["sent"] == 2, seconds=30, what="the frames being written")
    rig.hub.cut(reset=True)
    rig.hear(Lost)
    give(rig, SHORT.unfinished())
    rig.hub.send([LONG.unfinished()])
    rig.hub.heeded.set()
    rig.resume(opened)
    reaches_hub(rig, LONG.unfinished(), frame(1), SHORT.unfinished())
    assert taken(rig) == LONG.unfinished()
    assert rig.counters().ledger["lost"] == 0


@pytest.mark.parametrize("kinds", [NONE, Kind.CHECKSUM, ALL])
def test_what_waits_for_a_hub_that_takes_less_is_finished(rig: Rig, kinds: Kind) -> None:
    opened = join(rig)
    rig.hub.cut(reset=True)
    rig.hear(Lost)
    give(rig, frame(1), SHORT.unfinished(), LONG.unfinished())
    until(lambda: rig.counters().waiting_bytes > len(LONG.data), seconds=30, what="the frames being kept")
    rig.hub.forgetful = True
    rig.connect(opened)
    rig.hear(Asked)
    assert rig.hear(Failed).over
    rig.hub.forgetful = False
    rig.hub.super_frames = kinds
    again = join(rig)
    short = [SHORT.unfinished()] if kinds else SHORT.finished()
    long = [LONG.unfinished()] if kinds == ALL else LONG.finished()
    reaches_hub(rig, frame(1), *short, *long)
    assert again.carried == 2 + len(long)


def test_behind_a_hub_that_stands_still_a_small_frame_waits_for_no_bulk(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STALL_S", 60.0)  # else all of it would be kept, as before a cut
    goes, read = threading.Event(), Conversation.read

    def wait(talk: Conversation) -> bytes:
        goes.wait()
        return read(talk)

    monkeypatch.setattr(Conversation, "read", wait)
    goes.set()
    join(rig)
    give(rig, LONG.unfinished())
    reaches_hub(rig, LONG.unfinished())
    goes.clear()
    sent = 0
    while rig.counters().crowded < 10:
        give(rig, *[LONG.unfinished()] * 10)
        sent += 10
    give(rig, frame(7))

    def all_read() -> bool:
        now = rig.counters()
        ledger = now.ledger
        return bool(ledger["acknowledged"] + ledger["waiting"] + now.crowded == 1 + sent + 1)

    until(all_read, seconds=SECONDS, what="all read from the kernel")
    counted = rig.counters()
    assert session.QUEUE // 2 < counted.waiting_bytes <= session.AHEAD + session.QUEUE + 256 * 1024
    goes.set()
    got = [rig.hub.frames.get(timeout=SECONDS) for _ in range(sent + 1 - counted.crowded)]
    behind = len(got) - got.index(frame(7))
    assert behind * len(LONG.unfinished()) > session.QUEUE - 256 * 1024
    assert rig.hub.frames.empty()
    assert rig.counters().crowded == counted.crowded
