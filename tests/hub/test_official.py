"""What official clients ask for, and what they get: connections, directions, compression, modes, limits, plaintext."""

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.hub.cards import QUICK, Field, frame
from tests.hub.official import Client, Refused

from ukihashi.hub.messages import HubPut, LoginAsked, LoginRefused, SessionClosed, Traffic
from ukihashi.hub.saved import SavedSession
from ukihashi.switch.rules import HubRules
from ukihashi.wire.blocks import compress, encode_frames, encode_keepalive
from ukihashi.wire.constants import Direction
from ukihashi.wire.http import pack_request
from ukihashi.wire.messages import Login, Node
from ukihashi.wire.policy import ADMINISTRATOR, Policy

PLAIN = replace(QUICK, allow_plaintext=True)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"max_connection": 8},
    {"half_connection": True, "max_connection": 4},
    {"use_compress": True},
    {"use_encrypt": False},
    {"half_connection": True, "max_connection": 4, "use_compress": True, "use_encrypt": False},
]


@pytest.fixture
def join(field: Field) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(user: str = "a", *, at: Field = field, **login: Any) -> Client:
        made.append(Client(at))
        made[-1].join(user, **login)
        return made[-1]

    yield make
    for client in made:
        client.close()


def refused(join: Callable[..., Client], user: str = "a", **login: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        join(user, **login)
    return caught.value


def exchange(a: Client, b: Client) -> None:
    """Frames both ways, a run of them and single ones."""
    a.send(frame(0, 1))
    assert b.receive(1) == [frame(0, 1)]
    b.send(frame(1, 2))
    assert a.receive(1) == [frame(1, 2)]
    for sender, receiver, to, by in ((a, b, 2, 1), (b, a, 1, 2)):
        run = [frame(to, by, n, 60 + 97 * n % 1400) for n in range(300)]
        sender.send(*run)
        assert sorted(receiver.receive(300)) == sorted(run)


# -- every variant, both ways ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", VARIANTS, ids=repr)
def test_frames_pass_both_ways_whatever_was_asked_for(
    make_field: Callable[..., Field], join: Callable[..., Client], login: dict[str, Any]
) -> None:
    field = make_field(PLAIN)
    a, b = join("a", at=field, **login), join("b", at=field)
    welcome, row = a.welcome, a.row()
    assert [welcome.use_compress, welcome.half_connection, welcome.use_encrypt] == [
        login.get("use_compress", False),
        login.get("half_connection", False),
        login.get("use_encrypt", True),
    ]
    assert [row["compression"], row["half_duplex"], row["encrypted"]] == [
        welcome.use_compress, welcome.half_connection, welcome.use_encrypt,
    ]  # fmt: skip
    assert (row["tls_version"] == "TLSv1.3") is welcome.use_encrypt
    while len(a.lanes) < welcome.max_connection:
        a.more()
    assert (row["max_connections"], a.row()["connections"]) == (welcome.max_connection, len(a.lanes))
    exchange(a, b)
    assert a.session.drops == b.session.drops == {}


@pytest.mark.parametrize("login", VARIANTS, ids=repr)
def test_a_session_goes_on_in_another_worker_as_it_was(
    make_field: Callable[..., Field], join: Callable[..., Client], login: dict[str, Any]
) -> None:
    old, new = make_field(PLAIN), make_field(PLAIN)
    old.answers = {"group": "staff", "policy": Policy(vlan_id=7, max_upload=10**9)}
    a = join("a", at=old, **login)
    a.send(frame(0, 1))
    old.until(lambda: a.row()["frames_in"] == 1, "the frame")
    row = a.row()
    for value in map(msgspec.msgpack.encode, old.sessions.save()):
        new.sessions.restore(msgspec.msgpack.decode(value, type=SavedSession))
    old.quiet()
    for lane in a.lanes:
        lane.until(lambda lane=lane: lane.read() or lane.ended, "the end")  # type: ignore[misc]
        assert lane.ended == ("close_notify" if a.welcome.use_encrypt else "end without close_notify")
    a.close()
    a.field, a.lanes = new, []
    assert new.sessions.next_connection() == "CID-2"  # CID-1 is that of the login
    of_connections = {"peer", "tls_version", "tls_cipher", "congestion", "connections"}
    changes = of_connections | {"state", "cut_s", "grace_left_s", "last_heard"}
    kept = {key for key in row if key not in changes}
    assert {key: row[key] for key in kept} == {key: a.row()[key] for key in kept}
    a.more()
    if a.welcome.half_connection:
        assert a.lanes[0].direction == Direction.TO_CLIENT
        assert a.more().direction == Direction.TO_SERVER
    new.answers = old.answers
    b = join("b", at=new)
    b.send(frame(0, 2))
    assert a.receive(1) == [frame(0, 2)]


# -- connections and directions -------------------------------------------------------------------------------------


def test_directions_are_counted_and_balanced(join: Callable[..., Client]) -> None:
    a = join("a", half_connection=True, max_connection=6)
    assert [a.more().direction for _ in range(5)] == [1, 1, 2, 1, 2]
    assert a.lanes[0].direction == 2
    for lane in a.lanes[1:3]:
        lane.tls.close()
        lane.flush()
        lane.sock.close()
    a.field.until(lambda: len(a.session.tunnels) == 4, "two are gone")
    del a.lanes[1:3]
    assert a.more().direction == 1  # as one goes that way and three the other


def test_half_duplex_needs_two_connections(join: Callable[..., Client]) -> None:
    assert join("a", half_connection=True).welcome.max_connection == 2
    assert join("b", half_connection=True, max_connection=1).welcome.max_connection == 2


def test_nothing_is_sent_on_a_connection_of_the_wrong_direction(field: Field, join: Callable[..., Client]) -> None:
    a, b = join("a", half_connection=True, max_connection=3), join("b")
    late = [frame(0, 2, n) for n in range(3)]
    b.send(*late)
    field.until(lambda: a.row()["queued_bytes"] == sum(map(len, late)), "they wait")
    field.after(0.1)
    assert a.came() == []
    assert a.keepalives == [0]
    a.more()
    assert a.receive(3) == late
    a.more()
    assert a.keepalives == [0, 1, 1]
    assert a.lanes[0].came == 0 or not a.lanes[0].frames
    a.send(frame(0, 1, 5), over=a.lanes[1])  # the real server takes these too
    assert b.receive(1) == [frame(0, 1, 5)]


def test_silence_ends_only_connections_that_have_to_bring_something(field: Field, join: Callable[..., Client]) -> None:
    a = join("a", half_connection=True, max_connection=3)
    a.more()
    a.more()
    assert [lane.direction for lane in a.lanes] == [2, 1, 1]
    for _ in range(3):
        field.after(9.0)
        a.send(frame(0, 1), over=a.lanes[0])
        field.quiet()
    assert a.row()["connections"] == 3
    field.after(19.9)
    assert a.row()["connections"] == 3
    field.after(0.2)
    assert a.session is None
    (closed,) = field.events(SessionClosed)
    assert closed.reason == "nothing heard"


def test_a_connection_that_brings_nothing_goes_and_its_session_stays(field: Field, join: Callable[..., Client]) -> None:
    a = join("a", max_connection=2)
    a.more()
    for _ in range(4):
        field.after(5.1)
        a.send(frame(0, 1), over=a.lanes[0])
        field.quiet()
    assert [tunnel.connection.name for tunnel in a.session.tunnels] == ["CID-1"]


def test_keepalives_come_on_every_connection_that_may_bring_them(field: Field, join: Callable[..., Client]) -> None:
    a = join("a", max_connection=3)
    a.more()
    a.more()
    field.quiet()
    assert a.keepalives == [1, 1, 1]
    field.after(10.1)  # T/2 is the longest
    field.until(lambda: a.keepalives == [2, 2, 2], "a second one on each")


def test_options_can_withhold_everything(make_field: Callable[..., Field], join: Callable[..., Client]) -> None:
    field = make_field(replace(QUICK, max_connections=1, half_duplex=False, compression=False))
    a = join("a", at=field, max_connection=32, half_connection=True, use_compress=True, use_encrypt=False, qos=True)
    welcome = a.welcome
    assert (welcome.max_connection, welcome.half_connection, welcome.use_compress) == (1, False, False)
    assert (welcome.use_encrypt, welcome.qos, welcome.policy["NoQoS"]) == (True, False, 1)
    exchange(a, join("b", at=field))


def test_between_two_of_ours_with_exact_resume_nothing_of_it_is_granted(make_field: Callable[..., Field]) -> None:
    field = make_field(PLAIN)
    card = field.card("a", max_connection=8, half_connection=True, use_compress=True, use_encrypt=False)
    welcome = card.welcome
    assert (welcome.max_connection, welcome.half_connection, welcome.use_compress) == (1, False, False)
    assert welcome.use_encrypt
    older = field.card("b", resume=False, use_encrypt=False)
    assert (older.welcome.extension, older.welcome.use_encrypt) == (1, True)


# -- compression ----------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


@pytest.mark.parametrize(
    "block",
    [
        frame(0, 1),  # not compressed
        b"\x78\x9c",
        bomb(1601),
        bomb(1_000_000),
        compress(frame(0, 1, size=1600))[:-1],
        os.urandom(3200),
    ],
    ids=["raw", "nothing", "a byte too long", "a bomb", "cut short", "random"],
)
def test_a_block_that_gives_no_frame_is_dropped_and_counted(
    field: Field, join: Callable[..., Client], block: bytes
) -> None:
    a, b = join("a", use_compress=True), join("b")
    good = frame(0, 1, 7, 1600)
    a.lanes[0].write(encode_frames([block, compress(good), block]))
    assert b.receive(1) == [good]
    assert a.session.drops == {"inflate": 2}
    assert a.row()["connections"] == 1


def test_no_block_is_inflated_further_than_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    from ukihashi.wire import blocks

    asked: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self._stream = zlib.decompressobj()

        def decompress(self, block: bytes, most: int) -> bytes:
            asked.append(most)
            return self._stream.decompress(block, most)

        @property
        def eof(self) -> bool:
            return self._stream.eof

    class Zlib:
        decompressobj = Watched
        error = zlib.error

    monkeypatch.setattr(blocks, "zlib", Zlib)
    assert blocks.decompress(bomb(3_000_000)) is None
    assert asked == [1601]


def test_a_compressed_block_may_be_longer_than_its_frame(field: Field, join: Callable[..., Client]) -> None:
    a, b = join("a", use_compress=True), join("b", use_compress=True)
    noise = frame(0, 1)[:14] + os.urandom(1586)
    assert len(compress(noise)) > 1600
    a.send(noise)
    assert b.receive(1) == [noise]


# -- plaintext ------------------------------------------------------------------------------------------------------


def test_frames_travel_in_the_clear_behind_the_welcome(
    make_field: Callable[..., Field], join: Callable[..., Client]
) -> None:
    field = make_field(PLAIN)
    a, b = join("a", at=field, use_encrypt=False), join("b", at=field)
    seen = frame(0, 2, 9, 200)
    b.send(seen)
    lane = a.lanes[0]
    lane.until(lambda: seen in lane.plain, "the frame on the wire")
    assert a.receive(1) == [seen]
    a.session.close("enough")
    lane.until(lambda: lane.ended, "the end")
    assert lane.ended == "end without close_notify"


def test_bytes_that_came_with_the_request_are_the_tunnels(
    make_field: Callable[..., Field], join: Callable[..., Client]
) -> None:
    """A client that is in a hurry: request and first blocks are in one segment, the latter cut anywhere."""
    field = make_field(PLAIN)
    b = join("b", at=field)
    early = [frame(0, 1, n) for n in range(3)]
    blocks = encode_frames(early)
    for cut in (1, 4, 5, 30, len(blocks)):
        a = Client(field)
        lane = a.dial()
        lane.tls.send(pack_request(lane.http, Client.request("a", use_encrypt=False)))
        lane.sock.sendall(bytes(lane.tls.outgoing()) + blocks[:cut])
        lane.tls.sent(lane.tls.backlog)
        assert lane.answer().status == 200
        lane.leave_tls()
        lane.write(blocks[cut:])
        assert b.receive(3) == early
        a.close()


def test_a_tunnel_in_the_clear_still_takes_no_block_above_the_limit(
    make_field: Callable[..., Field], join: Callable[..., Client]
) -> None:
    a = join("a", at=make_field(PLAIN), use_encrypt=False)
    a.lanes[0].write(b"\0\0\0\1\xff\xff\xff\xff")
    a.lanes[0].until(lambda: a.lanes[0].ended, "the end")
    assert a.row()["connections"] == 0


def test_where_plaintext_is_allowed_tls_stays_for_who_asks_for_it(
    make_field: Callable[..., Field], join: Callable[..., Client]
) -> None:
    field = make_field(PLAIN)
    exchange(join("a", at=field), join("b", at=field))
    card, other = field.card("c"), field.card("d")
    card.send(frame(0, 3))
    field.until(lambda: other.got, "a frame of a card with exact resume")


# -- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "policy", "mode"),
    [
        ({}, Policy(), ""),
        ({"bridge_mode": True}, Policy(), "bridge"),
        ({"client": "a VPN Server (Cascade Mode)"}, Policy(), "bridge"),
        ({"bridge_mode": True}, Policy(no_bridge=True), "bridge"),
        ({"monitor_mode": True}, ADMINISTRATOR, "monitor"),
        ({"bridge_mode": True}, Policy(no_bridge=True, no_routing=True), 108),
        ({"client": "bridge"}, Policy(no_bridge=True, no_routing=True), 108),
        ({"monitor_mode": True}, Policy(), 107),
        ({}, Policy(access=False), 12),
    ],
)
def test_modes(
    field: Field, join: Callable[..., Client], login: dict[str, Any], policy: Policy, mode: str | int
) -> None:
    field.answers = {"policy": policy}
    if isinstance(mode, int):
        assert refused(join, **login).code == mode
        assert field.events(LoginRefused)[0].code == mode
        return
    a = join("a", **login)
    told = a.welcome.policy
    assert a.row()["mode"] == mode
    assert told["NoBridge"] == int(mode != "bridge" or policy.no_bridge)
    assert told["NoRouting"] == int(mode != "bridge" or policy.no_routing)
    assert told["MonitorPort"] == int(mode == "monitor")
    rules = a.session.member.rules
    assert (rules.bridge, rules.monitor, rules.confined) == (mode == "bridge", mode == "monitor", mode != "bridge")


def test_the_welcome_has_every_policy_value_the_vlan_and_the_banner(field: Field, join: Callable[..., Client]) -> None:
    field.sessions.put_hub(HubPut("LAN", banner="ようこそ"))
    policy = Policy(
        vlan_id=9, timeout_s=7, max_upload=1000, auto_disconnect_s=60, privacy_filter=True, max_connection=4
    )
    field.answers = {"policy": policy}
    a = join("a", max_connection=32)
    welcome = a.welcome
    assert (welcome.message, welcome.vlan_id, welcome.timeout_ms, welcome.max_connection) == ("ようこそ", 9, 7000, 4)
    changed = {"NoBridge": 1, "NoRouting": 1, "NoQoS": 1}
    assert welcome.policy == {**policy.to_wire(), **changed}
    assert a.row()["vlan"] == 9


def test_a_monitor_hears_what_others_say_to_each_other_and_says_nothing(
    field: Field, join: Callable[..., Client]
) -> None:
    a, b = join("a"), join("b")
    field.answers = {"policy": ADMINISTRATOR}
    monitor = join("m", monitor_mode=True, use_compress=True)
    a.send(frame(0, 1))
    b.receive(1)
    b.send(frame(1, 2))
    a.receive(1)
    assert monitor.receive(2) == [frame(0, 1), frame(1, 2)]
    monitor.send(frame(1, 3), frame(0, 3))
    field.until(lambda: sum(monitor.session.drops.values()) == 2, "both dropped and counted")
    field.quiet()
    assert a.came() == b.came() == []


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hub_s", "policy_s", "expected_s"),
    [(20, 20, 20), (30, 20, 30), (30, 0, 30), (30, 12, 12), (30, 5, 5), (5, 60, 60), (2, 0, 5), (90, 0, 60)],
)
def test_the_timeout_is_the_policys_or_the_hubs(
    field: Field, join: Callable[..., Client], hub_s: int, policy_s: int, expected_s: int
) -> None:
    field.sessions.put_hub(HubPut("LAN", session_timeout_s=float(hub_s)))
    field.answers = {"policy": Policy(timeout_s=policy_s)}
    a = join("a")
    assert a.welcome.timeout_ms == 1000 * expected_s
    assert a.welcome.policy["TimeOut"] == expected_s
    a.close()
    field.until(lambda: not a.session.tunnels, "the cut")
    field.after(expected_s - 0.1)
    assert a.session
    field.after(0.2)
    assert a.session is None


def test_a_user_has_as_many_sessions_as_the_policy_allows(field: Field, join: Callable[..., Client]) -> None:
    field.answers = {"policy": Policy(multi_logins=2)}
    mine, another = Node(unique_id=b"m" * 16), Node(unique_id=b"n" * 16)
    join("a", node=mine)
    join("b", node=mine)  # another user
    join("a", node=mine)
    join("a", node=mine)  # what the same machine has left behind does not count
    assert refused(join, "a", node=another).code == 20
    assert refused(join, "a").code == 20  # no id, no mercy
    assert refused(join, "a", node=Node(unique_id=bytes(16))).code == 20
    for session in field.sessions.of_hub("LAN"):
        if session.member.user == "a":
            session.close("x")
    join("a", node=another)


def test_zeros_are_no_id(field: Field, join: Callable[..., Client]) -> None:
    field.answers = {"policy": Policy(multi_logins=1)}
    join("a", node=Node(unique_id=bytes(16)))
    assert refused(join, "a", node=Node(unique_id=bytes(16))).code == 20


def test_a_full_hub_and_a_full_worker_are_busy(make_field: Callable[..., Field], join: Callable[..., Client]) -> None:
    field = make_field(replace(QUICK, sessions=3))
    field.sessions.put_hub(HubPut("OTHER"))
    field.answers = {"max_sessions": 2}
    join("a", at=field)
    join("b", at=field)
    assert refused(join, "c", at=field).code == 16
    field.answers = {"hub": "OTHER"}
    join("c", at=field)
    assert refused(join, "d", at=field).code == 16


@pytest.mark.parametrize(
    ("rules", "login", "code"),
    [
        (HubRules(least_client_build=9000), {"client_build": 8999}, 87),
        (HubRules(least_client_build=9000), {"client_build": 9000}, 0),
        (HubRules(least_client_build=9000), {"client_build": 1, "client": "a cascade"}, 0),
        (HubRules(required_client_id=5), {}, 127),
        (HubRules(required_client_id=5), {"client_id": 5}, 0),
        (HubRules(required_client_id=5), {"client": "a card"}, 0),
        (HubRules(least_client_build=9000, required_client_id=5), {"client_build": 1}, 87),
    ],
)
def test_a_hub_may_want_certain_clients(
    field: Field, join: Callable[..., Client], rules: HubRules, login: dict[str, Any], code: int
) -> None:
    field.sessions.put_hub(HubPut("LAN", rules=rules))
    if not code:
        assert join("a", **login).welcome.session_name == "SID-A-1"
        return
    assert refused(join, "a", **login).code == code


def test_a_refusal_says_whether_the_password_may_be_kept(field: Field, join: Callable[..., Client]) -> None:
    for answers in (
        {"error": 9, "no_save_password": True},
        {"policy": Policy(no_save_password=True), "max_sessions": 1},
    ):
        join("z")
        field.answers = answers
        client = Client(field)
        with pytest.raises(Refused):
            client.join()
        assert client.refusal.no_save_password
        assert client.refusal.extension == 0
        client.close()
        field.answers = {}


# -- what control is asked and told -----------------------------------------------------------------------------------


def test_a_certificate_is_controls_to_judge(field: Field, join: Callable[..., Client]) -> None:
    client = Client(field)
    lane = client.dial()
    login = Login("LAN", "a", 3, certificate=b"c" * 900, signature=b"s" * 512, client="x client")
    assert lane.pack(login.to_pack(b"")).get_int("error") == 0
    (asked,) = field.asked
    assert isinstance(asked, LoginAsked)
    assert (asked.authtype, asked.certificate, asked.signature) == (3, b"c" * 900, b"s" * 512)
    assert len(asked.challenge) == 20
    client.close()


def test_the_node_is_in_the_listing(field: Field, join: Callable[..., Client]) -> None:
    field.answers = {"group": "staff"}
    node = Node("box", "Linux", "hub.example", b"n" * 16, "10.77.0.2")
    a = join("a", node=node, client_version=441, client_build=9772, client="VPN Client")
    row = a.row()
    assert row["node"] == {
        "host": "box",
        "system": "Linux",
        "client": "VPN Client",
        "client_version": 441,
        "client_build": 9772,
        "ip": "10.77.0.2",
        "unique_id": "6e" * 16,
    }
    assert (row["group"], row["udp"]) == ("staff", False)


def test_control_hears_of_traffic_every_ten_seconds_and_at_the_end(field: Field, join: Callable[..., Client]) -> None:
    a, b = join("a"), join("b")
    a.send(frame(0, 1, size=100))
    b.receive(1)
    assert field.events(Traffic) == []
    field.after(10.0)
    told = {one.user: one for one in field.events(Traffic)}
    assert (told["a"].frames_in, told["a"].bytes_in, told["a"].frames_out, told["a"].bytes_out) == (1, 100, 0, 0)
    assert (told["b"].frames_in, told["b"].frames_out, told["b"].bytes_out) == (0, 1, 100)
    for client in (a, b):
        client.lanes[0].write(encode_keepalive(b""))
    field.quiet()
    field.after(10.0)
    assert len(field.events(Traffic)) == 2  # nothing new, nothing said
    a.send(frame(0, 1, size=60))
    b.receive(1)
    a.session.close("x")
    assert [type(one) for one in field.told[-2:]] == [Traffic, SessionClosed]
    last = field.events(Traffic)[-1]
    assert (last.user, last.frames_in, last.bytes_in) == ("a", 1, 60)


def test_traffic_that_control_could_not_hear_is_told_later(field: Field, join: Callable[..., Client]) -> None:
    a, b = join("a"), join("b")
    field.sessions.tell = lambda _message: False
    a.send(frame(0, 1, size=100))
    b.receive(1)
    field.after(10.0)
    field.sessions.tell = field.tell
    a.send(frame(0, 1, size=60))
    b.receive(1)
    field.after(10.0)
    told = {one.user: one for one in field.events(Traffic)}
    assert (told["a"].frames_in, told["a"].bytes_in) == (2, 160)


def test_traffic_is_counted_once_over_a_change_of_workers(
    make_field: Callable[..., Field], join: Callable[..., Client]
) -> None:
    old, new = make_field(), make_field()
    a, b = join("a", at=old), join("b", at=old)
    for size in (100, 60):
        a.send(frame(0, 1, size=size))
        b.receive(1)
        if size == 100:
            old.after(10.0)
    for value in map(msgspec.msgpack.encode, old.sessions.save()):
        new.sessions.restore(msgspec.msgpack.decode(value, type=SavedSession))
    new.after(10.0)
    of_a = [one.bytes_in for field in (old, new) for one in field.events(Traffic) if one.user == "a"]
    assert of_a == [100, 60]
