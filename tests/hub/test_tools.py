"""Other methods of the same entrance: names of hubs, a new password, administration tools and their calls."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hub.cards import Field
from tests.hub.official import Client, Lane

from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import AdminAsked, Asked, HubPut, PasswordAsked, RpcAnswered, RpcAsked, Traffic
from ukihashi.hub.rpc_caller import MAX_CALL
from ukihashi.hub.session import Session
from ukihashi.hub.sessions import Sessions
from ukihashi.net.tls import server_context
from ukihashi.wire.http import pack_request
from ukihashi.wire.methods import AdminLogin, EnumHub, PasswordChange
from ukihashi.wire.pack import Pack

QUICK = Limits(linger_s=0.2, tools=2)
ADMIN = AdminLogin("LAN", b"s" * 20, "a tool", 501, 9674)
U32 = struct.Struct("!I")


@pytest.fixture
def field(certificate: tuple[Path, Path]) -> Iterator[Field]:
    made = Field(server_context(*certificate), QUICK)
    yield made
    made.close()


@pytest.fixture
def dial(field: Field) -> Iterator[Callable[[], Lane]]:
    """Connections that have come as far as the hello."""
    client = Client(field)
    yield client.dial
    client.close()


class Tool:
    """An administration tool that was let in."""

    def __init__(self, field: Field, lane: Lane, admin: AdminLogin = ADMIN, behind: bytes = b"") -> None:
        self.field, self.lane = field, lane
        self.answer = lane.pack(admin.to_pack(b""))
        lane.into_tunnel()
        if behind:
            lane.write(behind)

    def call(self, request: bytes) -> None:
        self.lane.write(U32.pack(len(request)) + request)

    def asked(self, count: int) -> list[RpcAsked]:
        """Wait for so many calls at control, ever."""

        def calls() -> list[RpcAsked]:
            return [one for one in self.field.asked if isinstance(one, RpcAsked)]

        self.field.until(lambda: len(calls()) >= count, f"{count} calls")
        assert len(calls()) == count
        return calls()

    def reply(self, asked: RpcAsked, answer: bytes) -> None:
        self.field.door.tool_answered(RpcAnswered(asked.ask, answer))

    def came(self, count: int) -> list[bytes]:
        """Wait for so many answers."""
        found: list[bytes] = []

        def read() -> bool:
            self.lane.read()
            while len(self.lane.plain) >= 4 and len(self.lane.plain) >= 4 + (
                size := U32.unpack_from(self.lane.plain)[0]
            ):
                found.append(self.lane.plain[4 : 4 + size])
                self.lane.plain = self.lane.plain[4 + size :]
            return len(found) >= count

        self.field.until(read, f"{count} answers")
        return found

    def ended(self) -> str:
        self.lane.until(lambda: self.lane.ended, "the end")
        return self.lane.ended


def ended(lane: Lane) -> str:
    lane.until(lambda: lane.ended, "the end")
    return lane.ended


# -- names and passwords --------------------------------------------------------------------------------------------


def test_the_names_of_hubs_are_told_except_of_those_that_hide(field: Field, dial: Callable[[], Lane]) -> None:
    field.sessions.put_hub(HubPut("Other"))
    field.sessions.put_hub(HubPut("hidden", listed=False))
    lane = dial()
    answer = lane.pack(EnumHub().to_pack(b""))
    assert answer.get_int("error") == 0
    assert [answer.get_str("HubName", "", n) for n in range(answer.get_int("NumHub"))] == ["LAN", "Other"]
    assert ended(lane) == "close_notify"


def test_where_no_hub_is_told_the_answer_can_be_read(field: Field, dial: Callable[[], Lane]) -> None:
    field.sessions.put_hub(HubPut("LAN", listed=False))
    answer = dial().pack(EnumHub().to_pack(b""))
    assert (answer.get_int("NumHub"), "HubName" in answer) == (0, False)


@pytest.mark.parametrize("code", [0, 8, 9, 52, 68, 69])
def test_a_new_password_is_controls_to_judge(field: Field, dial: Callable[[], Lane], code: int) -> None:
    field.answers = {"error": code}
    lane = dial()
    assert lane.pack(PasswordChange("LAN", "a", b"o" * 20, b"n" * 20).to_pack(b"")).get_int("error") == code
    (asked,) = field.asked
    assert isinstance(asked, PasswordAsked)
    assert (asked.hub, asked.user, asked.secure_old, asked.new_hash) == ("LAN", "a", b"o" * 20, b"n" * 20)
    assert len(asked.challenge) == 20
    assert ended(lane) == "close_notify"


# -- tools ----------------------------------------------------------------------------------------------------------


def test_a_tool_that_control_lets_in_calls_and_is_answered(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    assert tool.answer.get_int("error") == 0
    (asked,) = field.asked
    assert isinstance(asked, AdminAsked)
    assert (asked.hub, asked.secure_password, asked.client) == ("LAN", b"s" * 20, "a tool")
    for number, size in ((1, 1), (2, 100_000), (3, MAX_CALL)):
        request = bytes([number]) * size
        tool.call(request)
        call = tool.asked(number)[-1]
        assert (call.hub, call.request == request) == ("LAN", True)
        tool.reply(call, request[::-1])
        assert tool.came(1) == [request[::-1]]
    assert field.loop.faults == 0


def test_a_tool_for_the_whole_has_no_hub(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial(), replace(ADMIN, hub=""))
    tool.call(b"x")
    assert tool.asked(1)[0].hub == ""


def test_calls_are_handed_on_one_at_a_time(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial(), behind=b"".join(U32.pack(1) + bytes([n]) for n in (1, 2, 3)))
    for number in (1, 2, 3):
        call = tool.asked(number)[-1]
        field.quiet()
        assert len(tool.asked(number)) == number
        assert call.request == bytes([number])
        tool.reply(call, b"ok")
        assert tool.came(1) == [b"ok"]


def test_a_call_in_pieces_is_one_call(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    data = U32.pack(300) + b"q" * 300
    for at in range(0, len(data), 50):
        tool.lane.write(data[at : at + 50])
        field.quiet()
    assert tool.asked(1)[0].request == b"q" * 300


@pytest.mark.parametrize("code", [8, 12, 51, 109])
def test_a_tool_that_control_refuses_stays_out(field: Field, dial: Callable[[], Lane], code: int) -> None:
    field.answers = {"error": code}
    tool = Tool(field, dial())
    assert tool.answer.get_int("error") == code
    assert tool.ended() == "close_notify"
    assert not field.door.tools


@pytest.mark.parametrize("length", [0, MAX_CALL + 1, 0xFFFFFFFF])
def test_a_call_of_an_impossible_length_ends_the_tool(field: Field, dial: Callable[[], Lane], length: int) -> None:
    tool = Tool(field, dial())
    tool.lane.write(U32.pack(length))
    assert tool.ended() == "close_notify"
    assert not field.door.tools


def test_so_many_tools_and_no_more(field: Field, dial: Callable[[], Lane]) -> None:
    tools = [Tool(field, dial()) for _ in range(2)]
    assert Tool(field, dial()).answer.get_int("error") == 16
    tools[0].lane.drop()
    field.until(lambda: len(field.door.tools) == 1, "one is gone")
    assert Tool(field, dial()).answer.get_int("error") == 0


def test_an_idle_tool_stays_and_one_that_stops_in_a_call_goes(field: Field, dial: Callable[[], Lane]) -> None:
    idle, slow = Tool(field, dial()), Tool(field, dial())
    slow.lane.write(U32.pack(10) + b"12345")
    field.quiet()
    field.after(29.0)
    assert len(field.door.tools) == 2
    field.after(1.1)
    assert slow.ended() == "close_notify"
    field.after(86_400.0)
    idle.call(b"still here")
    assert idle.asked(1)


def test_a_call_that_control_does_not_answer_ends_in_time(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    tool.call(b"x")
    call = tool.asked(1)[0]
    field.after(30.1)
    assert tool.ended() == "close_notify"
    tool.reply(call, b"too late")  # nobody is hurt


def test_control_can_end_a_tool(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    tool.call(b"x")
    tool.reply(tool.asked(1)[0], b"")
    assert tool.ended() == "close_notify"


@pytest.mark.parametrize("trouble", ["is_crowded", "away"])
def test_without_control_a_call_ends_the_tool(field: Field, dial: Callable[[], Lane], trouble: str) -> None:
    tool = Tool(field, dial())
    setattr(field, trouble, True)
    tool.call(b"x")
    assert tool.ended() == "close_notify"


def test_when_control_goes_only_who_waits_for_it_goes(field: Field, dial: Callable[[], Lane]) -> None:
    idle, waiting = Tool(field, dial()), Tool(field, dial())
    waiting.call(b"x")
    waiting.asked(1)
    field.door.control_lost()
    assert waiting.ended() == "close_notify"
    assert len(field.door.tools) == 1
    idle.call(b"y")
    assert idle.asked(2)


def test_a_tool_that_does_not_read_waits_for_itself_only(field: Field, dial: Callable[[], Lane]) -> None:
    tool, other = Tool(field, dial()), Tool(field, dial())
    tool.call(b"x")
    tool.reply(tool.asked(1)[0], bytes(6_000_000))  # more than the kernel takes
    tool.call(b"y")
    field.turn()
    other.call(b"z")
    assert other.asked(2)[-1].request == b"z"
    assert tool.came(1) == [bytes(6_000_000)]
    assert tool.asked(3)[-1].request == b"y"


def test_a_tool_that_never_reads_is_sent_away(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    tool.call(b"x")
    tool.reply(tool.asked(1)[0], bytes(6_000_000))
    field.turn()
    field.after(30.1)
    assert not field.door.tools


def test_tools_hear_when_the_hub_stops(field: Field, dial: Callable[[], Lane]) -> None:
    tool = Tool(field, dial())
    field.door.close()
    assert tool.ended() == "close_notify"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.binary(min_size=1, max_size=200))
def test_any_words_of_a_tool_leave_the_hub_standing(field: Field, dial: Callable[[], Lane], words: bytes) -> None:
    tool = Tool(field, dial())
    tool.lane.write(words)
    field.quiet()
    tool.lane.drop()
    field.until(lambda: not field.door.tools, "it is gone")
    assert field.loop.faults == 0


# -- listings -------------------------------------------------------------------------------------------------------


def test_every_connection_is_listed_and_can_be_ended(hub: Any, until: Callable[..., Any]) -> None:
    with hub.call() as stranger, hub.member("a", max_connection=3, client_build=77) as a:
        stranger.hello()
        a.connect_more()
        rows = {row["connection"]: row for row in hub.control.rows("connections")}
        assert [(row["kind"], row["session"], row["client_build"]) for row in rows.values()] == [
            ("opening", "", 0),
            ("login", "SID-A-1", 77),
            ("additional", "SID-A-1", 77),
        ]
        assert rows["CID-2"]["peer"] == a.row()["peer"] or rows["CID-3"]["peer"] == a.row()["peer"]
        assert [row["kind"] for row in hub.control.rows("connections", "lan")] == ["login", "additional"]
        assert hub.control.rows("end_connection", name="cid-2") == [{"connection": "CID-2", "kind": "login"}]
        assert hub.control.rows("end_connection", name="CID-2") == []
        a.callers[0].expect_end()
        until(lambda: a.row()["connections"] == 1, "one connection")
        assert hub.control.rows("end_connection", name="CID-1")
        stranger.expect_end()


def test_a_listing_that_no_message_can_hold_is_refused_in_words(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub.member("a", client="x" * 250):
        assert len(hub.control.rows("sessions")) == 1
        row = hub.control.rows("sessions")[0]
        monkeypatch.setattr(Session, "row", lambda _self, _now: row)
        sessions: list[Session] = list(hub.worker._sessions) * 30_000
        monkeypatch.setattr(Sessions, "__iter__", lambda _self: iter(sessions))
        assert hub.control.ask("sessions").error == "too much to tell at once"
        del sessions[1000:]
        assert len(hub.control.rows("sessions")) == 1000


def test_answers_that_control_does_not_take_are_not_piled_up(hub: Any, until: Callable[..., Any]) -> None:
    """Each is as long as a message may be; the pipe would be given up as broken."""
    many = [{"mac": "x" * 1000} for _ in range(15_000)]
    hub.worker._orders._orders = {"mac_table": lambda _asked: many}
    with hub.control._lock:  # it reads nothing meanwhile
        for ask in range(101, 109):
            hub.control._pipe.send(Asked(ask, "mac_table"))
        until(lambda: hub.worker.is_crowded, "the pipe is full")
    answers = until(lambda: len(hub.control._answers) == 8 and hub.control._answers, "all answers")
    told = [answers[ask].error or len(answers[ask].rows) for ask in range(101, 109)]
    assert told[0] == 15_000
    assert told[-1] == "too much to tell at once"
    assert len(hub.control.rows("mac_table")) == 15_000


def test_rows_of_tables_can_be_removed(hub: Any) -> None:
    arp = (
        b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\x06" + b"\0\x01\x08\0\x06\x04\0\x01"
        + b"\x02\0\0\0\0\x01" + bytes([192, 168, 7, 1]) + bytes(6) + bytes([192, 168, 7, 2])
    )  # fmt: skip
    with hub.member("a") as a, hub.member("b") as b:
        a.send(arp)
        assert b.receive(1) == [arp]
        for table, order, column in (("mac_table", "forget_mac", "mac"), ("ip_table", "forget_ip", "ip")):
            (row,) = hub.control.rows(table, "LAN")
            assert row["session"] == a.welcome.session_name
            assert row[column] in {"02:00:00:00:00:01", "192.168.7.1"}
            assert hub.control.rows(order, "LAN", "no number") == []
            assert hub.control.rows(order, "LAN", str(row["key"])) == [{"hub": "LAN", "key": row["key"]}]
            assert hub.control.rows(order, "LAN", str(row["key"])) == hub.control.rows(table, "LAN") == []


# -- by the clock ---------------------------------------------------------------------------------------------------


def test_times_are_kept(make_hub: Callable[..., Any], until: Callable[..., Any]) -> None:
    """Those that are short here; the rest of this module moves the clock by hand."""
    hub = make_hub(replace(QUICK, traffic_s=0.3, tool_s=0.3))
    with hub.call() as tool, hub.member("a") as a:
        tool.hello()
        assert tool.pack(ADMIN.to_pack(b"")).get_int("error") == 0
        a.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(50))
        (told,) = until(lambda: hub.control.events(Traffic), "the first report")
        assert (told.session, told.user, told.frames_in, told.bytes_in) == ("SID-A-1", "a", 1, 64)
        assert hub.control.rows("status")[0]["tools"] == 1
        tool.sock.sendall(U32.pack(9) + b"12345")
        tool.expect_end()
        assert hub.control.rows("status")[0]["tools"] == 0


# -- strangers ------------------------------------------------------------------------------------------------------


def test_one_address_does_not_take_every_place_at_control(field: Field, dial: Callable[[], Lane]) -> None:
    field.door.set_limits(replace(QUICK, asking_of_one=3))
    field.unanswered = "a"
    waiting = []
    for _ in range(3):
        lane = dial()
        lane.write(login(lane))
        waiting.append(lane)
    field.until(lambda: len(field.asked) == 3, "three logins at control")
    lane = dial()
    lane.write(login(lane))
    answer = Pack.decode(lane.answer().body)
    assert answer.get_int("error") == 16
    assert len(field.asked) == 3
    waiting[0].drop()
    waiting[1].drop(reset=True)
    field.after(10.1)  # control's time is over for them
    field.unanswered = ""
    lane = dial()
    lane.write(login(lane))
    assert Pack.decode(lane.answer().body).get_str("session_name") == "SID-A-1"


def test_while_control_reads_nothing_nobody_is_asked_of_it(field: Field, dial: Callable[[], Lane]) -> None:
    field.is_crowded = True
    lane = dial()
    lane.write(login(lane))
    assert Pack.decode(lane.answer().body).get_int("error") == 16
    assert field.asked == []


def login(lane: Lane) -> bytes:
    return pack_request(lane.http, Client.request("a"))
