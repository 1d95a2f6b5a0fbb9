"""The line that `hub sessions` adds for a session that had trouble."""

import pytest

from ukihashi.cli.hub_sessions import nature, remark, show
from ukihashi.hub import ports, resumable, session
from ukihashi.session import udp_drops
from ukihashi.switch import loop_guard, queue, reasons

QUIET = {"state": "online", "resumes": 0, "drops": {}, "ledger": {"replayed": 0, "lost": 0}}
CUT = {
    "session": "SID-A-1",
    "hub": "LAN",
    "user": "a",
    "state": "cut",
    "cut_s": 12.3,
    "grace_left_s": 287.7,
    "waiting_bytes": 2048,
    "resumes": 3,
    "drops": {"resume_buffer": 4, "odd": 1},
    "ledger": {"replayed": 12, "lost": 2},
}


def test_a_quiet_session_needs_no_words() -> None:
    assert remark(QUIET) == remark({}) == ""


def test_the_kind_of_a_session_is_said_whatever_its_machine_calls_itself() -> None:
    row = {
        "node": {"host": "box\n\x1b[2J", "system": "Windows 11"},
        "group": "staff",
        "vlan": 7,
        "mode": "bridge",
        "half_duplex": True,
        "compression": True,
        "udp": True,
        "congestion": "bbr",
        "encrypted": False,
    }
    assert nature(row) == (
        "on box\\x0a\\x1b[2J (Windows 11), group staff, VLAN 7, bridge mode, half duplex, compression, over UDP,"
        " TCP bbr, NOT ENCRYPTED"
    )
    assert nature({**QUIET, "encrypted": True, "node": {"host": ""}}) == nature({}) == ""


def test_trouble_is_said_in_one_line() -> None:
    assert remark(CUT) == (
        "cut for 0 min 12 s, 4 min 47 s left to come back, 2.00 KiB waiting; 3 times back after a cut;"
        " 12 frames sent again; 2 frames lost; dropped: buffer for the cut card full 4, odd 1"
    )


def test_it_stands_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    show([{**QUIET, "session": "SID-B-2"}, CUT], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("SID-A-1: cut for ")
    assert [line.split()[0] for line in lines[:-1]] == ["SESSION", "SID-B-2", "SID-A-1"]
    show([CUT], as_json=True)
    assert capsys.readouterr().out.count("\n") == 1


def test_every_reason_has_words() -> None:
    from ukihashi.cli.hub_sessions import DROPS

    switch = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    ours = {
        queue.QUEUE_FULL,
        resumable.RESUME_BUFFER,
        resumable.RESUME_MEMORY,
        resumable.ENDED,
        resumable.OFFLOAD_HEADER,
    }
    assert set(DROPS) == switch | ours | {session.INFLATE, loop_guard.LOOP} | set(udp_drops.WORDS)
    assert ports.REFUSED not in DROPS  # of the host port, which is no session
