"""The address service in a worker: who asks is answered by the port where it asked, and by nobody else's."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

import msgspec
import pytest

from ukihashi.ether import arp, datagram, dhcp, dns, ndp
from ukihashi.ether.datagram import Datagram
from ukihashi.ether.frame import BROADCAST
from ukihashi.hub.lan_plan import LanService, default_domain, label
from ukihashi.hub.lan_service import ADDRESSES, ADVERTISE_S, ANSWER_S, NAMES, Services
from ukihashi.hub.loop import Loop
from ukihashi.hub.messages import HubPut, LeaseAnswered, LeaseAsked, Names
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import GuardRules, PortRules

SERVICE = b"\x02SERVE"
A, B = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
OWN4, OWN6 = IPv4Address("10.81.7.254"), IPv6Address("fd3c:1:2::fe")
PLAN = LanService(SERVICE, "10.81.7.0/24", "fd3c:1:2::/64", 254, domain="lan.internal")


class FakePort:
    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = PortQueue(1 << 20)

    def flush(self, encodings: Encodings) -> bool:
        return False


class Scene:
    """A virtual hub with two members, and a control that answers when it is told to."""

    def __init__(self, plan: LanService = PLAN) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.asked: list[LeaseAsked | Names] = []
        self.is_away = False
        self.services = Services(self.loop, self.tell)
        self.outbox = Outbox()
        self.loop.at_turn_end(self.outbox.flush)
        self.hub = VirtualHub(HubPut("LAN", service=plan), self.outbox)
        self.a, self.b = FakePort("SID-A-1"), FakePort("SID-B-1")
        self.port_a = self.hub.plug(self.a, PortRules(user="ann"))
        self.port_b = self.hub.plug(self.b, PortRules(user="bob", bridge=True))
        self.services.settle(self.hub)
        self.turn()

    def tell(self, message: LeaseAsked | Names) -> bool:
        self.asked.append(message)
        return not self.is_away

    def put(self, **more: Any) -> None:
        self.hub.settings = HubPut("LAN", service=msgspec.structs.replace(PLAN, **more))
        self.services.settle(self.hub)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0.0)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    def say(self, frame: bytes, port: Any = None) -> list[bytes]:
        """What comes back to A when it says so (to the port, if another is named)."""
        number = self.port_a if port is None else port
        self.got()
        self.hub.forward([frame], number, self.now)
        self.turn()
        return self.a.queue.take() if number == self.port_a else self.b.queue.take()

    def got(self) -> tuple[list[bytes], list[bytes]]:
        return self.a.queue.take(), self.b.queue.take()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def discover(mac: bytes = A, kind: int = dhcp.DISCOVER, **more: Any) -> dhcp.Message:
    options = {dhcp.MESSAGE_TYPE: bytes([kind]), **more.pop("options", {})}
    return dhcp.Message(dhcp.BOOT_REQUEST, 77, mac, options=options, **more)


def told(frame: bytes) -> tuple[Datagram, dhcp.Message]:
    found = datagram.parse(frame)
    assert found is not None
    return found, dhcp.parse(found.payload)


def test_an_offer_leaves_by_the_port_where_it_was_asked_for(scene: Scene) -> None:
    for flags, to, station in ((0, IPv4Address("10.81.7.7"), A), (dhcp.BROADCAST_FLAG, dhcp.EVERYBODY, BROADCAST)):
        assert scene.say(dhcp.client_frame(discover(flags=flags, options={dhcp.HOST_NAME: b"Nova.example"}))) == []
        asked = scene.asked.pop()
        assert isinstance(asked, LeaseAsked)
        assert (asked.hub, asked.session, asked.user, asked.kind) == ("LAN", "SID-A-1", "ann", dhcp.DISCOVER)
        assert (asked.mac, asked.host, asked.bridge) == (A, "nova", False)
        scene.got()
        scene.services.answered(LeaseAnswered(asked.ask, dhcp.OFFER, 7, 3600))
        (frame,), others = scene.got()
        assert others == []
        found, message = told(frame)
        assert (found.source_mac, found.destination_mac, found.source, found.destination) == (
            SERVICE,
            station,
            OWN4,
            to,
        )
        assert (message.kind, message.your, message.xid) == (dhcp.OFFER, IPv4Address("10.81.7.7"), 77)
        assert message.number(dhcp.LEASE_TIME) == 3600
        assert message.address(dhcp.DNS) == message.address(dhcp.SERVER_ID) == OWN4


def test_what_a_station_is_told_follows_from_the_settings(scene: Scene) -> None:
    scene.put(router="10.81.7.1", routes=(("192.168.9.0/24", "10.81.7.5"),), name_servers=("10.9.9.9", "fd00::9"))
    scene.say(dhcp.client_frame(discover()))
    scene.services.answered(LeaseAnswered(scene.asked.pop().ask, dhcp.OFFER, 7, 3600))
    _, message = told(scene.got()[0][0])
    assert message.address(dhcp.ROUTER) == IPv4Address("10.81.7.1")
    assert message.addresses(dhcp.DNS) == [IPv4Address("10.9.9.9")]
    assert [str(network) for network, _ in dhcp.read_routes(message.options[dhcp.ROUTES])] == [
        "0.0.0.0/0",
        "192.168.9.0/24",
    ]
    assert (message.text(dhcp.DOMAIN), dns.read_names(message.options[dhcp.SEARCH])) == (
        "lan.internal",
        ["lan.internal"],
    )
    assert len(message.encode()) <= dhcp.DEFAULT_MAX


def test_many_routes_never_make_a_message_too_long_for_its_reader(scene: Scene) -> None:
    scene.put(routes=tuple((f"192.168.{number}.0/24", "10.81.7.5") for number in range(32)))
    for options, routes in (({}, False), ({dhcp.MAX_SIZE: (1400).to_bytes(2, "big")}, True)):
        scene.say(dhcp.client_frame(discover(options=options)))
        scene.services.answered(LeaseAnswered(scene.asked.pop().ask, dhcp.OFFER, 7, 3600))
        _, message = told(scene.got()[0][0])
        assert (dhcp.ROUTES in message.options) == routes or len(message.encode()) <= dhcp.DEFAULT_MAX
        assert message.address(dhcp.DNS) == OWN4


def test_the_states_of_a_request(scene: Scene) -> None:
    seven = IPv4Address("10.81.7.7")
    chosen = {dhcp.REQUESTED: seven.packed, dhcp.SERVER_ID: OWN4.packed}
    scene.say(dhcp.client_frame(discover(kind=dhcp.REQUEST, options=chosen)))
    scene.say(dhcp.client_frame(discover(kind=dhcp.REQUEST, options={dhcp.REQUESTED: seven.packed})))
    renewing = discover(kind=dhcp.REQUEST, client=seven)
    scene.say(dhcp.client_frame(renewing, source=seven, destination=OWN4, destination_mac=SERVICE))
    scene.say(dhcp.client_frame(discover(kind=dhcp.REQUEST, client=IPv4Address("10.9.9.9"))))
    asked = [one for one in scene.asked if isinstance(one, LeaseAsked)]
    assert [(one.wanted, one.chosen) for one in asked] == [(7, True), (7, False), (7, False), (-1, False)]
    scene.got()
    scene.services.answered(LeaseAnswered(asked[2].ask, dhcp.ACK, 7, 60))
    found, message = told(scene.got()[0][0])
    assert (found.destination, found.destination_mac, message.client) == (seven, A, seven)  # renewed by unicast
    scene.services.answered(LeaseAnswered(asked[3].ask, dhcp.NAK))
    found, message = told(scene.got()[0][0])
    assert (found.destination, found.destination_mac, message.your) == (dhcp.EVERYBODY, BROADCAST, dhcp.NOWHERE)
    assert set(message.options) == {dhcp.MESSAGE_TYPE, dhcp.SERVER_ID}


def test_who_has_an_address_is_told_the_rest_only(scene: Scene) -> None:
    seven = IPv4Address("10.81.7.7")
    informing = discover(kind=dhcp.INFORM, client=seven)
    scene.say(dhcp.client_frame(informing, source=seven))
    scene.services.answered(LeaseAnswered(scene.asked.pop().ask, dhcp.ACK))
    found, message = told(scene.got()[0][0])
    assert (found.destination, message.your, message.number(dhcp.LEASE_TIME)) == (seven, dhcp.NOWHERE, None)
    assert message.address(dhcp.DNS) == OWN4


def test_what_is_for_others_is_not_asked(scene: Scene) -> None:
    other = {dhcp.REQUESTED: OWN4.packed, dhcp.SERVER_ID: IPv4Address("10.81.7.3").packed}
    scene.say(dhcp.client_frame(discover(kind=dhcp.REQUEST, options=other)))
    scene.say(dhcp.client_frame(discover(relay=IPv4Address("10.81.7.3"))))
    scene.say(dhcp.client_frame(discover(mac=B))[:6] + A + dhcp.client_frame(discover(mac=B))[12:])
    scene.say(dhcp.client_frame(dhcp.Message(dhcp.BOOT_REPLY, 1, A)))
    scene.say(dhcp.client_frame(discover())[:-3] + b"xyz")  # the checksum is wrong now
    assert scene.asked == []
    bridged = dhcp.client_frame(discover(mac=A))
    scene.say(bridged[:6] + B + bridged[12:], scene.port_b)  # a bridge over radio does so
    assert len(scene.asked) == 1


def test_addresses_that_others_use_are_told(scene: Scene) -> None:
    for last, port, mac in ((40, scene.port_b, B), (41, scene.port_a, A)):
        scene.hub.forward([arp.announcement(mac, IPv4Address(f"10.81.7.{last}"))], port, scene.now)
    scene.say(dhcp.client_frame(discover()))
    asked = scene.asked.pop()
    assert isinstance(asked, LeaseAsked)
    assert asked.busy == (40,)


def test_a_service_that_is_off_or_left_to_others_asks_nothing(scene: Scene) -> None:
    for mode in ("off", "relay"):
        scene.put(dhcp=mode)
        scene.say(dhcp.client_frame(discover()))
        assert scene.asked == []
    scene.put(dhcp="serve")
    scene.say(dhcp.client_frame(discover()))
    (asked,) = scene.asked
    scene.put(dhcp="off")
    scene.got()
    scene.services.answered(LeaseAnswered(asked.ask, dhcp.OFFER, 7, 60))
    assert scene.got() == ([], [])


def test_its_own_addresses_are_answered_for_and_no_others(scene: Scene) -> None:
    (frame,) = scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4))
    assert arp.parse(frame) == arp.Arp(arp.REPLY, SERVICE, OWN4, A, IPv4Address("10.81.7.7"))
    assert scene.say(arp.request(A, IPv4Address("10.81.7.7"), IPv4Address("10.81.7.8"))) == []
    for target in (OWN6, PLAN.link_local):
        (frame,) = scene.say(ndp.neighbour_solicitation(A, ndp.link_local(A), target))
        said = ndp.parse(frame)
        assert isinstance(said, ndp.NeighbourAdvertisement)
        assert (said.target, said.target_mac, frame[:6]) == (target, SERVICE, A)
    assert scene.say(ndp.neighbour_solicitation(A, ndp.link_local(A), IPv6Address("fd3c:1:2::7"))) == []


def test_nobody_else_may_send_as_its_station(scene: Scene) -> None:
    scene.say(arp.announcement(SERVICE, OWN4))
    assert scene.got()[1] == []
    assert scene.hub.switch.drops[scene.port_a].total() == 1
    assert list(scene.hub.mac_rows(scene.now)) == []  # and it is nobody's in the tables


def test_advertisements_come_when_asked_for_and_every_few_minutes(scene: Scene) -> None:
    (frame,) = scene.say(ndp.router_solicitation(A, ndp.link_local(A)))
    said = ndp.parse(frame)
    assert isinstance(said, ndp.RouterAdvertisement)
    assert (said.source, said.router_lifetime_s, said.dns, said.search) == (
        PLAN.link_local,
        0,
        (OWN6,),
        ("lan.internal",),
    )
    assert said.prefixes == (ndp.Prefix(IPv6Network("fd3c:1:2::/64")),)
    assert scene.got()[1][1:] == []  # the other one has heard the question at most
    scene.after(ADVERTISE_S + 1)
    assert [len(frames) for frames in scene.got()] == [1, 1]
    scene.put(ra=False)
    farewell = [ndp.parse(frames[0]) for frames in scene.got()]
    assert [one.names_s for one in farewell if isinstance(one, ndp.RouterAdvertisement)] == [0, 0]
    scene.after(2 * ADVERTISE_S)
    assert scene.got() == ([], [])
    assert scene.say(ndp.router_solicitation(A)) == []


def test_the_way_out_is_advertised_for_the_hub_machine(scene: Scene) -> None:
    station = bytes.fromhex("02aabbccddee")
    scene.put(router6=station)
    scene.got()
    frames = scene.say(ndp.router_solicitation(A, ndp.link_local(A)))
    said = [one for one in map(ndp.parse, frames) if isinstance(one, ndp.RouterAdvertisement)]
    assert [(one.source, one.router_lifetime_s) for one in said] == [
        (PLAN.link_local, 0),
        (ndp.link_local(station), 1800),
    ]
    assert bytes((ndp.SOURCE_MAC, 1)) + station in frames[1]
    assert {frame[6:12] for frame in frames} == {PLAN.mac}  # or the switch would look for that machine here
    scene.put(router6=b"")
    gone = [one for one in map(ndp.parse, scene.got()[0]) if isinstance(one, ndp.RouterAdvertisement)]
    assert [one.router_lifetime_s for one in gone if one.source == ndp.link_local(station)] == [0]


def test_names_are_asked_of_control_for_members_only(scene: Scene) -> None:
    query = dns.query(5, "nova.lan.internal", dns.A)
    seven = IPv4Address("10.81.7.7")
    asking = Datagram(A, SERVICE, seven, OWN4, 5353, dns.PORT, query)
    scene.say(datagram.encode(asking))
    (asked,) = scene.asked
    assert isinstance(asked, Names)
    assert (asked.hub, asked.data) == ("LAN", query)
    scene.services.answered(Names(asked.ask, b"the answer"))
    (frame,), _ = scene.got()
    assert datagram.parse(frame) == Datagram(SERVICE, A, OWN4, seven, dns.PORT, 5353, b"the answer")
    scene.say(datagram.encode(asking._replace(source=IPv4Address("8.8.8.8"))))  # it would be a mirror for floods
    scene.say(datagram.encode(asking._replace(destination=seven)))
    scene.put(dns=False)
    scene.say(datagram.encode(asking))
    assert len(scene.asked) == 1


def test_an_answer_that_comes_late_or_to_a_port_that_is_gone_is_nobodys(scene: Scene) -> None:
    scene.say(dhcp.client_frame(discover()))
    scene.say(dhcp.client_frame(discover()))
    first, second = scene.asked
    scene.after(ANSWER_S - 0.1)
    scene.got()
    scene.services.answered(LeaseAnswered(first.ask, dhcp.OFFER, 7, 60))
    assert len(scene.got()[0]) == 1
    scene.after(0.2)
    scene.services.answered(LeaseAnswered(second.ask, dhcp.OFFER, 7, 60))
    scene.services.answered(LeaseAnswered(999, dhcp.OFFER, 7, 60))
    assert scene.got() == ([], [])
    scene.say(dhcp.client_frame(discover()))
    scene.hub.unplug(scene.port_a)
    scene.services.answered(LeaseAnswered(scene.asked[-1].ask, dhcp.OFFER, 7, 60))
    assert [told(frame)[1].op for frame in scene.got()[1]] == [dhcp.BOOT_REQUEST]  # flooded, as this hub has no guard


def test_a_flood_from_one_port_is_cut_short_and_others_are_heard(scene: Scene) -> None:
    for number in range(500):
        mac = b"\x02\0\0\1" + number.to_bytes(2, "big")
        scene.hub.forward([dhcp.client_frame(discover(mac=mac))], scene.port_a, scene.now)
        scene.now += 0.001
    scene.turn()
    of_a = len(scene.asked)
    assert 0 < of_a <= min(ADDRESSES.waiting, ADDRESSES.burst)
    scene.say(dhcp.client_frame(discover(mac=B)), scene.port_b)
    assert len(scene.asked) == of_a + 1
    query = datagram.encode(
        Datagram(A, SERVICE, IPv4Address("10.81.7.7"), OWN4, 5353, dns.PORT, dns.query(5, "a.b", dns.A))
    )
    scene.after(ANSWER_S + 1)  # control did not answer: there is room again
    scene.say(dhcp.client_frame(discover()))
    assert len(scene.asked) == of_a + 2
    for _ in range(500):
        scene.say(query)
    assert len(scene.asked) == of_a + 1 + NAMES.waiting
    assert len(scene.asked) - of_a > ADDRESSES.waiting  # names are counted apart: one page asks for many


def test_without_control_nothing_waits(scene: Scene) -> None:
    scene.is_away = True
    for _ in range(3):
        scene.say(dhcp.client_frame(discover()))
    scene.services.answered(LeaseAnswered(scene.asked[-1].ask, dhcp.OFFER, 7, 60))
    assert scene.got()[0] == []


def test_what_entered_the_hub_at_another_worker_is_answered_there(scene: Scene) -> None:
    other = FakePort("worker 1")
    trunk = scene.hub.plug(other, PortRules(is_trunk=True))
    scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4), trunk)
    assert other.queue.take() == []
    scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4))
    assert len(other.queue.take()) == 1  # the question is flooded as ever; our answer is not
    scene.after(ADVERTISE_S + 1)
    assert other.queue.take() == []


def test_a_guarded_hub_that_serves_tells_no_member_who_asks(scene: Scene) -> None:
    scene.hub.switch.set_rules(scene.hub.settings.rules, (), GuardRules(on=True, serve=True))
    scene.say(dhcp.client_frame(discover()))
    assert scene.got()[1] == []
    assert len(scene.asked) == 1


def test_a_hub_that_goes_offline_or_away_has_no_service(scene: Scene) -> None:
    scene.hub.settings = HubPut("LAN", online=False, service=PLAN)
    scene.services.settle(scene.hub)
    assert scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4)) == []
    scene.put()
    assert len(scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4))) == 1
    scene.services.remove("lan")
    assert scene.say(arp.request(A, IPv4Address("10.81.7.7"), OWN4)) == []
    assert scene.loop.faults == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Nova", "nova"),
        ("Bob Ü", "xn--bob--3ra"),
        ("a_b.c", "a-b-c"),
        ("--", ""),
        ("x" * 70, ""),
        ("花子", "xn--i8s592g"),
    ],
)
def test_a_name_of_somebody_as_a_label(name: str, expected: str) -> None:
    assert label(name) == expected
    assert default_domain("LAN") == "lan.internal"
