"""Streams between two cards of ours: super-frames where both ends and the hub take them, ordinary frames where not.

Each stream is compared by its SHA-256, and every checksum that a receiving kernel finds wrong is counted by it.
"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lab.flow import stream
from lab.net import Host, Net
from lab.pairs import Pair, ours
from lab.ukihashi import Card, Hub
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

LEAST = 6 << 20  # bytes of a stream
RISING = ("super_frames_out", "super_frames_in", "frames_out")


@pytest.fixture(scope="module")
def cards() -> Iterator[tuple[Hub, Card, Card]]:
    """Two cards at a hub, nothing between."""
    with Net() as net:
        yield joined(net)


def joined(net: Net, *words: str, settings: dict[str, Any] | None = None) -> tuple[Hub, Card, Card]:
    """`words`: of the first card's `join`. `settings`: of the hub."""
    machine, a, b = net.lan("hub", "a", "b")
    hub = Hub(machine)
    hub.configure(settings or {})
    hub.start()
    one, other = Card(a), Card(b)
    one.join(hub.invite("a"), *words)
    other.join(hub.invite("b"))
    return hub, one, other


def wrong_checksums(host: Host) -> int:
    """TCP segments and UDP datagrams that the host's kernel threw away for it."""
    lines = host.run(["cat", "/proc/net/snmp"]).splitlines()
    found = 0
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        found += int(dict(zip(names.split(), values.split(), strict=True)).get("InCsumErrors", 0))
    return found


def link_says(card: Card, name: str) -> str:
    words = card.host.run(["ip", "-d", "link", "show", "dev", card.interface()]).split()
    return words[words.index(name) + 1]


def rose(card: Card, before: dict[str, Any]) -> dict[str, int]:
    now = card.status()
    for name in ("dropped_offload_header", "dropped_toward_kernel", "dropped_oversized"):
        assert now[name] == 0, (name, now[name])
    return {name: now[name] - before[name] for name in RISING}


def test_streams_between_cards_go_in_large_pieces_both_ways(cards: tuple[Hub, Card, Card]) -> None:
    _hub, one, other = cards
    for sender, receiver, version in ((one, other, 4), (other, one, 6)):
        before = sender.status(), receiver.status()
        assert before[0]["offload"].startswith("checksum, TSO4, TSO6")
        moved = stream(sender.host, receiver.host, receiver.address(version), seconds=0.2, least=LEAST)
        sent, got = rose(sender, before[0]), rose(receiver, before[1])
        assert sent["super_frames_out"] > 50
        assert got["super_frames_in"] == sent["super_frames_out"]
        assert sent["frames_out"] < moved / 4000, "most of it goes in pieces far longer than a line allows"
        assert [wrong_checksums(card.host) for card in (one, other)] == [0, 0]


def test_the_kernel_makes_none_that_the_hub_would_refuse(cards: tuple[Hub, Card, Card]) -> None:
    _hub, one, _other = cards
    assert link_says(one, "gso_max_segs") == "128"


def test_a_card_may_do_without(net: Net) -> None:
    """The hub finishes what the other card sends; the first card's kernel does it for what it sends itself."""
    _hub, one, other = joined(net, "--no-offload")
    assert one.status()["offload"] == "off: option"
    assert "off, as the account says" in one.run("card", "status")
    assert link_says(one, "qlen") == "500"
    before = one.status(), other.status()
    for version in (4, 6):
        stream(other.host, one.host, one.address(version), seconds=0.1, least=LEAST // 2)
        stream(one.host, other.host, other.address(version), seconds=0.1, least=LEAST // 2)
    plain, super_ = rose(one, before[0]), rose(other, before[1])
    assert (plain["super_frames_out"], plain["super_frames_in"]) == (0, 0)
    assert super_["super_frames_out"] > 50
    assert super_["super_frames_in"] == 0
    assert [wrong_checksums(card.host) for card in (one, other)] == [0, 0]


@pytest.mark.soak
def test_a_hub_may_grant_none_and_grant_them_later(net: Net) -> None:
    hub, one, other = joined(net, settings={"super_frames": False})
    assert [card.status()["offload"] for card in (one, other)] == ["off: hub", "off: hub"]
    before = one.status(), other.status()
    stream(one.host, other.host, other.address(4), seconds=0.1, least=LEAST // 2)
    assert rose(one, before[0])["super_frames_out"] == rose(other, before[1])["super_frames_in"] == 0
    hub.run("hub", "set", "super_frames", "true")
    one.leave("lan")
    one.up("lan")
    before = one.status(), other.status()
    stream(one.host, other.host, other.address(6), seconds=0.1, least=LEAST // 2)
    assert rose(one, before[0])["super_frames_out"] > 20
    assert rose(other, before[1])["super_frames_in"] == 0
    assert [wrong_checksums(card.host) for card in (one, other)] == [0, 0]


@pytest.mark.soak
@pytest.mark.peer("nft")
def test_cuts_in_a_stream_lose_nothing_of_it(net: Net) -> None:
    with ours(net) as pair:
        assert pair.programs is not None
        card = pair.programs[1]
        before = card.status()
        moved, pieces = [0], threading.Semaphore(0)

        def count(size: int) -> None:
            moved[0] += size
            if moved[0] > LEAST // 2:
                moved[0] = 0
                pieces.release()

        cutter = threading.Thread(target=cut, args=(pair, pieces, 4), daemon=True)
        cutter.start()
        for sender, receiver, address in (("c", "b", pair.addresses[1]), ("b", "c", pair.addresses[0])):
            stream(pair.hosts[sender], pair.hosts[receiver], address, seconds=0.1, least=2 * LEAST, moved=count)
        cutter.join(60)
        row = until(lambda: online(card), seconds=30, what="the card being online")
        sent = rose(card, before)
        assert sent["super_frames_out"] > 50
        assert sent["super_frames_in"] > 50
        ledger = row["ledger"]
        assert (row["logins"], ledger["lost"]) == (1, 0)
        assert ledger["resumes"] >= 4
        assert [wrong_checksums(pair.hosts[letter]) for letter in "cb"] == [0, 0]


def cut(pair: Pair, pieces: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        pieces.acquire(timeout=60)
        pair.relay.reset()


def online(card: Card) -> dict[str, Any] | None:
    row = card.status()
    return row if row["state"] == "online" else None
