"""Two ends of a UDP path over a network in memory; the clock is a number."""

import random
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.session.udp_drops import FOREIGN, LATE, UNREADABLE
from ukihashi.session.udp_path import UdpPath
from ukihashi.wire.blocks import compress
from ukihashi.wire.udp import COMPRESSED, UdpCodec, UdpEnd, UdpGrant, UdpOffer

CLIENT, SERVER = ("192.0.2.1", 5000), ("198.51.100.1", 40000)
STEP = 0.05


class World:
    """A hub's end and a card's end, and what flows between them. `cut` names the ends whose datagrams vanish."""

    def __init__(self, *, fast: bool = True, encrypted: bool = True, seed: int = 1) -> None:
        draw = random.Random(seed)
        offer = UdpOffer.fresh(CLIENT[1], draw.randbytes)
        grant = UdpGrant.fresh(SERVER[1], draw.randbytes, encrypted=encrypted, fast=fast)
        self.now = 1000.0
        self.ends = {
            "hub": UdpEnd.server(offer, grant),
            "card": UdpEnd.client(offer, grant),
        }
        ivs = count()
        self.paths = {
            name: UdpPath(
                end,
                CLIENT if name == "hub" else SERVER,
                self.now,
                first_iv=next(ivs).to_bytes(12, "big"),
                chance=draw.random,
            )
            for name, end in self.ends.items()
        }
        self.hub, self.card = self.paths["hub"], self.paths["card"]
        self.sources = {"hub": SERVER, "card": CLIENT}
        self.cut: set[str] = set()
        self.sent: dict[str, list[float]] = {"hub": [], "card": []}

    def run(self, seconds: float) -> None:
        """Let time pass; keep-alives flow."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            for name, path in self.paths.items():
                if self.now >= path.due_at:
                    self.sent[name].append(self.now)
                    self.carry(name, path.keepalive(self.now))

    def carry(self, sender: str, data: bytes) -> bytes:
        """A datagram to the other end; its frame."""
        if sender in self.cut:
            return b""
        other = self.paths["card" if sender == "hub" else "hub"]
        return other.receive(data, self.sources[sender], self.now)

    @property
    def ready(self) -> tuple[bool, bool]:
        return self.hub.is_ready(self.now), self.card.is_ready(self.now)


@pytest.mark.parametrize(("fast", "shortest", "longest"), [(True, 0.5, 1.0), (False, 1.0, 3.0)])
def test_keepalives_come_at_random_moments_within_the_pace(fast: bool, shortest: float, longest: float) -> None:
    world = World(fast=fast)
    world.run(120)
    times = world.sent["card"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] <= 1000.1  # the first at once
    assert min(gaps) >= shortest
    assert max(gaps) <= longest + STEP + 1e-6
    assert max(gaps) - min(gaps) > (longest - shortest) / 2


@pytest.mark.parametrize("fast", [True, False])
def test_a_path_is_used_after_ten_steady_seconds(fast: bool) -> None:
    world = World(fast=fast)
    world.run(9.9)
    assert world.ready == (False, False)
    world.run(4.1)
    assert world.ready == (True, True)


def test_a_frame_arrives_while_and_before_the_path_is_ready() -> None:
    world = World()
    assert world.carry("hub", world.hub.encode(b"early frame", world.now)) == b"early frame"
    world.run(14)
    assert world.carry("card", world.card.encode(b"x" * 1375, world.now)) == b"x" * 1375
    assert world.card.longest_frame == 1375
    assert not world.hub.drops


@pytest.mark.parametrize(("fast", "dead"), [(True, 2.1), (False, 9.0)])
def test_silence_ends_it_and_it_comes_back(fast: bool, dead: float) -> None:
    world = World(fast=fast)
    world.run(20)
    world.cut = {"hub", "card"}
    world.run(dead - 1.0 if fast else dead - 3.0)
    assert world.ready == (True, True)
    world.run(dead)
    assert world.ready == (False, False)
    world.run(60)
    world.cut = set()
    world.run(9.9)
    assert world.ready == (False, False)
    world.run(6.2)
    assert world.ready == (True, True)


@pytest.mark.parametrize("deaf", ["hub", "card"])
def test_a_way_that_works_in_one_direction_is_dead_for_both(deaf: str) -> None:
    world = World()
    world.run(20)
    world.cut = {"card" if deaf == "hub" else "hub"}
    world.run(4.5)
    assert world.ready == (False, False)


def test_a_path_that_is_never_answered_is_never_ready() -> None:
    world = World()
    world.cut = {"hub"}
    world.run(60)
    assert world.ready == (False, False)
    assert world.card.newest == 0
    assert world.hub.newest > 0


def test_after_giving_up_it_must_be_steady_anew() -> None:
    world = World()
    world.run(20)
    world.hub.give_up()
    assert world.ready == (False, True)
    world.run(9.9)
    assert world.ready == (False, True)
    world.run(2)
    assert world.ready == (True, True)


def test_the_peer_may_move() -> None:
    world = World()
    world.run(20)
    world.sources["card"] = ("203.0.113.7", 61000)
    world.run(2)
    assert world.hub.peer == ("203.0.113.7", 61000)
    assert world.ready == (True, True)


def test_an_old_datagram_from_elsewhere_moves_nobody() -> None:
    world = World()
    old = world.card.encode(b"frame", world.now)
    world.run(20)
    assert world.hub.receive(old, ("203.0.113.66", 6), world.now) == b"frame"  # late, not too late
    assert world.hub.peer == CLIENT
    newest = world.card.encode(b"", world.now)
    world.carry("card", newest)
    world.hub.receive(newest, ("203.0.113.66", 6), world.now)  # the very newest, sent again from elsewhere
    assert world.hub.peer == CLIENT


def test_what_is_30_s_old_is_dropped() -> None:
    world = World()
    old = world.card.encode(b"frame", world.now)
    world.run(29)
    assert world.carry("card", old) == b"frame"
    world.run(3)
    assert world.carry("card", old) == b""
    assert world.hub.drops == {LATE: 1}


def test_forged_datagrams_change_a_counter_and_nothing_else() -> None:
    world = World()
    world.run(20)
    before = (world.hub.newest, world.hub.peer, world.hub.due_at, world.ready)
    stranger = World(seed=2)
    forged = [stranger.card.encode(b"frame", 5000.0), world.hub.encode(b"its own", world.now), b"", bytes(2048)]
    for data in forged:
        assert world.hub.receive(data, ("203.0.113.66", 6), world.now + 30) == b""
    assert (world.hub.newest, world.hub.peer, world.hub.due_at, world.ready) == before
    assert world.hub.drops == {FOREIGN: len(forged)}


@pytest.mark.parametrize("echo", [0, 1, 10**9, 2**64 - 1])
def test_an_echo_of_nothing_old_or_what_we_never_said_shows_nothing(echo: int) -> None:
    world = World()
    world.run(20)
    world.cut = {"card"}
    codec = UdpCodec(world.ends["card"], ip_version=4, first_iv=b"another iv..")
    for tick in range(30_000, 45_000, 500):
        world.run(0.5)
        world.hub.receive(codec.encode(tick, echo, b"", 0.5), CLIENT, world.now)
    assert not world.hub.is_ready(world.now)


def test_compressed_frames_come_in_unpacked() -> None:
    world = World(encrypted=False)
    frame = bytes(300)
    for packed, wanted in ((compress(frame), frame), (b"no zlib", b"")):
        data = bytearray(world.card.encode(packed, world.now))
        data[22] = COMPRESSED
        assert world.hub.receive(bytes(data), CLIENT, world.now) == wanted
    assert world.hub.drops == {UNREADABLE: 1}


def test_a_path_goes_on_in_another_process() -> None:
    world = World()
    world.run(20)
    old = world.hub
    heir = UdpPath(
        world.ends["hub"], old.peer, world.now, first_iv=b"a fresh iv..", chance=lambda: 0.5, began=old.began
    )
    heir.newest = old.newest
    world.paths["hub"] = world.hub = heir
    world.run(1)
    assert world.card.is_ready(world.now)  # for it nothing has happened
    world.run(13)
    assert world.ready == (True, True)


@given(st.lists(st.tuples(st.sampled_from(["hub", "card"]), st.booleans(), st.floats(0.05, 20)), max_size=8))
def test_whatever_is_cut_both_are_ready_a_while_after_the_last_cut(cuts: list[tuple[str, bool, float]]) -> None:
    world = World()
    for name, whole, seconds in cuts:
        world.cut = {name, "hub" if whole else name}
        world.run(seconds)
    world.cut = set()
    world.run(16)
    assert world.ready == (True, True)
