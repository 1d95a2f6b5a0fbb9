"""`ukihashi alert top` in a real terminal, and printed once."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.alert.sensor import Sensor, finding

from ukihashi.alert import allow
from ukihashi.config import places

pytestmark = pytest.mark.slow
ARGV = [sys.executable, "-m", "ukihashi.cli.main", "alert", "top"]


class Terminal:
    """The program in a terminal of its own; `screen` is what stands there."""

    def __init__(self, *, width: int = 80, height: int = 24, **environ: str) -> None:
        self.master, slave = pty.openpty()
        self.said = ""
        self.resize(width, height)
        clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        env = {**clean, "TERM": "xterm-256color", "LANGUAGE": "en", **environ}
        self.process = subprocess.Popen(ARGV, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    @property
    def screen(self) -> list[str]:
        """The lines of the last whole picture, without styles."""
        picture = self.said.split("\x1b[?1049l")[0].split("\x1b[H")[-1].partition("\x1b[J")[0]
        while "\x1b" in picture:
            before, _, rest = picture.partition("\x1b")
            at = next(at for at, letter in enumerate(rest[1:], 1) if letter.isalpha())
            picture = before + rest[at + 1 :]
        return [line.rstrip() for line in picture.split("\r\n")]

    def until(self, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        pending = b""
        while not done():
            assert time.monotonic() < end, "\n".join(self.screen)
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    pending += os.read(self.master, 65536)
                except OSError:  # it ended
                    assert done(), self.said[-2000:]
                    return
                text = pending.decode(errors="ignore")
                if text.encode() == pending:
                    self.said, pending = self.said + text, b""

    def shows(self, text: str) -> None:
        self.until(lambda: "\x1b[J" in self.said and any(text in line for line in self.screen))

    def close(self) -> int:
        """Ends it if it still runs; its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        os.close(self.master)
        return status


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sensor]:
    for name, folder in ((places.STATE, "s"), (places.CONFIG, "c"), (places.RUNTIME, "r")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "r").mkdir()
    one = Sensor(tmp_path / "r" / "alert.sock")
    yield one
    one.close()


def test_findings_come_live_and_keys_do_what_the_last_line_says(sensor: Sensor) -> None:
    terminal = Terminal()
    terminal.shows("Nothing found so far")
    assert len(terminal.screen) == 24
    sensor.find(finding("192.168.126.77"), finding("192.168.126.78", ago=1))
    terminal.shows("192.168.126.77:50412")
    terminal.type("\x1b[B")
    terminal.until(lambda: any(line.startswith("> ") and "126.77" in line for line in terminal.screen))
    terminal.type("\r")
    terminal.shows("login dialogue")
    terminal.type("\x1b")
    terminal.shows("Up/Down select")
    terminal.type("a森 杏\rtest\r\r")
    terminal.shows("Allowed until")
    (entry,) = allow.read(allow.default_path())
    assert (entry.client, entry.owner, entry.reason) == ("192.168.126.77", "森 杏", "test")
    terminal.type("q")
    terminal.until(lambda: "\x1b[?1049l" in terminal.said)
    assert terminal.said.endswith("\x1b[?25h\x1b[?1049l")
    assert terminal.close() == 0


def test_it_follows_the_size_of_the_terminal_in_japanese_without_colour(sensor: Sensor) -> None:
    sensor.find(finding("192.168.126.77"))
    terminal = Terminal(width=120, LANGUAGE="ja", NO_COLOR="1")
    terminal.shows("192.168.126.77:50412")
    terminal.resize(60, 12)
    terminal.until(lambda: len(terminal.screen) == 12)
    assert max(map(cell_len, terminal.screen)) <= 60
    terminal.shows("確定")
    assert "\x1b[3" not in terminal.said  # no colour of the foreground
    assert terminal.close() == 0


def test_a_sensor_that_ends_is_missed_and_one_that_begins_is_found(sensor: Sensor, tmp_path: Path) -> None:
    terminal = Terminal()
    terminal.shows("on eth1")
    sensor.close()
    terminal.shows("no sensor since")
    again = Sensor(tmp_path / "r" / "alert.sock", ("eth2",))
    terminal.shows("on eth2")
    again.close()
    assert terminal.close() == 0


def test_once_prints_and_leaves(sensor: Sensor) -> None:
    sensor.find(finding("192.168.126.77"))
    sensor.count(1000)
    done = subprocess.run([*ARGV, "--once"], capture_output=True, text=True, check=True, timeout=60)
    assert "192.168.126.77:50412" in done.stdout
    assert "\x1b" not in done.stdout
    sensor.close()
    done = subprocess.run([*ARGV, "--once"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (4, "")
    assert "no sensor answers on" in done.stderr
    done = subprocess.run(ARGV, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert "--once" in done.stderr
