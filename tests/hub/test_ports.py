"""Switch ports: what one turn of the loop brought for a port goes out as one batch, and a broadcast is encoded once."""

from ipaddress import IPv4Address

import pytest

from ukihashi.ether import arp
from ukihashi.hub import ports
from ukihashi.hub.messages import HubPut
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.switch.access import Rule
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import HubRules, PortRules
from ukihashi.wire.blocks import encode_frames
from ukihashi.wire.policy import Policy


class FakePort:
    """Writes at most `room` bytes of frames a turn."""

    def __init__(self, name: str, room: int = 1 << 20) -> None:
        self.name = name
        self.queue = PortQueue(1 << 20)
        self.room = room
        self.written: list[bytes] = []

    def flush(self, encodings: Encodings) -> bool:
        self.written.append(encodings.batch(self.queue.take(self.room)))
        return bool(self.queue)


def frame(to: int, by: int, group: bool = False) -> bytes:
    return (b"\xff" * 6 if group else b"\x02\0\0\0\0" + bytes([to])) + b"\x02\0\0\0\0" + bytes([by]) + b"\x88\xb5"


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def hub(outbox: Outbox) -> VirtualHub:
    return VirtualHub(HubPut("LAN"), outbox)


def test_all_that_a_turn_brings_for_a_port_is_one_batch(hub: VirtualHub, outbox: Outbox) -> None:
    a, b, c = (FakePort(name) for name in "abc")
    numbers = [hub.plug(port) for port in (a, b, c)]
    for by, number in enumerate(numbers, 1):
        hub.forward([frame(0, by, group=True)], number, 0.0)
    assert not outbox.flush()
    hub.forward([frame(2, 1)] * 3, numbers[0], 1.0)
    hub.forward([frame(2, 3)], numbers[2], 1.0)
    outbox.flush()
    assert b.written[1:] == [encode_frames([frame(2, 1)] * 3 + [frame(2, 3)])]
    assert [len(port.written) for port in (a, b, c)] == [1, 2, 1]


def test_a_broadcast_is_encoded_once(hub: VirtualHub, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(frames: list[bytes]) -> bytes:
        calls.append(len(frames))
        return encode_frames(frames)

    monkeypatch.setattr(ports, "encode_frames", counting)
    others = [FakePort(str(number)) for number in range(50)]
    source = hub.plug(FakePort("source"))
    for port in others:
        hub.plug(port)
    hub.forward([frame(0, 1, group=True), frame(9, 1)], source, 0.0)
    outbox.flush()
    assert calls == [2]
    assert len({id(port.written[0]) for port in others}) == 1
    hub.forward([frame(0, 1, group=True)], source, 0.0)
    outbox.flush()
    assert calls == [2, 1]


def test_encodings_never_mix_up_frames() -> None:
    encodings = Encodings()
    for length in range(14, 400):  # frames die at once, so that later ones get their places in memory
        made = [bytes(length), bytes(length + 1)]
        assert encodings.batch(made) == encode_frames(made)


def test_a_port_that_has_more_asks_for_the_next_turn(hub: VirtualHub, outbox: Outbox) -> None:
    source, slow = hub.plug(FakePort("source")), FakePort("slow", room=32)
    hub.plug(slow)
    hub.forward([frame(0, 1, group=True)] * 5, source, 0.0)
    assert outbox.flush()
    assert outbox.flush()
    assert not outbox.flush()
    assert slow.written == [encode_frames([frame(0, 1, group=True)] * count) for count in (2, 2, 1)]
    assert not outbox.flush()


def test_an_unplugged_port_leaves_no_station(hub: VirtualHub) -> None:
    port = hub.plug(FakePort("a"))
    hub.plug(FakePort("b"))
    hub.forward([frame(0, 1, group=True)], port, 0.0)
    assert [row["session"] for row in hub.mac_rows(2.0)] == ["a"]
    assert [row["age_s"] for row in hub.mac_rows(2.0)] == [2.0]
    hub.unplug(port)
    hub.unplug(port)
    assert list(hub.mac_rows(2.0)) == []


# -- settings, applied live -----------------------------------------------------------------------------------------


def test_the_hubs_rules_hold_as_soon_as_they_are_set(hub: VirtualHub) -> None:
    first, second = FakePort("a"), FakePort("b")
    by, _ = hub.plug(first, PortRules(user="alice")), hub.plug(second)
    hello = frame(0, 1, group=True)

    def heard() -> int:
        hub.forward([hello] * 20, by, 0.0)
        hub.forward([hello] * 20, by, 1.0)
        return len(second.queue.take())

    hub.settings = HubPut("LAN", access=(Rule(source_user="alice"),))
    assert heard() == 0
    hub.settings = HubPut("LAN", rules=HubRules(storm_threshold=1000))
    assert heard() == 40
    hub.settings = HubPut("LAN", ageing_s=0.5)
    assert heard() == 39  # a storm's first step
    assert list(hub.mac_rows(1.6)) == []
    assert hub.name == "LAN"


def test_monitors_and_vlans_get_their_own_form_of_a_frame(hub: VirtualHub) -> None:
    ports = {name: FakePort(name) for name in ("bound", "other", "monitor")}
    vlan = PortRules(policy=Policy(vlan_id=5))
    source = hub.plug(FakePort("source"), vlan)
    hub.plug(ports["bound"], vlan)
    hub.plug(ports["other"])
    hub.plug(ports["monitor"], PortRules(monitor=True))
    hello = frame(0, 1, group=True)
    tagged = hello[:12] + b"\x81\0\0\x05" + hello[12:]
    hub.forward([hello], source, 0.0)
    assert {name: port.queue.take() for name, port in ports.items()} == {
        "bound": [hello],
        "other": [tagged],
        "monitor": [tagged],
    }


# -- tables ---------------------------------------------------------------------------------------------------------


def test_rows_of_both_tables_have_keys_by_which_they_are_forgotten(hub: VirtualHub) -> None:
    number = hub.plug(FakePort("a"))
    station = b"\x02\0\0\0\0\x01"
    for now in (0.0, 2.0):
        hub.forward([arp.announcement(station, IPv4Address("10.0.0.1"))], number, now)
    (mac,), (address,) = hub.mac_rows(5.0), hub.ip_rows(5.0)
    assert mac == {
        "key": mac["key"],
        "mac": "02:00:00:00:00:01",
        "vlan": 0,
        "session": "a",
        "created_s": 5.0,
        "age_s": 3.0,
    }
    assert address == {
        "key": address["key"],
        "ip": "10.0.0.1",
        "session": "a",
        "dhcp": False,
        "created_s": 5.0,
        "age_s": 3.0,
    }
    assert hub.forget_station(mac["key"])
    assert hub.forget_address(address["key"])
    assert not hub.forget_station(mac["key"])
    assert not hub.forget_address(address["key"])
    assert list(hub.mac_rows(5.0)) == list(hub.ip_rows(5.0)) == []


def test_a_crowded_queue_is_told(hub: VirtualHub) -> None:
    slow = FakePort("slow")
    slow.queue = PortQueue(200)
    source = hub.plug(FakePort("source"))
    hub.plug(slow)
    assert hub.forward([frame(0, 1, group=True)], source, 0.0) is None
    assert hub.forward([frame(0, 1, group=True)] * 8, source, 0.0) is slow.queue
