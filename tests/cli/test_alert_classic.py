"""`sealert` byte for byte: banner, list, prompt, confirmation, lines; on a terminal and through pipes (B11 to B21)."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from lab.net import Host, Net
from lab.scene import Talk, softether_login
from lab.wait import until
from ukihashi import __version__

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
SEALERT = [sys.executable, "-c", "from ukihashi.cli.alert import sealert; sealert()"]
ALERT = [sys.executable, "-m", "ukihashi.cli.main", "alert"]
ENVIRONMENT = {"LANGUAGE": "en", "TZ": "Asia/Tokyo", "UKIHASHI_CONFIG_DIR": "/nonexistent"}

BEFORE = f"""\
ukihashi Alert Version {__version__}
Copyright (C) 2026 The ukihashi founders.
All Rights Reserved.

"""
LIST = """\
Network Devices:
  1: lo (loopback)
  2: to-a (Ethernet)

Device ID>"""
BEGUN = """\
Starting Capture Packets at [to-a (Ethernet)].
"""
FILES = ("se-d443-idle", "se-d443-v6-idle", "se-h-squid-idle", "se-s5-dante-t12", "se-ssh-idle", "uk-idle4")
LINES = """\
[2026/11/22 04:37:30] SoftEther VPN TCP Connection Detected (client 10.77.8.2:43552, server 10.77.200.2:443)
[2026/11/22 04:37:48] SoftEther VPN TCP Connection Detected (client [fd77::10:2]:39928, server [fd77::c8:2]:443)
[2026/11/22 04:35:58] SoftEther VPN HTTP Proxy Connection Detected (client 10.77.5.2:36200, server 10.77.210.2:3128)
[2026/11/22 04:31:28] SoftEther VPN SOCKS Proxy Connection Detected (client 10.77.8.2:51696, server 10.77.210.2:1080)
[2026/11/22 04:34:58] SoftEther VPN SSH Connection Detected (client 10.77.7.2:59096, server 10.77.210.2:22)
[2026/11/22 07:34:08] ukihashi TCP Connection Detected (client 10.77.1.4:55872, server 10.77.1.1:443)
"""
TIME = re.compile(r"^\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\]", re.MULTILINE)


@pytest.mark.parametrize("label", ["modern", "classic"])
def test_lines_of_every_kind_family_and_label(label: str, tmp_path: Path) -> None:
    words = [word for name in FILES for word in ("-r", str(CORPUS / f"{name}.pcap.gz"))]
    done = subprocess.run(
        [*ALERT, *words, "--label", label, "--log", tmp_path / "a.log"],
        capture_output=True,
        check=True,
        timeout=100,
        env=os.environ | ENVIRONMENT,
    )
    wanted = LINES if label == "modern" else re.sub("] (SoftEther VPN|ukihashi) ", "] SoftEther 1.0 ", LINES)
    assert done.stdout == wanted.encode()
    assert (tmp_path / "a.log").read_bytes() == wanted.encode()


@pytest.mark.parametrize(
    ("zone", "clock"), [("UTC", "2026/11/21 19:37:30"), ("America/New_York", "2026/11/21 14:37:30")]
)
def test_the_time_of_a_line_is_local(zone: str, clock: str) -> None:
    done = subprocess.run(
        [*ALERT, "-r", str(CORPUS / f"{FILES[0]}.pcap.gz")],
        capture_output=True,
        check=True,
        timeout=100,
        env=os.environ | ENVIRONMENT | {"TZ": zone},
    )
    assert done.stdout.startswith(f"[{clock}] SoftEther VPN ".encode())


@pytest.fixture
def wire(net: Net) -> tuple[Host, str, Host]:
    """Host a with its card to b, and b, where the detector runs."""
    a, b = net.host("a"), net.host("b")
    near, far = net.link(a, b)
    a.ip(f"link set {near} mtu 2000")  # the frames are those of a larger network
    b.ip(f"link set {far} mtu 2000")
    return a, near, b


def tunnel(host: Host, interface: str, *ports: int, address: tuple[str, str] = ("10.0.0.1", "10.0.0.2")) -> None:
    """A login and a further connection each, as frames on the wire."""
    with host.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for port in ports:
            for further in (False, True):
                talk = Talk((address[0], port + further), (address[1], 443))
                softether_login(talk, Random(port + further), further=further)
                for _, frame in talk.frames:
                    raw.send(frame)


class Terminal:
    """`sealert` on a terminal of its own; standard error goes to a file, so that the screen is what 2004 had."""

    def __init__(self, host: Host, folder: Path, *words: str) -> None:
        self.errors = folder / "errors.txt"
        self.master, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[3] |= termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                host.inside_argv([*SEALERT, *words]),
                stdin=slave,
                stdout=slave,
                stderr=errors,
                cwd=folder,
                env=os.environ | ENVIRONMENT,
                start_new_session=True,
            )
        os.close(slave)
        self.screen = b""

    def until(self, words: bytes, *, seconds: float = 60.0) -> None:
        """Read the screen until `words` are there."""
        deadline = time.monotonic() + seconds
        while words not in self.screen:
            assert select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0], self.screen
            self.screen += os.read(self.master, 4096)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@contextmanager
def terminal(host: Host, folder: Path, *words: str) -> Iterator[Terminal]:
    made = Terminal(host, folder, *words)
    try:
        yield made
    finally:
        made.close()


def line(port: int, label: str = "SoftEther VPN", client: str = "10.0.0.1", server: str = "10.0.0.2") -> str:
    return f"[TIME] {label} TCP Connection Detected (client {client}:{port}, server {server}:443)\n"


def lines_of(log: Path, count: int) -> list[str]:
    """The log, once it has so many lines: they come right after those of the console."""
    return until(
        lambda: found if len(found := log.read_text().splitlines(keepends=True)) == count else None,
        seconds=10,
        what="the lines in the log",
    )


def masked(text: str) -> str:
    """Times are of this moment; their form is checked by the mask."""
    return TIME.sub("[TIME]", text)


def test_on_a_terminal_a_person_sees_what_2004_had(wire: tuple[Host, str, Host], tmp_path: Path) -> None:
    a, near, b = wire
    begin = int(time.time())
    with terminal(b, tmp_path) as screen:
        screen.until(b"Device ID>")
        assert screen.screen == (BEFORE + LIST).replace("\n", "\r\n").encode()
        screen.type("nine\n")
        screen.until(b"nine\r\nDevice ID>")
        screen.type("2\n")
        screen.until(b"].\r\n")
        tunnel(a, near, 50000)
        screen.until(b")\r\n")
        tunnel(a, near, 50010, address=("fd00::1", "fd00::2"))
        screen.until(b"server [fd00::2]:443)\r\n")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(30) == 0
    expected = BEFORE + LIST + "nine\nDevice ID>2\n\n" + BEGUN + line(50000)
    expected += line(50010, client="[fd00::1]", server="[fd00::2]")
    assert masked(screen.screen.decode().replace("\r\n", "\n")) == expected
    log = (tmp_path / "sealert.log").read_text()  # it has ended: all is written
    assert masked(log) == line(50000) + line(50010, client="[fd00::1]", server="[fd00::2]")
    assert log in screen.screen.decode().replace("\r\n", "\n")
    seen = time.mktime(time.strptime(log[1:20], "%Y/%m/%d %H:%M:%S")) - time.mktime(time.localtime(begin))
    offset = 9 * 3600 - time.localtime(begin).tm_gmtoff
    assert -2 <= seen - offset <= 120


@pytest.mark.parametrize("label", ["modern", "classic"])
def test_through_pipes_with_a_number_and_a_restart_appends(
    wire: tuple[Host, str, Host], label: str, tmp_path: Path
) -> None:
    a, near, b = wire
    for run in range(2):
        process = subprocess.Popen(
            b.inside_argv([*SEALERT, "2", "--label", label]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT,
        )
        assert process.stdout is not None
        head = b""
        while not head.endswith(b"].\n"):
            head += process.stdout.readline()
        assert head.decode() == BEFORE + BEGUN
        tunnel(a, near, 50000 + 10 * run)
        found = process.stdout.readline().decode()
        words = "SoftEther VPN" if label == "modern" else "SoftEther 1.0"
        assert masked(found) == line(50000 + 10 * run, words)
        assert lines_of(tmp_path / "sealert.log", run + 1)[run] == found
        process.send_signal(signal.SIGTERM)
        rest, _errors = process.communicate(timeout=30)
        assert (process.returncode, rest) == (0, b"")
    assert len((tmp_path / "sealert.log").read_text().splitlines()) == 2


def test_a_folder_that_cannot_be_written_is_one_sentence_before_the_capture(
    wire: tuple[Host, str, Host], tmp_path: Path
) -> None:
    (tmp_path / "sealert.log").mkdir()
    _a, _near, b = wire
    done = subprocess.run(
        b.inside_argv([*SEALERT, "2"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
    )
    assert done.returncode == 3
    assert done.stdout == BEFORE
    assert "sealert.log can't be opened: Is a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_the_console_and_ends_with_status_3(wire: tuple[Host, str, Host], tmp_path: Path) -> None:
    a, near, b = wire
    (tmp_path / "sealert.log").symlink_to("/dev/full")
    with terminal(b, tmp_path, "2") as screen:
        screen.until(b"].\r\n")
        tunnel(a, near, 50000)
        screen.until(b")\r\n")
        tunnel(a, near, 50010)
        screen.until(b":50010, server 10.0.0.2:443)\r\n")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(30) == 3
    errors = screen.errors.read_text()
    assert errors.count("sealert.log can't be written (No space left on device); its lines wait in memory") == 1
    assert "Traceback" not in errors
