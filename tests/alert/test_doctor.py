"""What `alert doctor` concludes, from packets as a card would have given them."""

import re
import struct
from random import Random

import pytest

from lab.scene import Frame, Talk, ethernet, softether_login
from ukihashi.alert.doctor import Finding, Level, Seen, Survey, examine, worst
from ukihashi.capture.batch import ETHERNET, Batch
from ukihashi.capture.card_facts import CardFacts
from ukihashi.capture.live import Statistics

PLAIN_CARD = CardFacts("eth7", "e1000", 1000, 4096, 4096, ("GRO",))
OWN = bytes((10, 0, 0, 9))


def seen(frames: list[Frame], *, statistics: Statistics | None = None, busy: float = 0.1, ring: bool = True) -> Seen:
    survey = Survey(own=frozenset([OWN]))
    buffer, packets = bytearray(), []
    for time, frame in frames:
        packets.append((time, len(buffer), min(len(frame), 256), len(frame)))
        buffer += frame[:256]
    survey.take(Batch(ETHERNET, buffer, packets))
    return Seen(survey, 10.0, statistics or Statistics(len(packets), 0), busy, ring, 256)


def talks(
    clients: list[str], *, per: int = 1, server: str = "93.184.216.34", tags: tuple[int, ...] = ()
) -> list[Frame]:
    frames = []
    for place, client in enumerate(clients):
        for number in range(per):
            talk = Talk((client, 40000 + number), (server, 443), tags=tags)
            softether_login(talk, Random(place * 1000 + number))
            frames += talk.frames
    return frames


def answer(name: str, got: Seen, card: CardFacts = PLAIN_CARD) -> tuple[Level, str]:
    finding = {one.name: one for one in examine(card, got)}[name]
    return finding.level, finding.template.format(**finding.values)


LAN = [f"192.168.1.{number}" for number in range(1, 13)]


def test_a_good_place_is_all_right_and_every_question_has_one_answer() -> None:
    findings = examine(PLAIN_CARD, seen(talks(LAN)))
    assert [one.level for one in findings] == [Level.OK] * 11
    assert len({one.name for one in findings}) == 11
    assert worst(findings) is Level.OK
    for one in findings:
        assert one.template.format(**one.values)


def test_no_packets_and_hardly_any() -> None:
    assert answer("traffic", seen([]))[0] is Level.FAIL
    level, text = answer("traffic", seen(talks(LAN[:1])[:5]))
    assert (level, "only 5 TCP packets of 5" in text) == (Level.WARN, True)


def test_only_this_machines_own_traffic_fails() -> None:
    level, text = answer("traffic", seen(talks(["10.0.0.9"], per=6)))
    assert level is Level.FAIL
    assert "mirror port" in text
    assert answer("traffic", seen(talks(["10.0.0.9", *LAN])))[0] is Level.OK


@pytest.mark.parametrize("side", [0, 1])
def test_a_mirror_of_one_direction_warns(side: int) -> None:
    frames = talks(LAN)
    one = [entry for entry in frames if (entry[1][26:28] == b"\xc0\xa8") is (side == 0)]
    level, text = answer("both-ways", seen(one))
    assert (level, text.startswith("12 of 12 TCP connections show one direction only")) == (Level.WARN, True)
    assert answer("both-ways", seen(frames))[0] is Level.OK


def test_one_public_address_with_all_connections_looks_like_a_nat() -> None:
    level, text = answer("nat", seen(talks(["100.64.0.7"], per=12)))
    assert (level, text.startswith("100.64.0.7 opened 12 connections")) == (Level.WARN, True)
    assert answer("nat", seen(talks(["192.168.1.1"], per=12)))[0] is Level.OK  # one busy user inside
    assert answer("nat", seen(talks(["100.64.0.7"], per=12) + talks(LAN)))[0] is Level.OK
    assert answer("nat", seen(talks(["100.64.0.7"], per=3)))[0] is Level.OK


def test_packets_that_come_twice_warn() -> None:
    twice = [entry for entry in talks(LAN) for _ in range(2)]
    level, text = answer("copies", seen(twice))
    assert level is Level.WARN
    assert int(re.findall(r"^\d+", text)[0]) == len(twice) // 2
    assert answer("copies", seen(talks(LAN)))[0] is Level.OK


@pytest.mark.parametrize(
    ("statistics", "word"), [(Statistics(1000, 3), "--workers"), (Statistics(1000, 0, 0, 3), "ethtool -G")]
)
def test_losses_fail_and_say_whose_they_are(statistics: Statistics, word: str) -> None:
    level, text = answer("drops", seen(talks(LAN), statistics=statistics))
    assert level is Level.FAIL
    assert word in text
    assert "3 packets" in text


def test_joined_packets_are_named_and_need_nothing() -> None:
    big = (
        0.0,
        ethernet("192.168.1.1", "10.0.0.2", struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 80, 16, 0, 0, 0) + bytes(9000)),
    )
    level, text = answer("offloads", seen([*talks(LAN), big]))
    assert (level, "1 packets of up to 9054 bytes" in text, "GRO" in text) == (Level.OK, True, True)


@pytest.mark.parametrize(
    ("name", "card", "level", "word"),
    [
        ("receive-ring", PLAIN_CARD._replace(ring=256), Level.WARN, "ethtool -G eth7 rx 4096"),
        ("receive-ring", PLAIN_CARD._replace(ring=0, ring_most=0), Level.OK, "no receive ring"),
        ("receive-ring", PLAIN_CARD, Level.OK, "4096 packets"),
        ("link", PLAIN_CARD._replace(speed_mbit=0), Level.OK, "tells no speed"),
        ("link", PLAIN_CARD, Level.OK, "of 1000 Mbit/s"),
    ],
)
def test_the_card(name: str, card: CardFacts, level: Level, word: str) -> None:
    got, text = answer(name, seen(talks(LAN)), card)
    assert (got, word in text) == (level, True)


def test_a_link_that_is_nearly_full_warns() -> None:
    got = seen(talks(LAN))
    got.survey.wire_bytes = 10 * 80_000_000 // 8  # 80 Mbit/s for ten seconds
    assert answer("link", got, PLAIN_CARD._replace(speed_mbit=100))[0] is Level.WARN
    assert answer("link", got)[0] is Level.OK


def test_a_busy_machine_and_a_missing_ring_warn() -> None:
    assert answer("processor", seen([], busy=0.9))[0] is Level.WARN
    assert answer("buffer", seen([], ring=False))[0] is Level.WARN


def udp(port: int) -> bytes:
    head = bytes(12) + b"\x08\x00" + struct.pack("!BBHHHBBH", 0x45, 0, 60, 0, 0, 64, 17, 0) + bytes(8)
    return head + struct.pack("!HHHH", 5000, port, 40, 0) + bytes(32)


def test_layers_around_packets_are_counted() -> None:
    gre = bytearray(udp(1))
    gre[14 + 9] = 47
    frames = talks(LAN[:1], tags=(7,))[:3] + talks(LAN[:1], tags=(7, 8))[:2]
    frames += [(0.0, udp(4789)), (0.0, bytes(gre)), (0.0, bytes(12) + b"\x88\x64" + bytes(50))]
    assert dict(seen(frames).survey.kinds) == {"VLAN": 3, "QinQ": 2, "VXLAN": 1, "GRE": 1, "PPPoE": 1}
    level, text = answer("layers", seen(frames))
    assert (level, "VLAN 3" in text) == (Level.OK, True)
    label = (0.0, bytes(12) + b"\x88\x47" + bytes(50))
    assert answer("layers", seen([label] * 5))[0] is Level.WARN


def test_damaged_packets_are_counted_and_nothing_more() -> None:
    chance = Random(3)
    frames = [(0.0, chance.randbytes(chance.randrange(120))) for _ in range(3000)]
    frames += [(0.0, frame[: chance.randrange(len(frame))]) for _, frame in talks(LAN)]
    got = seen(frames)
    assert got.survey.packets == len(frames)
    assert all(isinstance(one, Finding) for one in examine(PLAIN_CARD, got))
