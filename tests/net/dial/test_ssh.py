"""The path through a real SSH server, from a machine that has no other way to the hub.

card 10.77.1.2 ---- 10.77.1.1 gate 10.77.2.1 ---- 10.77.2.2 hub (port 443; an SSH server of its own)
"""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.net.dial.fakes import PIECE, everything, hashing, nothing_leaks, serving

from lab import sshd
from lab.net import Net
from ukihashi.errors import DialError
from ukihashi.net.dial import first, ssh
from ukihashi.net.dial.direct import SO_MARK
from ukihashi.net.dial.failures import Failure, PathRefused
from ukihashi.net.dial.through import Line, dial
from ukihashi.net.dial.via import DIRECT, Kind, Via

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer("ssh", "sshd", "openssl", "ss", "unshare")]

SIZE = 16 * len(PIECE)
SECRET = "s3cret 'q\" $HOME %s wörd"


def children() -> set[str]:
    """Processes that this thread started; the servers are among them."""
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())


class Town:
    """The three machines, and how the card's ssh is set."""

    def __init__(self, net: Net) -> None:
        self.card, self.gate, self.hub = (net.host(name) for name in ("card", "gate", "hub"))
        net.link(self.gate, self.card)
        net.link(self.gate, self.hub)
        self.server = sshd.on_host(self.gate, password=SECRET)
        self.closed = sshd.on_host(
            self.gate, password=SECRET, name="closed", options=["AllowTcpForwarding=no"], port=2222
        )
        self.behind = sshd.on_host(self.hub, password=SECRET)
        self.folder = net.folder

    def via(self, port: int = 0, *, ipv6: bool = False) -> Via:
        return Via(Kind.SSH, self.gate.ipv6 if ipv6 else self.gate.ipv4, port)

    def config(self, *lines: str) -> Path:
        """The card's ssh configuration, with lines that go before the usual ones."""
        path = self.folder / "config"
        path.write_text("\n".join([*lines, self.server.client_config.read_text()]))
        return path

    async def dial(
        self, via: Via, secret: str | None = None, config: Path | None = None, port: int = 443, mark: int = 0
    ) -> Line:
        host, config = self.hub.ipv4, config or self.config()
        return await dial(via, host, port, deadline=30, secret=secret, mark=mark, ssh_config=config)

    def carries(self, via: Via, secret: str | None = None, config: Path | None = None) -> None:
        """Bytes pass over that path both ways, each direction ends by itself, and no secret can be seen."""

        async def scenario() -> None:
            with self.hub.inside():
                listener = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True)
            async with serving(partial(hashing, size=SIZE), listener=listener):
                line = await self.dial(via, secret, config)
                with line.sock as sock:
                    loop = asyncio.get_running_loop()
                    assert await loop.sock_recv(sock, 5) == b"hello"
                    for pid in children():
                        for name in ("cmdline", "environ"):
                            assert SECRET.encode() not in Path("/proc", pid, name).read_bytes()
                    for _ in range(SIZE // len(PIECE)):
                        await loop.sock_sendall(sock, PIECE)
                    sock.shutdown(socket.SHUT_WR)
                    got = await everything(sock)
            assert got[:32] == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
            assert got[32:] == PIECE * (SIZE // len(PIECE))

        with nothing_leaks(), self.card.inside():
            asyncio.run(asyncio.wait_for(scenario(), 60))

    def refuses(
        self, via: Via, secret: str | None = None, config: Path | None = None, port: int = 443, mark: int = 0
    ) -> PathRefused:
        """Why that path leads nowhere."""
        with nothing_leaks(), self.card.inside(), pytest.raises(PathRefused) as told:
            asyncio.run(self.dial(via, secret, config, port, mark))
        assert secret is None or secret not in str(told.value)
        return told.value


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Net() as net:
        yield Town(net)
        print(net.logs())


def only(town: Town, *lines: str) -> Path:
    """A configuration of nothing but these lines."""
    path = town.folder / "only"
    path.write_text("\n".join([*lines, f"User {sshd.USER}", "IdentityAgent none", "GlobalKnownHostsFile /dev/null"]))
    return path


def test_there_is_no_direct_way(town: Town) -> None:
    with town.card.inside(), pytest.raises(DialError, match="no route"):
        asyncio.run(town.dial(DIRECT))


def test_a_key(town: Town) -> None:
    town.carries(town.via())
    town.carries(town.via(ipv6=True))


def test_what_a_user_has_for_shells_is_not_run(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".bashrc").write_text(f"touch {tmp_path}/run\nsleep 60\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("SHLVL", "0")  # within another shell bash would not
    town.carries(town.via())
    town.carries(Via(Kind.SSH, town.hub.ipv4), config=jump_config(town))
    assert not (tmp_path / "run").exists()


def test_a_password(town: Town) -> None:
    known = f"UserKnownHostsFile {town.server.folder}/known_hosts"
    no_key = only(town, known, "IdentityFile none", "LogLevel QUIET", "ControlMaster auto", "ControlPath ~/x")
    town.carries(town.via(), SECRET, no_key)
    for secret in ("wrong", None):
        error = town.refuses(town.via(), secret, no_key)
        assert error.kind is Failure.CREDENTIALS_REFUSED
        assert "publickey,password" in str(error)


def test_host_keys_are_strictly_checked(town: Town) -> None:
    key = f"IdentityFile {town.server.folder}/user"
    assert (
        town.refuses(town.via(), None, only(town, key, "UserKnownHostsFile /dev/null")).kind is Failure.HOST_KEY_UNKNOWN
    )
    other = town.folder / "other_known"
    own = (town.behind.folder / "host.pub").read_text().split()[:2]
    other.write_text(f"{town.gate.ipv4} {' '.join(own)}\n")
    error = town.refuses(town.via(), None, only(town, key, f"UserKnownHostsFile {other}", "StrictHostKeyChecking no"))
    assert error.kind is Failure.HOST_KEY_CHANGED
    assert f"ssh-keygen -R {town.gate.ipv4}" in str(error)


def test_what_the_server_does_not_do(town: Town) -> None:
    known = f"UserKnownHostsFile {town.closed.folder}/known_hosts"
    closed = only(town, known, f"IdentityFile {town.closed.folder}/user")
    assert town.refuses(town.via(2222), None, closed).kind is Failure.FORBIDDEN
    assert town.refuses(town.via(), port=1).kind is Failure.TARGET_REFUSED
    assert town.refuses(town.via(9)).kind is Failure.PROXY_UNREACHABLE
    nowhere = only(town, f"Host {town.gate.ipv4}", "HostName gate.invalid", "Host *")
    assert town.refuses(town.via(), None, nowhere).kind is Failure.PROXY_UNREACHABLE
    assert town.refuses(town.via(), None, only(town, "Newfangled yes")).kind is Failure.SSH_UNUSABLE


def jump_config(town: Town) -> Path:
    known = town.folder / "both_known"
    known.write_text("".join((server.folder / "known_hosts").read_text() for server in (town.server, town.behind)))
    lines = [f"UserKnownHostsFile {known}", f"Host {town.hub.ipv4}", f"ProxyJump {sshd.USER}@{town.gate.ipv4}"]
    lines += [f"IdentityFile {town.behind.folder}/user", "Host *", f"IdentityFile {town.server.folder}/user"]
    return only(town, *lines)


def test_a_jump_host(town: Town) -> None:
    config = jump_config(town)
    town.carries(Via(Kind.SSH, town.hub.ipv4), None, config)
    error = town.refuses(Via(Kind.SSH, town.hub.ipv4), None, config, mark=7)
    assert error.kind is Failure.SSH_UNUSABLE
    assert "jump host" in str(error)


def test_the_connection_to_the_server_carries_the_mark(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    marks, connect = list[int](), first.connect

    async def watched(*words: object) -> socket.socket:
        sock: socket.socket = await connect(*words)  # type: ignore[arg-type]
        marks.append(sock.getsockopt(socket.SOL_SOCKET, SO_MARK))
        return sock

    monkeypatch.setattr(first, "connect", watched)
    assert town.refuses(town.via(), port=1, mark=0x2B75).kind is Failure.TARGET_REFUSED
    assert marks == [0x2B75]


def test_an_older_ssh_tells_everything(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    async def older(_via: Via) -> list[str]:
        return list(ssh._TELL_ALL)

    monkeypatch.setattr(ssh, "_for_version", older)
    town.carries(town.via())
    assert town.refuses(town.via(), port=1).kind is Failure.TARGET_REFUSED


def test_when_ssh_dies_the_stream_ends(town: Town) -> None:
    async def scenario() -> None:
        with town.hub.inside():
            listener = socket.create_server((town.hub.ipv4, 443))
        async with serving(partial(hashing, size=SIZE), listener=listener):
            before = children()
            line = await town.dial(town.via())
            with line.sock as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"
                (pid,) = children() - before
                os.kill(int(pid), signal.SIGKILL)
                assert await everything(sock) == b""

    with nothing_leaks(), town.card.inside():
        asyncio.run(asyncio.wait_for(scenario(), 30))


def test_ssh_ends_with_the_descriptor_though_the_hub_goes_on(town: Town) -> None:
    async def scenario() -> None:
        async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            await asyncio.get_running_loop().create_future()

        with town.hub.inside():
            listener = socket.create_server((town.hub.ipv4, 443))
        async with serving(deaf, listener=listener):
            before = children()
            line = await town.dial(town.via())
            assert children() - before
            line.sock.close()
            while children() - before:
                await asyncio.sleep(0.05)

    with nothing_leaks(), town.card.inside():
        asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    ("prompt", "by_itself", "answered"),
    [
        ("taro@gate's password: ", False, True),
        ("(taro@gate) Password: ", True, True),
        ("taro@jump's password: ", True, False),
        ("Enter passphrase for key '/home/taro/.ssh/id_ed25519': ", False, False),
        ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", False, False),
    ],
)
def test_the_password_is_said_once_and_to_the_right_question(
    tmp_path: Path, prompt: str, by_itself: bool, answered: bool
) -> None:
    settings = ssh._Settings("gate", 22, "taro", by_itself)
    with ssh._environment(tmp_path, settings, SECRET) as environment:
        argv = [environment["SSH_ASKPASS"], prompt]
        first_time, again = (subprocess.run(argv, capture_output=True, timeout=20, check=False) for _ in range(2))
    assert first_time.stdout.decode() == (f"{SECRET}\n" if answered else "")
    assert bool(first_time.returncode) is not answered
    assert again.returncode
    assert not again.stdout


def test_without_a_password_nobody_is_asked_on_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/usr/bin/ssh-askpass")
    with ssh._environment(tmp_path, ssh._Settings("gate", 22, "taro", False), None) as environment:
        assert "SSH_ASKPASS" not in environment
        assert environment["SSH_ASKPASS_REQUIRE"] == "never"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PathRefused, match="openssh-client") as told:
        asyncio.run(dial(Via(Kind.SSH, "gate"), "hub.example", 443))
    assert told.value.kind is Failure.SSH_MISSING
