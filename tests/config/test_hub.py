from pathlib import Path

import pytest

from ukihashi.config.hub import Endpoint, HubConfig, Standard, Web, load_hub, parse_listen, parse_public
from ukihashi.errors import ConfigError, UsageError


def test_a_hub_listens_on_443_of_both_families_unless_told_otherwise() -> None:
    assert HubConfig().endpoints() == [Endpoint("0.0.0.0", 443), Endpoint("::", 443)]


def test_listen_forms() -> None:
    found = parse_listen(["8443", "127.0.0.1:1", "[::1]:65535", ":8443", "[2001:DB8:0::1]:443"])
    assert [str(one) for one in found] == [
        "0.0.0.0:8443",
        "[::]:8443",
        "127.0.0.1:1",
        "[::1]:65535",
        "[2001:db8::1]:443",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no TCP port"),
        ("x", "no TCP port"),
        ("0", "no TCP port"),
        ("65536", "no TCP port"),
        ("٤٤٣", "no TCP port"),
        ("hub:443", "is no address"),
        ("::1:443", "brackets"),
        ("1.2.3:443", "is no address"),
    ],
)
def test_a_wrong_listen_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_listen([text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub.example.jp", ("hub.example.jp", 443)),
        ("hub.example.jp:8443", ("hub.example.jp", 8443)),
        ("2001:db8::1", ("2001:db8::1", 443)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
        ("[2001:db8::1]:8443", ("2001:db8::1", 8443)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
    ],
)
def test_public_address_forms(text: str, expected: tuple[str, int]) -> None:
    assert parse_public(text, 443) == expected


@pytest.mark.parametrize(
    ("text", "found"), [("40000-44999", (40000, 44999)), ("1 - 65535", (1, 65535)), ("5000", (5000, 5000))]
)
def test_udp_ports(text: str, found: tuple[int, int]) -> None:
    assert Standard(udp_ports=text).udp_range() == found


@pytest.mark.parametrize("text", ["", "-", "0", "1-", "-1", "x-y", "9-65536", "٤-٥", "1" * 5000])
def test_what_is_no_range_of_ports(text: str) -> None:
    with pytest.raises(UsageError, match="two ports"):
        Standard(udp_ports=text).udp_range()


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("", None),
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("http://www.example.jp/", ("www.example.jp", 80)),
        ("http://[::1]:8080", ("::1", 8080)),
    ],
)
def test_upstreams(text: str, origin: tuple[str, int] | None) -> None:
    assert Web(upstream=text).origin() == origin


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "http://", "http://a/b", "http://u@a", "ftp://a", "http://a:0"])
def test_what_is_no_upstream(text: str) -> None:
    with pytest.raises(UsageError, match="such as http://"):
        Web(upstream=text).origin()


@pytest.mark.parametrize("text", ["", "a b", "https://hub/", "hub:x", ":443", "hub:0"])
def test_what_is_no_public_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_public(text, 443)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('listen = ["x"]', "no TCP port"),
        ("listen = []", "listen is empty"),
        ('public_address = "a b"', "no public address"),
        ('log_format = "xml"', "log_format can't be .xml"),
        ('[tls]\nkey = "/k"', "go together"),
        ('page_dir = "/nonexistent"', "not a folder"),
        ("session_timeout_s = 1", "session_timeout_s"),
        ("[standard]\nmax_connections = 33", "max_connections"),
        ('[standard]\nudp_ports = "2-1"', "two ports"),
        ('[front]\nproxies = ["10.0.0.0/8", "lb.example"]', "is no network"),
        ('[front]\nproxies = ["0.0.0.0/0"]', "is everybody"),
        ('[web]\nupstream = "https://127.0.0.1"', "such as http://"),
        ('page_dir = "/"\n[web]\nupstream = "http://127.0.0.1"', "give one of them"),
    ],
)
def test_the_file_is_checked_at_once(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_hub(path)
    assert str(path) in str(caught.value)


def test_ways_out() -> None:
    found = HubConfig(uplink=("LAN", "Büro:eth1", "büro:eth2")).uplinks()
    assert found == {"lan": frozenset(), "büro": frozenset({"eth1", "eth2"})}


@pytest.mark.parametrize("text", ["LAN:", "LAN:sixteen-letters-x", "LAN:a b", "a/b", "", "LAN:eth1:2"])
def test_what_is_no_way_out(text: str) -> None:
    with pytest.raises(UsageError):
        HubConfig(uplink=(text,)).uplinks()
