"""The opening talk, against a hub's end in memory."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.auth.password import check_secure_password, hash_password
from ukihashi.card.messages import Connect, Standard, Terms
from ukihashi.card.opening import Opening
from ukihashi.errors import PeerViolation, Refused, UkihashiError
from ukihashi.wire.constants import Direction
from ukihashi.wire.http import ServerSide, is_pack, is_signature, pack_response
from ukihashi.wire.messages import ErrorAnswer, Hello, Login, Redirect, Welcome, read_request
from ukihashi.wire.pack import Pack

HASHED = hash_password("alice", "wonderland")
ORDER = Connect(
    attempt=1,
    location="hub.example:443",
    server_name="hub.example",
    hub="LAN",
    user="alice",
    trust="first-use",
    password_hash=HASHED,
)
WELCOME = Welcome("SID-ALICE-1", "CID-1", bytes(range(20)), timeout_ms=9000, extension=1, message="Hello 仮想 HUB")


def talk(
    opening: Opening, answers: Sequence[Pack], *, behind: bytes = b"", step: int = 1 << 20
) -> list[tuple[str, bytes]]:
    """Answer request by request, in pieces of `step` bytes; the requests that came."""
    hub, requests, said = ServerSide(), list[tuple[str, bytes]](), opening.start()
    for number, answer in enumerate(answers):
        (request,) = hub.receive(said)
        assert is_signature(request) if number == 0 else is_pack(request)
        requests.append((request.target, request.body))
        data = pack_response(hub, answer) + (behind if number == len(answers) - 1 else b"")
        said = b"".join(opening.receive(data[at : at + step]) for at in range(0, len(data), step))
    return requests


def hello(challenge: bytes = bytes(20)) -> Pack:
    return Hello("hub", 501, 9999, challenge).to_pack(b"")


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_the_tunnels_first_bytes_are_not_lost(step: int) -> None:
    opening = Opening(ORDER, random=os.urandom)
    behind = b"\xff\xff\xff\xff\0\0\0\0" if step > 1000 else b""  # a caller stops feeding once it is open
    talk(opening, [hello(), WELCOME.to_pack(b"x" * 99)], behind=behind, step=step)
    outcome = opening.outcome
    assert outcome is not None
    assert outcome.rest == behind
    assert outcome.session_key == bytes(range(20))
    assert (outcome.timeout_ms, outcome.extension, outcome.banner) == (9000, 1, "Hello 仮想 HUB")


def test_the_password_answers_this_hellos_challenge() -> None:
    challenge = os.urandom(20)
    opening = Opening(ORDER, random=os.urandom)
    (_, (_, body)) = talk(opening, [hello(challenge), WELCOME.to_pack(b"")])
    login = read_request(Pack.decode(body))
    assert isinstance(login, Login)
    assert check_secure_password(HASHED, challenge, login.secure_password)


@pytest.mark.parametrize(("wanted", "half", "granted", "connections"), [
    (1, False, 32, 1), (8, False, 32, 8), (8, False, 3, 3), (1, True, 32, 2), (1, True, 1, 2), (4, True, 8, 4),
])  # fmt: skip
def test_the_welcome_has_the_last_word_but_for_more_connections_than_we_want(
    wanted: int, half: bool, granted: int, connections: int
) -> None:
    order = msgspec.structs.replace(ORDER, standard=Standard(wanted, half_duplex=half))
    opening = Opening(order, random=os.urandom)
    welcome = replace(WELCOME, extension=0, max_connection=granted, half_connection=half, use_compress=True)
    (_, (_, body)) = talk(opening, [hello(), welcome.to_pack(b"")])
    login = read_request(Pack.decode(body))
    assert isinstance(login, Login)
    assert login.max_connection == max(wanted, 2 if half else 1)
    assert opening.outcome is not None
    assert opening.outcome.terms == Terms(connections, half_duplex=half, compressed=True)
    assert opening.outcome.direction == (Direction.TO_SERVER if half else Direction.BOTH)


@pytest.mark.parametrize("changes", [{"use_compress": True}, {"half_connection": True}, {"use_encrypt": False}])
def test_an_exact_session_has_no_variants(changes: dict[str, Any]) -> None:
    order = msgspec.structs.replace(ORDER, standard=Standard(plaintext=True))
    with pytest.raises(UkihashiError):
        talk(Opening(order, random=os.urandom), [hello(), replace(WELCOME, grace_s=300, **changes).to_pack(b"")])


def test_a_hub_that_speaks_while_a_signature_is_waited_for() -> None:
    order = msgspec.structs.replace(ORDER, method="certificate", own_certificate=b"DER")
    opening = Opening(order, random=os.urandom)
    talk(opening, [hello(b"c" * 20)])
    assert opening.challenge == b"c" * 20
    with pytest.raises(PeerViolation, match="before it is asked"):
        opening.receive(b"HTTP/1.1 200 OK\r\n\r\n")


def test_message_sizes_vary() -> None:
    sizes = set()
    for _ in range(30):
        (_, (_, body)) = talk(Opening(ORDER, random=os.urandom), [hello(), WELCOME.to_pack(b"")])
        sizes.add(len(body))
    assert len(sizes) > 10


def test_a_hub_that_refuses_at_once() -> None:
    with pytest.raises(Refused, match="full or busy") as caught:
        talk(Opening(ORDER, random=os.urandom), [ErrorAnswer(16).to_pack(b"")])
    assert caught.value.code == 16


def test_a_redirect_is_told() -> None:
    from ipaddress import IPv4Address

    sent_on = Redirect(IPv4Address("192.0.2.7"), (443,), bytes(20))
    with pytest.raises(Refused, match=r"192\.0\.2\.7"):
        talk(Opening(ORDER, random=os.urandom), [hello(), sent_on.to_pack(b"")])


def test_a_welcome_without_a_key_is_a_violation() -> None:
    pack = Pack()
    pack.add_str("session_name", "S")
    pack.add_str("connection_name", "C")
    pack.add_int("timeout", 1000)
    with pytest.raises(PeerViolation):
        talk(Opening(ORDER, random=os.urandom), [hello(), pack])


def test_a_first_answer_that_ends_the_connection_is_a_violation() -> None:
    opening = Opening(ORDER, random=os.urandom)
    hub = ServerSide()
    hub.receive(opening.start())
    with pytest.raises(PeerViolation, match="after its first answer"):
        opening.receive(pack_response(hub, hello()).replace(b"Connection: Keep-Alive", b"Connection: close"))


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_nothing_a_stranger_says_does_more_than_end_the_talk(pieces: list[bytes], genuine: bool) -> None:
    opening = Opening(ORDER, random=os.urandom)
    hub = ServerSide()
    hub.receive(opening.start())
    try:
        if genuine:
            opening.receive(pack_response(hub, hello()))
        for piece in pieces:
            opening.receive(piece)
    except UkihashiError:
        pass
    assert opening.outcome is None
