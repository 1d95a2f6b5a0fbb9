"""Our card joins a real, unmodified SoftEther server (D5)."""

import json
import sys
from subprocess import CompletedProcess
from typing import Any

import pytest

from lab.net import Host, Net
from lab.peers import Server
from lab.wait import until

pytestmark = [pytest.mark.peer("vpnserver", "vpncmd"), pytest.mark.slow]


class Member:
    """A lab host with our card on it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def card(self, *words: str, stdin: str = "") -> CompletedProcess[str]:
        folders = [f"--{name}-dir={self.host.folder / name}" for name in ("state", "runtime", "config")]
        command = [sys.executable, "-m", "ukihashi.cli.main", "--lang=en", "card", *folders, *words]
        return self.host.ask(command, stdin=stdin, timeout_s=60)

    def status(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.card("status", "lab", "--json").stdout)
        return row


def test_join_ping_lose_the_connection_leave(net: Net) -> None:
    far, near = net.lan("hub", "card")
    server = Server(far)
    server.start()
    server.create_hub("LAB")
    server.create_user("LAB", "alice", "wonderland")
    server.bridge("LAB", "host", cidrs=["10.99.0.1/24", "fd99::1/64"])
    member = Member(near)
    words = ("--server", f"{far.ipv4}:5555", "--hub", "LAB", "--user", "alice", "--password-file", "-")

    member.card("create", "wrong", *words, stdin="looking-glass\n")
    refused = member.card("up", "wrong")
    assert (refused.returncode, "user “alice”" in refused.stderr) == (5, True), refused.stderr

    addresses = ("--address", "10.99.0.2/24", "--address", "fd99::2/64")
    member.card("create", "lab", *words, *addresses, stdin="wonderland\n")
    up = member.card("up", "lab")
    assert up.returncode == 0, up.stderr
    near.pings("10.99.0.1")
    near.pings("fd99::1")
    row = member.status()
    assert row["extension"] == 0
    assert row["session"].startswith("SID-ALICE-")
    assert any(session["User Name"] == "alice" for session in server.sessions("LAB"))

    index = near.ip("-o link show uklab").split(":")[0]
    near.run(["ss", "-K", "dst", far.ipv4], check=False)
    until(lambda: member.status()["reconnects"] >= 1, seconds=30, what="a reconnection", step_s=0.3)
    near.pings("10.99.0.1")
    assert near.ip("-o link show uklab").split(":")[0] == index

    left = member.card("leave", "lab")
    assert left.returncode == 0, left.stderr
    assert not near.has_interface("uklab")


def test_an_anonymous_user_over_ipv6(net: Net) -> None:
    far, near = net.lan("hub", "card")
    server = Server(far)
    server.start()
    server.create_hub("LAB")
    server.create_user("LAB", "guest")
    server.bridge("LAB", "host", cidrs=["10.99.0.1/24"])
    member = Member(near)
    member.card("create", "lab", "--server", f"[{far.ipv6}]:5555", "--hub", "LAB", "--user", "guest", "--anonymous",
                "--address", "10.99.0.2/24")  # fmt: skip
    up = member.card("up", "lab")
    assert up.returncode == 0, up.stderr
    near.pings("10.99.0.1")
    assert member.card("leave", "lab").returncode == 0
