"""The front door: who may come in how, what strangers get to hear, and that none of them hurts a session."""

import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ukihashi import __version__
from ukihashi.errors import Refused
from ukihashi.hub.messages import LoginRefused, PeerLink
from ukihashi.wire.constants import PACK_TARGET, PACK_TYPE, PROBE_TAG, SIGNATURE_TARGET
from ukihashi.wire.http import ClientSide, HttpViolation
from ukihashi.wire.messages import Login, Noop
from ukihashi.wire.pack import Pack

BLOB = b"GIF89a" + bytes(1405)


def end_of(sock: socket.socket, deadline_s: float = 10.0) -> bytes:
    """All that comes until the hub ends the TCP connection, by FIN or reset."""
    sock.settimeout(deadline_s)
    got = bytearray()
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return bytes(got)


@pytest.fixture
def working(hub: Any) -> Iterator[Callable[[], None]]:
    """Two members; call it to see that frames still pass between them."""
    with hub.member("a") as a, hub.member("b") as b:
        count = 0

        def check() -> None:
            nonlocal count
            count += 1
            frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + count.to_bytes(4, "big")
            a.send(frame)
            assert b.receive(1) == [frame]

        check()
        yield check
        check()


# -- signatures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailer", [0, 1, 2000])
def test_the_picture_of_real_clients_is_a_signature(call: Callable[[], Any], trailer: int) -> None:
    caller = call()
    request = caller.http.request("POST", SIGNATURE_TARGET.upper(), [], BLOB + bytes(trailer))
    assert Pack.decode(caller.exchange(request).body).get_str("hello").startswith("ukihashi hub ")


def test_wrong_bytes_of_the_right_length_may_be_tried_again(call: Callable[[], Any]) -> None:
    caller = call()
    for body in (b"VPNCONNEKT", bytes(1411)):
        assert caller.exchange(caller.http.request("POST", SIGNATURE_TARGET, [], body)).status == 403
    assert len(caller.hello().random) == 20


@pytest.mark.parametrize("length", [0, 9, 11, 1410, 3412])
def test_a_signature_of_a_wrong_length_ends_the_connection(call: Callable[[], Any], length: int) -> None:
    caller = call()
    assert caller.exchange(caller.http.request("POST", SIGNATURE_TARGET, [], bytes(length))).status == 403
    caller.expect_end()


def test_the_probe_of_older_clients_finds_the_tag_and_goes_on(call: Callable[[], Any]) -> None:
    caller = call()
    page = caller.get("/", **{"X-VPN": "1"})
    assert PROBE_TAG in page.body[:1023]
    assert caller.exchange(caller.http.request("HEAD", "/", [("X-VPN", "1")])).header(b"content-length") != b"0"
    assert len(caller.hello().random) == 20


def test_every_hello_is_fresh(call: Callable[[], Any]) -> None:
    assert call().hello().random != call().hello().random


# -- after the hello ----------------------------------------------------------------------------------------------


def test_a_noop_is_answered_and_the_login_follows(hub: Any, call: Callable[[], Any]) -> None:
    caller = call()
    challenge = caller.hello().random
    for _ in range(3):
        answer = caller.pack(Noop().to_pack(b""))
        assert (answer.get_int("error"), answer.get_int("noop")) == (0, 1)
    assert caller.login("guest", challenge, authtype=0).session_name == "SID-GUEST-1"


@pytest.mark.parametrize(
    ("target", "kind", "body", "code"),
    [
        ("/elsewhere", PACK_TYPE, b"", 3),
        (PACK_TARGET, "text/plain", Pack().encode(), 3),
        (PACK_TARGET, PACK_TYPE, b"\0\0\0\1\0\0", 3),
        (PACK_TARGET, PACK_TYPE, os.urandom(300), 3),
        (PACK_TARGET, PACK_TYPE, bytes(65537), 3),
        (PACK_TARGET, PACK_TYPE, Pack().encode(), 4),
    ],
)
def test_what_is_no_login_gets_a_code_and_the_end(
    call: Callable[[], Any], target: str, kind: str, body: bytes, code: int
) -> None:
    caller = call()
    caller.hello()
    answer = caller.exchange(caller.http.request("POST", target, [("Content-Type", kind)], body))
    assert Pack.decode(answer.body).get_int("error") == code
    caller.expect_end()


def test_methods_and_login_fields_that_are_missing(call: Callable[[], Any]) -> None:
    for add in ({"method": "weather"}, {"method": "login"}, {"method": "login", "hubname": "LAN"}):
        caller, pack = call(), Pack()
        caller.hello()
        for name, value in add.items():
            pack.add_str(name, value)
        assert caller.refusal(pack) == 4


def test_refused_by_the_worker_is_told_to_control(hub: Any, call: Callable[[], Any], until: Callable[..., Any]) -> None:
    caller = call()
    caller.hello()
    pack = Login("LAN", "a", 98, client="odd").to_pack(b"")
    assert caller.refusal(pack) == 7
    (told,) = until(lambda: hub.control.events(LoginRefused), "the refusal")
    assert (told.hub, told.user, told.client, told.code) == ("LAN", "a", "odd", 7)


def test_a_version_too_far_apart_is_told_with_ours(
    hub: Any, call: Callable[[], Any], until: Callable[..., Any]
) -> None:
    caller = call()
    caller.hello()
    pack = caller.pack(Login("LAN", "a", 0, extension=9, extension_oldest=8).to_pack(b""))
    assert [pack.get_int(name) for name in ("error", "ukihashi_version", "ukihashi_oldest")] == [87, 1, 1]
    (told,) = until(lambda: hub.control.events(LoginRefused), "the refusal")
    assert "8 to 9" in told.reason


def test_a_login_that_control_does_not_answer_fails_in_time(hub: Any) -> None:
    hub.control.silent = True
    with pytest.raises(Refused) as refused:
        hub.member("a")
    assert refused.value.code == 23
    hub.control.silent = False
    with hub.member("a"):
        pass


def test_without_control_logins_fail_at_once_and_sessions_live(hub: Any, working: Callable[[], None]) -> None:
    hub.control.close()
    with pytest.raises(Refused) as refused:
        hub.member("c")
    assert refused.value.code == 23
    working()
    fake = type(hub.control)
    ours, theirs = socket.socketpair()
    hub.control = fake(ours)
    with theirs:
        hub.supervise(PeerLink("control"), [theirs.fileno()])
    assert len(hub.control.rows("sessions")) == 2
    with hub.member("c"):
        working()


# -- strangers ----------------------------------------------------------------------------------------------------


def test_plain_http_is_told_to_use_https(hub: Any, working: Callable[[], None]) -> None:
    with hub.socket() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = end_of(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTPS" in answer


@pytest.mark.parametrize(
    "words",
    [os.urandom(2000), b"\0", b"ssh-2.0 x\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16" + os.urandom(3000)],
    ids=["random", "zero", "ssh", "broken TLS", "random TLS"],
)
def test_junk_is_hung_up_on(hub: Any, working: Callable[[], None], words: bytes) -> None:
    with hub.socket() as sock:
        sock.sendall(words)
        end_of(sock)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.binary(min_size=1, max_size=400), cut=st.integers(0, 400))
def test_any_words_in_the_tls_leave_the_hub_standing(hub: Any, call: Callable[[], Any], words: bytes, cut: int) -> None:
    with call() as caller:
        caller.sock.sendall(words[:cut])
        caller.sock.sendall(words[cut:])
    assert hub.worker.loop.faults == 0


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x01\x02 nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + bytes([65]) * 20000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", 413),
    ],
)
def test_bad_http_is_answered_and_hung_up_on(
    call: Callable[[], Any], working: Callable[[], None], request_bytes: bytes, status: int
) -> None:
    caller = call()
    caller.sock.sendall(request_bytes)
    assert caller.expect_end().startswith(b"HTTP/1.1 %d " % status)


def test_a_slow_header_is_cut_off(call: Callable[[], Any], working: Callable[[], None]) -> None:
    caller = call()
    began, pause = time.monotonic(), threading.Event()
    with pytest.raises((ssl.SSLError, OSError)):  # noqa: PT012 - which of the calls meets the end is chance
        while time.monotonic() - began < 8:
            caller.sock.sendall(b"X")
            caller.sock.settimeout(0.1)
            try:
                assert caller.sock.recv(100)
            except TimeoutError:
                pause.wait(0.05)
            except AssertionError as error:
                raise OSError from error
    assert time.monotonic() - began < 6  # the limit is 1.5 s


def test_a_client_that_waits_for_us_to_speak_first_is_told_and_sent_away(hub: Any) -> None:
    with hub.socket() as sock:
        line = end_of(sock).decode("ascii")
    assert line.endswith("the client speaks first, and it speaks HTTPS.\r\n")
    assert f"ukihashi hub {__version__}:" in line
    assert line.count("\n") == 1


def test_one_that_began_tls_hears_nothing_in_plain(hub: Any) -> None:
    with hub.socket() as sock:
        sock.sendall(b"\x16\x03\x01")
        assert end_of(sock) == b""


def test_a_thousand_silent_connections_keep_nobody_out(
    make_hub: Callable[..., Any], quick: Any, until: Callable[..., Any]
) -> None:
    hub = make_hub(replace(quick, opening_s=60.0, half_open=400))
    silent = [hub.socket() for _ in range(1000)]
    try:
        until(lambda: hub.control.rows("status")[0]["evicted"] >= 600, "evictions")
        assert hub.control.rows("status")[0]["half_open"] <= 400
        began = time.monotonic()
        with hub.member("a") as member:
            assert time.monotonic() - began < 2
            assert member.row()["connections"] == 1
        assert silent[0].recv(10) == b""  # the oldest went, the newest stand
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(10)
    finally:
        for sock in silent:
            sock.close()


def test_more_than_nineteen_requests_are_served_but_not_without_end(call: Callable[[], Any]) -> None:
    caller = call()
    for _ in range(48):
        assert caller.get("/", **{"X-VPN": "1"}).status == 200
    assert caller.get("/", **{"X-VPN": "1"}).header(b"connection") == b"close"
    caller.expect_end()


# -- pages --------------------------------------------------------------------------------------------------------


class PageServer:
    """Answers every connection with `answer`; keeps what it was asked."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.asked: list[bytes] = []
        self.answer = answer
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            with peer:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += peer.recv(65536)
                self.asked.append(asked)
                with suppress(ConnectionError):  # the hub needs no more of it
                    peer.sendall(self.answer)
                    if not self.answer:
                        peer.recv(1)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[PageServer]:
    server = PageServer(
        tmp_path / "web.sock",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\n"
        b"Set-Cookie: b=2\r\nConnection: close\r\n\r\n5\r\nHello\r\n0\r\n\r\n",
    )
    yield server
    server.close()


def test_pages_come_from_the_page_server_on_a_kept_connection(
    make_hub: Callable[..., Any], pages: PageServer, tmp_path: Path
) -> None:
    hub = make_hub(web=tmp_path / "web.sock")
    with hub.call() as caller:
        forged = {"X-Forwarded-For": "203.0.113.9", "Accept-Language": "ja", "Cookie": "c=3"}
        page = caller.get("/admin?x=1", **forged)
        assert (page.status, page.body) == (200, b"Hello")
        assert [value for name, value in page.headers if name == b"set-cookie"] == [b"a=1", b"b=2"]
        head = caller.exchange(caller.http.request("HEAD", "/"))
        assert (head.header(b"content-length"), head.body) == (b"5", b"")
        assert len(caller.hello().random) == 20  # and a tunnel may still follow
    asked = pages.asked[0].lower()
    assert asked.startswith(b"get /admin?x=1 http/1.1\r\n")
    assert b"x-forwarded-for: 127.0.0.1\r\n" in asked
    assert b"203.0.113.9" not in asked
    assert b"x-forwarded-proto: https\r\n" in asked
    assert b"cookie: c=3\r\n" in asked


@pytest.mark.parametrize(("answer", "status"), [(b"", 504), (b"nonsense\r\n\r\n", 502)])
def test_a_page_server_that_fails_costs_only_the_page(
    make_hub: Callable[..., Any], pages: PageServer, tmp_path: Path, answer: bytes, status: int
) -> None:
    pages.answer = answer
    hub = make_hub(web=tmp_path / "web.sock")
    with hub.call() as caller:
        page = caller.get("/")
        assert page.status == status
        assert PROBE_TAG in page.body[:1023]
        assert caller.get("/").status == status


def test_pages_that_nobody_reads_are_bounded(
    make_hub: Callable[..., Any], quick: Any, pages: PageServer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    pages.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n" + bytes(1000000)
    hub = make_hub(replace(quick, relays=1, relay_s=30.0), web=tmp_path / "web.sock")
    with hub.call(receive_buffer=65536) as idle, hub.call() as other:
        idle.sock.sendall(idle.http.request("GET", "/"))
        until(lambda: pages.asked, "the first request")
        until(lambda: other.get("/").status == 503, "no room for another page")
        response = None
        while response is None:
            response = idle.http.receive(idle.sock.recv(65536))
        assert len(response.body) == 1000000
        with hub.call() as later:
            assert later.get("/").status == 200


LONG = random.Random(7).randbytes(2_000_000)
BY_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\r\n" + LONG
CHUNKS = [b"%x\r\n%b\r\n" % (len(part), part) for at in range(0, len(LONG), 70_000) if (part := LONG[at : at + 70_000])]
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(CHUNKS) + b"0\r\n\r\n"


@pytest.mark.parametrize("answer", [BY_LENGTH, IN_CHUNKS, b"HTTP/1.0 200 OK\r\n\r\n" + LONG])
def test_a_long_page_passes_in_pieces_while_members_talk(
    make_hub: Callable[..., Any], quick: Any, pages: PageServer, tmp_path: Path, answer: bytes
) -> None:
    pages.answer = answer
    hub = make_hub(replace(quick, dead_s=30.0, relay_s=30.0), web=tmp_path / "web.sock")
    with hub.member("a") as a, hub.member("b") as b, hub.call() as caller:
        caller.http = ClientSide("hub.example", max_body=len(LONG))
        caller.sock.sendall(caller.http.request("GET", "/long"))
        response = None
        frames = {
            member: b"\xff" * 6 + b"\x02\0\0\0\0" + mac + b"\x88\xb5...." for member, mac in ((a, b"a"), (b, b"b"))
        }
        while response is None:
            piece = caller.sock.recv(1 << 20)
            assert piece, "the page broke off"
            response = caller.http.receive(piece)
            for one, other in ((a, b), (b, a)):
                one.send(frames[one])
                assert other.receive(1) == [frames[one]]
        assert response.body == LONG
        assert response.header(b"x-mine") is None
        head = caller.exchange(caller.http.request("HEAD", "/long"))
        assert (head.status, head.body) == (200, b"")
        assert len(caller.hello().random) == 20


def test_a_long_page_that_breaks_off_is_not_taken_for_the_whole(
    make_hub: Callable[..., Any], pages: PageServer, tmp_path: Path
) -> None:
    for pages.answer in (BY_LENGTH[:1_500_000], IN_CHUNKS[:1_500_000]):
        with make_hub(web=tmp_path / "web.sock").call() as caller:
            caller.http = ClientSide("hub.example", max_body=len(LONG))
            caller.sock.sendall(caller.http.request("GET", "/long"))
            while data := caller.sock.recv(1 << 20):
                assert caller.http.receive(data) is None
            with pytest.raises(HttpViolation, match="before a whole answer"):
                caller.http.end()


def test_who_leaves_in_the_middle_of_a_long_page_frees_its_place(
    make_hub: Callable[..., Any], quick: Any, pages: PageServer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    pages.answer = BY_LENGTH
    hub = make_hub(replace(quick, relays=1, relay_s=30.0), web=tmp_path / "web.sock")
    for number in range(3):
        with hub.call(receive_buffer=65536) as idle:
            idle.sock.sendall(idle.http.request("GET", "/"))
            until(lambda number=number: len(pages.asked) == number + 1, "the request")
            idle.sock.recv(1000)
        until(lambda: not hub.worker._door._paging, "its place")


class Elsewhere:
    """The same hub, seen from another address."""

    def __init__(self, hub: Any) -> None:
        self._address = hub.address

    def socket(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=10.0, source_address=("127.0.0.2", 0))


def test_one_address_has_a_quarter_of_the_places_for_pages(
    make_hub: Callable[..., Any], quick: Any, pages: PageServer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    pages.answer = BY_LENGTH
    hub = make_hub(replace(quick, relays=4, relay_s=30.0), web=tmp_path / "web.sock")
    with hub.call(receive_buffer=65536) as idle, hub.call() as other, type(other)(Elsewhere(hub)) as elsewhere:
        idle.sock.sendall(idle.http.request("GET", "/"))
        until(lambda: hub.worker._door._paging, "the page")
        assert other.get("/").status == 503
        elsewhere.sock.sendall(elsewhere.http.request("GET", "/"))
        until(lambda: len(hub.worker._door._paging) == 2, "another's page")


def test_a_long_page_that_nobody_reads_waits_in_no_memory_of_ours_and_not_for_ever(
    make_hub: Callable[..., Any], quick: Any, pages: PageServer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    pages.answer = BY_LENGTH
    hub = make_hub(replace(quick, relay_s=1.0), web=tmp_path / "web.sock")
    with hub.call(receive_buffer=65536) as idle:
        idle.sock.sendall(idle.http.request("GET", "/"))
        (caller,) = until(lambda: [one for one in hub.worker._door._paging.items() if one._rest], "the page's start")
        until(lambda: caller._owes_page, "that it waits")
        assert caller.connection.backlog <= 300_000
        begin = time.thread_time()
        spent = time.process_time()
        until(lambda: not hub.worker._door._paging, "the end of patience")
        assert time.process_time() - spent - (time.thread_time() - begin) < 0.5  # the worker's thread does not spin


def test_without_a_page_server_there_is_a_short_page(call: Callable[[], Any]) -> None:
    page = call().get("/")
    assert page.status == 503
    assert PROBE_TAG in page.body[:1023]
