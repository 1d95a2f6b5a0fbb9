"""Slow work beside the capture: never more than a few children, none stays."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ukihashi.alert import aside
from ukihashi.alert.aside import AT_ONCE, Aside


@pytest.fixture
def beside() -> Iterator[Aside]:
    one = Aside()
    yield one
    one.close()


def test_work_is_done_in_a_child_and_the_caller_does_not_wait(tmp_path: Path, beside: Aside) -> None:
    def work() -> None:
        time.sleep(0.3)
        (tmp_path / "done").write_text(str(os.getpid()))

    assert beside.run(work)
    assert not (tmp_path / "done").exists()
    beside.close()
    assert int((tmp_path / "done").read_text()) != os.getpid()


def test_there_are_few_at_a_time_and_room_again_when_one_has_ended(beside: Aside) -> None:
    go, gone = os.pipe()

    def wait() -> None:
        os.read(go, 1)

    try:
        assert [beside.run(wait) for _ in range(AT_ONCE + 1)] == [True] * AT_ONCE + [False]
        os.write(gone, b"x" * AT_ONCE)
        beside.close()
        assert beside.run(lambda: None)
    finally:
        os.close(go)
        os.close(gone)


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, beside: Aside) -> None:
    monkeypatch.setattr(aside, "LONGEST_S", 0.2)
    assert beside.run(signal.pause)
    begun = time.monotonic()
    beside.close()
    assert time.monotonic() - begun < 30


def test_work_that_fails_ends_the_child_alone(beside: Aside) -> None:
    assert beside.run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert beside.run(lambda: dict[str, None]()[""])
    beside.close()
