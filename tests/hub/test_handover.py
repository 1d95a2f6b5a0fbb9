"""The state that goes from worker to worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.hub import handover
from ukihashi.hub.handover import FORM, Heading, SavedHub, StateUnusable, read_state, restore, write_state
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.messages import HubPut
from ukihashi.hub.ports import Outbox
from ukihashi.hub.sessions import Sessions


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    loop = Loop()
    yield Sessions(loop, Limits(), Outbox(), lambda _message: True)
    loop.close()


def test_values_come_back_in_order_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "CHUNK", 7)
    state = write_state([[], b"x" * 100, "é", {"a": 1.5}])
    assert list(read_state(state)) == [
        b"\x90",
        b"\xc4\x64" + b"x" * 100,
        b"\xa2\xc3\xa9",
        b"\x81\xa1a\xcb?\xf8" + bytes(6),
    ]
    os.close(state)


def test_a_state_can_not_be_changed_any_more() -> None:
    state = write_state([1])
    for change in (lambda: os.pwrite(state, b"x", 0), lambda: os.ftruncate(state, 0), lambda: os.ftruncate(state, 99)):
        with pytest.raises(PermissionError):
            change()
    os.close(state)


def test_hubs_are_restored_with_their_settings_and_numbers(sessions: Sessions) -> None:
    values = [Heading(FORM, 12.5, 2), SavedHub(HubPut("LAN", ageing_s=5.0), 7), SavedHub(HubPut("b", online=False), 0)]
    state = write_state(values)
    assert restore(sessions, state) == 12.5
    assert sessions.hubs["lan"].settings.ageing_s == 5.0
    assert sessions.hubs["lan"].next_session() == 8
    assert sessions.hubs["b"].settings.online is False
    os.close(state)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "can't be read"),
        ([Heading(FORM + 1, 0.0, 0)], f"have form {FORM + 1}, this hub reads form {FORM}"),
        ([Heading(FORM, 0.0, 1)], "can't be read"),
        ([Heading(FORM, 0.0, 0), {"no": "session"}], "can't be read"),
        ([3], "can't be read"),
    ],
)
def test_what_can_not_be_restored_is_said(sessions: Sessions, values: list[object], told: str) -> None:
    state = write_state(values)
    with pytest.raises(StateUnusable, match=told):
        restore(sessions, state)
    os.close(state)


@pytest.mark.parametrize("data", [b"\0\0", b"\0\0\0\5abc"])
def test_a_state_that_is_cut_short_is_said(sessions: Sessions, data: bytes) -> None:
    state = os.memfd_create("cut")
    os.write(state, data)
    with pytest.raises(StateUnusable, match="cut short"):
        restore(sessions, state)
    os.close(state)


def test_a_machine_without_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StateUnusable, match="No space left"):
        write_state([1])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
