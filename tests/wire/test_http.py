"""Both HTTP sides: joined they agree whatever the split; hostile bytes give one violation and bounded memory."""

import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.errors import PeerViolation
from ukihashi.wire.constants import BLOB_LENGTH, BLOB_TRAILER_MAX, MAX_REQUEST_PACK, PACK_TYPE
from ukihashi.wire.http import (
    MAX_BEHIND,
    ClientSide,
    ClientStream,
    HttpViolation,
    Request,
    Response,
    ServerSide,
    is_pack,
    is_signature,
    is_signature_target,
    pack_request,
    pack_response,
    read_pack,
    signature_request,
)
from ukihashi.wire.pack import Pack

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
cuts = st.lists(st.integers(0), max_size=8)


def split(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(ends)]


def all_requests(server: ServerSide, pieces: list[bytes]) -> list[Request]:
    return [request for piece in pieces for request in server.receive(piece)]


def a_pack(body: bytes) -> Pack:
    pack = Pack()
    pack.add_data("body", body)
    return pack


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=60), cuts, cuts)
def test_an_exchange_survives_any_split(
    ask: bytes, answer: bytes, tunnel: bytes, up: list[int], down: list[int]
) -> None:
    client, server = ClientSide("10.0.0.1"), ServerSide()
    (request,) = all_requests(server, split(signature_request(client), up))
    assert is_signature(request)
    assert client.receive(pack_response(server, a_pack(answer))) is not None
    (request,) = all_requests(server, split(pack_request(client, a_pack(ask)), up))
    assert is_pack(request)
    assert Pack.decode(request.body) == a_pack(ask)
    response, rest = None, b""
    for piece in split(pack_response(server, a_pack(answer)) + tunnel, down):
        if response is None:
            response = client.receive(piece)
        else:
            rest += piece
    assert response is not None
    assert read_pack(response) == a_pack(answer)
    assert client.take_over() + rest == tunnel


def test_what_comes_behind_a_request_waits_for_its_answer() -> None:
    server = ServerSide()
    (first,) = server.receive(GET + b"GET /two HTTP/1.1\r\nHost: x\r\n")
    assert first.target == "/"
    assert server.receive(b"\r\n") == []
    server.respond(200, [], b"one")
    (second,) = server.receive(b"")
    assert second.target == "/two"
    server.respond(200, [], b"two")
    assert server.pending == 0


def test_tunnel_bytes_behind_the_last_request_are_taken_over() -> None:
    server = ServerSide()
    server.receive(GET + b"\0\0\0\1early")
    server.receive(b" and more")
    server.respond(200, [])
    assert server.take_over() == b"\0\0\0\1early and more"


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("POST", "/vpnsvc/connect.cgi", b"VPNCONNECT", True),
        ("POST", "/VPNSVC/Connect.cgi", b"VPNCONNECT", True),
        ("POST", "/vpnsvc/connect.cgi", b"VPNCONNECX", False),
        ("POST", "/vpnsvc/connect.cgi", b"GIF89a" + bytes(BLOB_LENGTH - 6), True),
        ("POST", "/vpnsvc/connect.cgi", b"GIF89a" + bytes(BLOB_LENGTH + BLOB_TRAILER_MAX - 6), True),
        ("POST", "/vpnsvc/connect.cgi", b"GIF89a" + bytes(BLOB_LENGTH + BLOB_TRAILER_MAX - 5), False),
        ("POST", "/vpnsvc/connect.cgi", b"GIF89a" + bytes(BLOB_LENGTH - 7), False),
        ("POST", "/other", b"VPNCONNECT", False),
        ("PUT", "/vpnsvc/connect.cgi", b"VPNCONNECT", False),
    ],
)
def test_signatures(method: str, target: str, body: bytes, expected: bool) -> None:
    (request,) = ServerSide().receive(ClientSide("h").request(method, target, [], body or b""))
    assert is_signature(request) is expected
    if expected:
        assert is_signature_target(request)


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream; x=y"])
def test_only_the_right_type_is_a_pack(kind: str) -> None:
    (request,) = ServerSide().receive(
        ClientSide("h").request("POST", "/vpnsvc/vpn.cgi", [("Content-Type", kind)], b"x")
    )
    assert not is_pack(request)
    assert read_pack(Response(200, ((b"content-type", kind.encode()),), b"\0\0\0\0")) is None
    assert read_pack(Response(403, ((b"content-type", PACK_TYPE.encode()),), b"\0\0\0\0")) is None
    with pytest.raises(PeerViolation):
        read_pack(Response(200, ((b"content-type", PACK_TYPE.encode()),), b"\0\0"))


def test_responses_have_a_reason_a_length_and_no_empty_header() -> None:
    server = ServerSide()
    server.receive(GET)
    data = server.respond(200, [("X-Empty", ""), ("X-Full", "1"), ("content-length", "99")], b"body")
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Empty" not in data
    assert data.count(b"ontent-") + data.count(b"ONTENT-") == 1
    assert data.endswith(b"Content-Length: 4\r\n\r\nbody")


def test_head_gets_the_length_without_the_body() -> None:
    server = ServerSide()
    for headers, length in (([], 4), ([(b"content-length", b"1234")], 1234)):
        server.receive(GET.replace(b"GET", b"HEAD"))
        data = server.respond(200, headers, b"body")
        assert data.lower().endswith(b"content-length: %d\r\n\r\n" % length)
        assert not server.must_close
    server.receive(GET)
    assert server.respond(304, [("ETag", "x")], b"body").endswith(b"ETag: x\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 17000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_REQUEST_PACK + 1), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + bytes(0x20000), 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_a_bad_request_can_be_answered_once(data: bytes, status: int) -> None:
    server = ServerSide()
    with pytest.raises(HttpViolation) as caught:
        server.receive(data)
    assert caught.value.status == status
    with pytest.raises(HttpViolation) as again:
        server.receive(GET)
    assert again.value is caught.value
    answer = server.respond(caught.value.status, [("Connection", "Keep-Alive")], b"no")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    assert b"Keep-Alive" not in answer
    assert server.respond(200) == b""
    assert server.must_close


def test_the_last_allowed_request_is_answered_with_close() -> None:
    server = ServerSide(max_requests=2)
    server.receive(GET)
    assert b"close" not in server.respond(200)
    assert not server.must_close
    server.receive(GET)
    assert b"Connection: close" in server.respond(200, [("Connection", "Keep-Alive")])
    assert server.must_close
    assert server.receive(GET) == []


def test_flooding_behind_a_request_is_a_violation() -> None:
    server, chunk = ServerSide(), bytes(65536)
    server.receive(GET)
    with pytest.raises(HttpViolation):
        all_requests(server, [chunk] * (MAX_BEHIND // len(chunk) + 1))


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([GET, b"\r\n", b"Host: x\r\n", b"0\r\n\r\n"])), max_size=9
    )
)
def test_hostile_bytes_to_a_server_give_requests_or_one_violation(pieces: list[bytes]) -> None:
    server, errors = ServerSide(), list[PeerViolation]()
    for piece in pieces:
        try:
            if server.receive(piece):
                server.respond(404)
        except PeerViolation as violation:
            errors.append(violation)
    assert len(set(map(id, errors))) <= 1


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n"])), max_size=9))
def test_hostile_bytes_to_a_client_give_a_response_or_one_violation(pieces: list[bytes]) -> None:
    client, errors = ClientSide("h"), list[PeerViolation]()
    client.request("GET", "/")
    for piece in pieces:
        try:
            if client.receive(piece) is not None:
                break
        except PeerViolation as violation:
            errors.append(violation)
    else:
        with suppress(PeerViolation):
            client.end()
    assert len(set(map(id, errors))) <= 1


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1_000_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%s\r\n" % bytes(0x1000) * 1500,
        b"x" * 6_000_000,
        GET * 200_000,
    ],
)
def test_an_endless_request_holds_bounded_memory(endless: bytes) -> None:
    server = ServerSide()
    tracemalloc.start()
    try:
        with suppress(HttpViolation):
            for at in range(0, len(endless), 16384):
                server.receive(endless[at : at + 16384])
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_interim_responses_are_skipped() -> None:
    client = ClientSide("h")
    client.request("GET", "/")
    response = client.receive(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert response == Response(200, ((b"content-length", b"2"),), b"ok")


def test_connect_leads_out_of_http() -> None:
    client = ClientSide("hub:443")
    assert client.request("CONNECT", "hub:443").startswith(b"CONNECT hub:443 HTTP/1.1\r\nHost: hub:443\r\n")
    response = client.receive(b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03")
    assert response is not None
    assert (response.status, client.take_over()) == (200, b"\x16\x03")


def test_the_end_of_the_connection_ends_a_body_without_length_only() -> None:
    client = ClientSide("h")
    client.request("GET", "/")
    assert client.receive(b"HTTP/1.1 200 OK\r\n\r\nall") is None
    assert client.end() == Response(200, (), b"all")
    cut = ClientSide("h")
    cut.request("GET", "/")
    cut.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhal")
    with pytest.raises(HttpViolation, match="before a whole answer"):
        cut.end()


def test_a_client_asks_one_thing_at_a_time() -> None:
    client = ClientSide("h")
    with pytest.raises(RuntimeError):
        client.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    client.request("GET", "/")
    with pytest.raises(RuntimeError):
        client.request("GET", "/")


def test_a_response_above_the_limit_is_refused() -> None:
    client = ClientSide("h", max_body=10)
    client.request("GET", "/")
    with pytest.raises(HttpViolation):
        client.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n")


@given(st.binary(max_size=300), st.booleans(), cuts, cuts)
def test_a_body_in_pieces_survives_any_split(body: bytes, with_length: bool, up: list[int], down: list[int]) -> None:
    client, server, peer = ClientStream("h"), ServerSide(), ClientSide("h")
    length = [("Content-Length", str(len(body)))] if with_length else []
    assert server.receive(client.request("GET", "/"))
    sent = server.begin(200, [("X-Kept", "1"), *length])
    sent += b"".join(server.more(piece) for piece in split(body, up)) + server.finish()
    parts = [client.part(piece) for piece in split(sent, down)]
    assert [part.head.header(b"x-kept") for part in parts if part.head] == [b"1"]
    assert b"".join(part.body for part in parts) == body
    assert [part.over for part in parts] == [False] * (len(parts) - 1) + [True]
    peer.request("GET", "/")
    assert peer.receive(sent) == Response(200, peer_headers(sent), body)
    assert server.receive(GET)  # and the next request may come


def peer_headers(sent: bytes) -> tuple[tuple[bytes, bytes], ...]:
    lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return tuple((name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines))


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n"])), max_size=9))
def test_hostile_bytes_to_a_stream_give_parts_or_one_violation(pieces: list[bytes]) -> None:
    client, errors, size = ClientStream("h"), list[PeerViolation](), 0
    client.request("GET", "/")
    for piece in [*pieces, b""]:
        try:
            part = client.part(piece)
        except PeerViolation as violation:
            errors.append(violation)
            continue
        size += len(part.body)
        assert client.pending <= sum(map(len, pieces))
        if part.over:
            break
    assert size <= sum(map(len, pieces))
    assert len(set(map(id, errors))) <= 1


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour", b"HTTP/1.1 200 OK\r\nX:", b""])
def test_a_stream_that_ends_too_early_is_a_violation(sent: bytes) -> None:
    client = ClientStream("h")
    client.request("GET", "/")
    if sent:
        assert not client.part(sent).over
    with pytest.raises(HttpViolation):
        client.part(b"")
