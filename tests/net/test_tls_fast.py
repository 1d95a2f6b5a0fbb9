"""When the faster library is taken, and that it does to the letter what the usual one does (see also test_tls.py)."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from ukihashi.errors import PeerViolation
from ukihashi.net import tls, tls_fast
from ukihashi.net.openssl import tls13_of
from ukihashi.net.suites import check_pick
from ukihashi.net.tls import SWITCH, Context, TlsChannel, TlsState, channel, client_context, server_context
from ukihashi.net.tls_fast import QUIET, FastChannel


class Files(Protocol):
    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def authority(self) -> Path: ...


@pytest.fixture(autouse=True)
def from_the_start() -> Iterator[None]:
    """What was found out about the library holds for a process, and here for a test."""
    tls._fast_library.cache_clear()
    yield
    tls._fast_library.cache_clear()


def pour(source: TlsChannel, sink: TlsChannel) -> bytes:
    """What comes out at the other end, given to it in pieces that end anywhere."""
    wire = b"".join(source.pieces())
    source.sent(len(wire))
    return b"".join(sink.receive(wire[at : at + 70_001]) for at in range(0, len(wire), 70_001))


def kind(context: Context, *, server_side: bool) -> type[TlsChannel]:
    return type(channel(context, server_side=server_side, server_name=None if server_side else "hub.example"))


def test_frames_go_through_it_where_nothing_speaks_against_it(certificate: Files) -> None:
    assert kind(server_context(certificate.certificate, certificate.key), server_side=True) is FastChannel
    assert kind(client_context(), server_side=False) is FastChannel


def test_the_library_that_does_the_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = tls.tls_library(client_context())
    monkeypatch.setenv(SWITCH, "ssl")
    usual = tls.tls_library(client_context())
    assert fast.split()[0] == usual.split()[0] == "OpenSSL"
    assert ssl.OPENSSL_VERSION.startswith(f"{usual} ")


def test_authorities_picks_and_logs_of_keys_are_for_the_usual_one(
    certificate: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pick = check_pick(["TLS_AES_256_GCM_SHA384"])
    later = client_context()
    later.check_hostname, later.verify_mode = True, ssl.CERT_REQUIRED
    for context in (
        client_context(pick=pick),
        client_context(authorities=certificate.authority),
        client_context(system_trust=True),
        later,
    ):
        assert kind(context, server_side=False) is TlsChannel
    assert kind(server_context(certificate.certificate, certificate.key, pick=pick), server_side=True) is TlsChannel
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert kind(client_context(), server_side=False) is TlsChannel


def test_a_channel_that_became_quiet_gives_its_memory_back(certificate: Files) -> None:
    """The library keeps what it grew to, so the thing that grew goes; nothing is lost by it."""
    one = channel(server_context(certificate.certificate, certificate.key), server_side=True)
    other = channel(client_context(), server_side=False)
    assert isinstance(one, FastChannel)
    assert isinstance(other, FastChannel)
    other.start()
    for source, sink in ((other, one), (one, other), (other, one), (one, other)):
        assert pour(source, sink) == b""
    grown = one._network_out
    one.send(b"x" * 1_000_000)
    assert len(pour(one, other)) == 1_000_000
    assert one._busy
    assert other._busy
    for count in range(QUIET):
        one.send(b"%d" % count)
        one.send(b"more")  # before it was taken: nothing may be forgotten
        assert pour(one, other) == b"%dmore" % count
    assert not one._busy
    assert not other._busy
    assert one._network_out != grown
    one.send(b"y" * 300_000)
    assert pour(one, other) == b"y" * 300_000
    other.send(b"z" * 300_000)
    assert pour(other, one) == b"z" * 300_000


def test_it_can_be_switched_off(certificate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "ssl")
    assert kind(server_context(certificate.certificate, certificate.key), server_side=True) is TlsChannel
    assert kind(client_context(), server_side=False) is TlsChannel


def test_a_process_that_switched_it_off_does_not_import_it(certificate: Files) -> None:
    program = (
        "import sys; from ukihashi.net.tls import client_context, preload; preload(); client_context();"
        "print('ukihashi.net.tls_fast' in sys.modules)"
    )
    for value, loaded in {"ssl": "False", "": "True"}.items():
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, SWITCH: value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == loaded


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("_lib", None),
        ("_read", lambda *_: 0),
        ("_write", lambda *_: -1),
        ("_bio_info", lambda *_: 0),
        ("_from_buffer", lambda _: 1 / 0),
        ("_set_options", lambda *_: 0),  # so it sends tickets
        ("OLDEST", 1 << 40),
        ("_CERTIFICATE", ""),
    ],
)
def test_a_library_that_is_not_as_thought_is_left_alone(
    certificate: Files, monkeypatch: pytest.MonkeyPatch, name: str, lie: object
) -> None:
    monkeypatch.setattr(tls_fast, name, lie)
    assert kind(server_context(certificate.certificate, certificate.key), server_side=True) is TlsChannel
    assert kind(client_context(), server_side=False) is TlsChannel


def test_one_that_cannot_be_imported_is_done_without(certificate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ukihashi.net.tls_fast", None)
    monkeypatch.delattr("ukihashi.net.tls_fast")
    assert kind(server_context(certificate.certificate, certificate.key), server_side=True) is TlsChannel


def test_one_that_lacks_a_suite_is_not_taken(certificate: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_fast, "tls13_of", lambda context: tls13_of(context)[:1])
    assert kind(server_context(certificate.certificate, certificate.key), server_side=True) is TlsChannel


def test_names_are_taken_and_refused_as_usual() -> None:
    for name in ("hub.example", "日本.example", "192.0.2.1", "2001:db8::1", "x" * 63):
        for switch in (client_context().fast, None):
            context = client_context()
            context.fast = switch
            channel(context, server_side=False, server_name=name).start()
    for name in (".hub", "", "a..b", "x" * 64, "hub\0.example"):
        for switch in (client_context().fast, None):
            context = client_context()
            context.fast = switch
            with pytest.raises((ValueError, TypeError)):
                channel(context, server_side=False, server_name=name)


def test_the_client_says_the_name_but_no_address() -> None:
    for name, said in {"hub.example": b"hub.example", "192.0.2.1": b"192.0.2.1"}.items():
        end = channel(client_context(), server_side=False, server_name=name)
        end.start()
        assert (said in bytes(end.outgoing())) == (name == "hub.example")


def talk(hub: TlsChannel, card: TlsChannel) -> tuple[bytes, bytes]:
    """Carry all that waits, a few bytes at a time; what each heard."""
    heard = {hub: b"", card: b""}
    while hub.backlog or card.backlog:
        for source, sink in ((card, hub), (hub, card)):
            piece = bytes(source.outgoing()[:777])
            source.sent(len(piece))
            heard[sink] += sink.receive(piece) if piece else b""
    return heard[hub], heard[card]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("fast", ["hub", "card"])
def test_it_talks_with_the_usual_one(certificate: Files, version: ssl.TLSVersion, fast: str) -> None:
    at_hub, at_card = server_context(certificate.certificate, certificate.key), client_context()
    usual = at_card if fast == "hub" else at_hub
    usual.fast = None
    usual.minimum_version = usual.maximum_version = version
    hub, card = channel(at_hub, server_side=True), channel(at_card, server_side=False, server_name="hub.example")
    assert {type(hub), type(card)} == {TlsChannel, FastChannel}
    card.start()
    talk(hub, card)
    assert (hub.state, card.state) == (TlsState.OPEN, TlsState.OPEN)
    assert (hub.version, hub.cipher) == (card.version, card.cipher)
    assert "AES_128_GCM" in card.cipher.replace("-", "_").replace("AES128", "AES_128")
    up, down = os.urandom(300_000), os.urandom(70_000)
    card.send(up)
    hub.send(bytearray(down))
    card.send(memoryview(b"and more"))
    assert talk(hub, card) == (up + b"and more", down)
    card.close()
    talk(hub, card)
    assert (hub.state, card.state) == (TlsState.PEER_CLOSED, TlsState.OPEN)
    hub.send(b"last words")
    assert talk(hub, card) == (b"", b"last words")
    hub.close()
    talk(hub, card)
    assert card.state is TlsState.PEER_CLOSED


@pytest.mark.parametrize("words", ["-tls1_2", "-tls1_3", "-tls1_3 -groups X448:P-256", "-tls1_3 -noservername"])
def test_no_ticket_is_sent_not_even_to_a_client_that_had_to_begin_anew(
    certificate: Files, words: str, lacks: Callable[[str], None]
) -> None:
    if shutil.which("openssl") is None:
        lacks("the program openssl")
    context = server_context(certificate.certificate, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_one, args=(listener, context))
        thread.start()
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", where, *words.split(), "-msg", "-ign_eof"]
        run = subprocess.run(command, input="hello\n", capture_output=True, text=True, timeout=30, check=False)
        thread.join(30)
    assert "heard: hello" in run.stdout, run.stderr
    assert run.stdout.count("], ServerHello\n") == (2 if "X448" in words else 1)
    assert "Ticket" not in run.stdout
    assert "<<< TLS 1." in run.stdout
    assert "close_notify" in run.stdout


def serve_one(listener: socket.socket, context: Context) -> None:
    """Answer a line, and part."""
    sock, _ = listener.accept()
    end = channel(context, server_side=True)
    assert type(end) is FastChannel
    with sock:
        while end.state in {TlsState.HANDSHAKING, TlsState.OPEN}:
            plain = end.receive(sock.recv(1 << 16))
            if plain:
                end.send(b"heard: " + plain)
                end.close()
            sock.sendall(b"".join(end.pieces()))
            end.sent(end.backlog)
            if plain:
                return


def opened(certificate: Files) -> tuple[TlsChannel, TlsChannel]:
    at_hub, at_card = server_context(certificate.certificate, certificate.key), client_context()
    hub, card = channel(at_hub, server_side=True), channel(at_card, server_side=False)
    card.start()
    talk(hub, card)
    return hub, card


def test_a_buffer_that_came_may_grow_afterwards_even_if_it_was_garbage(certificate: Files) -> None:
    hub, card = opened(certificate)
    card.send(b"x" * 1000)
    data = bytearray(card.outgoing())
    assert hub.receive(data) == b"x" * 1000
    data += b"y" * 1_000_000
    garbage = bytearray(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(PeerViolation) as caught:
        hub.receive(garbage)
    garbage += b"y" * 1_000_000
    assert caught.value.values["reason"] == "decryption failed or bad record mac"
    assert hub.state is TlsState.FAILED
    assert hub.backlog  # an alert
    assert hub.receive(b"more of it") == b""
    with pytest.raises(PeerViolation, match="bad record mac"):
        card.receive(bytes(hub.outgoing()))


def test_plaintext_that_spans_the_room_comes_whole(certificate: Files) -> None:
    hub, card = opened(certificate)
    said = os.urandom(3 * tls_fast.PLAIN + 12_345)
    card.send(said)
    assert hub.receive(b"".join(card.pieces())) == said


def test_threads_do_not_mix_what_they_hear(certificate: Files) -> None:
    pairs = [opened(certificate) for _ in range(4)]
    wrong: list[int] = []

    def carry(number: int) -> None:
        hub, card = pairs[number]
        said = bytes([number]) * 200_000
        for _ in range(40):
            card.send(said)
            sealed = b"".join(card.pieces())
            card.sent(len(sealed))
            if hub.receive(sealed) != said:
                wrong.append(number)

    threads = [threading.Thread(target=carry, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
