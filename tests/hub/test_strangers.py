"""Junk, half-open connections and floods at every stage: members go on, and real clients still get in."""

import json
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hub.cards import QUICK, Field, frame
from tests.hub.official import Client, Lane

from ukihashi.errors import Refused
from ukihashi.wire.constants import PACK_TARGET, PACK_TYPE, SESSION_KEY_LENGTH
from ukihashi.wire.http import pack_request, signature_request
from ukihashi.wire.messages import AdditionalConnect, Login
from ukihashi.wire.pack import Pack

VECTORS = json.loads((Path(__file__).parent.parent / "wire" / "softether-vectors.json").read_text())["vectors"]
REAL = [bytes.fromhex(one["pack_hex"]) for one in VECTORS if one["id"].startswith(("pack-login", "pack-additional"))]


@pytest.fixture
def stranger(field: Field) -> Iterator[Client]:
    client = Client(field)
    yield client
    client.close()


@pytest.fixture
def members(field: Field) -> Iterator[Callable[[], None]]:
    """Two that talk over several connections; call it to see that they still do."""
    a, b = Client(field), Client(field)
    a.join("a", max_connection=4, half_connection=True)
    b.join("b", use_compress=True)
    a.more()
    count = 0

    def talk() -> None:
        nonlocal count
        count += 1
        a.send(frame(2, 1, count))
        assert b.receive(1) == [frame(2, 1, count)]
        b.send(frame(1, 2, count))
        assert a.receive(1) == [frame(1, 2, count)]

    talk()
    yield talk
    talk()
    assert field.loop.faults == 0
    for client in (a, b):
        client.close()


def sends(lane: Lane, body: bytes) -> int | None:
    """What a body gets in place of a login: the code of an error, 0 for a welcome; None: only the end."""
    lane.write(lane.http.request("POST", PACK_TARGET, [("Content-Type", PACK_TYPE)], body))
    lane.until(lambda: lane.plain or lane.ended, "an answer or the end")
    if not lane.plain:
        return None
    return Pack.decode(lane.answer().body).get_int("error")


# -- what a real client says, damaged -------------------------------------------------------------------------------


def test_there_are_seeds() -> None:
    assert len(REAL) >= 3


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    seed=st.sampled_from(REAL),
    chance=st.randoms(use_true_random=False),
    damage=st.sampled_from(["flip", "cut", "grow"]),
)
def test_a_damaged_login_of_a_real_client_is_refused_or_let_in(
    field: Field, stranger: Client, seed: bytes, chance: random.Random, damage: str
) -> None:
    body = bytearray(seed)
    if damage == "cut":
        del body[chance.randrange(1, len(body)) :]
    else:
        for _ in range(chance.randrange(1, 12)):
            body[chance.randrange(len(body))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    if damage == "grow":
        body += chance.randbytes(chance.randrange(70_000))
    lane = stranger.dial()
    code = sends(lane, bytes(body))
    assert code is None or 0 <= code <= 152
    lane.drop()
    for session in field.sessions:
        session.close("next")
    assert field.loop.faults == 0


@pytest.mark.parametrize("kind", [96, 97, 98, 99, 4, 5, 1000])
def test_a_kind_of_login_that_no_network_may_use_is_refused_first_of_all(
    field: Field, stranger: Client, kind: int
) -> None:
    """Before control, and before anything else is looked at: hub, version, mode."""
    for login in ({}, {"monitor_mode": True}, {"extension": 9, "extension_oldest": 9}):
        lane = stranger.dial()
        pack = Login("nowhere", "x" * 255, kind, **login).to_pack(b"")
        assert lane.pack(pack).get_int("error") == 7
        lane.until(lambda lane=lane: lane.ended, "the end")  # type: ignore[misc]
        assert lane.ended == "close_notify"
    assert field.asked == []


@pytest.mark.parametrize("size", [65_537, 200_000])
def test_a_pack_above_the_limit_is_refused(members: Callable[[], None], stranger: Client, size: int) -> None:
    assert sends(stranger.dial(), bytes(size)) == 3


# -- junk in a tunnel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [{}, {"use_compress": True}, {"half_connection": True}])
@pytest.mark.parametrize(
    "junk",
    [
        b"\0\0\0\1" + struct.pack("!I", 3201) + bytes(3201),
        b"\xff\xff\xff\xff" + struct.pack("!I", 513) + bytes(513),
        b"\xff\xff\xff\xfe" + b"\xff" * 400,
        random.Random(4).randbytes(100_000),
    ],
    ids=["block", "keep-alive", "count", "random"],
)
def test_junk_in_a_tunnel_costs_its_own_connection(
    field: Field, members: Callable[[], None], stranger: Client, variant: dict[str, Any], junk: bytes
) -> None:
    stranger.join("c", max_connection=3, **variant)
    other = stranger.more()
    with suppress(OSError):
        stranger.lanes[0].write(junk)
    field.until(lambda: len(stranger.session.tunnels) == 1, "that connection's end")
    members()
    assert not other.ended


# -- crowds ---------------------------------------------------------------------------------------------------------


def half_open(field: Field, client: Client, stage: int) -> None:
    """A connection that stops: in TLS, after it, after the hello, in the login, while control thinks about it."""
    lane = Lane(field.address, field.turn)
    client.lanes.append(lane)
    if stage == 1:
        lane.until(lambda: lane.tls.version, "TLS")
    elif stage > 1:
        lane.hello()
    login = pack_request(lane.http, client.request("a"))
    if stage > 2:
        lane.write(login[:-20] if stage == 3 else login)


def test_three_hundred_half_open_connections_keep_nobody_out(
    make_field: Callable[..., Field],
) -> None:
    field = make_field(replace(QUICK, half_open=200))
    field.unanswered = "a"
    crowd, real = Client(field), Client(field, "127.0.0.2")
    for number in range(300):
        half_open(field, crowd, number % 5)
    assert field.door.half_open <= 201
    real.join("b")
    real.send(frame(0, 1))
    field.until(lambda: real.row()["frames_in"] == 1, "a frame")
    field.after(16.0)
    field.quiet()
    field.after(1.0)
    assert field.door.half_open == 0
    crowd.close()
    real.close()


def test_a_flood_of_logins_leaves_places_for_others(make_field: Callable[..., Field]) -> None:
    field = make_field(replace(QUICK, asking=60, asking_of_one=30))
    field.unanswered = "a"
    crowd, real = Client(field), Client(field, "127.0.0.2")
    codes = []
    for _ in range(100):
        lane = crowd.dial()
        lane.write(pack_request(lane.http, crowd.request("a")))
        field.quiet()
        lane.read()
        codes.append(Pack.decode(lane.answer().body).get_int("error") if lane.plain else 0)
    assert codes == [0] * 30 + [16] * 70
    assert len(field.asked) == 30
    real.join("b")
    field.after(10.1)
    field.quiet()
    for lane in crowd.lanes[:30]:
        assert Pack.decode(lane.answer().body).get_int("error") == 23
    assert not field.door._asking_of
    crowd.close()
    real.close()


def test_a_flood_of_extra_connections_is_held_to_the_limit(
    field: Field, members: Callable[[], None], stranger: Client
) -> None:
    stranger.join("c", max_connection=32)
    codes = []
    for _ in range(60):
        try:
            stranger.more()
            codes.append(0)
        except Refused as refused:
            codes.append(refused.code)
    assert codes == [0] * 32 + [15] * 28
    for _ in range(40):
        pack = AdditionalConnect(random.Random(3).randbytes(SESSION_KEY_LENGTH)).to_pack(b"")
        assert stranger.dial().pack(pack).get_int("error") == 13
    members()
    assert stranger.row()["connections"] == 33


def test_signatures_without_end_have_one(stranger: Client) -> None:
    lane = stranger.dial()
    for _ in range(60):
        if lane.ended:
            break
        lane.write(signature_request(lane.http))
        lane.http = type(lane.http)("hub.example")
        lane.until(lambda: lane.take() or lane.ended, "an answer")
    assert lane.ended
