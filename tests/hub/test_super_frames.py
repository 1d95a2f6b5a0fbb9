"""Super-frames at the hub: who gets them and in what form, what a hostile one costs whom, and what a cut costs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.ether.super_frames import UDP, Packet
from tests.hub.cards import Card, Field, frame
from tests.hub.official import Client

from ukihashi.config.hub import HubConfig
from ukihashi.ether.offload import ALL, MAX_SUPER_FRAME, NONE, OFFLOAD, TRAILER, Kind, SuperFrame, names
from ukihashi.ether.segment import finish
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import HubPut
from ukihashi.hub.saved import SavedSession
from ukihashi.switch.access import Rule
from ukihashi.wire.blocks import encode_frames
from ukihashi.wire.extension import SUPER_FRAME
from ukihashi.wire.policy import Policy

BULK: Final = Packet(data=bytes(range(250)) * 200, each=1448)
TRAIN: Final = Packet(protocol=UDP, version=6, data=bytes(9000), each=1200)
SHORT: Final = Packet(data=b"short")
VECTORS: Final = json.loads((Path(__file__).parents[1] / "wire" / "extension-vectors.json").read_text())["vectors"]


def sent(packet: Packet, to: int, by: int) -> SuperFrame:
    """Between stations known by a number (0: broadcast)."""
    return SuperFrame(frame(to, by)[:12] + packet.unfinished()[12:])


def members(field: Field, *kinds: Kind, **login: Any) -> list[Card]:
    """Cards whose places the hub knows: station 1 behind the first, 2 behind the second..."""
    cards = [field.card(f"c{number}", super_frames=takes.value, **login) for number, takes in enumerate(kinds, 1)]
    for number, card in enumerate(cards, 1):
        card.send(frame(0, number))
    field.until(lambda: all(len(card.got) >= len(cards) - 1 for card in cards), "the hellos")
    for card in cards:
        card.got.clear()
    return cards


def came(card: Card) -> list[tuple[bytes, type]]:
    return [(one, type(one)) for one in card.got]


def typed(*frames: bytes) -> list[tuple[bytes, type]]:
    return [(one, type(one)) for one in frames]


# -- what is granted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "granted"),
    [
        (63, 63),
        (0, 0),
        (1, 1),
        (Kind.CHECKSUM | Kind.TSO4, 3),
        (Kind.TSO4 | Kind.TSO6, 0),  # nothing without checksums
        (Kind.CHECKSUM | Kind.TSO_ECN, 1),
        (0xFFFF, 63),
        (0xFFC0, 0),
    ],
)
def test_what_both_ends_take_is_granted(field: Field, offered: int, granted: int) -> None:
    card = field.card(super_frames=offered)
    assert card.welcome.super_frames == granted
    assert field.session(card).row(field.clock())["offload"] == names(granted)


def test_nothing_is_granted_without_exact_resume_or_against_the_hubs_will(make_field: Callable[..., Field]) -> None:
    field = make_field(Limits.of(HubConfig(super_frames=False)))
    assert field.card(super_frames=63).welcome.super_frames == 0
    other = make_field()
    assert other.card("a", super_frames=63, resume=False).welcome.super_frames == 0
    client = Client(other)
    client.join("b", super_frames=63)
    assert client.welcome.super_frames == 0
    client.close()
    other.sessions.set_limits(Limits.of(HubConfig(super_frames=False)))
    assert other.card("c", super_frames=63).welcome.super_frames == 0


# -- the way through --------------------------------------------------------------------------------------------------


def test_each_member_gets_what_it_takes(field: Field) -> None:
    a, b, some, none = members(field, ALL, ALL, Kind.CHECKSUM | Kind.TSO4, NONE)
    bulk, train, short, plain = sent(BULK, 0, 1), sent(TRAIN, 0, 1), sent(SHORT, 0, 1), frame(0, 1, 7)
    hub = field.sessions.hubs["lan"]
    hub.settings = HubPut("LAN", rules=msgspec.structs.replace(hub.settings.rules, storm_threshold=1_000_000))
    a.send(bulk, plain, train, short)
    # a flood is split first, for a storm is judged by what arrives
    flood = [*finish(bulk), plain, *finish(train)]
    field.until(lambda: len(none.got) == len(flood) + 1, "the frames")
    field.quiet()
    assert came(b) == typed(*flood, short)
    assert came(some) == typed(*flood, short)
    assert came(none) == typed(*flood, *finish(short))
    for card in (b, some, none):
        card.got.clear()
    for number in (2, 3, 4):
        a.send(sent(BULK, number, 1), frame(number, 1), sent(TRAIN, number, 1), sent(SHORT, number, 1))
    field.quiet()
    assert came(b) == typed(sent(BULK, 2, 1), frame(2, 1), sent(TRAIN, 2, 1), sent(SHORT, 2, 1))
    assert came(some) == typed(sent(BULK, 3, 1), frame(3, 1), *finish(sent(TRAIN, 3, 1)), sent(SHORT, 3, 1))
    assert came(none) == typed(
        *finish(sent(BULK, 4, 1)), frame(4, 1), *finish(sent(TRAIN, 4, 1)), *finish(sent(SHORT, 4, 1))
    )


def test_an_official_client_gets_ordinary_frames(field: Field) -> None:
    (a,) = members(field, ALL)
    client = Client(field)
    client.join("official", use_compress=True)
    client.send(frame(0, 2))
    field.until(lambda: a.got, "its hello")
    a.send(sent(BULK, 2, 1), sent(SHORT, 2, 1))
    wanted = finish(sent(BULK, 2, 1)) + finish(sent(SHORT, 2, 1))
    assert client.receive(len(wanted)) == wanted
    client.close()


def test_rules_judge_what_is_in_it(field: Field) -> None:
    a, b = members(field, ALL, ALL)
    hub = field.sessions.hubs["lan"]
    hub.settings = HubPut("LAN", access=(Rule(protocol=6, destination_ports=(443, 443)),))
    a.send(sent(BULK, 2, 1), sent(TRAIN, 2, 1))
    field.quiet()
    assert came(b) == typed(*finish(sent(TRAIN, 2, 1)))
    assert field.session(a).row(field.clock())["drops"] == {"access_list": len(finish(sent(BULK, 2, 1)))}


def test_members_with_rules_of_their_own_get_ordinary_frames(field: Field) -> None:
    field.answers["policy"] = Policy(max_download=1 << 31)
    a, b = members(field, ALL, ALL)
    a.send(sent(SHORT, 2, 1), sent(TRAIN, 2, 1))
    field.quiet()
    assert came(b) == typed(*finish(sent(SHORT, 2, 1)), *finish(sent(TRAIN, 2, 1)))


def test_it_counts_as_what_crosses_the_wire(field: Field) -> None:
    a, b = members(field, ALL, ALL)
    before = [field.session(card).row(field.clock()) for card in (a, b)]
    bulk = sent(BULK, 2, 1)
    a.send(bulk, bulk)
    field.quiet()
    after = [field.session(card).row(field.clock()) for card in (a, b)]
    assert after[0]["frames_in"] - before[0]["frames_in"] == after[1]["frames_out"] - before[1]["frames_out"] == 2
    moved = after[0]["bytes_in"] - before[0]["bytes_in"], after[1]["bytes_out"] - before[1]["bytes_out"]
    assert moved == (2 * len(bulk), 2 * len(bulk))


def test_a_queue_is_bounded_in_bytes_whatever_is_in_it(make_field: Callable[..., Field]) -> None:
    field = make_field(Limits(queue_bytes=200_000, resume_buffer=200_000))
    a, b = members(field, ALL, ALL)
    field.cut(b)
    bulk = sent(BULK, 2, 1)
    a.send(*[bulk] * 10)
    field.quiet()
    session = field.session(b)
    assert 0 < session.held <= 200_000 + 1000
    assert 0 < session.row(field.clock())["drops"]["resume_buffer"] < 10


# -- hostile ones -----------------------------------------------------------------------------------------------------

FLAWED: Final = [vector for vector in VECTORS if vector["kind"] == "dropped stream"]


@pytest.mark.parametrize("vector", FLAWED, ids=[vector["id"] for vector in FLAWED])
def test_one_with_a_flaw_reaches_nobody_and_costs_only_itself(field: Field, vector: dict[str, Any]) -> None:
    a, b, c = members(field, Kind(vector["granted"]), ALL, NONE)
    bad = SuperFrame(frame(0, 1)[:12] + bytes.fromhex(vector["frames"][0])[12:])
    a.send(frame(0, 1, 1), bad, frame(0, 1, 2))
    field.until(lambda: len(b.got) == len(c.got) == 2, "the others")
    field.quiet()
    assert b.numbers == c.numbers == [1, 2]
    session = field.session(a)
    assert session.row(field.clock())["drops"] == {"offload_header": 1}
    assert session.machine.have == 4, "it is a record all the same"
    field.cut(a)
    assert a.resume() == 0


@pytest.mark.parametrize("size", [23, MAX_SUPER_FRAME + 1, (1 << 30) | 30])
def test_an_impossible_size_ends_the_connection(field: Field, size: int) -> None:
    a, b = members(field, ALL, ALL)
    a.say((1).to_bytes(4, "big") + (SUPER_FRAME | size).to_bytes(4, "big"))
    field.until(lambda: a.link is None, "the end")
    a_session = field.session(a)
    assert not a_session.tunnels
    b.send(frame(0, 2))
    field.quiet()
    assert field.session(b).tunnels


def test_one_that_was_not_granted_ends_the_connection(field: Field) -> None:
    a, b = members(field, NONE, ALL)
    a.say(encode_frames([frame(0, 1, 5), sent(SHORT, 0, 1)]))
    field.until(lambda: a.link is None, "the end")
    assert not b.got
    assert a.resume() == 0, "nothing of that read had counted"


def test_any_bytes_in_its_place_do_no_harm(field: Field) -> None:
    a, b, c = members(field, ALL, ALL, NONE)
    good = sent(BULK, 2, 1)
    plan = OFFLOAD.unpack(good[-TRAILER:])
    for at in range(6):
        for value in (0, 1, 3, 255, 0x7F, 65535):
            fields = [*plan[:at], value if at > 1 else value & 0xFF, *plan[at + 1 :]]
            a.send(SuperFrame(good[:-TRAILER] + OFFLOAD.pack(*fields)))
    a.send(frame(0, 1, 9))
    field.until(lambda: frame(0, 1, 9) in b.got and frame(0, 1, 9) in c.got, "what came after")
    row = field.session(a).row(field.clock())
    assert sum(row["drops"].values()) == row["drops"]["offload_header"] == 36 - (len(b.got) - 1)
    assert field.loop.faults == 0


# -- cuts -------------------------------------------------------------------------------------------------------------


def test_each_record_arrives_once_whatever_is_cut(field: Field) -> None:
    a, b = members(field, ALL, ALL)
    wanted: list[bytes] = []

    def some(first: int) -> list[bytes]:
        made = [frame(2, 1, number) for number in range(first, first + 3)]
        packets = [BULK._replace(identification=first), SHORT._replace(sequence=first)]
        return [made[0], sent(packets[0], 2, 1), made[1], sent(packets[1], 2, 1), made[2]]

    for turn in range(12):
        records = some(10 * turn)
        wanted += records
        if turn % 4 == 1:
            a.machine.send(encode_frames(records), len(records))
            a.flush_part(0.4)
            field.until(lambda: not field.session(a).tunnels, "the cut")
            a.resume()
        else:
            a.send(*records)
        if turn % 4 == 2:
            field.turn()
            field.cut(b, reset=turn % 8 == 2)
            a.send(*(more := some(1000 + 10 * turn)))
            wanted += more
            b.resume()
    field.until(lambda: len(b.got) >= len(wanted), "all")
    field.quiet()
    assert came(b) == typed(*wanted)
    assert not field.session(b).row(field.clock())["drops"]


def test_what_waits_goes_on_in_another_process(make_field: Callable[..., Field]) -> None:
    field, heir = make_field(), make_field()
    a, b = members(field, ALL, ALL)
    a.send(under_way := sent(BULK, 2, 1))
    field.turn()
    field.cut(b)
    a.send(waiting := sent(BULK._replace(sequence=7), 2, 1), frame(2, 1, 3))
    field.quiet()
    for saved in field.sessions.save():
        heir.sessions.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(saved), type=SavedSession))
    field.quiet()
    for card in (a, b):
        card.address, card.wait = heir.address, heir.turn
        heir.cards.append(card)
        card.resume()
    a.send(later := sent(TRAIN, 2, 1))
    heir.until(lambda: b.got and b.got[-1] == later, "the last")
    # what waited in the queue is finished, so that a value is only bytes; records are as they were
    assert came(b) == typed(under_way, *finish(waiting), frame(2, 1, 3), later)
    assert heir.session(a).member.super_frames == ALL.value
