"""A real OpenSSH server (Debian package openssh-server) that one key may log in to, and what its client must know.

server = on_loopback()                          # as we are, for whoever runs this
server = on_host(host, password="secret")       # also a user `taro` with a password, which only it knows
... ssh -F server.client_config ...
server.close()
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lab.net import Host, LabError, Process, run
from lab.own_files import with_files
from lab.wait import until

PACKAGES: Final = {"sshd": "openssh-server", "ssh": "openssh-client"}
USER: Final = "taro"
PORT: Final = 22
CLIENT: Final = """\
IdentityFile {folder}/user
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
User {user}
"""


class Sshd:
    """One server, its keys and the configuration of a client that trusts it."""

    def __init__(self, folder: Path, port: int, user: str, *, options: Sequence[str] = ()) -> None:
        self.folder, self.port, self.user = folder, port, user
        self.client_config: Final = folder / "config"
        self._options = list(options)
        self.popen: subprocess.Popen[bytes] | None = None
        self.process: Process | None = None
        for name in ("host", "user"):
            if not (folder / name).exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        self.client_config.write_text(CLIENT.format(folder=folder, user=user))

    def know(self, *addresses: str) -> None:
        """Write the host key down under these addresses."""
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        names = [address if self.port == PORT else f"[{address}]:{self.port}" for address in addresses]
        (self.folder / "known_hosts").write_text("".join(f"{name} {key}\n" for name in names))

    def argv(self) -> list[str]:
        """Its command line."""
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
        if program is None:
            raise LabError(f"missing Debian packages: {PACKAGES['sshd']}")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        options = [f"AuthorizedKeysFile={self.folder}/user.pub", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes"]
        options += ["PidFile=none", "LogLevel=ERROR", "MaxStartups=100", "UseDNS=no", *self._options]
        words = [program, "-D", "-e", "-f", "/dev/null", "-h", str(self.folder / "host"), "-p", str(self.port)]
        return words + [word for option in options for word in ("-o", option)]

    def close(self) -> None:
        """End it, with its sessions."""
        if self.popen is not None:
            os.killpg(self.popen.pid, signal.SIGTERM)
            self.popen.wait(10)
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.process is not None:
            self.process.stop()


def on_loopback() -> Sshd:
    """A server on 127.0.0.1 and ::1 for who runs this."""
    folder = Path(tempfile.mkdtemp(prefix="uk-sshd-"))
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    both = ("ListenAddress=127.0.0.1", "ListenAddress=::1")
    server = Sshd(folder, port, pwd.getpwuid(os.geteuid()).pw_name, options=both)
    server.know("127.0.0.1", "::1")
    with (folder / "log").open("wb") as log:
        with_us = ["setpriv", "--pdeathsig", "TERM"]  # it ends when who made it is killed
        server.popen = subprocess.Popen(
            [*with_us, *server.argv()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(listens, seconds=20.0, what="sshd listening")
    return server


def on_host(
    host: Host,
    *,
    password: str,
    name: str = "sshd",
    options: Sequence[str] = (),
    port: int = PORT,
    files: Mapping[str, Path] | None = None,
) -> Sshd:
    """A server on a lab host, with a user `taro` of its own: two files of its mount namespace say so.

    `files`: more of them, as `with_files` has it.
    """
    folder = host.folder / name
    folder.mkdir(mode=0o755)
    server = Sshd(folder, port, USER, options=options)
    server.know(*host.addresses)
    hashed = run(["openssl", "passwd", "-6", password]).strip()
    for file, line in (
        ("passwd", f"{USER}:x:60999:60999::/:/bin/false"),
        ("shadow", f"{USER}:{hashed}:1:0:99999:7:::"),
    ):
        text = Path("/etc", file).read_text()
        (folder / file).write_text(f"{text}{line}\n")
        (folder / file).chmod(0o644 if file == "passwd" else 0o600)
    own = {"/etc/passwd": folder / "passwd", "/etc/shadow": folder / "shadow", **(files or {})}
    server.process = host.spawn(with_files(server.argv(), own), log=name)

    def listens() -> bool:
        assert server.process is not None
        assert server.process.running, server.process.output()
        return f":{port} " in host.run(["ss", "-Hltn"])

    until(listens, seconds=20.0, what="sshd listening")
    return server
