import hashlib
import sys

import pytest

from fuzz.targets.proxy_answers import TUNNEL, MemoryStream, at_once
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.http_proxy import Talk
from ukihashi.net.dial.stream import AnswerTooLong, StreamEnded
from ukihashi.net.dial.via import Kind, Via

VIA = Via(Kind.HTTP, "proxy.example", 3128, "taro")
OK = b"HTTP/1.1 200 OK\r\n\r\n"
DIGEST = b'Proxy-Authenticate: Digest realm="r", nonce="%s", qop="auth"%s\r\n'


def talk(answer: bytes, host: str = "hub.example", secret: str | None = None) -> tuple[MemoryStream, bool]:
    stream = MemoryStream(answer)
    return stream, at_once(Talk(VIA, host, 443, secret).connect(stream))


@pytest.mark.parametrize(
    "head",
    [
        OK,
        b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n",
        b"HTTP/1.0 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",  # to be ignored: RFC 9110, 9.3.6
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 200 \r\nX: " + b"y" * 30_000 + b"\r\n\r\n",
    ],
)
def test_a_tunnel_opens_and_its_first_bytes_stay(head: bytes) -> None:
    stream, opened = talk(head + TUNNEL)
    assert opened
    assert stream.data == TUNNEL


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("hub.example", b"hub.example:443"),
        ("2001:db8::1", b"[2001:db8::1]:443"),
        ("浮橋.example", "浮橋".encode("idna") + b".example:443"),
    ],
)
def test_what_is_asked(host: str, asked: bytes) -> None:
    stream, _ = talk(OK, host)
    assert stream.sent.startswith(b"CONNECT " + asked + b" HTTP/1.1\r\nHost: " + asked + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Failure.FORBIDDEN),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>", Failure.FORBIDDEN),
        (b"HTTP/1.1 405 x\r\n\r\n", Failure.FORBIDDEN),
        (b"HTTP/1.1 502 x\r\n\r\n", Failure.TARGET_UNREACHABLE),
        (b"HTTP/1.1 503 x\r\n\r\n", Failure.TARGET_UNREACHABLE),
        (b"HTTP/1.1 504 x\r\n\r\n", Failure.TARGET_UNREACHABLE),
        (b"HTTP/1.1 500 x\r\n\r\n", Failure.PROXY_BROKEN),
        (b"HTTP/1.1 500 x\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n", Failure.TARGET_UNREACHABLE),
        (b"HTTP/1.1 500 x\r\nX-Squid-Error: ERR_OTHER 0\r\n\r\n", Failure.PROXY_BROKEN),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Failure.PROXY_BROKEN),
        (b"HTTP/1.1 302 x\r\nLocation: http://login.example\r\n\r\n", Failure.CAPTIVE_PORTAL),
        (b"HTTP/1.1 511 x\r\n\r\n", Failure.CAPTIVE_PORTAL),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", Failure.CAPTIVE_PORTAL),
        (b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", Failure.CREDENTIALS_WANTED),
        (b"HTTP/1.1 407 x\r\n\r\n", Failure.SCHEME_UNKNOWN),
        (b"HTTP/1.1 407 x\r\nProxy-Authenticate: Hoba a=b\r\n\r\n", Failure.SCHEME_UNKNOWN),
        (b"<html>\r\n", Failure.NOT_A_PROXY),
        (b"\5\xff", Failure.NOT_A_PROXY),
        (b"HTTP/1.1 abc\r\n\r\n", Failure.NOT_A_PROXY),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", Failure.NOT_A_PROXY),
    ],
)
def test_every_refusal(answer: bytes, kind: Failure) -> None:
    with pytest.raises(PathRefused, match=r"proxy\.example:3128") as told:
        talk(answer)
    assert told.value.kind is kind


def test_answers_are_bounded() -> None:
    with pytest.raises(AnswerTooLong):
        talk(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000)
    with pytest.raises(AnswerTooLong):
        talk(
            b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: 999999\r\n\r\n" + bytes(90_000), secret="s"
        )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTT"])
def test_an_answer_that_is_cut(answer: bytes) -> None:
    with pytest.raises((StreamEnded, PathRefused)):
        talk(answer)


def test_a_password_goes_only_to_who_asks_for_it_and_as_well_hidden_as_can_be() -> None:
    stream, _ = talk(OK, secret="secret")
    assert b"Authorization" not in stream.sent
    both = (
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n" + DIGEST % (b"n", b"") + b"Content-Length: 0\r\n\r\n"
    )
    stream, _ = talk(both + OK, secret="secret")
    assert b"Proxy-Authorization: Digest " in stream.sent
    assert b"Basic" not in stream.sent


def test_a_password_that_is_refused_with_401() -> None:
    asked = b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(PathRefused) as told:
        talk(asked + b"HTTP/1.1 401 Unauthorized\r\n\r\n", secret="s")
    assert told.value.kind is Failure.CREDENTIALS_REFUSED


@pytest.mark.parametrize("realm", ["社内".encode(), b"caf\xe9"])
def test_a_realm_in_any_letters_goes_back_as_it_came(realm: bytes) -> None:
    asked = (
        b'HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm="' + realm + b'", nonce="n"\r\nContent-Length: 0\r\n\r\n'
    )
    stream, opened = talk(asked + OK, secret="s")
    assert opened
    assert b'realm="' + realm + b'"' in stream.sent
    first = hashlib.md5(b"taro:" + realm + b":s").hexdigest()
    second = hashlib.md5(b"CONNECT:hub.example:443").hexdigest()
    assert hashlib.md5(f"{first}:n:{second}".encode()).hexdigest().encode() in stream.sent


def test_a_stale_nonce_is_renewed_once() -> None:
    first = b"HTTP/1.1 407 x\r\n" + DIGEST % (b"n1", b"") + b"Content-Length: 0\r\n\r\n"
    stale = b"HTTP/1.1 407 x\r\n" + DIGEST % (b"n2", b", stale=TRUE") + b"Content-Length: 0\r\n\r\n"
    stream, opened = talk(first + stale + OK, secret="s")
    assert opened
    assert stream.sent.count(b'nonce="n2"') == 1
    for second in (first, stale + stale):
        with pytest.raises(PathRefused) as told:
            talk(first + second, secret="s")
        assert told.value.kind is Failure.CREDENTIALS_REFUSED


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 407 x\r\n",
        b"HTTP/1.1 407 x\r\nConnection: close\r\n",
        b"HTTP/1.1 407 x\r\nProxy-Connection: Close\r\n",
    ],
)
def test_a_proxy_that_closes_is_asked_again_over_a_new_connection(head: bytes) -> None:
    again = Talk(VIA, "hub.example", 443, "secret")
    stream = MemoryStream(head + b"Proxy-Authenticate: Basic realm=x\r\n\r\nbody")
    assert not at_once(again.connect(stream))
    stream = MemoryStream(OK)
    assert at_once(again.connect(stream))
    assert b"Proxy-Authorization: Basic dGFybzpzZWNyZXQ=\r\n" in stream.sent


def test_what_is_missing_for_ntlm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spnego", None)
    answer = b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(PathRefused, match=r"ukihashi\[sso-proxy\]") as told:
        talk(answer, secret="secret")
    assert told.value.kind is Failure.SSO_MISSING
    with_basic = answer.replace(b"NTLM", b"NTLM, Basic realm=x")
    stream, opened = talk(with_basic + OK, secret="secret")
    assert opened
    assert b"Basic" in stream.sent
