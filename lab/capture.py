"""Recording what passes an interface of a host into a capture file."""

import re
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.net import Host, LabError
from lab.wait import until


class Capture:
    """tcpdump on one interface, from the start of the block to its end.

    with Capture(hub, "to-card") as capture:
        ...
    packets = capture.path.read_bytes()
    """

    def __init__(
        self, host: Host, interface: str, *, expression: str = "", snap_bytes: int = 0, path: Path | None = None
    ) -> None:
        self.path: Final = path or host.folder / f"{interface}.pcap"
        self._host, self._interface, self._expression, self._snap = host, interface, expression, snap_bytes
        self.seen = 0  # packets in the file, known after the end
        self.missed = 0  # packets the kernel had to drop

    def __enter__(self) -> Self:
        if shutil.which("tcpdump") is None:
            raise LabError("the program `tcpdump` is missing (Debian package tcpdump)")
        self.path.unlink(missing_ok=True)
        # -U and --immediate-mode: a packet is in the file when it has passed, not when a block is full
        argv = ["tcpdump", "-i", self._interface, "-s", str(self._snap), "-U", "--immediate-mode", "-n", "-Z", "root"]
        argv += ["-B", "65536", "-w", str(self.path), *self._expression.split()]
        self._process = self._host.spawn(argv, log=f"tcpdump-{self._interface}")
        self._process.wait_for("listening on")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; everything that has passed is in the file then."""
        if not self._process.running:
            return
        self._process.stop(signal.SIGINT)
        output = self._process.output()
        for name, pattern in (("seen", r"(\d+) packets? captured"), ("missed", r"(\d+) packets? dropped by kernel")):
            if found := re.search(pattern, output):
                setattr(self, name, int(found[1]))

    def wait_for_bytes(self, marker: bytes, *, seconds: float = 10.0) -> None:
        """Wait until the file holds `marker`. Raises `TimeOver`."""
        until(lambda: marker in self.path.read_bytes(), seconds=seconds, what=f"{marker!r} on {self._interface}")
