"""The model of our own family is held to what hub and card really send, as their own encoders make it."""

import itertools
from collections.abc import Iterator

import pytest

from ukihashi.card.messages import Connect
from ukihashi.card.opening import Opening
from ukihashi.detect import model
from ukihashi.hub.caller import BUILD, PRODUCT, VERSION
from ukihashi.wire.constants import MAX_PENCORE
from ukihashi.wire.extension import Resume
from ukihashi.wire.http import ServerSide, pack_response
from ukihashi.wire.messages import AdditionalAnswer, Hello, Welcome
from ukihashi.wire.policy import Policy

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
RECORD = 22  # bytes around one TLS 1.3 record
FINISHED = 58  # the client's, which goes with its first request in TLS 1.3
POLICY = Policy().to_wire()  # the hub says all of it, whatever it holds


def turns(padding: int, *, long: bool, invite: bool, resume: bool, exact: bool) -> tuple[int, int, int, int]:
    """Bytes of request, hello, login and welcome, without TLS."""
    name = "n" * 30 if long else "a"
    order = Connect(
        attempt=1,
        location="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535" if long else "192.0.2.1:443",
        server_name="192.0.2.1",
        hub=name,
        user=name,
        trust="pin",
        pin=bytes(32),
        authorities="",
        method="password",
        password_hash=bytes(20),
        password="",
        invite="t" * 22 if invite else "",
        session_key=bytes(20) if resume else b"",
        timeout_ms=20_000,
        super_frames=63 if exact else 0,
        extension=int(resume),
        exact=resume and exact,
        unique_id=bytes(20),
        node_id=bytes(16),
        host_name=2 * name,
        system="Linux",
        deadline=15.0,
    )
    card = Opening(order, random=lambda count: padding.to_bytes(2) if count == 2 else bytes(count))
    hub = ServerSide()
    c1 = card.start()
    hub.receive(c1)
    s1 = pack_response(hub, Hello(PRODUCT, VERSION, BUILD, bytes(20)).to_pack(bytes(padding)), DATE)
    c2 = card.receive(s1) or card.ask(Resume(1, 1))
    hub.receive(c2)
    answer = (
        AdditionalAnswer(have=1 if exact else None)
        if resume
        else Welcome(
            session_name=f"SID-{name.upper()}-1",
            connection_name="CID-1",
            session_key=bytes(20),
            max_connection=1,
            timeout_ms=20_000,
            policy=POLICY,
            extension=1,
            grace_s=300 if exact else 0,
            super_frames=63 if exact else 0,
        )
    )
    return len(c1), len(s1), len(c2), len(pack_response(hub, answer.to_pack(bytes(padding)), DATE))


def cases(*, resume: bool) -> Iterator[tuple[int, int, int, int]]:
    switches = (False, True)
    for padding, long, invite, exact in itertools.product((0, MAX_PENCORE), switches, switches, switches):
        if not (resume and invite):
            yield turns(padding, long=long, invite=invite, resume=resume, exact=exact)


@pytest.mark.parametrize("resume", [False, True])
def test_what_hub_and_card_send_lies_within_the_model(resume: bool) -> None:
    spans = model.UKIHASHI_FURTHER if resume else model.UKIHASHI_LOGIN
    for sizes in cases(resume=resume):
        for size, span, more in zip(sizes, spans, (FINISHED, 0, 0, 0), strict=True):
            assert span.low <= size + RECORD + more
            assert size + RECORD <= span.high
