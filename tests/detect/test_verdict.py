from collections.abc import Callable
from random import Random

import pytest

from lab.scene import (
    CLIENT_HELLO,
    OWN_TURNS,
    Frame,
    Talk,
    keepalives,
    softether_login,
    standard_keepalives,
    tls,
    ukihashi_login,
)
from ukihashi.detect.features import Outer
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.record import Attached, Family, Finding, Found, Verdict
from ukihashi.detect.verdict import Detector

CLIENT, SERVER = "10.0.0.1", ("10.0.0.2", 443)
BEGIN = 1_700_000_000.0
BASE = OWN_TURNS


def judge(*talks: Talk, until: float = 0.0) -> list[Found]:
    """What the detector says at the end of a capture of `talks`."""
    frames: list[Frame] = sorted((frame for talk in talks for frame in talk.frames), key=lambda item: item[0])
    detector = Detector()
    table = FlowTable(detector)
    for time, frame in frames:
        table.take(1, frame, [(time, 0, len(frame), len(frame))])
    end = max(until, frames[-1][0])
    table.advance(end)
    detector.finish(end)
    return detector.drain()


def lines(found: list[Found]) -> list[Finding]:
    """Those that become log lines."""
    return [entry for entry in found if isinstance(entry, Finding) and entry.verdict is Verdict.CONFIRMED]


def talk(port: int = 50000, begin: float = BEGIN, server: tuple[str, int] = SERVER) -> Talk:
    return Talk((CLIENT, port), server, begin=begin)


def softether(chance: Random, port: int = 50000, begin: float = BEGIN) -> Talk:
    first = talk(port, begin)
    softether_login(first, chance)
    return first


def further(chance: Random, port: int = 50001, begin: float = BEGIN + 1.2) -> Talk:
    second = talk(port, begin)
    softether_login(second, chance, further=True)
    return second


# -- SoftEther ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_login_and_a_further_connection_are_one_line_at_once(seed: int) -> None:
    chance = Random(seed)
    found = judge(softether(chance), further(chance))
    assert [(line.rule, line.client.port, line.begin) for line in lines(found)] == [("1", 50000, BEGIN)]
    assert lines(found)[0].decided < BEGIN + 2
    assert [connection.client.port for connection in lines(found)[0].connections] == [50000, 50001]


def test_later_connections_of_the_session_are_attached_without_a_line() -> None:
    chance = Random(1)
    found = judge(softether(chance), further(chance), *(further(chance, 50002 + n, BEGIN + 3 + n) for n in range(3)))
    assert len(lines(found)) == 1
    assert [entry.connection.client.port for entry in found if isinstance(entry, Attached)] == [50002, 50003, 50004]


def test_a_second_login_is_a_second_line() -> None:
    chance = Random(2)
    found = judge(
        softether(chance), further(chance), softether(chance, 51000, BEGIN + 40), further(chance, 51001, BEGIN + 41)
    )
    assert [line.client.port for line in lines(found)] == [50000, 51000]


def test_short_dialogues_alone_never_alert() -> None:
    chance = Random(3)
    assert judge(*(further(chance, 50000 + n, BEGIN + n) for n in range(5))) == []


def test_a_single_connection_is_known_by_its_timers() -> None:
    chance = Random(4)
    first = softether(chance)
    standard_keepalives(first, chance, seconds=60)
    assert [line.rule for line in lines(judge(first))] == ["2"]


def test_a_login_that_shows_nothing_more_is_only_probable() -> None:
    found = judge(softether(Random(5)), until=BEGIN + 5)
    assert [entry.verdict for entry in found if isinstance(entry, Finding)] == [Verdict.PROBABLE]


def test_a_login_that_was_closed_again_is_nothing() -> None:
    first = softether(Random(5))
    first.close()
    assert judge(first, until=BEGIN + 100) == []


def test_two_connections_that_began_before_the_capture_are_known_by_their_timers() -> None:
    chance = Random(6)
    talks = [talk(50000 + n) for n in range(2)]
    for one in talks:
        softether_login(one, chance)
        del one.frames[:]
        standard_keepalives(one, chance, seconds=150)
    assert [(line.rule, line.family) for line in lines(judge(*talks))] == [("5", Family.SOFTETHER)]


@pytest.mark.parametrize(
    ("outer", "dialogue"),
    [
        (Outer.HTTP, [b"CONNECT hub.example.jp:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Connection established\r\n\r\n"]),
        (Outer.SOCKS, [b"\x04\x01\x01\xbb\x0a\x00\x00\x09\x00", b"\x00\x5a" + bytes(6)]),
        (
            Outer.SOCKS,
            [b"\x05\x01\x00", b"\x05\x00", b"\x05\x01\x00\x01\x0a\x00\x00\x09\x01\xbb", b"\x05\x00\x00\x01" + bytes(6)],
        ),
    ],
)
def test_a_proxy_is_named_as_the_outer_layer(outer: Outer, dialogue: list[bytes]) -> None:
    chance = Random(7)
    talks = [softether(chance), further(chance)]
    for one in talks:
        inner, start = one.frames[3:], one.frames[2][0]
        one.frames = one.frames[:3]
        outside = Talk(*one.ends, begin=start)
        outside.next = [1001, 2_000_000_001]
        for place, data in enumerate(dialogue):
            outside.say(place % 2, len(data), head=data)
        shift = [sum(map(len, dialogue[side::2])) for side in (0, 1)]
        one.frames += outside.frames
        one.frames += [(time + outside.now - start, moved(frame, one, shift)) for time, frame in inner]
    found = lines(judge(*talks))
    assert [line.outer for line in found] == [outer]
    assert found[0].target == ("hub.example.jp:443" if outer is Outer.HTTP else "")


def moved(frame: bytes, one: Talk, shift: list[int]) -> bytes:
    """The same segment, later in its stream."""
    side = 0 if frame[34:36] == one.ends[0][1].to_bytes(2) else 1
    sequence = int.from_bytes(frame[38:42]) + shift[side]
    acknowledged = int.from_bytes(frame[42:46]) + shift[1 - side]
    return frame[:38] + sequence.to_bytes(4) + acknowledged.to_bytes(4) + frame[46:]


# -- our own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [12, 13])
@pytest.mark.parametrize("seed", range(10))
def test_an_idle_tunnel_of_ours_is_found_within_70_s(seed: int, version: int) -> None:
    chance = Random(seed)
    own = talk()
    ukihashi_login(own, chance, version=version, base=BASE)
    keepalives(own, chance, seconds=70)
    found = lines(judge(own))
    assert [(line.family, line.client.port, line.begin) for line in found] == [(Family.UKIHASHI, 50000, BEGIN)]
    assert found[0].decided < BEGIN + 70


@pytest.mark.parametrize("every", [7.0, 9.0, 13.0, 29.0])
def test_a_lightly_used_tunnel_of_ours_is_found_within_70_s(every: float) -> None:
    """An echo now and then sets both timers back together: the directions look like question and answer."""
    chance = Random(8)
    own = talk()
    ukihashi_login(own, chance, base=BASE)
    begin = own.now
    due, next_echo = [begin, begin + 2.5], begin + 3.3
    while own.now < begin + 70:
        if next_echo <= min(due):
            own.say(0, 130, at=max(own.now, next_echo))
            due[0] = own.now + 5
            own.say(1, 130)
            due[1] = own.now + 5
            next_echo += every
            continue
        side = 0 if due[0] <= due[1] else 1
        own.say(side, 30 + chance.randint(0, 511), at=max(own.now, due[side]))
        due[side] = own.now + 5
    assert [line.family for line in lines(judge(own))] == [Family.UKIHASHI]


def test_a_tunnel_of_ours_that_began_before_the_capture_is_found() -> None:
    chance = Random(9)
    own = talk()
    ukihashi_login(own, chance, base=BASE)
    del own.frames[:]
    keepalives(own, chance, seconds=90)
    assert [(line.family, line.rule) for line in lines(judge(own))] == [(Family.UKIHASHI, "own, begin unseen")]


def own_session(
    chance: Random, port: int, begin: float, *, seconds: float = 60, base: tuple[int, int, int, int] = BASE
) -> Talk:
    one = talk(port, begin)
    ukihashi_login(one, chance, base=base)
    keepalives(one, chance, seconds=seconds)
    return one


def test_a_fresh_login_is_a_line_and_a_resume_is_attached() -> None:
    chance = Random(10)
    first = own_session(chance, 50000, BEGIN)
    first.close()
    resume = resumed(chance, 50001, BEGIN + 70)
    second = own_session(chance, 50002, BEGIN + 140)
    found = judge(first, resume, second)
    assert [line.client.port for line in lines(found)] == [50000, 50002]
    assert [entry.connection.client.port for entry in found if isinstance(entry, Attached)] == [50001]


def resumed(chance: Random, port: int, begin: float, *, seconds: float = 60) -> Talk:
    one = talk(port, begin)
    tls(one, chance)
    for side, size in enumerate((235, 500, 720, 500)):
        one.say(side % 2, size)
    keepalives(one, chance, seconds=seconds)
    return one


def test_a_session_cut_before_its_line_is_judged_on_the_connection_that_resumes_it() -> None:
    chance = Random(11)
    found = judge(own_session(chance, 50000, BEGIN, seconds=8), resumed(chance, 50001, BEGIN + 12))
    assert [(line.client.port, line.begin) for line in lines(found)] == [(50000, BEGIN)]
    assert [connection.client.port for connection in lines(found)[0].connections] == [50000, 50001]


def test_a_resume_whose_login_was_not_captured_is_a_line() -> None:
    assert [line.client.port for line in lines(judge(resumed(Random(12), 50001, BEGIN)))] == [50001]


def test_resumes_of_resumes_are_attached() -> None:
    chance = Random(13)
    talks = [own_session(chance, 50000, BEGIN)]
    talks += [resumed(chance, 50001 + n, BEGIN + 70 + 30 * n, seconds=20) for n in range(4)]
    found = judge(*talks)
    assert len(lines(found)) == 1
    assert [entry.connection.client.port for entry in found if isinstance(entry, Attached)] == [
        50001,
        50002,
        50003,
        50004,
    ]


def fixed(client: int, server: int, *, answer: bool, wait: float = 5.0) -> Callable[[Talk, Random], None]:
    """Heart-beats of a fixed size, as MQTT, WebSocket and ssh send them."""

    def run(one: Talk, chance: Random) -> None:
        for _ in range(20):
            one.say(0, client, at=one.now + wait - 0.01 + chance.random() * 0.01)
            if answer:
                one.say(1, server)
            elif server:
                one.say(1, server, at=one.now + 2.0)

    return run


def polling(low: int, high: int) -> Callable[[Talk, Random], None]:
    """A page that asks for news every 5 s; the answers' sizes differ."""

    def run(one: Talk, chance: Random) -> None:
        for _ in range(20):
            one.say(0, 210 + chance.randint(0, 6), at=one.now + 5.0)
            one.say(1, chance.randint(low, high))

    return run


LOOK_ALIKES = {
    "MQTT keep-alive": fixed(24, 24, answer=True),
    "WebSocket ping": fixed(28, 28, answer=True),
    "ssh ServerAliveInterval": fixed(36, 28, answer=True),
    "one-way heart-beat": fixed(90, 0, answer=False),
    "two clocks of 5 s": fixed(90, 110, answer=False),
    "polling": polling(300, 420),
    "polling with wide answers": polling(60, 540),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
@pytest.mark.parametrize("opening", ["seen, like ours", "seen, other", "not captured"])
@pytest.mark.parametrize("seed", range(3))
def test_heart_beats_of_others_are_no_tunnel(name: str, opening: str, seed: int) -> None:
    chance = Random(seed)
    one = talk()
    if opening == "seen, other":
        one.open()
        one.say(0, 517, head=CLIENT_HELLO)
        one.say(1, 2900)
        one.say(0, 140)
        one.say(1, 60)
    else:
        ukihashi_login(one, chance, base=BASE)
    if opening == "not captured":
        del one.frames[:]
    LOOK_ALIKES[name](one, chance)
    assert judge(one) == []


# -- poor paths and odd traffic -----------------------------------------------------------------------------------


def chatter(one: Talk, chance: Random, until: float) -> None:
    """Small messages of both sides at their own pace."""
    due = [one.now + 1.0, one.now + 1.5]
    while min(due) < until:
        side = 0 if due[0] <= due[1] else 1
        one.say(side, 60 + chance.randint(0, 300), at=max(one.now, due[side]))
        due[side] = one.now + 1.0 + 3 * chance.random()


def test_a_path_that_stood_still_for_a_while_is_no_silence() -> None:
    chance = Random(20)
    first = softether(chance)
    chatter(first, chance, BEGIN + 10)
    first.now += 14.5
    chatter(first, chance, BEGIN + 82)
    assert [(line.rule, line.decided < BEGIN + 80) for line in lines(judge(first))] == [("3", True)]


def test_the_minute_begins_anew_after_a_silence_of_one_side() -> None:
    chance = Random(21)
    first = softether(chance)
    chatter(first, chance, BEGIN + 10)
    for _ in range(7):
        first.say(0, 300 + chance.randint(0, 99), at=first.now + 1.8)
    chatter(first, chance, BEGIN + 70)
    early = judge(first)
    assert lines(early) == []
    chatter(first, chance, BEGIN + 100)
    (line,) = lines(judge(first))
    assert line.decided > BEGIN + 75


@pytest.mark.parametrize("lost", [0, 13], ids=["whole", "each 13th packet lost"])
def test_a_voice_beside_which_the_other_side_only_keeps_alive_is_found(lost: int) -> None:
    chance = Random(22)
    first = softether(chance)
    begin, due, count = first.now, first.now + 1.5, 0
    while first.now < begin + 75:
        count += 1
        if not lost or count % lost:
            first.say(0, 240)
        else:
            first.now += 0.02
        first.now += 0.01
        if first.now >= due:
            first.say(1, 60 + chance.randint(0, 300))
            due += 1.2 + 2 * chance.random()
    assert [line.rule for line in lines(judge(first))] == ["3"]


def test_connections_that_show_one_direction_only_are_probable_mid_stream() -> None:
    chance = Random(23)
    talks = [talk(50000 + n) for n in range(2)]
    for one in talks:
        while one.now < BEGIN + 150:
            one.say(1, 30 + chance.randint(0, 511), at=one.now + max(4.0, chance.random() * 10))
    found = [entry for entry in judge(*talks) if isinstance(entry, Finding)]
    assert [(entry.rule, entry.verdict) for entry in found] == [("5", Verdict.PROBABLE)]
