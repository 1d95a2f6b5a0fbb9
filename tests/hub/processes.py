"""A hub as real processes, for tests: `tests.hub.supervised` started, asked and ended."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

DEADLINE: Final = 40.0  # two shared cores, and an upgrade starts Python three times


class Supervised:
    """`tests.hub.supervised` in a process of its own; its addresses serve as `RunningHub` for members."""

    def __init__(self, folder: Path, pem: tuple[Path, Path], repository: Path, **more: Any) -> None:
        self.folder = folder
        command = self.command(folder, pem, **more)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=repository, text=True, start_new_session=True
        )
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.address = ("", 0)

    @staticmethod
    def command(folder: Path, pem: tuple[Path, Path], **more: Any) -> list[str]:
        """The command line."""
        settings = {
            "listen": [["127.0.0.1", 0]],
            "folder": str(folder),
            "certificate": str(pem[0]),
            "key": str(pem[1]),
            **more,
        }
        return [sys.executable, "-m", "tests.hub.supervised", json.dumps(settings)]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.events.append(json.loads(line) if line.startswith("{") else {"logged": line})

    def told(self, key: str) -> list[Any]:
        return [event[key] for event in list(self.events) if key in event]

    def socket(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=DEADLINE)

    def order(self, **order: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(self.folder / "run" / "hub.sock"))
            sock.sendall(json.dumps(order).encode() + b"\n")
            with sock.makefile() as lines:
                line = lines.readline()
        return json.loads(line) if line else None

    def status(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.order(what="status")
        return rows[0] if rows else {}

    def finish(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self._thread.join(DEADLINE)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._thread.join(DEADLINE)


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def is_alive(pid: int) -> bool:
    try:
        return process_status(pid)["State"][0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
