"""A suite picked by hand is the one on the wire: told by both ends, and read from captured bytes (A11, D9).

Every suite that `openssl ciphers` prints for TLS 1.3 and 1.2 with certificates is picked at the server in turn, with an
RSA and an ECDSA key as fits, and the capture is read twice: by tshark, and from the ServerHello's bytes by us.
"""

import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trustme

from lab.capture import Capture
from lab.net import Net
from lab.own_network import own_network
from lab.ukihashi import Card, Hub
from lab.wait import until
from ukihashi.capture.pcap import CaptureFile
from ukihashi.errors import ConfigError, DialError
from ukihashi.net import suites
from ukihashi.net.suites import available, check_pick
from ukihashi.net.tls import TlsChannel, TlsState, client_context, server_context

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("openssl", "tcpdump", "tshark")]

FIRST_PORT: Final = 20000
LISTS: Final = {"TLSv1.3": ("-tls1_3",), "TLSv1.2": ("-tls1_2", "ALL:!aNULL:!eNULL:!PSK:!SRP")}
ASLEEP: Final = {"TLS_AES_128_CCM_SHA256": 0x1304, "TLS_AES_128_CCM_8_SHA256": 0x1305}  # had, but not printed
HANDSHAKE: Final = 22  # a record's type (RFC 8446, 5.1)
SERVER_HELLO: Final = 2
SUPPORTED_VERSIONS: Final = 43
VERSIONS: Final = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


class Try(NamedTuple):
    """One suite with one key."""

    name: str
    version: str
    number: int  # as on the wire
    key: str


def printed() -> Iterator[Try]:
    """What openssl prints, less what we say can't be; every suite with each kind of key that fits."""
    known = {suite.name: suite for suite in available()}
    for version, words in LISTS.items():
        argv = ["openssl", "ciphers", "-s", "-V", *words]
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            number, _dash, name, _since, _exchange, key, _encryption, mac = line.split()
            if not known[name].usable:
                assert known[name].reason in {suites.RC4, suites.MD5, suites.NEEDS_DSS}
                assert "RC4" in name or mac == "Mac=MD5" or key == "Au=DSS", name
                continue
            code = int(number.replace("0x", "").replace(",", ""), 16)
            for kind in ("RSA", "ECDSA"):
                if key in {"Au=any", f"Au={kind}"}:
                    yield Try(name, version, code, kind)
    for name, code in ASLEEP.items():
        yield Try(name, "TLSv1.3", code, "RSA")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Certificate and key files by kind of key."""
    folder = tmp_path_factory.mktemp("keys")
    authority = trustme.CA()
    found = {}
    for kind in trustme.KeyType:
        leaf = authority.issue_cert("hub.example", key_type=kind)
        found[kind.name] = folder / f"{kind.name}.pem", folder / f"{kind.name}.key"
        leaf.cert_chain_pems[0].write_to_path(found[kind.name][0])
        leaf.private_key_pem.write_to_path(found[kind.name][1])
    return found


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """All TCP on loopback into a file; complete when the block has ended."""
    argv = [
        "tcpdump",
        "-i",
        "lo",
        "-s",
        "65535",
        "-B",
        "65536",  # KiB: its ring has room for so much divided by the longest frame, whatever the frames are
        "-U",
        "--immediate-mode",
        "-n",
        "-Z",
        "root",
        "-w",
        str(path),
        "tcp or udp",
    ]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any("listening on" in line for line in iter(process.stderr.readline, ""))
            yield
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
                marker.sendto(b"the end of it", ("127.0.0.1", 9))
            until(lambda: b"the end of it" in path.read_bytes(), seconds=10, what="the capture's end")
        finally:
            process.terminate()


def handshake(server: TlsChannel, client: TlsChannel, port: int) -> None:
    """Both over a real TCP connection to `port` of loopback, and then the goodbyes."""
    with socket.create_server(("127.0.0.1", port)) as listener, socket.create_connection(("127.0.0.1", port)) as mine:
        theirs, _address = listener.accept()
        with theirs:
            client.start()
            ends = {mine: client, theirs: server}
            while {client.state, server.state} != {TlsState.OPEN}:
                for sock, channel in ends.items():
                    waiting = len(channel.outgoing())
                    sock.sendall(channel.outgoing())
                    channel.sent(waiting)
                readable, _, _ = select.select(list(ends), [], [], 10)
                assert readable, "the handshake stands still"
                for sock in readable:
                    ends[sock].receive(sock.recv(65536))


def server_hellos(path: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    """Source port; version and suite of each ServerHello that begins a segment, as a server's first bytes do."""
    with path.open("rb") as file:
        for batch in CaptureFile(file, path.name):
            data = bytes(batch.buffer)
            for _time, at, _captured, _length in batch.packets:
                ip = at + 14
                tcp = ip + (data[ip] & 15) * 4
                record = tcp + (data[tcp + 12] >> 4) * 4
                end = ip + int.from_bytes(data[ip + 2 : ip + 4], "big")
                if data[ip + 9] != socket.IPPROTO_TCP or end - record < 50:
                    continue
                if (data[record], data[record + 5]) == (HANDSHAKE, SERVER_HELLO):
                    port = int.from_bytes(data[tcp : tcp + 2], "big")
                    yield port, server_hello(data[record + 9 : end])


def server_hello(body: bytes) -> tuple[str, int]:
    """Version and suite (RFC 8446, 4.1.3)."""
    version = int.from_bytes(body[:2], "big")
    at = 35 + body[34]  # version, random, session id
    suite = int.from_bytes(body[at : at + 2], "big")
    at += 5  # suite, compression, length of the extensions
    while at < len(body):
        kind, length = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == SUPPORTED_VERSIONS:
            version = int.from_bytes(body[at + 4 : at + 6], "big")
        at += 4 + length
    return VERSIONS[version], suite


def seen_by_tshark(path: Path, last_port: int) -> dict[int, int]:
    """Source port -> suite, in the words of another program."""
    argv = ["tshark", "-r", str(path), "-d", f"tcp.port=={FIRST_PORT}-{last_port},tls", "-Y", "tls.handshake.type == 2"]
    argv += ["-T", "fields", "-e", "tcp.srcport", "-e", "tls.handshake.ciphersuite"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return {int(port): int(suite, 16) for port, suite in (line.split() for line in out.splitlines())}


@pytest.mark.parametrize("picker", ["hub", "card"])
def test_every_suite_that_can_be_had_is_the_one_on_the_wire_when_picked(
    picker: str, keys: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    """The other end is at its widest: it would take any of them, and likes another one better."""
    tries = list(printed())
    assert {one.version for one in tries} == set(LISTS)
    assert {one.key for one in tries} == set(keys)
    usable = [suite.name for suite in available() if suite.usable]
    path = tmp_path / "all.pcap"
    with own_network(), recording(path):
        for number, one in enumerate(tries):
            pick = check_pick([one.name])
            liked = [name for name in usable if name != one.name]
            wide = check_pick([*liked, one.name])
            server = server_context(*keys[one.key], pick=pick if picker == "hub" else wide)
            client = client_context(pick=pick if picker == "card" else wide)
            at_server = TlsChannel(server, server_side=True)
            at_client = TlsChannel(client, server_side=False, server_name="hub.example")
            handshake(at_server, at_client, FIRST_PORT + number)
            told = {(at_server.version, at_server.cipher), (at_client.version, at_client.cipher)}
            assert told == {(one.version, one.name)}
    expected = {FIRST_PORT + number: (one.version, one.number) for number, one in enumerate(tries)}
    assert dict(server_hellos(path)) == expected
    last = FIRST_PORT + len(tries)
    assert seen_by_tshark(path, last) == {port: suite for port, (_version, suite) in expected.items()}


def test_hub_and_card_show_the_suite_that_was_picked_and_an_impossible_pick_is_said(net: Net) -> None:
    machine, *hosts = net.lan("hub", "usual", "older")
    tls13, tls12 = "TLS_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CAMELLIA256-SHA384"  # neither is what one gets unasked
    hub, usual, older = Hub(machine), *map(Card, hosts)
    hub.configure({"tls": {"ciphers": [tls13, tls12]}})
    hub.start()
    with Capture(machine, "eth0", expression="tcp port 443") as capture:
        usual.join(hub.invite("usual"))  # it picked nothing, the hub did
        account = older.join_with(hub.invite("older"), {"tls": {"ciphers": [tls12]}})
        at_hub = {row["user"]: (row["tls_version"], row["tls_cipher"]) for row in hub.sessions()}
        for name, card, expected in (("usual", usual, ("TLSv1.3", tls13)), ("older", older, ("TLSv1.2", tls12))):
            row = card.status()
            assert (row["tls"], row["cipher"]) == at_hub[name] == expected
        capture.wait_for_bytes(bytes.fromhex("C077"))
    found = [hello for _port, hello in server_hellos(capture.path)]
    assert found == [
        ("TLSv1.3", 0x1303),
        ("TLSv1.3", 0x1303),
        ("TLSv1.2", 0xC077),
    ]  # usual, older before its pick, after

    older.leave(account)
    for suite, status, words in (
        ("TLS_AES_256_GCM_SHA384", DialError.exit_status, "no TLS version or cipher suite in common"),
        ("RC4-SHA", ConfigError.exit_status, "RC4-SHA can't be picked: RC4 is broken"),
    ):
        older.configure(account, {"tls": {"ciphers": [suite]}})
        refused = older.ask("card", "up", account)
        assert refused.returncode == status
        assert words in refused.stderr


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "needs a hub with an ECDSA key, and this hub's key is RSA"),
        ("NULL-SHA256", "encrypts nothing"),
        ("ECDHE-RSA-AES128-GCM", "did you mean"),
    ],
)
def test_a_hub_does_not_start_with_a_pick_it_can_not_keep(net: Net, suite: str, words: str) -> None:
    hub = Hub(net.lan("hub")[0])
    hub.configure({"tls": {"ciphers": ["TLS_AES_128_GCM_SHA256", suite]}})
    refused = hub.ask("hub", "serve")
    assert refused.returncode == ConfigError.exit_status
    assert words in refused.stderr
    assert suite in refused.stderr
