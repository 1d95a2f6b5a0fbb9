"""Hooks: what they are told, what comes of what they say, and whose they may be."""

import asyncio
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ukihashi.card import hooks

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def account(tmp_path: Path) -> Path:
    path = tmp_path / "lan.toml"
    path.write_text("")
    path.chmod(0o600)
    return path


def test_a_hook_is_told_and_its_words_are_logged(account: Path) -> None:
    command = """sh -c 'echo "$UKIHASHI_ACCOUNT $UKIHASHI_EVENT $UKIHASHI_DNS"; echo oh >&2'"""
    with capture_logs() as logs:
        assert asyncio.run(hooks.run("lan", "up", command, {"DNS": "10.1.0.1"}, account)) is None
    assert [log["line"] for log in logs if log["event"] == "hook_said"] == ["lan up 10.1.0.1", "oh"]
    assert logs[-1]["event"] == "hook_done"


def test_no_shell_reads_the_line(account: Path) -> None:
    with capture_logs() as logs:
        asyncio.run(hooks.run("lan", "up", "echo 'a  b' $HOME ; c", {}, account))
    assert [log["line"] for log in logs if log["event"] == "hook_said"] == ["a  b $HOME ; c"]


def test_our_own_places_do_not_leak_into_it(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UKIHASHI_STATE_DIR", "/somewhere")
    with capture_logs() as logs:
        asyncio.run(hooks.run("lan", "up", "env", {}, account))
    assert not [log for log in logs if "STATE_DIR" in str(log.get("line"))]


@pytest.mark.parametrize(("command", "why"), [("false", "status 1"), ("/no/such/program", "No such file")])
def test_a_failure_is_said_and_nothing_else(account: Path, command: str, why: str) -> None:
    problem = asyncio.run(hooks.run("lan", "down", command, {}, account))
    assert why in str(problem)


def test_one_that_hangs_is_ended_with_what_it_started(account: Path, tmp_path: Path) -> None:
    command = f"sh -c 'sleep 60 & echo $! > {tmp_path}/pid; wait'"
    problem = asyncio.run(hooks.run("lan", "up", command, {}, account, deadline=0.5))
    assert "still running" in str(problem)
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_one_that_leaves_a_daemon_behind_is_not_waited_for(account: Path) -> None:
    problem = asyncio.run(hooks.run("lan", "up", "sh -c 'sleep 3 & exit 0'", {}, account, deadline=1.5))
    assert problem is None


def test_no_command_is_no_hook(account: Path) -> None:
    with capture_logs() as logs:
        assert asyncio.run(hooks.run("lan", "up", "", {}, account)) is None
    assert logs == []


@root_only
class TestWhoMayNameAProgram:
    def test_root_alone(self, account: Path) -> None:
        assert hooks.distrust(account) is None

    def test_no_file_that_others_write(self, account: Path) -> None:
        account.chmod(0o664)
        problem = asyncio.run(hooks.run("lan", "up", "touch /tmp/never", {}, account))
        assert "can be written by others" in str(problem)

    def test_no_file_of_somebody_else(self, account: Path) -> None:
        os.chown(account, 12345, 0)
        assert hooks.distrust(account) is not None

    def test_no_file_in_a_folder_that_others_write(self, tmp_path: Path) -> None:
        folder = tmp_path / "card.d"
        folder.mkdir()
        path = folder / "lan.toml"
        path.write_text("")
        folder.chmod(0o777)
        assert hooks.distrust(path) is not None
        folder.chmod(0o1777)  # nobody can put another file in its place
        assert hooks.distrust(path) is None

    def test_no_link_to_such_a_file(self, account: Path, tmp_path: Path) -> None:
        account.chmod(0o666)
        link = tmp_path / "link.toml"
        link.symlink_to(account)
        assert hooks.distrust(link) is not None
