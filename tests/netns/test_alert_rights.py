"""What a running detector may still do: read its cards and write its open files."""

import re
import signal
import sys
from pathlib import Path

import pytest
from tests.netns.test_alert_load import processes

from lab.mirror import silence
from lab.net import Net
from lab.replay import send, session
from lab.wait import until
from ukihashi.net.privileges import identity

LINE = r"SoftEther VPN TCP Connection Detected \(client (\S+), server (\S+)\)"


def rights_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


WATCH = """import os, sys
def hook(event, args):
    if event in ("open", "import") and os.geteuid():
        os.write(2, f"LATE: {event} {args[0]}\\n".encode())
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("program", ["alert", "workers", "sealert"])
def test_a_detector_keeps_no_right_and_needs_no_file_afterwards(net: Net, program: str, tmp_path: Path) -> None:
    """Whatever it needs is loaded and open before: files may be unreadable to the account that it works as."""
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    silence(a, near)
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    words = {
        "alert": ["ukihashi.cli.main", "alert", "-i", far, "--log", "sealert.log", "--explain"],
        "workers": ["ukihashi.cli.main", "alert", "-i", far, "--log", "sealert.log", "--workers", "2"],
        "sealert": ["-c", "from ukihashi.cli.alert import sealert; sealert()", "2"],
    }[program]
    start = words if program == "sealert" else ["-m", *words]
    process = b.spawn([sys.executable, *start], log="alert", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    process.wait_for(r"Starting Capture Packets at \[", seconds=100)
    who = str(identity("ukihashi-alert").uid)
    for pid in processes(b, 3 if program == "workers" else 1):
        until(lambda pid=pid: rights_of(pid)["NoNewPrivs"] == "1", seconds=20, what="the rights being given up")  # type: ignore[misc]
        told = rights_of(pid)
        assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert told["NoNewPrivs"] == "1"
        assert told["Uid"].split() == [who] * 4
        assert told["Groups"] == ""
    for number in range(2):
        for frames in session((f"10.9.0.{number + 1}", 50000), ("10.9.1.1", 443)):
            send(a, near, frames)
    log = tmp_path / "sealert.log"
    until(lambda: len(re.findall(LINE, log.read_text())) == 2, seconds=60, what="two lines in the log")
    assert process.stop(signal.SIGTERM, grace_s=30) == 0, process.output()
    assert "Traceback" not in process.output()
    assert [line for line in process.output().splitlines() if line.startswith("LATE")] == []
