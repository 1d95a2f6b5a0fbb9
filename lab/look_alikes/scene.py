"""Where one look-alike lives: a client, a server, perhaps a proxy between them, certificates, the wire's capture."""

import dataclasses
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trustme

from lab.capture import Capture
from lab.line import Line, Quality
from lab.net import Host, LabError, Net, Process
from lab.wait import until

NAME: Final = "server.lab"
PROGRAMS: Final = Path(__file__).resolve().parent / "programs"
PATIENCE_S: Final = 60.0  # a machine that starts fifty servers at once is slow
MBIT: Final = 100.0  # of a wire that has a length


@dataclasses.dataclass(frozen=True)
class Authority:
    """The certificates of one laboratory: PEM files of a server that stands on any of its addresses."""

    folder: Path
    root: Path
    chain: Path  # certificate and key
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, addresses: list[str]) -> "Authority":
        """Issue them below `folder`; daemons that drop their rights can read them."""
        folder.mkdir(mode=0o755)
        paths = [folder / f"{name}.pem" for name in ("root", "chain", "certificate", "key")]
        authority = trustme.CA()
        issued = authority.issue_cert(NAME, "localhost", *addresses)
        authority.cert_pem.write_to_path(str(paths[0]))
        issued.private_key_and_cert_chain_pem.write_to_path(str(paths[1]))
        paths[2].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(paths[3]))
        for path in paths:
            path.chmod(0o644)
        return cls(folder, *paths)

    def context(self) -> ssl.SSLContext:
        """For a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.root))


class Scene:
    """The hosts of one look-alike; everything ends with the `Net`."""

    def __init__(
        self, net: Net, number: int, *, proxy: bool, delay_s: float, authority: Authority | None = None
    ) -> None:
        self.net: Final = net
        self.number: Final = number
        self.client: Final = net.host(f"c{number}")
        self.server: Final = net.host(f"s{number}")
        self.proxy: Final = net.host(f"p{number}") if proxy else None
        near = self.proxy or self.server
        lay = Line(net, Quality(mbit=MBIT, delay_s=delay_s, loss=0.0), seed=number) if delay_s else None
        _, self.interface = net.link(near, self.client, lay=lay)
        self.outward = ""  # the proxy's interface toward the server
        if self.proxy:
            _, self.outward = net.link(self.server, self.proxy)
        self.address: Final = self.server.ipv4
        self.authority: Final = authority or Authority.make(
            net.folder / f"pki{number}", [self.address, self.server.ipv6]
        )

    def capture(self, path: Path) -> Capture:
        """What passes on the client's wire, from the start of the block on."""
        return Capture(self.client, self.interface, path=path)

    def file(self, host: Host, name: str, text: str, *, mode: int = 0o644) -> Path:
        """A configuration file of that host; `{root}`-like names must have been filled in."""
        path = host.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def folder(self, host: Host, name: str, *, mode: int = 0o755) -> Path:
        """A new folder of that host."""
        path = host.folder / name
        path.mkdir()
        path.chmod(mode)
        return path

    def listening(self, port: int, process: Process, host: Host | None = None) -> None:
        """Wait until `process` listens on `port`. Raises `LabError` with its log if it ends before."""
        host = host or self.server

        def look() -> bool:
            if f":{port} " in host.run(["ss", "-Hltn"]):
                return True
            if not process.running:
                raise LabError(f"ended before it listened on {port}:\n{process.output()[-2000:]}")
            return False

        until(look, seconds=PATIENCE_S, what=f"{process.log.stem} listening on {port}", step_s=0.1)

    def serve(self, argv: Sequence[str | Path], port: int, *, log: str = "") -> Process:
        """Start a server on the server's host and wait until it listens."""
        process = self.server.spawn(argv, log=log)
        self.listening(port, process)
        return process

    def python(self, host: Host, program: str, *words: object, system: bool = False) -> Process:
        """Start one of `programs` there; `system`: with Debian's Python, for a library that only that one has."""
        python = "/usr/bin/python3" if system else sys.executable
        return host.spawn([python, PROGRAMS / f"{program}.py", *map(str, words)], log=f"{program}-{host.name}")

    def shell(self, host: Host, script: str, *words: object) -> Process:
        """Run a script there again and again until the end, as a user's job does."""
        return host.spawn(["sh", "-c", f"while :; do {script}\ndone", "sh", *map(str, words)], log="job")

    def reaches(self, port: int) -> None:
        """Wait until the client's own port listens (a forwarder there)."""
        until(partial(self._has, port), seconds=PATIENCE_S, what=f"port {port} on {self.client.name}", step_s=0.1)

    def _has(self, port: int) -> bool:
        return f":{port} " in self.client.run(["ss", "-Hltn"])
