"""Which path is tried when, what is remembered, and what is told when none leads to the hub."""

from pathlib import Path

import pytest

from ukihashi.card.path_finder import NETWORKS_MOST, Finder, PathMemory
from ukihashi.card.path_sources import Candidate
from ukihashi.errors import DialError, NotTrusted, UkihashiError
from ukihashi.net.dial.via import parse

DIRECT, PROXY, SOCKS = (
    Candidate(parse(url), None, source)
    for url, source in (("direct:", "direct"), ("http://proxy.lab:3128", "link"), ("socks5h://gate.lab", "environment"))
)
ALL = [DIRECT, PROXY, SOCKS]


def finder(memory: Path | None = None, *, network: str = "home") -> Finder:
    made = Finder(PathMemory(memory))
    made.take(ALL)
    made.enter(network)
    return made


def test_dials_for_one_link_take_the_paths_in_turn() -> None:
    made = finder()
    assert [made.next() for _ in range(5)] == [DIRECT, PROXY, SOCKS, DIRECT, PROXY]


def test_the_path_that_carries_goes_first_from_then_on() -> None:
    made = finder()
    made.next()
    made.carries(SOCKS.via)
    assert [made.next() for _ in range(4)] == [SOCKS, DIRECT, PROXY, SOCKS]
    made.carries(SOCKS.via)
    assert made.next() == made.best == SOCKS


def test_each_network_has_what_worked_there(tmp_path: Path) -> None:
    file = tmp_path / "paths" / "lan.json"
    made = finder(file)
    made.carries(PROXY.via)
    made.enter("office")
    assert made.order == ALL
    made.carries(SOCKS.via)
    made.enter("home")
    assert made.best == PROXY
    later = finder(file, network="office")
    assert later.order == [SOCKS, DIRECT, PROXY]
    assert finder(file, network="").order == ALL
    assert finder(file, network="elsewhere").order == ALL


def test_to_stay_in_a_network_changes_nothing() -> None:
    made = finder()
    made.carries(PROXY.via)
    made.next()
    made.enter("home")
    assert made.next() == DIRECT


def test_one_path_alone_is_not_worth_remembering(tmp_path: Path) -> None:
    made = Finder(PathMemory(tmp_path / "lan.json"))
    made.take([PROXY])
    made.enter("home")
    made.carries(PROXY.via)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"home": {"via": "gopher://x", "at": 1}}', b'{"home": 7}'])
def test_a_damaged_memory_is_as_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lan.json"
    file.write_bytes(content)
    made = finder(file)
    assert made.order == ALL
    made.carries(PROXY.via)
    assert finder(file).best == PROXY


def test_a_remembered_path_that_is_gone_is_not_tried(tmp_path: Path) -> None:
    finder(tmp_path / "lan.json").carries(PROXY.via)
    later = finder(tmp_path / "lan.json")
    later.take([DIRECT, SOCKS])
    assert later.order == [DIRECT, SOCKS]


def test_only_so_many_networks_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "lan.json"
    made = finder(file)
    for number in range(NETWORKS_MOST + 3):
        made.enter(f"network {number}")
        made.carries(PROXY.via)
    memory = PathMemory(file)
    known = [number for number in range(NETWORKS_MOST + 3) if memory.of(f"network {number}") is not None]
    assert known == list(range(3, NETWORKS_MOST + 3))


def test_where_it_can_not_be_written_it_is_remembered_all_the_same() -> None:
    made = finder(Path("/proc/no/such/folder/lan.json"))
    made.carries(PROXY.via)
    made.enter("office")
    made.enter("home")
    assert made.best == PROXY


def test_what_failed_is_told_path_by_path() -> None:
    made = finder()
    made.failed(DIRECT.via, DialError("nobody there"))
    made.failed(PROXY.via, NotTrusted("another key"))
    told = made.failure("lan")
    assert type(told) is DialError
    assert str(told) == (
        "no path leads to the hub: direct: (nobody there), http://proxy.lab:3128 (another key)."
        " `ukihashi card doctor lan` says more"
    )
    assert [(row["via"], row["used"], row["reason"] and row["reason"]["text"]) for row in made.rows()] == [
        ("direct:", False, "nobody there"), ("http://proxy.lab:3128", False, "another key"),
        ("socks5h://gate.lab:1080", False, None),
    ]  # fmt: skip
    made.carries(PROXY.via)
    assert made.rows()[0] == {"via": "http://proxy.lab:3128", "source": "link", "used": True, "reason": None}


@pytest.mark.parametrize("errors", [(DialError("all the same"),) * 3, (NotTrusted("one"), NotTrusted("two"))])
def test_what_is_the_same_for_all_is_told_once(errors: tuple[UkihashiError, ...]) -> None:
    made = finder()
    for candidate, error in zip(ALL, errors, strict=False):
        made.failed(candidate.via, error)
    assert made.failure("lan") is errors[0]
