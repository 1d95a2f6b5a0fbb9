"""`hub upgrade` with real processes: who stays, who goes on, and what happens when it can't be."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.hub.processes import DEADLINE, Supervised, children, is_alive

from ukihashi.hub.handover import FORM
from ukihashi.tap import netlink
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.extension import Resume
from ukihashi.wire.messages import AdditionalAnswer, AdditionalConnect, read_additional_answer

pytestmark = pytest.mark.slow

Launch = Callable[..., Supervised]
Until = Callable[..., Any]


def frame(to: int, by: int, text: bytes = b"") -> bytes:
    """An Ethernet frame between stations known by a number; 0 is everybody."""
    address = b"\xff" * 6 if to == 0 else b"\x02\0\0\0\0" + bytes([to])
    return address + b"\x02\0\0\0\0" + bytes([by]) + b"\x88\xb5" + text


def upgraded(hub: Supervised, until: Until, times: int = 1) -> list[Any]:
    """Upgrade once; number, sessions taken over, pause."""
    rows = hub.order(wish="upgrade")
    assert rows[0]["number"] == times, rows
    until(lambda: len(hub.told("upgraded")) == times, "the upgrade", DEADLINE)
    found: list[Any] = hub.told("upgraded")[-1]
    assert found[0] == times
    print(*hub.events, sep="\n")  # shown if the test fails
    return found


def test_the_hub_becomes_another_program_and_remains_the_same_process(launch: Launch, until: Until) -> None:
    hub = launch()
    address = hub.address
    worker = hub.status()["pid"]
    for times in (1, 2, 3):
        upgraded(hub, until, times)
        assert hub.told("ready")[-1] == [list(address)]
        assert hub.status()["pid"] != worker
        worker = hub.status()["pid"]
        until(lambda: len(children(hub.process.pid)) == 2, "only the new children", DEADLINE)
        hub.socket().close()
    open_now = len(list(Path(f"/proc/{hub.process.pid}/fd").iterdir()))
    upgraded(hub, until, 4)
    until(lambda: len(children(hub.process.pid)) == 2, "only the new children", DEADLINE)
    assert len(list(Path(f"/proc/{hub.process.pid}/fd").iterdir())) == open_now
    pids = children(hub.process.pid)
    assert hub.finish() == 0
    assert not any(map(is_alive, pids))
    assert not list((hub.folder / "run").iterdir())


def test_a_session_goes_on_where_it_was(launch: Launch, until: Until, member_types: Any) -> None:
    hub = launch()
    with (
        member_types.member.join(hub, "a", extension=1, extension_oldest=1, resume=True) as a,
        member_types.member.join(hub, "b") as b,
    ):
        assert a.welcome.grace_s > 0
        a.send(frame(0, 1, b"from a"), frame(0, 1, b"and more"))
        assert b.receive(2) == [frame(0, 1, b"from a"), frame(0, 1, b"and more")]
        b.send(frame(1, 2, b"not acknowledged"))
        assert upgraded(hub, until)[1] == 2
        a.callers[0].expect_end()  # raises without close_notify
        b.callers[0].expect_end()
        rows = hub.order(what="mac_table")
        assert {row["mac"][-1]: row["session"] for row in rows} == {
            "1": a.welcome.session_name,
            "2": b.welcome.session_name,
        }
        # a standard client comes back with its key, as it does after any cut
        again = b.connect_more()
        again.sock.sendall(encode_frames([frame(1, 2, b"while a was away")]))
        until(lambda: hub.order(what="sessions", hub="LAN"), "rows")
        # a card resumes: it says how far it got, and learns how far the hub got
        with member_types.caller(hub) as caller:
            caller.hello()
            wish = AdditionalConnect(a.welcome.session_key, resume=Resume(attempt=1, have=0))
            answer = read_additional_answer(caller.pack(wish.to_pack(b"")))
            assert isinstance(answer, AdditionalAnswer)
            assert answer.have == 2
            decoder = BlockDecoder(extended=True)
            frames = decoder.feed(caller.http.take_over())
            while len(frames) < 2:
                frames += decoder.feed(caller.sock.recv(65536))
            assert frames == [frame(1, 2, b"not acknowledged"), frame(1, 2, b"while a was away")]
        with member_types.member.join(hub, "c") as c:
            assert c.welcome.session_name == "SID-C-3"  # numbers go on


@pytest.mark.netns
def test_a_host_port_never_goes_down(launch: Launch, until: Until) -> None:
    hub, name = launch(), f"uk{os.getpid()}"
    hub.order(port=[name, "10.253.77.1/24"])
    until(lambda: hub.status()["host_ports"], "the host port", DEADLINE)
    before = Path(f"/sys/class/net/{name}/ifindex").read_text(), Path(f"/sys/class/net/{name}/carrier_changes")
    changes = before[1].read_text()
    upgraded(hub, until)
    until(lambda: hub.status()["host_ports"], "the host port with the new worker", DEADLINE)
    assert Path(f"/sys/class/net/{name}/ifindex").read_text() == before[0]
    assert before[1].read_text() == changes
    assert netlink.addresses(name) == ["10.253.77.1/24"]
    hub.order(port=[name, "10.253.78.1/24"])
    until(lambda: netlink.addresses(name) == ["10.253.78.1/24"], "its new address", DEADLINE)
    assert hub.finish() == 0
    assert not netlink.exists(name)


def says(form: int, pin: str) -> list[str]:
    """A program that says this of itself."""
    words = json.dumps({"version": "9", "form": form, "pin": pin})
    return [sys.executable, "-c", f"print({words!r})"]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ([sys.executable, "-c", "import nothing_of_that_name"], "No module named 'nothing_of_that_name'"),
        ([sys.executable, "-c", "this is no Python"], "SyntaxError: invalid syntax"),
        (["/nonexistent/python"], "No such file or directory"),
        ([sys.executable, "-c", "pass"], "can't take over"),  # says nothing of itself
        (says(FORM + 1, ""), "version 9 can't take over"),
        (says(FORM, "00ff"), "to 00:FF"),
    ],
)
def test_a_program_that_can_not_take_over_is_refused_with_its_words(
    launch: Launch, member_types: Any, program: list[str], told: str
) -> None:
    hub = launch(program=program)
    worker = hub.status()["pid"]
    with member_types.member.join(hub, "a") as a, member_types.member.join(hub, "b") as b:
        answer = hub.order(wish="upgrade")
        assert told in answer["no"]
        assert hub.status()["pid"] == worker
        a.send(frame(0, 1))
        assert b.receive(1) == [frame(0, 1)]


def test_a_check_that_fails_changes_nothing_and_may_be_repeated(launch: Launch, until: Until) -> None:
    hub = launch()
    (hub.folder / "broken").write_text("check")
    assert "broken on purpose" in hub.order(wish="upgrade")["no"]
    (hub.folder / "broken").unlink()
    (hub.folder / "hub.toml").write_text("times = 3\n")
    assert "hub.toml: times must be" in hub.order(wish="upgrade")["no"]
    (hub.folder / "hub.toml").unlink()
    upgraded(hub, until)


def test_a_changed_key_is_refused_with_both_fingerprints(
    launch: Launch, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    pem, key = tmp_path / "own.pem", tmp_path / "own.key"
    pem.write_bytes(certificate[0].read_bytes())
    key.write_bytes(certificate[1].read_bytes())
    hub = launch(certificate=str(pem), key=str(key))
    leaf = trustme.CA().issue_cert("hub.example")
    leaf.cert_chain_pems[0].write_to_path(pem)
    leaf.private_key_pem.write_to_path(key)
    told = hub.order(wish="upgrade")["no"]
    assert told.count(":") > 60
    assert "the hub's key has changed" in told


def test_a_state_that_can_not_be_restored_costs_a_login_and_no_more(
    launch: Launch, until: Until, member_types: Any
) -> None:
    hub = launch()
    (hub.folder / "broken").write_text("restore")
    with member_types.member.join(hub, "a") as a:
        assert upgraded(hub, until)[1] is None
        a.callers[0].expect_end()
    with member_types.member.join(hub, "a"):
        assert hub.finish() == 0


def test_a_worker_that_stands_still_is_given_up(launch: Launch, until: Until, member_types: Any) -> None:
    hub = launch(handover_s=0.5)
    os.kill(hub.status()["pid"], signal.SIGSTOP)
    hub.order(wish="upgrade")
    until(lambda: hub.told("upgraded"), "the upgrade", DEADLINE)
    assert hub.told("upgraded")[0][1] is None
    assert any("without handing over" in sentence for sentence in hub.told("told"))
    with member_types.member.join(hub, "a"):
        assert hub.finish() == 0


def test_a_signal_in_the_middle_of_an_upgrade_is_not_lost(launch: Launch, until: Until) -> None:
    hub = launch()
    pids = children(hub.process.pid)
    hub.order(wish="upgrade")
    hub.process.send_signal(signal.SIGTERM)  # some time between the answer and the new program's first words
    assert hub.process.wait(DEADLINE) == 0
    assert not any(map(is_alive, pids))
    assert not list((hub.folder / "run").iterdir())


def test_a_note_for_another_process_is_none(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UKIHASHI_INHERITED", "1:7")
    hub = launch()
    assert hub.finish() == 0


def test_addresses_may_change_with_an_upgrade(launch: Launch, until: Until, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hub = launch(also=["127.0.0.1", port])
    upgraded(hub, until)
    assert hub.told("ready")[-1] == [list(hub.address), ["127.0.0.1", port]]
    socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
    hub.socket().close()
