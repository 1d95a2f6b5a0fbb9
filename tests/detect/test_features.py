import pytest

from lab.scene import CLIENT_HELLO, SERVER_HELLO
from ukihashi.detect.features import Outer, beginning
from ukihashi.detect.flow import Turn

CONNECT, GRANTED = b"CONNECT hub.example.jp:443 HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 200 OK\r\n\r\n"


def turns(*parts: tuple[bytes, int], first: bool = True) -> list[Turn]:
    """Turns in alternating directions, each of a head and a size."""
    made = []
    for place, (head, size) in enumerate(parts):
        turn = Turn(float(place), toward_server=(place % 2 == 0) is first)
        turn.head, turn.size = head, size
        made.append(turn)
    return made


def test_a_direct_connection_begins_with_its_hello() -> None:
    assert beginning(turns((CLIENT_HELLO, 517))) == (Outer.TCP, 0, 517, "")


def test_an_http_proxy_even_one_that_wants_a_password_first() -> None:
    refused = b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    found = turns((CONNECT, 90), (refused, 300), (CONNECT, 140), (GRANTED, 39), (CLIENT_HELLO, 300))
    assert beginning(found[:4]) == (Outer.HTTP, -1, 0, "hub.example.jp:443")
    assert beginning(found) == (Outer.HTTP, 4, 300, "hub.example.jp:443")


def test_socks_4_and_5() -> None:
    four = turns((b"\x04\x01\x01\xbb", 9), (b"\x00\x5a", 8), (CLIENT_HELLO, 300))
    five = turns(
        (b"\x05\x01\x00", 3), (b"\x05\x00", 2), (b"\x05\x01\x00\x01", 10), (b"\x05\x00", 10), (CLIENT_HELLO, 300)
    )
    assert beginning(four) == (Outer.SOCKS, 2, 300, "")
    assert beginning(five) == (Outer.SOCKS, 4, 300, "")


def test_with_the_clients_packets_missing_the_servers_tell() -> None:
    assert beginning(turns((b"", 517), (SERVER_HELLO, 1400))) == (Outer.TCP, 0, 517, "")
    proxied = turns((b"", 90), (GRANTED, 39), (b"", 300), (SERVER_HELLO, 1400))
    assert beginning(proxied) == (Outer.HTTP, 2, 300, "")


@pytest.mark.parametrize(
    "found",
    [
        turns((b"GET / HTTP/1.1\r\n", 80)),
        turns((b"SSH-2.0-OpenSSH_9.2\r\n", 21)),
        turns((b"220 mail ESMTP\r\n", 40), first=False),
        turns((b"\x05\x09", 40)),
        turns((CLIENT_HELLO, 60)),
    ],
    ids=["http", "ssh", "server first", "no socks", "tiny hello"],
)
def test_everything_else_is_no_beginning(found: list[Turn]) -> None:
    assert beginning(found) is None


def test_a_proxys_dialogue_that_never_comes_to_tls_is_given_up() -> None:
    assert beginning(turns((CONNECT, 90), *[(b"", 50)] * 9)) is None


@pytest.mark.parametrize("name", [b"\xff\xfe:1", b"a b:1", b"host\x1b[2J:1"])
def test_a_target_with_strange_characters_is_not_repeated(name: bytes) -> None:
    found = beginning(turns((b"CONNECT " + name + b" HTTP/1.1\r\n", 60)))
    assert found is not None
    assert found.target in ("", "a")


def test_a_proxy_whose_request_was_lost_is_known_by_what_follows() -> None:
    socks = turns((b"", 9), (b"\x00\x5a", 8), (b"", 317), (b"", 1434))
    assert beginning(socks[:1]) == (Outer.TCP, -1, 0, "")
    assert beginning(socks) == (Outer.SOCKS, 2, 317, "")
    five = turns((b"", 3), (b"", 2), (b"\x05\x01\x00\x01", 10), (b"", 10), (b"", 317), (b"", 1434))
    assert beginning(five) == (Outer.SOCKS, 4, 317, "")
    assert beginning(turns((b"", 9), (b"", 8), (CLIENT_HELLO, 317), (b"", 1434))) == (Outer.SOCKS, 2, 317, "")
    assert beginning(turns((b"", 90), (b"", 39), (CLIENT_HELLO, 317), (b"", 1434))) == (Outer.HTTP, 2, 317, "")


def test_a_small_first_turn_that_nothing_explains_is_given_up() -> None:
    assert beginning(turns((b"", 9), (b"", 8), (b"", 9), (b"", 8))) is None
