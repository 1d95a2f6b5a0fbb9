"""Super-frames between a card of ours, the hub's own port and the official client, which knows none; and hostile ones.

The networks are real, and so are all ends but the hostile one. Each stream is compared by its SHA-256.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from lab import peers
from lab.flow import stream
from lab.net import Host, Net
from lab.plain import Opening
from lab.raw import BROADCAST, Wire
from lab.ukihashi import HUB, Card, Hub, gateway
from lab.wait import until
from ukihashi.auth.password import hash_password, secure_password
from ukihashi.ether.offload import ALL, OFFLOAD, TRAILER, SuperFrame, flaw
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import AuthType
from ukihashi.wire.messages import Login

pytestmark = [pytest.mark.netns, pytest.mark.slow]

LEAST: Final = 4 << 20  # bytes of a stream
VISITOR: Final = b"\2\0\0\0\0\x66"


class Site(NamedTuple):
    """A hub with a port of its own, a card of ours, and a host for somebody else."""

    hub: Hub
    card: Card
    other: Host

    def row(self, user: str) -> dict[str, Any]:
        return next(row for row in self.hub.tell("sessions", hub=HUB) if row["user"] == user)

    def status(self) -> dict[str, Any]:
        """Of the card."""
        (row,) = self.card.tell("lan")
        return row

    def password(self, user: str) -> str:
        """Of a new user."""
        made = json.loads(self.hub.run("hub", "user", "create", user, "--hub", HUB, "--json"))
        return str(made["password"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Net() as net:
        machine, ours, other = net.lan("hub", "a", "b")
        hub, card = Hub(machine), Card(ours)
        hub.start()
        card.join(hub.invite("ann"))
        yield Site(hub, card, other)


@pytest.fixture(scope="module")
def official(site: Site) -> Iterator[str]:
    """The address of an official client on the other host."""
    address = site.card.address(4).rpartition(".")[0] + ".200"
    client = peers.Client(site.other)
    client.start()
    client.create_account(
        "v1",
        server=site.hub.host.ipv4,
        port=443,
        hub=HUB,
        user="taro",
        password=site.password("taro"),
        cidrs=[f"{address}/24"],
    )
    client.connect("v1")
    site.card.host.pings(address, seconds=30)
    yield address
    client.disconnect("v1")


def wrong_checksums(host: Host) -> int:
    """TCP segments that the host's kernel threw away for it."""
    names, values = (line.split() for line in host.run(["cat", "/proc/net/snmp"]).splitlines() if "Tcp:" in line)
    return int(values[names.index("InCsumErrors")])


def test_the_hub_s_own_port_and_a_card_exchange_super_frames(site: Site) -> None:
    card, machine = site.card, site.hub.host
    before, moved = (site.status(), site.row("ann")), 0
    for version in (4, 6):
        moved += stream(card.host, machine, gateway(card.address(version)), least=LEAST)
        moved += stream(machine, card.host, card.address(version), least=LEAST)
    after = site.status(), site.row("ann")
    for name in ("super_frames_out", "super_frames_in"):
        assert after[0][name] - before[0][name] > 100
    frames = sum(after[1][name] - before[1][name] for name in ("frames_in", "frames_out"))
    assert frames < moved / 3000
    assert after[1]["drops"].get("offload_header", 0) == after[0]["dropped_offload_header"] == 0
    assert [wrong_checksums(host) for host in (machine, card.host)] == [0, 0]
    words = machine.run(["ip", "-d", "link", "show", "dev", own_port(site.hub)]).split()
    assert [words[words.index(name) + 1] for name in ("qlen", "gso_max_segs")] == ["500", "128"]
    assert after[1]["offload"].startswith("checksum, TSO4, TSO6")


@pytest.mark.soak
def test_an_upgrade_goes_on_with_them(site: Site) -> None:
    card, machine = site.card, site.hub.host
    site.hub.run("hub", "upgrade")
    card.host.pings(gateway(card.address(4)))
    before = site.status()
    stream(card.host, machine, gateway(card.address(6)), least=LEAST)
    stream(machine, card.host, card.address(4), least=LEAST)
    after = site.status()
    assert after["logins"] == before["logins"] == 1
    for name in ("super_frames_out", "super_frames_in"):
        assert after[name] - before[name] > 50
    assert [wrong_checksums(host) for host in (machine, card.host)] == [0, 0]


@pytest.mark.peer("vpnclient", "vpncmd")
def test_an_official_client_gets_every_byte_in_ordinary_frames(site: Site, official: str) -> None:
    card = site.card
    before = site.status(), site.row("taro")
    stream(card.host, site.other, official, least=LEAST)
    now = site.status(), site.row("taro")
    assert now[0]["super_frames_out"] - before[0]["super_frames_out"] > 50
    assert now[1]["frames_out"] - before[1]["frames_out"] > LEAST / 1500
    stream(site.other, card.host, card.address(4), least=LEAST)
    assert site.status()["super_frames_in"] == now[0]["super_frames_in"], "nobody joins what came in pieces"
    assert now[1]["offload"] == ""
    assert [wrong_checksums(host) for host in (site.other, card.host)] == [0, 0]


# -- a hostile card ---------------------------------------------------------------------------------------------------


class Hostile:
    """A session with exact resume and every kind of super-frames granted, whose end sends what it likes."""

    def __init__(self, host: Host, hub: Hub, user: str, password: str) -> None:
        self._link = Opening(host, hub.host.ipv4, hub.port)
        self._link.hello()
        self.welcome = self._link.login(
            Login(
                HUB,
                user,
                AuthType.PASSWORD_HASH,
                secure_password=secure_password(hash_password(user, password), self._link.challenge),
                client="lab hostile card",
                extension=1,
                extension_oldest=1,
                resume=True,
                super_frames=ALL.value,
            )
        )
        self._decoder = BlockDecoder(extended=True, super_frames=True)

    def send(self, *frames: bytes) -> None:
        self._link.write(encode_frames(frames))
        self._link.until(lambda: not self._link.backlog, "the hub's taking it")

    def frames(self) -> list[bytes]:
        self._link.flush()
        self._link.read()
        data, self._link.plain = bytes(self._link.plain), bytearray()
        return self._decoder.feed(data)

    @property
    def ended(self) -> bool:
        return self._link.ended

    def close(self) -> None:
        self._link.close()


def flawed(good: SuperFrame) -> list[SuperFrame]:
    """Each field of the trailer spoilt in many ways, the headers before it too; only those with a flaw."""
    plan = OFFLOAD.unpack(good[-TRAILER:])
    made = []
    for at in range(len(plan)):
        for value in (0, 1, 2, 3, 4, 5, 13, 33, 53, 127, 128, 129, 133, 255, 256, 1599, 1600, 1601, 65534, 65535):
            fields = [*plan[:at], value & (0xFF if at < 2 else 0xFFFF), *plan[at + 1 :]]
            made.append(SuperFrame(good[:-TRAILER] + OFFLOAD.pack(*fields)))
    for place in (12, 14, 17, 20, 21, 23, 46):
        made += [SuperFrame(good[:place] + bytes([value]) + good[place + 1 :]) for value in (0, 0x11, 0x3F, 0x60, 0xFF)]
    made += [SuperFrame(good[:-TRAILER][:length] + good[-TRAILER:]) for length in (14, 20, 33, 34, 50, 53)]
    made += [SuperFrame(bytes([0xFF]) * length) for length in (24, 100, 65_000)]
    return [frame for frame in made if flaw(frame, ALL)]


@pytest.mark.peer("vpnclient", "vpncmd")
def test_what_a_hostile_card_makes_up_reaches_nobody(site: Site, official: str) -> None:
    head = BROADCAST + VISITOR + b"\x08\0"
    body = bytes.fromhex("4500138400004000400612a50a0000010a00000230391451000003e80000000750180200abcd0000")
    good = SuperFrame(head + body + bytes(3000) + OFFLOAD.pack(1, 1, 54, 1448, 34, 16))
    assert not flaw(good, ALL)
    bad = [SuperFrame(BROADCAST + VISITOR + frame[12:]) for frame in flawed(good)]
    assert len(bad) > 100
    mark = BROADCAST + VISITOR + b"\x88\xb5" + bytes(46)
    places = [(site.card.host, site.card.interface()), (site.other, "vpn_v1"), (site.hub.host, own_port(site.hub))]
    wires = [Wire(host, interface) for host, interface in places]
    hostile = Hostile(site.other, site.hub, "mallory", site.password("mallory"))
    try:
        assert hostile.welcome.super_frames == ALL.value
        for at in range(0, len(bad), 10):
            hostile.send(*bad[at : at + 10])
        hostile.send(mark)
        for wire in wires:
            assert until_mark(wire, mark) == [mark]
        row = until(lambda: found_flawed(site, len(bad)), seconds=30, what="the count")
        assert row["drops"] == {"offload_header": len(bad)}
        assert not hostile.ended
        asked = who_has(site.card.address(4))
        hostile.send(asked)
        until(lambda: any(frame[:6] == VISITOR for frame in hostile.frames()), seconds=30, what="an answer")
    finally:
        hostile.close()
        for wire in wires:
            wire.__exit__()
    assert site.status()["dropped_offload_header"] == 0
    stream(site.card.host, site.other, official, least=LEAST // 8)


def until_mark(wire: Wire, mark: bytes) -> list[bytes]:
    """All that comes from the visitor up to the mark."""
    seen = []
    for frame in wire.frames(seconds=30.0):
        if frame[6:12] == VISITOR:
            seen.append(frame)
        if frame == mark:
            break
    return seen


def found_flawed(site: Site, count: int) -> dict[str, Any] | None:
    row = site.row("mallory")
    return row if row["drops"].get("offload_header", 0) >= count else None


def own_port(hub: Hub) -> str:
    names = [link["ifname"] for link in json.loads(hub.host.run(["ip", "-j", "link"]))]
    return str(next(name for name in names if name.startswith("uk")))


def who_has(address: str) -> bytes:
    """An ARP request for it."""
    network = address.rpartition(".")[0]
    own, wanted = (bytes(map(int, one.split("."))) for one in (f"{network}.201", address))
    return BROADCAST + VISITOR + bytes.fromhex("08060001080006040001") + VISITOR + own + bytes(6) + wanted
