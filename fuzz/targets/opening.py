"""The card's opening talk with whatever answers: any hub, any web server, any liar."""

import random

from fuzz.targets import pieces
from ukihashi.card.messages import Connect
from ukihashi.card.opening import Opening
from ukihashi.errors import DialError, PeerViolation, Refused
from ukihashi.wire.http import ServerSide, pack_response
from ukihashi.wire.messages import AdditionalAnswer, ErrorAnswer, Hello, Noop, Welcome
from ukihashi.wire.pack import Pack

ALLOWED = (PeerViolation, DialError, Refused)
TOKENS = [b"error", b"noop", b"Redirect", b"random", b"hello", b"session_key", b"timeout", b"use_encrypt", b"\r\n\r\n"]
ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def seeds() -> list[bytes]:
    """Whole talks. The first byte says how the stream is cut, the second bit of it whether a session is resumed."""
    hello = Hello("hub", 501, 9999, bytes(20)).to_pack(b"")
    welcome = Welcome("SID-U-1", "CID-1", bytes(20), extension=1).to_pack(b"")
    talks = [
        (hello, welcome),
        (hello, Noop(2).answer_pack(b""), welcome),
        (hello, ErrorAnswer(9).to_pack(b"")),
        (hello, ErrorAnswer(87, extension=9, extension_oldest=8).to_pack(b"")),
        (ErrorAnswer(16).to_pack(b""),),
    ]
    found = [bytes([step]) + b"".join(map(_answer, talk)) for talk in talks for step in (4, 200, 252)]
    return [*found, bytes([201]) + _answer(hello) + _answer(AdditionalAnswer().to_pack(b""))]


def run(data: bytes) -> object:
    """Feed the stream to the card's end; what it makes of it."""
    step, stream = (data[0], data[1:]) if data else (1, b"")
    order = Connect(
        attempt=1,
        location="hub:443",
        server_name="hub",
        hub="LAN",
        user="u",
        trust="first-use",
        password_hash=bytes(20),
        session_key=bytes(20) if step & 1 else b"",
    )
    opening = Opening(order, random=random.Random(1).randbytes)
    assert opening.start()
    sent = 0
    for piece in pieces(stream, step):
        sent += bool(opening.receive(piece))
        if opening.outcome is not None:
            assert len(opening.outcome.session_key) == 20
            assert opening.outcome.timeout_ms > 0
            return "open", sent, opening.outcome.extension
    assert sent <= 1
    return "waits", sent, type(opening.end()).__name__


def _answer(pack: Pack) -> bytes:
    server = ServerSide()
    server.receive(ASKED)
    return pack_response(server, pack)
