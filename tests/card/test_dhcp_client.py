"""The DHCP client against a server in memory, on a clock that jumps."""

import itertools
import math
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ukihashi.card.dhcp_client import (
    CHECKED_S,
    DECLINED_S,
    FOR_EVER_S,
    INFORM_AGAIN_S,
    LEAST_S,
    Client,
    Lease,
    State,
)
from ukihashi.ether import arp, datagram, dhcp
from ukihashi.ether.dhcp import Message

MAC = bytes.fromhex("021122334455")
SERVER_MAC = bytes.fromhex("02aaaaaaaaaa")
OTHER_MAC = bytes.fromhex("02bbbbbbbbbb")
SERVER = IPv4Address("10.5.0.1")
ADDRESS = IPv4Interface("10.5.0.9/24")
HOUR = 3600


class Server:
    """Answers as it is told; keeps what it was asked."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self.lease_s = HOUR
        self.times: dict[int, int] = {}
        self.silent = False
        self.refuses = False
        self.heard: list[tuple[float, datagram.Datagram, Message]] = []
        self.mac, self.ip = SERVER_MAC, SERVER

    def kinds(self) -> list[int]:
        return [message.kind for _now, _datagram, message in self.heard]

    def answer(self, frame: bytes, now: float) -> list[bytes]:
        if arp.parse(frame) is not None:
            return []
        got = datagram.parse(frame)
        assert got is not None
        asked = dhcp.parse(got.payload)
        assert (got.source_port, got.destination_port) == (68, 67)
        self.heard.append((now, got, asked))
        if self.silent:
            return []
        kind = {dhcp.DISCOVER: dhcp.OFFER, dhcp.REQUEST: dhcp.ACK, dhcp.INFORM: dhcp.ACK}.get(asked.kind)
        if kind is None:
            return []
        if kind == dhcp.ACK and self.refuses:
            kind = dhcp.NAK
        return [self.frame(asked, kind)]

    def frame(self, asked: Message, kind: int, **changes: bytes) -> bytes:
        options = {dhcp.MESSAGE_TYPE: bytes([kind]), dhcp.SERVER_ID: self.ip.packed}
        your = dhcp.NOWHERE
        if kind != dhcp.NAK:
            options |= {dhcp.MASK: self.address.netmask.packed, dhcp.ROUTER: self.ip.packed, dhcp.DNS: self.ip.packed}
        if kind != dhcp.NAK and asked.kind != dhcp.INFORM:
            your = self.address.ip
            options[dhcp.LEASE_TIME] = self.lease_s.to_bytes(4, "big")
            options |= {code: seconds.to_bytes(4, "big") for code, seconds in self.times.items()}
        options |= {int(code.removeprefix("o")): value for code, value in changes.items()}
        message = Message(dhcp.BOOT_REPLY, asked.xid, asked.mac, your=your, options=options)
        return dhcp.server_frame(
            message, mac=self.mac, source=self.ip, destination=dhcp.EVERYBODY, destination_mac=b"\xff" * 6
        )


class World:
    """A client, a server, and a clock that goes on when nothing else does."""

    def __init__(self, random: Callable[[], float] = lambda: 0.5) -> None:
        self.now = 1000.0
        self.server = Server()
        self.client = Client(MAC, random, host_name="taro.example")
        self.sent: list[tuple[float, bytes]] = []
        self.objects_to: IPv4Address | None = None

    def carry(self, frames: list[bytes]) -> None:
        while frames:
            frame = frames.pop(0)
            self.sent.append((self.now, frame))
            probe = arp.parse(frame)
            if probe is not None and self.objects_to == probe.target and probe.sender != probe.target:
                frames += self.client.receive(arp.reply(probe, OTHER_MAC), self.now)
            for reply in self.server.answer(frame, self.now):
                frames += self.client.receive(reply, self.now)

    def run(self, until: float) -> None:
        """Let time go on to `until`, at most so many wake-ups."""
        for _ in range(500):
            lease = self.client.lease
            due = min(self.client.deadline, lease.ends if lease and lease.address else math.inf)
            if due > until:
                break
            self.now = max(self.now, due)
            self.carry(self.client.tick(self.now))
        else:
            raise AssertionError("it never rests")
        self.now = until

    def start(self, remembered: Lease | None = None) -> None:
        self.carry(self.client.ask(self.now, remembered))

    def bound(self) -> Lease:
        self.start()
        self.run(self.now + 2)
        assert self.client.state is State.BOUND
        lease = self.client.lease
        assert lease is not None
        return lease


def test_an_address_comes_in_four_messages_and_after_a_look_whether_it_is_free() -> None:
    world = World()
    lease = world.bound()
    assert lease.address == "10.5.0.9/24"
    assert (lease.server, lease.server_mac, lease.lasts_s) == ("10.5.0.1", SERVER_MAC, HOUR)
    assert lease.options[dhcp.ROUTER] == SERVER.packed
    assert world.server.kinds() == [dhcp.DISCOVER, dhcp.REQUEST]
    _now, _datagram, request = world.server.heard[1]
    assert request.address(dhcp.SERVER_ID) == SERVER
    assert request.address(dhcp.REQUESTED) == ADDRESS.ip
    assert request.text(dhcp.HOST_NAME) == "taro"
    probes = [heard for _now, frame in world.sent if (heard := arp.parse(frame))]
    assert [probe.sender for probe in probes] == [dhcp.NOWHERE] * 3 + [ADDRESS.ip]
    assert world.client.settled


def test_routes_are_asked_for_before_the_router() -> None:
    world = World()
    world.start()
    wanted = world.server.heard[0][2].options[dhcp.WANTED]
    assert wanted.index(dhcp.ROUTES) < wanted.index(dhcp.ROUTER)  # RFC 3442


def test_no_address_before_the_look_is_over() -> None:
    world = World()
    world.start()
    world.run(world.now + CHECKED_S - 0.01)
    assert world.client.lease is None
    assert not world.client.settled


def test_an_address_in_use_is_declined_and_another_asked_for_later() -> None:
    world = World()
    world.objects_to = ADDRESS.ip
    world.start()
    assert world.server.kinds() == [dhcp.DISCOVER, dhcp.REQUEST, dhcp.DECLINE]
    decline = world.server.heard[-1][2]
    assert (decline.address(dhcp.REQUESTED), decline.address(dhcp.SERVER_ID)) == (ADDRESS.ip, SERVER)
    assert world.client.declined == "10.5.0.9"
    world.server.address = IPv4Interface("10.5.0.10/24")
    world.run(world.now + DECLINED_S - 1)
    assert world.client.lease is None
    world.run(world.now + 3)
    assert world.client.lease is not None
    assert world.client.lease.address == "10.5.0.10/24"


def test_who_declines_all_the_time_asks_ever_more_seldom() -> None:
    world = World()
    world.objects_to = ADDRESS.ip
    world.start()
    world.run(world.now + HOUR)
    assert world.server.kinds().count(dhcp.DECLINE) < 20


def test_another_who_looks_for_the_same_address_counts_as_in_use() -> None:
    world = World()
    world.start()
    world.carry(world.client.receive(arp.request(OTHER_MAC, dhcp.NOWHERE, ADDRESS.ip), world.now))
    assert world.client.state is State.PAUSING


def test_our_own_echo_is_no_objection() -> None:
    world = World()
    world.start()
    assert world.client.receive(arp.request(MAC, dhcp.NOWHERE, ADDRESS.ip), world.now) == []
    assert world.client.state is State.CHECKING


def test_questions_that_nobody_answers_come_ever_more_seldom() -> None:
    world = World()
    world.server.silent = True
    world.start()
    world.run(world.now + 600)
    times = [now for now, _datagram, _message in world.server.heard]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[:4] == [1, 2, 4, 8]
    assert gaps[-1] == 64
    assert set(world.server.kinds()) == {dhcp.DISCOVER}
    assert not world.client.settled


def test_half_of_the_lease_later_its_server_is_asked_by_itself() -> None:
    world = World()
    before = world.bound()
    world.run(before.begins + 0.5 * HOUR)
    _now, sent, message = world.server.heard[-1]
    assert (sent.destination_mac, sent.destination, sent.source) == (SERVER_MAC, SERVER, ADDRESS.ip)
    assert message.client == ADDRESS.ip
    assert dhcp.REQUESTED not in message.options
    assert dhcp.SERVER_ID not in message.options  # RFC 2131, 4.3.2: else it would be SELECTING
    after = world.client.lease
    assert after is not None
    assert after.address == before.address
    assert after.begins > before.begins
    assert world.client.state is State.BOUND


def test_a_server_that_is_gone_is_followed_by_any_other_and_at_last_the_address_goes() -> None:
    world = World()
    lease = world.bound()
    world.server.silent = True
    world.run(lease.begins + 0.8 * HOUR)
    assert world.client.state is State.RENEWING
    assert world.client.lease is lease
    world.run(lease.begins + 0.9 * HOUR)
    assert str(world.client.state) == "rebinding"
    _now, sent, message = world.server.heard[-1]
    assert (sent.destination, message.client) == (dhcp.EVERYBODY, ADDRESS.ip)
    times = [now for now, _datagram, message in world.server.heard if message.client == ADDRESS.ip]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps[:-2]) >= LEAST_S
    world.run(lease.ends + 1)
    assert world.client.lease is None
    assert world.client.state is State.SELECTING


def test_the_times_that_the_server_names_hold_unless_they_are_nonsense() -> None:
    world = World()
    world.server.times = {dhcp.RENEWAL_TIME: 100, dhcp.REBINDING_TIME: 200}
    lease = world.bound()
    assert 90 <= lease.renew_s <= 100
    assert lease.rebind_s == 200
    world = World()
    world.server.times = {dhcp.RENEWAL_TIME: 9000, dhcp.REBINDING_TIME: 200}
    assert world.bound().rebind_s == 0.875 * HOUR


def test_a_lease_for_ever_is_never_renewed() -> None:
    world = World()
    world.server.lease_s = 0xFFFFFFFF
    assert world.bound().lasts_s == FOR_EVER_S
    world.run(world.now + 1e9)
    assert world.server.kinds() == [dhcp.DISCOVER, dhcp.REQUEST]


def test_a_refused_renewal_takes_the_address_away_and_begins_anew() -> None:
    world = World()
    lease = world.bound()
    world.server.refuses = True
    world.run(lease.begins + 0.5 * HOUR)
    assert world.client.lease is None
    world.server.refuses, world.server.address = False, IPv4Interface("10.6.0.3/16")
    world.run(world.now + 120)
    assert world.client.lease is not None
    assert world.client.lease.address == "10.6.0.3/16"


def test_a_server_that_offers_and_refuses_makes_no_storm() -> None:
    world = World()
    world.server.refuses = True
    world.start()
    world.run(world.now + 600)
    assert len(world.server.heard) < 40


class TestARememberedLease:
    def remembered(self, begins: float) -> Lease:
        return Lease("10.5.0.1", SERVER_MAC, "10.5.0.9/24", begins, 1800, 3150, HOUR)

    def test_is_asked_for_again_without_an_offer(self) -> None:
        world = World()
        world.start(self.remembered(world.now - 60))
        assert world.server.kinds() == [dhcp.REQUEST]
        _now, _datagram, message = world.server.heard[0]
        assert message.address(dhcp.REQUESTED) == ADDRESS.ip
        assert (message.client, message.address(dhcp.SERVER_ID)) == (dhcp.NOWHERE, None)  # INIT-REBOOT
        world.run(world.now + 1)
        assert world.client.lease is not None

    def test_that_another_hub_refuses_is_forgotten(self) -> None:
        world = World()
        world.server.refuses = True
        world.start(self.remembered(world.now - 60))
        world.server.refuses, world.server.address = False, IPv4Interface("172.20.0.2/24")
        world.run(world.now + 2)
        assert world.server.kinds()[:2] == [dhcp.REQUEST, dhcp.DISCOVER]
        world.run(world.now + 60)
        assert world.client.lease is not None
        assert world.client.lease.address == "172.20.0.2/24"

    def test_is_used_while_no_server_answers_and_only_for_its_time(self) -> None:
        world = World()
        world.server.silent = True
        lease = self.remembered(world.now - 60)
        world.start(lease)
        world.run(world.now + 60)
        assert world.client.lease is not None
        assert world.client.lease.ends == lease.ends
        assert dhcp.DISCOVER in world.server.kinds()
        world.run(lease.ends + 1)
        assert world.client.lease is None

    def test_that_has_run_out_is_none(self) -> None:
        world = World()
        world.start(self.remembered(world.now - HOUR - 1))
        assert world.server.kinds()[0] == dhcp.DISCOVER


class TestJoinedAfresh:
    def test_the_address_stays_when_the_hub_confirms_it(self) -> None:
        world = World()
        lease = world.bound()
        world.now += 100
        world.carry(world.client.rejoined(world.now))
        assert world.client.lease is not None
        assert world.client.lease.address == lease.address
        assert world.client.state is State.BOUND
        assert world.server.kinds()[-1] == dhcp.REQUEST

    def test_the_address_stays_when_nobody_answers(self) -> None:
        world = World()
        lease = world.bound()
        world.server.silent = True
        world.carry(world.client.rejoined(world.now))
        assert world.client.lease is lease
        world.run(world.now + 30)
        assert world.client.lease is lease
        assert world.client.state is State.BOUND

    def test_the_address_goes_when_it_is_refused(self) -> None:
        world = World()
        world.bound()
        world.server.refuses = True
        world.carry(world.client.rejoined(world.now))
        assert world.client.lease is None


class TestInforming:
    OWN = IPv4Address("10.5.0.77")

    def test_what_there_is_besides_is_told(self) -> None:
        world = World()
        world.carry(world.client.inform(world.now, self.OWN))
        lease = world.client.lease
        assert lease is not None
        assert (lease.address, lease.options[dhcp.DNS]) == ("", SERVER.packed)
        assert world.server.heard[0][2].client == self.OWN
        assert world.client.state is State.INFORMED
        world.run(world.now + INFORM_AGAIN_S)
        assert world.server.kinds() == [dhcp.INFORM] * 2

    def test_where_nobody_tells_it_is_seldom_asked_again(self) -> None:
        world = World()
        world.server.silent = True
        world.carry(world.client.inform(world.now, self.OWN))
        world.run(world.now + 60)
        assert world.server.kinds() == [dhcp.INFORM] * 4
        assert world.client.state is State.UNANSWERED
        assert world.client.settled

    def test_what_was_told_stays_while_nobody_answers(self) -> None:
        world = World()
        world.carry(world.client.inform(world.now, self.OWN))
        told = world.client.lease
        world.server.silent = True
        world.run(world.now + 3 * INFORM_AGAIN_S)
        assert world.client.lease is told

    def test_from_informing_to_asking(self) -> None:
        world = World()
        world.carry(world.client.inform(world.now, self.OWN))
        assert world.bound().address == "10.5.0.9/24"

    def test_from_asking_to_informing_gives_the_address_up(self) -> None:
        world = World()
        world.bound()
        world.server.silent = True
        world.carry(world.client.inform(world.now, self.OWN))
        assert world.client.lease is None


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (dhcp.MASK, bytes.fromhex("ff00ff00")),
        (dhcp.MASK, bytes.fromhex("80000000")),  # half of the world
        (dhcp.LEASE_TIME, bytes(4)),
    ],
)
def test_an_offer_that_can_not_be_meant_is_not_taken(code: int, value: bytes) -> None:
    world = World()
    world.server.silent = True
    world.start()
    asked = world.server.heard[0][2]
    frame = world.server.frame(asked, dhcp.OFFER, **{f"o{code}": value})
    assert world.client.receive(frame, world.now) == []
    assert world.client.state is State.SELECTING
    assert world.client.receive(world.server.frame(asked, dhcp.OFFER), world.now)  # the same, sound


@pytest.mark.parametrize("address", ["0.0.0.0/24", "127.0.0.5/8", "224.0.0.9/24", "10.5.0.255/24", "10.5.0.0/24"])
def test_an_address_that_no_station_can_have_is_not_taken(address: str) -> None:
    world = World()
    world.server.address = IPv4Interface(address)
    world.start()
    assert world.server.kinds() == [dhcp.DISCOVER]


def test_answers_to_others_or_to_earlier_questions_are_not_heard() -> None:
    world = World()
    world.server.silent = True
    world.start()
    asked = world.server.heard[0][2]
    strange = Message(dhcp.BOOT_REQUEST, asked.xid ^ 1, MAC)
    others = Message(dhcp.BOOT_REQUEST, asked.xid, OTHER_MAC)
    for wrong in (strange, others):
        assert world.client.receive(world.server.frame(wrong, dhcp.OFFER), world.now) == []
    assert world.client.receive(world.server.frame(asked, dhcp.ACK), world.now) == []  # nobody asked for it
    assert world.client.receive(world.server.frame(asked, dhcp.OFFER), world.now)


def test_only_the_chosen_server_may_refuse() -> None:
    world = World()
    world.server.silent = True
    world.start()
    asked = world.server.heard[0][2]
    world.carry(world.client.receive(world.server.frame(asked, dhcp.OFFER), world.now))
    other = Server()
    other.ip = IPv4Address("10.5.0.200")
    assert world.client.receive(other.frame(asked, dhcp.NAK), world.now) == []
    assert world.client.state is State.REQUESTING


@given(frame=st.binary(max_size=400))
def test_whatever_comes_is_survived(frame: bytes) -> None:
    world = World()
    world.start()
    world.client.receive(frame, world.now)
    world.client.receive(bytes(12) + b"\x08\x00" + frame, world.now)
    world.run(world.now + 2)
    assert world.client.state is State.BOUND


def test_stopped_it_asks_no_more() -> None:
    world = World()
    world.bound()
    world.client.stop()
    sent = len(world.sent)
    world.run(world.now + 10 * HOUR)
    assert len(world.sent) == sent
    assert world.client.lease is None
