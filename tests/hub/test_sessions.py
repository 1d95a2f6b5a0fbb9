"""Members of a virtual hub: frames from one to another, sessions that outlive connections, and their end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ukihashi.errors import Refused
from ukihashi.hub.messages import HubPut, HubRemoved, LoginAsked, SessionClosed, SessionOpened
from ukihashi.wire.policy import Policy


def frame(to: int, by: int, text: bytes = b"", group: bool = False) -> bytes:
    """An Ethernet frame between stations known by a number."""
    address = b"\xff" * 6 if group else b"\x02\0\0\0\0" + bytes([to])
    return address + b"\x02\0\0\0\0" + bytes([by]) + b"\x88\xb5" + text


def test_a_login_becomes_a_session_that_control_hears_of(hub: Any) -> None:
    with hub.member("a", client="test card", extension=1, extension_oldest=1) as member:
        welcome = member.welcome
        assert (welcome.session_name, welcome.connection_name) == ("SID-A-1", "CID-1")
        assert len(welcome.session_key) == 20
        assert (welcome.timeout_ms, welcome.max_connection, welcome.extension) == (20000, 1, 1)
        assert (welcome.use_encrypt, welcome.use_compress, welcome.half_connection, welcome.qos) == (1, 0, 0, 0)
        row = member.row()
        assert (row["hub"], row["user"], row["client"], row["connections"]) == ("LAN", "a", "test card", 1)
        assert row["tls_version"] == "TLSv1.3"
        asked = hub.control.events(LoginAsked)[0]
        assert asked.peer == row["peer"]
        opened = hub.control.events(SessionOpened)[0]
        assert (opened.session, opened.extension) == ("SID-A-1", 1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"hub": "nowhere"}, 8),
        ({"hub": "other"}, 8),  # control knows it, the worker was never told
        ({"password": "wrong"}, 9),
        ({"authtype": 96}, 7),
        ({"authtype": 97}, 7),
        ({"authtype": 98}, 7),
        ({"authtype": 99}, 7),
        ({"authtype": 4}, 7),
        ({"authtype": 50}, 7),
        ({"authtype": 3, "certificate": b"c", "signature": b"s"}, 9),
        ({"monitor_mode": True}, 107),
        ({"extension": 3, "extension_oldest": 2}, 87),
    ],
)
def test_refusals(hub: Any, change: dict[str, Any], code: int) -> None:
    with pytest.raises(Refused) as refused:
        hub.member("a", **change)
    assert refused.value.code == code


def test_an_unknown_newer_version_that_still_speaks_ours_gets_ours(hub: Any) -> None:
    with hub.member("a", extension=2, extension_oldest=1) as member:
        assert member.welcome.extension == 1


@pytest.mark.parametrize("login", [{}, {"authtype": 2, "plain_password": "correct horse"}])
def test_standard_peers_get_no_extension(hub: Any, login: dict[str, Any]) -> None:
    with hub.member("a", **login) as member:
        assert member.welcome.extension == 0
        member.await_keepalives(1)  # at once


def test_frames_reach_the_known_station_and_broadcasts_reach_all_others(hub: Any, until: Callable[..., Any]) -> None:
    with hub.member("a") as a, hub.member("b") as b, hub.member("c") as c:
        hello = frame(0, 1, b"who?", group=True)
        a.send(hello)
        assert b.receive(1) == c.receive(1) == [hello]
        b.send(frame(1, 2, b"me"))
        assert a.receive(1) == [frame(1, 2, b"me")]
        run = [frame(2, 1, bytes([n]) * 1000) for n in range(200)]
        a.send(*run)
        assert b.receive(200) == run
        c.send(frame(0, 3, b"x", group=True))
        assert b.receive(1) == [frame(0, 3, b"x", group=True)]  # nothing of the run went to c, nothing comes twice
        assert c.frames == []
        table = {row["mac"]: row["session"] for row in hub.control.rows("mac_table", "lan")}
        assert table == {f"02:00:00:00:00:0{n}": f"SID-{name}-{n}" for n, name in ((1, "A"), (2, "B"), (3, "C"))}
        row = b.row()
        assert (row["frames_in"], row["frames_out"]) == (1, 202)
        assert row["frames_per_tls_write"] > 1
        assert a.row()["bytes_in"] == sum(map(len, [hello, *run]))


def test_a_frame_to_the_own_port_is_dropped_and_counted(hub: Any, until: Callable[..., Any]) -> None:
    with hub.member("a") as a:
        a.send(frame(9, 1), frame(1, 2), frame(8, 8))
        until(lambda: a.row()["drops"] == {"own_port": 1, "source": 1}, "drops")


def test_a_session_without_bridge_mode_has_three_stations(hub: Any, until: Callable[..., Any]) -> None:
    many = [frame(0, n, group=True) for n in range(1, 6)]
    with hub.member("a") as a, hub.member("b", client="a bridge") as b, hub.member("c") as c:
        a.send(*many)
        assert c.receive(3) == many[:3]
        b.send(*many)
        assert c.receive(5) == many
        assert a.row()["drops"] == {"port_full": 2}


def test_a_member_that_does_not_read_loses_its_newest_frames_and_hurts_nobody(
    make_hub: Callable[..., Any], quick: Any, until: Callable[..., Any]
) -> None:
    hub = make_hub(replace(quick, queue_bytes=100_000, dead_s=60.0))
    with hub.member("a") as a, hub.member("b") as b, hub.member("c") as c:
        for n, member in enumerate((a, b, c), 1):
            member.send(frame(0, n, group=True))
        for member in (a, b, c):
            member.receive(2)
        until(lambda: len(hub.control.rows("mac_table")) == 3, "three stations")
        big = [frame(2, 1, bytes(1400))] * 100
        while not b.row()["drops"]:
            a.send(*big)
        assert b.row()["queued_bytes"] <= 100_000
        a.send(frame(3, 1, b"to c"))
        assert c.receive(1) == [frame(3, 1, b"to c")]
        dropped = b.row()["drops"]["queue_full"]
        sent = a.row()["frames_in"]
        b.receive(sent - 2 - dropped)
        assert b.row()["queued_bytes"] == 0


def test_a_session_survives_its_only_connection_and_goes_on_with_another(hub: Any, until: Callable[..., Any]) -> None:
    with hub.member("a") as a, hub.member("b") as b:
        a.send(frame(0, 1, group=True))
        b.receive(1)
        a.callers[0].sock.close()
        until(lambda: a.row()["connections"] == 0, "the connection's end")
        late = frame(1, 2, b"while away")
        b.send(late)
        until(lambda: a.row()["queued_bytes"] == len(late), "the frame waits")
        again = a.connect_more()
        a.callers, a.decoder = [again], type(a.decoder)()
        a.frames = a.decoder.feed(again.http.take_over())
        assert a.receive(1) == [late]
        a.send(frame(2, 1, b"back"))
        assert b.receive(1) == [frame(2, 1, b"back")]


def test_a_session_takes_one_connection_more_than_granted(hub: Any) -> None:
    with hub.member("a", max_connection=2) as a:
        assert a.welcome.max_connection == 2
        a.connect_more()
        a.connect_more()
        with pytest.raises(Refused) as refused:
            a.connect_more()
        assert refused.value.code == 15
        assert a.row()["connections"] == 3


def test_as_many_connections_are_granted_as_options_and_policy_allow(
    hub: Any, make_hub: Callable[..., Any], quick: Any
) -> None:
    with hub.member("a", max_connection=32) as a, hub.member("b", max_connection=0) as b:
        assert (a.welcome.max_connection, b.welcome.max_connection) == (32, 1)
    hub.control.policy = Policy(max_connection=3)
    with hub.member("a", max_connection=32) as a:
        assert (a.welcome.max_connection, a.welcome.policy["MaxConnection"]) == (3, 3)
    with make_hub(replace(quick, max_connections=2)).member("a", max_connection=32) as a:
        assert a.welcome.max_connection == 2


def test_an_unknown_key_is_refused(hub: Any) -> None:
    with hub.member("a") as a:
        object.__setattr__(a.welcome, "session_key", bytes(20))
        with pytest.raises(Refused) as refused:
            a.connect_more()
    assert refused.value.code == 13


@pytest.mark.slow
def test_a_cut_session_ends_after_its_timeout(hub: Any, until: Callable[..., Any]) -> None:
    hub.control.send(HubPut("LAN", session_timeout_s=5.0))  # the least that the protocol allows
    with hub.member("a") as a:
        a.send(frame(0, 1, group=True))
    closed = until(lambda: hub.control.events(SessionClosed), "the session's end")[0]
    assert (closed.session, closed.reason, closed.frames_in) == ("SID-A-1", "no connection left", 1)
    assert hub.control.rows("sessions") == hub.control.rows("mac_table") == []


@pytest.mark.slow
def test_silence_ends_a_connection_and_keepalives_prevent_it(hub: Any, until: Callable[..., Any]) -> None:
    with hub.member("a", extension=1, extension_oldest=1) as silent:
        silent.await_keepalives(2)
        assert silent.callers[0].expect_end()
        assert silent.row()["connections"] == 0


@pytest.mark.parametrize("orders", ["disconnect", "offline", "removed"])
def test_an_admin_ends_sessions_in_good_order(hub: Any, orders: str) -> None:
    with hub.member("a") as a, hub.member("b") as b:
        if orders == "disconnect":
            assert hub.control.rows("disconnect", "LAN", "sid-a-1") == [{"session": "SID-A-1", "hub": "LAN"}]
            assert hub.control.rows("disconnect", "LAN", "SID-A-1") == []
            assert [row["session"] for row in hub.control.rows("sessions", "LAN")] == ["SID-B-2"]
        else:
            hub.control.send(HubPut("LAN", online=False) if orders == "offline" else HubRemoved("LAN"))
            b.callers[0].expect_end()
        a.callers[0].expect_end()
        with pytest.raises(Refused) as refused:
            a.connect_more()
        assert refused.value.code == 13
        if orders != "disconnect":
            with pytest.raises(Refused) as refused:
                hub.member("c")
            assert refused.value.code == {"offline": 10, "removed": 8}[orders]


def test_a_full_hub_is_busy(hub: Any) -> None:
    hub.control.max_sessions = 1
    with hub.member("a"):
        with pytest.raises(Refused) as refused:
            hub.member("b")
        assert refused.value.code == 16


def test_hubs_are_apart(hub: Any) -> None:
    hub.control.send(HubPut("OTHER"))
    with hub.member("a") as a, hub.member("b", hub="other") as b, hub.member("c") as c:
        a.send(frame(0, 1, group=True))
        c.receive(1)
        c.send(frame(0, 3, group=True))
        a.receive(1)
        assert b.row()["frames_out"] == 0
        assert b.welcome.session_name == "SID-B-1"
        assert {row["hub"] for row in hub.control.rows("mac_table")} == {"LAN"}


def test_questions_that_have_no_answer_say_so(hub: Any) -> None:
    assert hub.control.ask("sessions", "nowhere").error == "no such hub"
    assert "unknown" in hub.control.ask("weather").error


def test_status(hub: Any) -> None:
    with hub.member("a"):
        (row,) = hub.control.rows("status")
        assert (row["connections"], row["half_open"], row["sessions"], row["hubs"]) == (1, 0, 1, 1)
        assert row["pid"] > 0
        assert row["uptime_s"] >= 0


def test_a_block_above_the_limit_ends_the_connection(hub: Any) -> None:
    with hub.member("a") as a:
        a.callers[0].sock.sendall(b"\0\0\0\1\0\0\x0c\x81" + bytes(3201))
        a.callers[0].expect_end()


def test_a_stop_says_close_notify_to_everybody(hub: Any) -> None:
    with hub.member("a") as a, hub.member("b") as b:
        hub.stop()
        a.callers[0].expect_end()  # SSLSocket raises SSLEOFError where close_notify is missing
        b.callers[0].expect_end()
        assert {event.reason for event in hub.control.events(SessionClosed)} == {"the hub stops"}
