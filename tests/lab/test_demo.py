"""`./run demo`, run as a user runs it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.demo import LINE
from lab.net import NAMESPACES, ROOM
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.fixture
def demo(repository: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.demo"], cwd=repository, stdout=file, stderr=subprocess.STDOUT
        )
    yield process, output
    if process.poll() is None:
        process.terminate()
        process.wait(20)


def left(pid: int) -> list[str]:
    """What a lab of that process has left behind."""
    namespaces = [path.name for path in NAMESPACES.glob(f"uk{pid}x*")]
    return namespaces + [path.name for path in ROOM.glob(f"{pid}x*")]


@pytest.mark.timeout(180)
def test_all_is_shown_within_two_minutes(demo: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, output = demo
    begin = time.monotonic()
    status = process.wait(170)
    seconds, text = time.monotonic() - begin, output.read_text()
    assert status == 0, text
    assert seconds < 120
    assert re.search(r"^IPv4: \S+ answers", text, re.MULTILINE)
    assert re.search(r"^IPv6: \S+ answers", text, re.MULTILINE)
    assert re.search(r"^ARP: \S+ is at ", text, re.MULTILINE)
    assert "802.1Q frame of VLAN 10: came across unchanged" in text
    assert "frame of unknown EtherType 9abc: came across unchanged" in text
    assert re.search(r"^[\d,]+ MB carried, .* checksum right$", text, re.MULTILINE)
    assert re.search(r"^ja: 200 .*仮想 HUB", text, re.MULTILINE)
    assert re.search(r"traffic flowed again after \d+\.\d+ s, over a new connection", text)
    clients = re.findall(r"\(client ([\d.]+):\d+,", "\n".join(LINE.findall(text)))
    assert len(clients) == len(set(clients)) == 2  # one line for each login
    assert left(process.pid) == []


def test_ctrl_c_leaves_nothing(demo: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, output = demo
    until(lambda: b"the hub answers at" in output.read_bytes(), seconds=60, what="the hub of the demo")
    assert left(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert left(process.pid) == []
    assert "Traceback" not in output.read_text()
