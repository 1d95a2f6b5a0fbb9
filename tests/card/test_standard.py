"""What an official hub may grant, at the data process: several connections, half duplex, compression, plaintext,
logins by certificate, clusters."""

import socket
import time
import zlib
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any, cast

import pytest
from tests.card.keys import Keys
from tests.card.rig import SECONDS, Rig, frame

from lab.standard_hub import StandardHub
from lab.wait import until
from ukihashi.card.link import Link
from ukihashi.card.messages import (
    End,
    Failed,
    Lost,
    Opened,
    SentOn,
    Settings,
    Sign,
    Signed,
    Standard,
    Terms,
    Trouble,
)
from ukihashi.card.opening import Outcome
from ukihashi.card.standard import StandardLane, StandardTunnel
from ukihashi.card.tally import Tally
from ukihashi.errors import DialError, NotTrusted, Refused
from ukihashi.pki import ca
from ukihashi.wire.blocks import BlockDecoder, compress, encode_frames, encode_keepalive
from ukihashi.wire.constants import Code, Direction
from ukihashi.wire.messages import Redirect

BOTH, IN, OUT = Direction.BOTH, Direction.TO_CLIENT, Direction.TO_SERVER


@pytest.fixture
def hub(identity: ca.Identity) -> Iterator[StandardHub]:
    with StandardHub(identity.certificate, identity.key) as made:
        yield made


@pytest.fixture
def rig(hub: StandardHub) -> Iterator[Rig]:
    made = Rig(hub)
    try:
        yield made
    finally:
        made.close()


def joined(rig: Rig, **standard: Any) -> Opened:
    return rig.join(standard=Standard(**standard))


def further(rig: Rig, opened: Opened, **changes: Any) -> Opened:
    """One more connection for the session."""
    number = more(rig, opened, **changes)
    added = rig.hear(Opened)
    assert (added.attempt, added.resumed) == (number, True)
    return added


def more(rig: Rig, opened: Opened, **changes: Any) -> int:
    fields: dict[str, Any] = {
        "session_key": opened.session_key,
        "timeout_ms": opened.timeout_ms,
        "terms": opened.terms,
        "pin": opened.pin,
    }
    return rig.connect(**fields | changes)


# -- several connections ------------------------------------------------------------------------------------------


def test_frames_go_out_on_the_newest_and_are_taken_from_all(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, connections=8)
    assert opened.terms.connections == 8
    assert not opened.terms.half_duplex
    hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)
    for count in (2, 3):
        further(rig, opened)
        hub.wait_for(count)
        rig.send(count)
        rig.reaches_hub(count)
    assert hub.came_over == [(0, frame(1)), (1, frame(2)), (2, frame(3))]
    for number in (0, 1, 2):
        hub.send([frame(10 + number)], over=number)
        rig.reaches_kernel(10 + number)
    assert rig.counters().directions == [BOTH] * 3


@pytest.mark.parametrize("reset", [False, True])
def test_the_session_lives_as_long_as_one_connection_does(rig: Rig, hub: StandardHub, reset: bool) -> None:
    opened = joined(rig, connections=3)
    hub.wait_for(1)
    further(rig, opened)
    hub.wait_for(2)
    further(rig, opened)
    hub.wait_for(3)
    hub.end(2, reset=reset)
    assert rig.hear(Lost).left == 2
    hub.end(0, reset=reset)
    assert rig.hear(Lost).left == 1
    rig.send(1)
    rig.reaches_hub(1)
    hub.wait_for(1)
    hub.send([frame(2)])
    rig.reaches_kernel(2)
    hub.end(0, reset=reset)
    assert rig.hear(Lost).left == 0
    hub.wait_for(0)
    rig.send(3)  # waits in the kernel
    further(rig, opened)
    rig.reaches_hub(3)
    assert len(hub.logins) == 1


def test_a_session_is_resumed_on_its_terms_by_a_process_that_knows_nothing_of_it(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, connections=2, compress=True)
    other = Rig(hub)
    try:
        number = more(other, opened)
        assert other.hear(Opened).attempt == number
        other.send(5)
        other.reaches_hub(5)
        assert other.counters().directions == [BOTH]
    finally:
        other.close()


def test_what_the_hub_refuses_leaves_the_session_alone(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, connections=4)
    hub.wait_for(1)
    hub.full = 1
    number = more(rig, opened)
    failed = rig.hear(Failed)
    assert (failed.attempt, failed.trouble.code) == (number, Code.TOO_MANY_CONNECTION)
    rig.send(1)
    rig.reaches_hub(1)


def test_every_connection_must_show_the_certificate_of_the_first(
    rig: Rig, hub: StandardHub, other_identity: ca.Identity
) -> None:
    opened = joined(rig, connections=2)
    hub.wait_for(1)
    with StandardHub(other_identity.certificate, other_identity.key) as impostor:
        rig.hub = impostor
        more(rig, opened, trust="first-use", pin=b"")
        failed = rig.hear(Failed)
        rig.hub = hub
        assert impostor.resumes == []
    assert isinstance(failed.trouble.error(), NotTrusted)
    assert opened.terms.certificate.hex(":").upper() in str(failed.trouble.error())
    rig.send(1)
    rig.reaches_hub(1)


def test_the_dialler_can_end_a_session(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, connections=2)
    hub.wait_for(1)
    further(rig, opened)
    hub.wait_for(2)
    rig.tell(End(Trouble.of(Refused("that was all", code=Code.AUTO_DISCONNECTED))))
    lost = rig.hear(Lost)
    assert (lost.over, lost.trouble.code) == (True, Code.AUTO_DISCONNECTED)
    until(lambda: hub.goodbyes == 2, seconds=SECONDS, what="close_notify on both")
    assert joined(rig).session == "SID-ALICE-2"


def test_what_the_policy_says_of_the_end_is_told(rig: Rig, hub: StandardHub) -> None:
    hub.policy = {"autodisconnect": 77, "Access": 1}
    assert joined(rig).auto_disconnect_s == 77


def test_a_hub_grants_no_more_than_was_asked(rig: Rig, hub: StandardHub) -> None:
    assert joined(rig, connections=4).terms.connections == 4
    hub.max_connections = 3
    assert joined(rig, connections=4).terms.connections == 3
    assert joined(rig).terms.connections == 1


# -- half duplex --------------------------------------------------------------------------------------------------


def test_half_duplex_sends_over_one_and_hears_over_the_other(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, half_duplex=True)
    assert opened.terms == Terms(2, half_duplex=True, certificate=opened.terms.certificate)
    assert opened.direction == OUT
    hub.wait_for(1)
    assert further(rig, opened).direction == IN
    hub.wait_for(2)
    rig.send(1, 2)
    rig.reaches_hub(1, 2)
    assert {number for number, _ in hub.came_over} == {0}
    hub.send([frame(3)], over=1)
    rig.reaches_kernel(3)
    until(lambda: hub.strands[0].keepalives == 1, seconds=SECONDS, what="the keep-alive on what may send")
    assert hub.strands[1].keepalives == 0
    assert rig.counters().directions == [OUT, IN]


# -- compression --------------------------------------------------------------------------------------------------


def test_compression_both_ways_and_garbage_is_counted(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, compress=True)
    assert opened.terms.compressed
    (strand,) = hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)
    hub.write([frame(9)], strand, packed=False)  # not compressed
    hub.send_raw(encode_frames([zlib.compress(bytes(10_000_000))[:3200], zlib.compress(bytes(100_000))]))  # bombs
    hub.send([frame(2)])
    rig.reaches_kernel(2)
    assert rig.counters().garbled == 3


# -- plaintext ----------------------------------------------------------------------------------------------------


def test_plaintext_only_where_the_account_asks_for_it(rig: Rig, hub: StandardHub) -> None:
    hub.allow_plaintext = True
    opened = joined(rig)
    assert opened.terms.encrypted
    opened = joined(rig, connections=2, plaintext=True)
    assert not opened.terms.encrypted
    assert opened.tls == opened.cipher == ""
    hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)
    hub.send([frame(2)])
    rig.reaches_kernel(2)
    further(rig, opened)
    hub.wait_for(2)
    rig.send(3)
    rig.reaches_hub(3)
    hub.send([frame(4)])
    rig.reaches_kernel(4)


def test_a_hub_that_drops_encryption_by_itself_is_refused(rig: Rig, hub: StandardHub) -> None:
    hub.drops_encryption = True
    rig.connect()
    assert "without encryption" in str(rig.hear(Failed).trouble.error())


def test_encryption_stays_where_the_hub_wants_it(rig: Rig, hub: StandardHub) -> None:
    opened = joined(rig, plaintext=True)
    assert opened.terms.encrypted
    assert opened.tls.startswith("TLSv1.")
    hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)
    hub.send([frame(2)])
    rig.reaches_kernel(2)


# -- logins -------------------------------------------------------------------------------------------------------


def test_a_login_by_certificate(rig: Rig, hub: StandardHub, keys: Keys) -> None:
    hub.certificates["alice"] = keys.certificate
    number = rig.connect(method="certificate", own_certificate=keys.certificate)
    asked = rig.hear(Sign)
    assert (asked.attempt, len(asked.challenge)) == (number, 20)
    assert hub.logins == []
    rig.tell(Signed(number, keys.credentials.sign(asked.challenge)))
    assert rig.hear(Opened).attempt == number


@pytest.mark.parametrize("wrong", ["signature", "certificate"])
def test_a_wrong_signature_or_certificate(rig: Rig, hub: StandardHub, keys: Keys, wrong: str) -> None:
    hub.certificates["alice"] = keys.certificate if wrong == "signature" else keys.certificate + b"x"
    number = rig.connect(method="certificate", own_certificate=keys.certificate)
    challenge = rig.hear(Sign).challenge if wrong == "certificate" else bytes(20)
    if wrong == "signature":
        rig.hear(Sign)
    rig.tell(Signed(number, keys.credentials.sign(challenge)))
    failed = rig.hear(Failed)
    assert "the certificate is not that user's" in str(failed.trouble.error())


def test_a_signature_that_nobody_waits_for_does_nothing(rig: Rig, hub: StandardHub) -> None:
    joined(rig)
    rig.tell(Signed(1, b"x" * 256))
    rig.tell(Signed(9, b"x" * 256))
    hub.wait_for(1)
    rig.send(1)
    rig.reaches_hub(1)


# -- clusters -----------------------------------------------------------------------------------------------------


def sent_on(hub: StandardHub, member: StandardHub, *, certificate: bytes | None = None) -> None:
    ticket = bytes(range(20))
    member.tickets.add(ticket)
    known = member.certificate if certificate is None else certificate
    hub.redirect = Redirect(IPv4Address(member.address), (member.port, 5555), ticket, known)


def at_member(rig: Rig, order: SentOn, member: StandardHub, **changes: Any) -> int:
    controller, rig.hub = rig.hub, member
    fields: dict[str, Any] = {
        "method": "ticket", "ticket": order.ticket, "certificate": order.certificate, "pin": b"", "password_hash": b"",
    }  # fmt: skip
    number = rig.connect(**fields | changes)
    rig.hub = controller
    return number


def test_a_cluster_sends_us_on_and_the_member_takes_the_ticket_once(
    rig: Rig, hub: StandardHub, other_identity: ca.Identity
) -> None:
    with StandardHub(other_identity.certificate, other_identity.key) as member:
        sent_on(hub, member)
        number = rig.connect()
        order = rig.hear(SentOn)
        assert (order.attempt, order.address, order.ports[0]) == (number, member.address, member.port)
        assert order.pin == hub.pin
        until(lambda: hub.thanks == 1, seconds=SECONDS, what="our thanks")
        number = at_member(rig, order, member)
        opened = rig.hear(Opened)
        assert (opened.attempt, opened.pin) == (number, member.pin)
        assert member.logins[0].ticket == order.ticket
        at_member(rig, order, member)
        assert "did not take the ticket" in str(rig.hear(Failed).trouble.error())


def test_a_member_must_show_the_very_certificate(
    rig: Rig, hub: StandardHub, identity: ca.Identity, other_identity: ca.Identity
) -> None:
    with StandardHub(other_identity.certificate, other_identity.key) as member:
        sent_on(hub, member)
        rig.connect()
        order = rig.hear(SentOn)
        with StandardHub(identity.certificate, identity.key) as impostor:
            at_member(rig, order, impostor)
            assert isinstance(rig.hear(Failed).trouble.error(), NotTrusted)
            assert impostor.logins == []


def test_a_redirect_that_does_not_pin_the_member_down_is_not_followed(
    rig: Rig, hub: StandardHub, other_identity: ca.Identity
) -> None:
    with StandardHub(other_identity.certificate, other_identity.key) as member:
        sent_on(hub, member, certificate=b"")
        rig.connect()
        assert "without saying by which certificate" in str(rig.hear(Failed).trouble.error())
        sent_on(hub, member)
        rig.connect()
        order = rig.hear(SentOn)
        member.redirect = hub.redirect
        at_member(rig, order, member)
        assert "once more" in str(rig.hear(Failed).trouble.error())


# -- the lanes, on the test's clock -------------------------------------------------------------------------------


class Line:
    """What a lane needs of a `Link`."""

    def __init__(self) -> None:
        self.backlog = 0
        self.decoder = BlockDecoder()
        self.frames: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.frames += self.decoder.feed(data)


def tunnel(
    *directions: int, timeout_ms: int = 20_000, extension: int = 0, **terms: Any
) -> tuple[StandardTunnel, list[Line], Tally]:
    tally = Tally()
    outcome = Outcome("SID", bytes(20), timeout_ms, extension, "", "", b"", terms=Terms(**terms))
    made, lines = StandardTunnel(outcome, tally, Settings()), [Line() for _ in directions]
    for line, direction in zip(lines, directions, strict=True):
        made.add(cast(Link, line), direction, 0.0)
    return made, lines, tally


def lane(made: StandardTunnel, line: Line) -> StandardLane:
    found = made.lane(cast(Link, line))
    assert found is not None
    return found


def test_a_busy_connection_is_passed_over_and_when_all_are_busy_nothing_is_wanted() -> None:
    made, lines, _ = tunnel(BOTH, BOTH, BOTH)
    lines[2].backlog = 1
    made.send([frame(1)], 1.0)
    assert [line.frames for line in lines] == [[], [frame(1)], []]
    lines[1].backlog = lines[0].backlog = 1
    assert not made.hungry
    lines[0].backlog = 0
    assert made.hungry
    assert made.send([frame(2)], 1.0) is cast(Link, lines[0])


def test_without_a_connection_that_may_send_nothing_is_wanted() -> None:
    made, lines, _ = tunnel(IN, IN)
    assert not made.hungry
    made.add(cast(Link, Line()), OUT, 0.0)
    assert made.hungry
    made, _, _ = tunnel()
    assert not made.hungry
    assert made.due_at == made.silent_at == float("inf")
    assert lines[0].frames == []


def test_keepalives_go_out_where_we_may_send_and_silence_ends_where_we_hear() -> None:
    made, lines, tally = tunnel(OUT, IN)
    for line in lines:
        lane(made, line).tick(0.0)
    assert [line.decoder.keepalives for line in lines] == [1, 0]
    assert tally.keepalives_out == 1
    lane(made, lines[1]).heard(15.0)
    lane(made, lines[0]).tick(21.0)  # it hears nothing itself, but the session does
    lane(made, lines[1]).tick(34.9)
    with pytest.raises(DialError, match="20 s"):
        lane(made, lines[1]).tick(35.1)


def test_one_silent_connection_ends_alone() -> None:
    made, lines, _ = tunnel(BOTH, BOTH)
    lane(made, lines[0]).heard(15.0)
    with pytest.raises(DialError):
        lane(made, lines[1]).tick(20.0)
    made.lost(cast(Link, lines[1]))
    lane(made, lines[0]).tick(20.0)
    assert made.silent_at == 35.0
    assert made.directions == [BOTH]


def test_other_times_hold_at_once_with_a_hub_of_ours_and_never_with_a_standard_one() -> None:
    made, lines, _ = tunnel(BOTH, extension=1)
    assert made.silent_at == 15.0
    lane(made, lines[0]).heard(4.0)
    made.apply(Settings(dead=120.0), 10.0)
    assert made.silent_at == 124.0
    lane(made, lines[0]).heard(20.0)
    assert made.silent_at == 140.0
    made, _, _ = tunnel(BOTH)
    made.apply(Settings(dead=120.0), 10.0)
    assert made.silent_at == 20.0


def test_a_session_that_nobody_answers_ends_though_it_may_only_send() -> None:
    made, lines, _ = tunnel(OUT, OUT)
    for line in lines:
        lane(made, line).tick(19.9)
        with pytest.raises(DialError):
            lane(made, line).tick(20.0)


def test_a_full_connection_gets_no_keepalive_on_top() -> None:
    made, (line,), tally = tunnel(BOTH)
    line.backlog = 1
    lane(made, line).tick(0.0)
    assert (line.decoder.keepalives, tally.keepalives_out) == (0, 0)
    assert lane(made, line).due_at > 0.0


def test_compressed_blocks_are_read_and_written() -> None:
    made, (line,), tally = tunnel(BOTH, compressed=True)
    made.send([frame(1)] * 3, 1.0)
    assert line.frames == [compress(frame(1))] * 3
    data = encode_keepalive(b"") + encode_frames([compress(frame(2)), b"", b"rubbish"])
    assert lane(made, line).receive(data, 1.0) == [frame(2)]
    assert (tally.garbled, tally.keepalives_in, tally.frames_in) == (1, 1, 1)


def test_the_loop_rests_with_several_connections(rig: Rig, hub: StandardHub, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, turn = [0], rig.process._turn

    def counted() -> None:
        turns[0] += 1
        turn()

    monkeypatch.setattr(rig.process, "_turn", counted)
    opened = joined(rig, half_duplex=True, connections=4)
    for count in (1, 2, 3):
        hub.wait_for(count)
        further(rig, opened)
    hub.wait_for(4)
    before = turns[0]
    time.sleep(0.3)
    assert turns[0] - before < 20
    hub.end()
    for left in (3, 2, 1, 0):
        assert rig.hear(Lost).left == left
    before = turns[0]
    rig.send(1)
    time.sleep(0.3)
    assert turns[0] - before < 20
    assert isinstance(rig.kernel, socket.socket)
