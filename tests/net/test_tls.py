"""Two channels back to back in memory: what one sends, the other gets, whatever the pieces."""

import datetime as dt
import hashlib
import random
import ssl
from pathlib import Path
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ukihashi.errors import EnvironmentLacks, NotTrusted, PeerViolation
from ukihashi.net import tls_fast
from ukihashi.net.suites import MODERN, check_pick
from ukihashi.net.tls import (
    PIECE,
    RECORD,
    SWITCH,
    TlsChannel,
    TlsState,
    channel,
    client_context,
    issuer,
    server_context,
    spki_pin,
)


class Files(Protocol):
    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def authority(self) -> Path: ...


@pytest.fixture(autouse=True, params=["fast", "usual"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here is promised by both."""
    if request.param == "usual":
        monkeypatch.setenv(SWITCH, "ssl")
    return str(request.param)


class Pair:
    """A client and a server channel; `carry` moves ciphertext until neither has any, in pieces of `size`."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "hub.example") -> None:
        self.client = channel(client, server_side=False, server_name=name)
        self.server = channel(server, server_side=True)
        self.at_client, self.at_server = bytearray(), bytearray()
        self.client.start()

    def carry(self, size: int = 1 << 20) -> None:
        while self.client.backlog or self.server.backlog:
            self.at_server += self._move(self.client, self.server, size)
            self.at_client += self._move(self.server, self.client, size)

    @staticmethod
    def _move(source: TlsChannel, sink: TlsChannel, size: int) -> bytes:
        piece = bytes(source.outgoing()[:size])
        source.sent(len(piece))
        return sink.receive(piece) if piece else b""


@pytest.fixture
def pair(certificate: Files) -> Pair:
    made = Pair(server_context(certificate.certificate, certificate.key), client_context())
    made.carry()
    return made


def test_a_handshake_opens_both_ends_and_names_version_and_cipher(pair: Pair) -> None:
    assert (pair.client.state, pair.server.state) == (TlsState.OPEN, TlsState.OPEN)
    assert pair.server.version == "TLSv1.3"
    assert pair.server.cipher == pair.client.cipher != ""


def test_tls_1_2_takes_aes_128_gcm_although_the_client_prefers_another(certificate: Files) -> None:
    liked = ("CHACHA20-POLY1305", "AES256-GCM-SHA384", "AES128-GCM-SHA256")
    client = client_context(pick=check_pick(f"ECDHE-{key}-{name}" for name in liked for key in ("ECDSA", "RSA")))
    pair = Pair(server_context(certificate.certificate, certificate.key), client)
    pair.carry()
    assert (pair.server.version, pair.server.cipher[-17:]) == ("TLSv1.2", "AES128-GCM-SHA256")


def test_older_than_tls_1_2_is_refused_with_an_alert(certificate: Files) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    pair = Pair(server_context(certificate.certificate, certificate.key), client)
    with pytest.raises(PeerViolation, match="unsupported protocol"):
        pair.carry()
    assert pair.server.state is TlsState.FAILED
    assert pair.server.outgoing()[0] == 21  # RFC 8446, 5.1: an alert record


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sizes=st.lists(st.integers(0, 70_000), max_size=4), piece=st.integers(1_000, 40_000))
def test_everything_sent_arrives_in_order_whatever_the_pieces(pair: Pair, sizes: list[int], piece: int) -> None:
    up = b"".join(bytes([n % 251]) * size for n, size in enumerate(sizes))
    pair.at_server.clear()
    pair.at_client.clear()
    start = 0
    for size in sizes:
        pair.client.send(up[start : start + size])
        pair.server.send(memoryview(up)[start : start + size])
        start += size
    pair.carry(piece)
    assert bytes(pair.at_server) == up
    assert bytes(pair.at_client) == up


def all_of(end: TlsChannel) -> bytes:
    """Everything that waits for the network."""
    sealed = b""
    while piece := end.outgoing():
        sealed += piece
        end.sent(len(piece))
    return sealed


def test_one_receive_drains_many_records(pair: Pair) -> None:
    pair.client.send(b"x" * 1_000_000)
    waiting, sealed = pair.client.backlog, all_of(pair.client)
    assert waiting == len(sealed) > 1_000_000
    assert pair.client.backlog == 0
    assert len(pair.server.receive(sealed)) == 1_000_000


def test_what_goes_into_the_library_at_once_is_bounded_because_it_keeps_what_it_grew_to(
    pair: Pair, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown: list[int] = []

    class Bio:
        def __init__(self, real: ssl.MemoryBIO) -> None:
            self._real = real

        def write(self, data: bytes | memoryview) -> int:
            written = self._real.write(data)
            grown.append(self._real.pending)
            return written

        def read(self) -> bytes:
            grown.append(self._real.pending)
            return self._real.read()

        @property
        def pending(self) -> int:
            return self._real.pending

    def bio_read(bio: object, room: object, most: int) -> int:
        grown.append(tls_fast._bio_info(bio, tls_fast._NULL))
        read: int = real_read(bio, room, most)
        return read

    if library == "usual":
        monkeypatch.setattr(pair.client, "_encrypted", Bio(pair.client._encrypted))
        monkeypatch.setattr(pair.server, "_incoming", Bio(pair.server._incoming))
    else:
        real_read = tls_fast._bio_read
        monkeypatch.setattr(tls_fast, "_bio_read", bio_read)
    pair.client.send(b"x" * 1_600_000)
    assert len(pair.server.receive(all_of(pair.client))) == 1_600_000
    piece = PIECE if library == "usual" else tls_fast.PIECE
    assert len(grown) >= 1_600_000 // piece
    assert max(grown) <= piece + 2 * RECORD


def test_a_small_send_stays_behind_a_long_one(pair: Pair) -> None:
    pair.client.send(b"a" * (2 * PIECE))
    pair.client.send(b"b")
    pair.client.outgoing()
    pair.client.send(b"c" * (PIECE + 1))
    pair.carry()
    assert bytes(pair.at_server) == b"a" * (2 * PIECE) + b"b" + b"c" * (PIECE + 1)


def test_a_partial_write_leaves_the_rest(pair: Pair) -> None:
    pair.client.send(b"x" * 100)
    total = pair.client.backlog
    pair.client.outgoing()
    pair.client.sent(10)
    pair.client.send(b"y")
    assert pair.client.backlog > total - 10
    with pytest.raises(PeerViolation):
        pair.server.receive(bytes(pair.client.outgoing()))


@pytest.mark.parametrize("part", [1000, 65_624, 70_000, 1 << 20])
def test_all_pieces_go_at_once_as_far_as_the_network_takes_them(pair: Pair, part: int) -> None:
    data = bytes(range(256)) * 3000
    pair.client.send(data)
    pair.client.send(b"behind them")
    assert len(pair.client.pieces()) > 1
    came = b""
    while pieces := pair.client.pieces():
        taken, before = b"".join(pieces)[:part], pair.client.backlog
        pair.client.sent(len(taken))
        assert pair.client.backlog == before - len(taken)
        came += pair.server.receive(taken)
    assert came == data + b"behind them"
    assert not pair.client.backlog


def test_close_tells_the_peer_once(pair: Pair) -> None:
    pair.client.send(b"last")
    pair.client.close()
    pair.client.close()
    pair.carry()
    assert (bytes(pair.at_server), pair.server.state) == (b"last", TlsState.PEER_CLOSED)
    pair.server.close()
    assert pair.server.backlog > 0


def test_after_the_peers_end_close_notify_still_goes_out(pair: Pair) -> None:
    pair.server.receive_end()
    assert pair.server.state is TlsState.PEER_CLOSED
    pair.server.close()
    assert pair.server.backlog > 0


def test_closing_before_the_handshake_ended_says_nothing(certificate: Files) -> None:
    end = channel(server_context(certificate.certificate, certificate.key), server_side=True)
    end.close()
    assert end.backlog == 0


def test_garbage_is_a_violation_with_an_alert_to_send(certificate: Files) -> None:
    end = channel(server_context(certificate.certificate, certificate.key), server_side=True)
    with pytest.raises(PeerViolation):
        end.receive(b"\x16\x03\x01\x00\x05hello" * 10)
    assert end.state is TlsState.FAILED


def test_the_client_can_verify_by_authority_and_name(certificate: Files) -> None:
    server = server_context(certificate.certificate, certificate.key)
    trusting = client_context(authorities=certificate.authority)
    good = Pair(server, trusting)
    good.carry()
    assert good.client.state is TlsState.OPEN
    with pytest.raises(NotTrusted, match=r"other\.example"):
        Pair(server, trusting, "other.example").carry()
    with pytest.raises(NotTrusted):
        Pair(server, client_context(system_trust=True)).carry()


def test_the_pin_is_the_hash_of_the_public_key(pair: Pair, certificate: Files) -> None:
    shown = pair.client.peer_certificate()
    key = x509.load_pem_x509_certificate(certificate.certificate.read_bytes()).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_pin(shown) == hashlib.sha256(info).digest()
    with pytest.raises(NotTrusted):
        spki_pin(b"no certificate")
    with pytest.raises(NotTrusted):
        pair.server.peer_certificate()


def test_a_missing_key_is_said_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="No such file") as caught:
        server_context(tmp_path / "c.pem", tmp_path / "k.pem")
    assert caught.value.exit_status == 3


def test_no_default_suite_is_without_forward_secrecy() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(MODERN)
    names = [suite["name"] for suite in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) for name in names)


def test_whoever_starts_us_may_log_the_keys(
    certificate: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    Pair(server_context(certificate.certificate, certificate.key), client_context()).carry()
    assert "CLIENT_TRAFFIC_SECRET_0 " in (tmp_path / "keys").read_text()


def test_what_has_nothing_in_common_comes_to_nothing(certificate: Files) -> None:
    server = server_context(certificate.certificate, certificate.key, pick=check_pick(["TLS_AES_128_GCM_SHA256"]))
    for name, words in {"TLS_AES_256_GCM_SHA384": "no shared cipher", "AES128-SHA": "unsupported protocol"}.items():
        pair = Pair(server, client_context(pick=check_pick([name])))
        with pytest.raises(PeerViolation, match=words):
            pair.carry()
        assert pair.server.outgoing()  # an alert says so


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_channel_closes_what_came_about_with_a_suite_that_was_not_picked(certificate: Files, end: str) -> None:
    server, client = server_context(certificate.certificate, certificate.key), client_context()
    {"client": client, "server": server}[end].picked = frozenset({"AES128-SHA"})
    pair = Pair(server, client)
    with pytest.raises(PeerViolation, match="TLS_AES_128_GCM_SHA256, which was not picked"):
        pair.carry()
    assert getattr(pair, end).state is TlsState.FAILED


def signed(issuer_name: list[x509.NameAttribute[str]]) -> bytes:
    """A certificate that those names issued."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub.example")]))
        .issuer_name(x509.Name(issuer_name))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.DER)


def test_who_issued_a_certificate_can_be_told(pair: Pair) -> None:
    common, organization = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
    name = x509.NameAttribute
    assert issuer(pair.client.peer_certificate()).startswith("trustme ")
    assert issuer(signed([name(common, "hub.example")])) == ""
    assert issuer(signed([name(organization, "検査社"), name(common, "Gate")])) == "Gate, 検査社"
    assert issuer(signed([name(common, "Gate 門", _type=_ASN1Type.BMPString)])) == "Gate 門"
    assert issuer(signed([name(common, "\x1b[31mred\n")])) == "[31mred"
    assert issuer(signed([name(NameOID.COUNTRY_NAME, "JP")])) == "?"


def test_a_damaged_certificate_has_no_issuer() -> None:
    whole = signed([x509.NameAttribute(NameOID.COMMON_NAME, "Gate")])
    for size in range(len(whole)):
        assert issuer(whole[:size]) == ""
    chance = random.Random(1)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[chance.randrange(120)] = chance.randrange(256)
        issuer(bytes(damaged))
