"""One connection against a fake hub, without TAP and without root."""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from lab.fake_hub import FakeHub
from lab.wait import until
from ukihashi.auth.password import hash_password
from ukihashi.card.link import Link, fingerprint
from ukihashi.card.messages import Connect
from ukihashi.card.opening import Outcome
from ukihashi.card.standard import StandardLane
from ukihashi.card.tally import Tally
from ukihashi.errors import DialError, NotTrusted, PeerViolation, Refused, UkihashiError, UsageError, VersionMismatch
from ukihashi.pki import ca
from ukihashi.wire.constants import Code
from ukihashi.wire.messages import ErrorAnswer

FRAME = bytes.fromhex("ffffffffffff 02000000000a 88b5") + b"x" * 60


def order(hub: FakeHub, /, **changes: Any) -> Connect:
    fields: dict[str, Any] = {
        "attempt": 1,
        "location": f"{hub.address}:{hub.port}",
        "server_name": hub.address,
        "hub": "LAN",
        "user": "alice",
        "trust": "pin",
        "pin": hub.pin,
        "password_hash": hash_password("alice", "wonderland"),
        "unique_id": bytes(20),
        "node_id": bytes(range(16)),
        "host_name": "host",
        "deadline": 5.0,
    }
    return Connect(**fields | changes)


class Driver:
    """The data process's loop, for one link."""

    def __init__(self, order: Connect, port: int, address: str = "127.0.0.1") -> None:
        sock = socket.create_connection((address, port), 5)
        sock.setblocking(False)
        self.tally = Tally()
        try:
            self.link = Link(order, sock, time.monotonic())
        except UkihashiError:
            sock.close()
            raise
        self.tunnel: StandardLane | None = None
        self.frames: list[bytes] = []

    @property
    def opened(self) -> Outcome:
        """What the opening came to."""
        assert self.link.outcome is not None
        return self.link.outcome

    def send(self, frames: list[bytes], now: float | None = None) -> None:
        """As the loop does with what it read from the TAP."""
        assert self.tunnel is not None
        if fitting := self.tally.outward(frames):
            self.tunnel.send(fitting, time.monotonic() if now is None else now)
        self.link.flush()

    def tick(self, now: float) -> None:
        """What is due at `now`."""
        self.link.check_opening(now)
        if self.tunnel is not None:
            self.tunnel.tick(now)

    def read(self, now: float) -> None:
        """What has come."""
        plain = self.link.read(now)
        outcome = self.link.outcome
        if outcome is None:
            return
        if self.tunnel is None:
            settings = self.link.order.settings if outcome.extension else None
            timeout = outcome.timeout_ms / 1000
            self.tunnel = StandardLane(self.link, self.tally, timeout=timeout, settings=settings, now=now)
        self.tunnel.heard(now)
        self.frames += self.tunnel.receive(plain, now)

    def until(self, done: Callable[[], bool], seconds: float = 10.0) -> None:
        """Run the link until `done`."""
        end = time.monotonic() + seconds
        while not done():
            flushed = self.link.flush()
            if done():
                return
            due = self.tunnel.due_at if self.tunnel is not None else self.link.late_at
            wait = min(due, end) - time.monotonic()
            ready, _, _ = select.select([self.link.sock], [] if flushed else [self.link.sock], [], max(0.0, wait))
            if ready:
                self.read(time.monotonic())
                self.link.check_end()
            self.tick(time.monotonic())
            assert time.monotonic() < end, "nothing happened"

    def open(self) -> "Driver":
        self.until(lambda: self.link.outcome is not None)
        return self

    def close(self) -> None:
        self.link.finish()
        self.link.sock.close()


@contextlib.contextmanager
def driven(order: Connect, port: int) -> Iterator[Driver]:
    driver = Driver(order, port)
    try:
        yield driver
    finally:
        driver.close()


def test_a_session_opens_and_frames_cross_both_ways(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        opened = card.open().opened
        assert opened.session == "SID-ALICE-1"
        assert (opened.extension, opened.timeout_ms, opened.grace_s) == (1, 20_000, 0)
        assert card.link.pin == hub.pin
        assert card.link.tls.startswith("TLSv1.")
        card.send([FRAME, FRAME + b"2"])
        assert hub.frames.get(timeout=5) == FRAME
        assert hub.frames.get(timeout=5) == FRAME + b"2"
        hub.send([FRAME, FRAME])
        card.until(lambda: len(card.frames) == 2)
        assert card.frames == [FRAME, FRAME]
    tally = card.tally
    assert (tally.frames_out, tally.bytes_out, tally.tls_writes) == (2, 2 * len(FRAME) + 1, 1)
    assert (tally.frames_in, tally.bytes_in) == (2, 2 * len(FRAME))


def test_the_login_says_who_we_are(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
    login = hub.logins[0]
    assert login.client.startswith("ukihashi card ")
    assert login.use_encrypt
    assert login.max_connection == 1
    assert (login.extension, login.extension_oldest) == (1, 1)
    assert login.node.unique_id == bytes(range(16))
    assert not {"server", "bridge"} & set(login.client.lower().split())


def test_more_than_one_read_of_frames_is_drained(hub: FakeHub) -> None:
    many = [FRAME + n.to_bytes(4, "big") for n in range(5000)]
    with driven(order(hub), hub.port) as card:
        card.open()
        sender = threading.Thread(target=hub.send, args=(many,))
        sender.start()
        card.until(lambda: len(card.frames) == len(many))
        sender.join()
        assert card.frames == many


def test_goodbye_is_said(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        hub.link()
        card.link.finish()
        until(lambda: hub.goodbyes == 1, seconds=5, what="close_notify")


def test_frames_that_fit_no_block_are_counted_not_sent(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        card.send([bytes(1601), FRAME, b"short"])
        card.send([bytes(1601)])
        assert hub.frames.get(timeout=5) == FRAME
        hub.send([bytes(1601), FRAME])
        card.until(lambda: bool(card.frames))
        assert card.frames == [FRAME]
    assert card.tally.oversized == 4


def test_keepalives_follow_silence(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        card.tick(time.monotonic())  # the first at once
        now = time.monotonic()
        card.tick(now + 4.9)
        assert card.tally.keepalives_out == 1
        card.send([FRAME], now + 3)
        card.tick(now + 7.9)
        assert card.tally.keepalives_out == 1
        card.tick(now + 8.1)
        assert card.tally.keepalives_out == 2


def test_a_silent_hub_is_held_to_be_cut_after_15_s(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        now = time.monotonic()
        card.tick(now + 14.5)
        with pytest.raises(DialError, match=r"nothing came from the hub for 1[56] s"):
            card.tick(now + 15.1)


def test_with_a_standard_hub_its_timeout_counts(hub: FakeHub) -> None:
    hub.extension, hub.timeout_ms = 0, 40_000
    with driven(order(hub), hub.port) as card:
        card.open()
        now = time.monotonic()
        card.tick(now + 39)
        with pytest.raises(DialError, match=r"4[01] s"):
            card.tick(now + 40.5)


def test_a_resume_shows_only_the_key_of_the_session(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        opened = card.open().opened
    with driven(order(hub, session_key=opened.session_key, timeout_ms=9000, extension=1), hub.port) as card:
        again = card.open().opened
        assert (again.session_key, again.timeout_ms) == (opened.session_key, 9000)
    assert len(hub.logins) == 1
    assert hub.resumes == [opened.session_key]


def test_an_answer_that_says_wait_is_skipped(hub: FakeHub) -> None:
    hub.noops = 3
    with driven(order(hub), hub.port) as card:
        card.open()


def test_another_key_is_refused_with_both_fingerprints_before_anything_is_said(
    hub: FakeHub, other_identity: ca.Identity
) -> None:
    with FakeHub(other_identity.certificate, other_identity.key) as impostor:
        for trust in ("pin", "first-use"):
            with driven(order(impostor, pin=hub.pin, trust=trust), impostor.port) as card:
                with pytest.raises(NotTrusted) as caught:
                    card.open()
                assert fingerprint(hub.pin) in str(caught.value)
                assert fingerprint(impostor.pin) in str(caught.value)
        assert impostor.logins == []


def test_a_key_that_somebody_else_vouches_for_is_told_as_inspection(hub: FakeHub, tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="Example Ltd.")
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "inspector.pem", tmp_path / "inspector.key"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    with FakeHub(certificate, key) as inspector:
        words = r"issued by “Example Ltd\.”: it seems that .* inspects TLS"
        with (
            driven(order(inspector, pin=hub.pin), inspector.port) as card,
            pytest.raises(NotTrusted, match=words) as caught,
        ):
            card.open()
        assert fingerprint(hub.pin) in str(caught.value)
        assert inspector.logins == []


def test_first_use_takes_any_key_and_tells_it(hub: FakeHub) -> None:
    with driven(order(hub, trust="first-use", pin=b""), hub.port) as card:
        card.open()
        assert card.link.pin == hub.pin


def test_authorities_must_vouch_for_key_and_name(hub: FakeHub, tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = authority.cert_pem.bytes().decode()
    for names, wanted, fits in (
        (("hub.example",), "hub.example", True),
        (("127.0.0.1",), "127.0.0.1", True),
        (("other.example",), "hub.example", False),
    ):
        issued = authority.issue_cert(*names)
        certificate, key = tmp_path / f"{names[0]}.pem", tmp_path / f"{names[0]}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        with FakeHub(certificate, key) as certified:
            told = order(certified, trust="ca", pin=b"", authorities=pem, server_name=wanted)
            with driven(told, certified.port) as card:
                if fits:
                    card.open()
                else:
                    with pytest.raises(NotTrusted, match="isn't trusted"):
                        card.open()
    with driven(order(hub, trust="ca", pin=b"", authorities=pem), hub.port) as card:
        with pytest.raises(NotTrusted):
            card.open()
        assert hub.logins == []
    with pytest.raises(UsageError, match="ca_file"):
        Driver(order(hub, trust="ca", authorities="no certificate"), hub.port)


@pytest.mark.parametrize(
    ("changes", "words", "code"),
    [
        ({"password_hash": bytes(20)}, "user “alice”", Code.AUTH_FAILED),
        ({"hub": "NOWHERE"}, "no virtual hub “NOWHERE”", Code.HUB_NOT_FOUND),
        ({"invite": "t" * 22}, "link was used already or has expired", Code.AUTH_FAILED),
        ({"session_key": bytes(20)}, "no longer knows", Code.SESSION_TIMEOUT),
    ],
)
def test_refusals_are_sentences(hub: FakeHub, changes: dict[str, Any], words: str, code: int) -> None:
    with driven(order(hub, **changes), hub.port) as card, pytest.raises(Refused, match=words) as caught:
        card.open()
    assert caught.value.code == code
    assert caught.value.exit_status == 5


def test_plain_password_and_anonymous(hub: FakeHub) -> None:
    hub.passwords["guest"] = ""
    with driven(order(hub, method="plain", password="wonderland", password_hash=b""), hub.port) as card:
        card.open()
    with driven(order(hub, method="anonymous", user="guest", password_hash=b""), hub.port) as card:
        card.open()
    assert hub.logins[0].secure_password == b""


def test_an_invitation_is_spent_for_our_own_password(hub: FakeHub) -> None:
    hub.invites["t" * 22] = b""
    own = hash_password("alice", "made by the card")
    for _ in range(2):  # a lost answer can be repeated
        with driven(order(hub, password_hash=own, invite="t" * 22), hub.port) as card:
            card.open()
    assert hub.hashes["alice"] == own
    with driven(order(hub, password_hash=bytes(20), invite="t" * 22), hub.port) as card, pytest.raises(Refused):
        card.open()


def test_a_hub_too_far_from_us_is_named_with_both_versions(hub: FakeHub) -> None:
    hub.error = ErrorAnswer(Code.VERSION_INVALID, extension=9, extension_oldest=8)
    with driven(order(hub), hub.port) as card, pytest.raises(VersionMismatch, match=r"8 to 9.*upgrade this end"):
        card.open()
    hub.error, hub.extension = None, 2
    with driven(order(hub), hub.port) as card, pytest.raises(VersionMismatch, match=r"2.*this end 1.*upgrade this end"):
        card.open()


def test_a_tunnel_without_encryption_is_refused(hub: FakeHub) -> None:
    hub.use_encrypt = False
    with driven(order(hub), hub.port) as card, pytest.raises(Refused, match="without encryption"):
        card.open()


def test_garbage_in_the_tunnel_ends_the_link(hub: FakeHub) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        hub.send_raw(b"\x00\x00\x00\x01\xff\xff\xff\x00")
        with pytest.raises(PeerViolation):
            card.until(lambda: False)


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_is_noticed_at_once(hub: FakeHub, reset: bool) -> None:
    with driven(order(hub), hub.port) as card:
        card.open()
        hub.cut(reset=reset)
        with pytest.raises(DialError, match="broke" if reset else "closed"):
            card.until(lambda: False)


# -- what is no hub -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 403, 404])
def test_another_https_server(hub: FakeHub, status: int) -> None:
    hub.page = (status, b"<html>hello</html>")
    with driven(order(hub), hub.port) as card, pytest.raises(DialError, match=f"not a hub.*answered {status}"):
        card.open()


@pytest.mark.parametrize(
    ("banner", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "plain HTTP"),
        (b"<html>", "plain HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH server"),
        (b"220 mail.example ESMTP\r\n", "other than TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "cipher suite in common"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "no TLS connection"),
        (b"", "closed the connection instead of answering TLS"),
    ],
)
def test_servers_of_other_kinds(hub: FakeHub, banner: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(5)
                peer.recv(4096)
                peer.sendall(banner)
                peer.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        with driven(order(hub), port) as card, pytest.raises(DialError, match=words) as caught:
            card.open()
        thread.join()
    assert caught.value.exit_status == 7


def test_a_port_that_says_nothing(hub: FakeHub) -> None:
    hub.deaf = True
    with driven(order(hub), hub.port) as card:
        card.link.flush()
        with pytest.raises(DialError, match="did not speak TLS within 5 s"):
            card.tick(time.monotonic() + 5.1)


def test_a_tls_server_that_says_nothing(hub: FakeHub, identity: ca.Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with context.wrap_socket(peer, server_side=True) as tls:
                tls.settimeout(5)
                tls.recv(4096)
                asked.set()
                with contextlib.suppress(OSError):
                    tls.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        with driven(order(hub), server.getsockname()[1]) as card:
            card.until(asked.is_set)
            with pytest.raises(DialError, match="speaks TLS but did not answer"):
                card.tick(time.monotonic() + 5.1)
        thread.join()


def test_an_impossible_server_name_is_a_sentence(hub: FakeHub) -> None:
    with pytest.raises(UkihashiError):
        Driver(order(hub, server_name=".bad"), hub.port)
