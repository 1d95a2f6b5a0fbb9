"""Our card joins a real, unmodified SoftEther server (D5)."""

import json
import sys
import time
from subprocess import CompletedProcess
from typing import Any

import pytest
from tests.card.keys import Keys

from lab.flow import stream
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

    def create(
        self, far: Host, *words: str, password: str = "wonderland", account: str = "lab", **standard: object
    ) -> None:
        """An account, made anew."""
        self.card("delete", account)
        made = self.card("create", account, "--server", f"{far.ipv4}:5555", "--hub", "LAB", "--user", "alice",
                         "--address", "10.99.0.2/24", *words, stdin=f"{password}\n")  # fmt: skip
        assert made.returncode == 0, made.stderr
        if standard:
            pairs = [part for name, value in standard.items() for part in (f"standard.{name}", str(value).lower())]
            assert self.card("set", account, *pairs).returncode == 0

    def up(self) -> dict[str, Any]:
        """Online, as the server sees it a second later at the earliest: it guards against fast logins."""
        time.sleep(1.2)
        done = self.card("up", "lab")
        assert done.returncode == 0, done.stderr
        self.host.pings("10.99.0.1")
        return self.status()

    def until_connected(self, count: int) -> dict[str, Any]:
        until(lambda: self.status()["connections"] == count, seconds=30, what=f"{count} connections", step_s=0.3)
        return self.status()


BY_STDIN = ("--password-file", "-")


@pytest.fixture
def scene(net: Net) -> tuple[Server, Member]:
    """A server with the hub LAB, the user alice and a port at 10.99.0.1; and a host for our card."""
    far, near = net.lan("hub", "card")
    server = Server(far)
    server.start()
    server.create_hub("LAB")
    server.create_user("LAB", "alice", "wonderland")
    server.bridge("LAB", "host", cidrs=["10.99.0.1/24"])
    return server, Member(near)


def carries(server: Server, member: Member, *, seconds: float = 1.0) -> None:
    """A checked TCP stream each way."""
    assert stream(member.host, server.host, "10.99.0.1", seconds=seconds) > 0
    assert stream(server.host, member.host, "10.99.0.2", seconds=seconds) > 0


@pytest.mark.soak
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


@pytest.mark.soak
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


@pytest.mark.parametrize("wanted", [
    pytest.param({"max_connections": 8}, marks=pytest.mark.soak),
    pytest.param({"max_connections": 4, "half_duplex": True}, marks=pytest.mark.soak),
    pytest.param({"compression": True}, marks=pytest.mark.soak),
    {"max_connections": 3, "half_duplex": True, "compression": True, "bridge": True},
], ids=["eight", "half", "compressed", "all"])  # fmt: skip
def test_everything_a_server_grants(scene: tuple[Server, Member], wanted: dict[str, Any]) -> None:
    server, member = scene
    member.create(server.host, *BY_STDIN, **wanted)
    member.up()
    asked = wanted.get("max_connections", 1)
    row = member.until_connected(asked)
    assert row["max_connections"] == asked
    assert row["half_duplex"] == ("half_duplex" in wanted)
    assert row["compression"] == ("compression" in wanted)
    assert "SoftEther" in row["product"]
    if "half_duplex" in wanted:
        assert set(row["directions"]) == {"in", "out"}
    carries(server, member)
    session = server.session("LAB", row["session"])
    assert session["Half Duplex TCP Connection Mode"].startswith("Yes" if "half_duplex" in wanted else "No")
    assert session["Use of Compression"].startswith("Yes" if "compression" in wanted else "No")
    assert session["Encryption"].startswith("Enabled")
    row = member.status()
    assert (row["dropped_garbled"], row["logins"], row["reconnects"]) == (0, 1, 0)
    assert member.card("leave", "lab").returncode == 0


@pytest.mark.soak
def test_plaintext_in_a_laboratory(scene: tuple[Server, Member]) -> None:
    server, member = scene
    member.create(server.host, *BY_STDIN, allow_plaintext=True, max_connections=2)
    time.sleep(1.2)
    up = member.card("up", "lab")
    assert "NOT ENCRYPTED" in up.stderr
    member.host.pings("10.99.0.1")
    row = member.until_connected(2)
    assert (row["encrypted"], row["cipher"]) == (False, "")
    carries(server, member)
    assert server.session("LAB", row["session"])["Encryption"].startswith("Disabled")
    assert member.card("leave", "lab").returncode == 0
    member.create(server.host, *BY_STDIN)  # the server has not been hurt
    assert member.up()["encrypted"]


def test_a_certificate_a_plain_password_and_the_administrator(scene: tuple[Server, Member], keys: Keys) -> None:
    server, member = scene
    server.create_certificate_user("LAB", "carol", keys.certificate_file)
    files = ("--certificate", str(keys.certificate_file), "--key", str(keys.key_file))
    member.create(server.host, "--user", "carol", *files)
    assert member.up()["session"].startswith("SID-CAROL-")
    member.create(server.host, "--user", "alice", *files)
    time.sleep(1.2)
    refused = member.card("up", "lab")
    assert (refused.returncode, "certificate is not that user's" in refused.stderr) == (5, True), refused.stderr
    member.create(server.host, "--plain", *BY_STDIN)
    assert member.up()["session"].startswith("SID-ALICE-")
    server.say("Hub LAB", "SetHubPassword queen")
    member.create(server.host, "--user", "administrator", *BY_STDIN, password="queen", monitor=True)
    assert member.card("up", "lab").returncode == 0
    assert member.status()["session"].startswith("SID-ADMINISTRATOR-")


def test_refusals_say_what_they_are(scene: tuple[Server, Member]) -> None:
    server, member = scene
    member.create(server.host, *BY_STDIN, password="looking-glass")
    wrong = member.card("up", "lab")
    assert (wrong.returncode, "the name or the password is wrong" in wrong.stderr) == (5, True), wrong.stderr
    member.create(server.host, *BY_STDIN, monitor=True)
    time.sleep(1.2)
    denied = member.card("up", "lab")
    assert (denied.returncode, "monitor mode" in denied.stderr) == (5, True), denied.stderr
    server.say("Hub LAB", "SetMaxSession 1")
    member.create(server.host, *BY_STDIN)
    member.up()
    member.create(server.host, *BY_STDIN, account="two")
    time.sleep(1.2)
    full = member.card("up", "two")
    assert (full.returncode, "full or busy" in full.stderr) == (5, True), full.stderr
    assert member.card("leave", "lab").returncode == 0
    server.say("Hub LAB", "SetMaxSession 0")
    member.up()


def test_killed_connections_and_a_server_that_restarts(scene: tuple[Server, Member]) -> None:
    server, member = scene
    near = member.host
    member.create(server.host, *BY_STDIN, max_connections=4)
    member.up()
    first = member.until_connected(4)
    near.run(["ss", "-K", "dst", server.host.ipv4], check=False)
    until(lambda: member.status()["reconnects"] >= 1, seconds=40, what="a reconnection", step_s=0.3)
    near.pings("10.99.0.1", seconds=40)
    assert member.status()["interface"] == first["interface"]
    server.restart()  # poisoned by the kill, and anyway a trouble of its own
    until(lambda: server.host.has_interface("tap_host"), seconds=20, what="the server's own port", step_s=0.2)
    server.host.add_address("tap_host", "10.99.0.1/24")
    server.host.ip("link set tap_host up")
    until(lambda: member.status()["logins"] >= 2, seconds=60, what="a login at the new server", step_s=0.5)
    near.pings("10.99.0.1", seconds=40)
    row = member.until_connected(4)
    assert row["state"] == "online"
    carries(server, member)
    assert member.card("leave", "lab").returncode == 0


def test_a_real_cluster_sends_us_on_to_its_member(net: Net) -> None:
    first, second, near = net.lan("controller", "member", "card")
    controller, worker = Server(first, "controller"), Server(second, "worker")
    for server in (controller, worker):
        server.start()
    controller.say("ClusterSettingController /WEIGHT:100 /ONLY:yes", check=False)  # it restarts at that
    setting = f"ClusterSettingMember {first.ipv4}:5555 /IP:{second.ipv4} /PORTS:5555 /PASSWORD:none /WEIGHT:100"
    until(lambda: "Controller" in controller.say("ClusterSettingGet", check=False), seconds=30, what="the controller",
          step_s=0.5)  # fmt: skip
    worker.say(setting, check=False)
    until(lambda: ",Member," in controller.say("ClusterMemberList", check=False), seconds=40, what="the member",
          step_s=0.5)  # fmt: skip
    user = ("UserCreate alice /GROUP:none /REALNAME:none /NOTE:none", "UserPasswordSet alice /PASSWORD:wonderland")
    controller.say("HubCreateDynamic LAB /PASSWORD:none", "Hub LAB", *user)
    member = Member(near)
    member.create(first, *BY_STDIN, max_connections=2)
    time.sleep(1.2)
    up = member.card("up", "lab")
    assert up.returncode == 0, up.stderr
    row = member.until_connected(2)
    assert (row["peer"], row["logins"]) == (f"{second.ipv4}:5555", 1)
    assert row["session"].startswith("SID-ALICE-")
    until(lambda: member.status()["keepalives_in"] > 2, seconds=30, what="the member speaking", step_s=0.5)
    trusted = (near.folder / "config" / "card.d" / "lab.toml").read_text()
    assert "pin" in trusted
    assert row["pin"] not in trusted  # the controller's key is, though it is the member that was met
    assert member.card("leave", "lab").returncode == 0
