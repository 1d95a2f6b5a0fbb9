import pytest

from fuzz.targets.proxy_answers import TUNNEL, MemoryStream, at_once
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.socks import connect4, connect5
from ukihashi.net.dial.stream import StreamEnded
from ukihashi.net.dial.via import Kind, Via

FOUR = Via(Kind.SOCKS4, "proxy.example", 1080, "taro")
FIVE = Via(Kind.SOCKS5H, "proxy.example", 1080, "taro")


def test_the_bytes_of_socks4_and_4a() -> None:
    stream = MemoryStream(b"\0\x5a" + bytes(6) + TUNNEL)
    at_once(connect4(stream, FOUR, "192.0.2.1", 443, remote_names=False))
    assert stream.sent == b"\4\1\x01\xbb\xc0\0\2\1taro\0"
    assert stream.data == TUNNEL
    stream = MemoryStream(b"\0\x5a" + bytes(6))
    at_once(connect4(stream, FOUR, "hub.example", 443, remote_names=True))
    assert stream.sent == b"\4\1\x01\xbb\0\0\0\1taro\0hub.example\0"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", b"\1\xc0\0\2\1"),
        ("2001:db8::1", b"\4" + bytes.fromhex("20010db8000000000000000000000001")),
        ("hub.example", b"\3\x0bhub.example"),
        ("浮橋.example", b"\3\x16xn--" + "浮橋".encode("idna")[4:] + b".example"),
    ],
)
@pytest.mark.parametrize("bound", [b"\1" + bytes(6), b"\4" + bytes(18), b"\3\4name\0\0", b"\3\0\0\0"])
def test_the_bytes_of_socks5(host: str, address: bytes, bound: bytes) -> None:
    stream = MemoryStream(b"\5\0\5\0\0" + bound + TUNNEL)
    at_once(connect5(stream, FIVE, host, 443, None))
    if host.startswith("浮"):
        address = b"\3" + bytes((len(address) - 2,)) + address[2:]
    assert stream.sent == b"\5\1\0\5\1\0" + address + b"\x01\xbb"
    assert stream.data == TUNNEL


def test_the_bytes_of_a_password() -> None:
    stream = MemoryStream(b"\5\2\1\0\5\0\0\1" + bytes(6))
    at_once(connect5(stream, FIVE, "hub.example", 443, "sécret"))
    assert stream.sent.startswith(b"\5\2\0\2\1\4taro\7s\xc3\xa9cret\5\1\0")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, Failure.PROXY_BROKEN),
        (2, Failure.FORBIDDEN),
        (3, Failure.TARGET_UNREACHABLE),
        (4, Failure.TARGET_UNREACHABLE),
        (5, Failure.TARGET_REFUSED),
        (6, Failure.TARGET_UNREACHABLE),
        (7, Failure.FORBIDDEN),
        (8, Failure.TARGET_UNSUPPORTED),
        (9, Failure.PROXY_BROKEN),
        (255, Failure.PROXY_BROKEN),
    ],
)
def test_every_reply_of_socks5(code: int, kind: Failure) -> None:
    for rest in (b"\0\1" + bytes(6), b"\0\0"):  # some leave the address out
        with pytest.raises(PathRefused, match=r"socks5h://taro@proxy\.example:1080") as told:
            at_once(connect5(MemoryStream(b"\5\0\5" + bytes((code,)) + rest), FIVE, "hub.example", 443, None))
        assert told.value.kind is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x5B, Failure.PROXY_BROKEN),
        (0x5C, Failure.CREDENTIALS_REFUSED),
        (0x5D, Failure.CREDENTIALS_REFUSED),
        (0x5E, Failure.NOT_A_PROXY),
    ],
)
def test_every_reply_of_socks4(code: int, kind: Failure) -> None:
    with pytest.raises(PathRefused) as told:
        at_once(connect4(MemoryStream(bytes((0, code)) + bytes(6)), FOUR, "192.0.2.1", 443, remote_names=False))
    assert told.value.kind is kind


@pytest.mark.parametrize("host", ["hub.example", "2001:db8::1"])
def test_socks4_takes_addresses_of_ipv4_only(host: str) -> None:
    stream = MemoryStream(b"")
    with pytest.raises(PathRefused, match="socks5") as told:
        at_once(connect4(stream, FOUR, host, 443, remote_names=False))
    assert told.value.kind is Failure.TARGET_UNSUPPORTED
    assert stream.sent == b""


@pytest.mark.parametrize(
    ("answer", "secret", "kind"),
    [
        (b"\5\xff", None, Failure.CREDENTIALS_WANTED),
        (b"\5\xff", "x", Failure.SCHEME_UNKNOWN),
        (b"\5\1", "x", Failure.SCHEME_UNKNOWN),
        (b"\5\2", None, Failure.SCHEME_UNKNOWN),
        (b"\5\2\1\1", "x", Failure.CREDENTIALS_REFUSED),
        (b"\5\2", "x", Failure.CREDENTIALS_REFUSED),
        (b"\5\2", "x" * 256, Failure.CREDENTIALS_REFUSED),
        (b"HTTP/1.1 400", None, Failure.NOT_A_PROXY),
        (b"\0\x5b", None, Failure.NOT_A_PROXY),
        (b"\x15", None, Failure.NOT_A_PROXY),
        (b"\5\0\4\0\0\1", None, Failure.NOT_A_PROXY),
        (b"\5\0\5\0\0\7", None, Failure.NOT_A_PROXY),
    ],
)
def test_a_talk_that_goes_wrong(answer: bytes, secret: str | None, kind: Failure) -> None:
    with pytest.raises(PathRefused) as told:
        at_once(connect5(MemoryStream(answer), FIVE, "hub.example", 443, secret))
    assert told.value.kind is kind


@pytest.mark.parametrize("answer", [b"", b"\5\0\5\0\0\1abc", b"\5\0\5\0\0\3\x09name"])
def test_an_answer_that_is_cut(answer: bytes) -> None:
    with pytest.raises(StreamEnded):
        at_once(connect5(MemoryStream(answer), FIVE, "hub.example", 443, None))


@pytest.mark.parametrize("host", ["a" * 300, "a..b\u00e9", "a\0b"])
def test_a_name_that_can_not_be_asked_for(host: str) -> None:
    with pytest.raises(PathRefused) as told:
        at_once(connect5(MemoryStream(b"\5\0"), FIVE, host, 443, None))
    assert told.value.kind is Failure.TARGET_UNSUPPORTED
