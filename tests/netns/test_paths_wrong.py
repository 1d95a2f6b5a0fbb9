"""What is wrong with a path is said by `card up` in a sentence, with its exit status, in time; nothing is left behind.

card 10.77.1.2 ---- 10.77.1.1 gate 10.77.2.1 ---- 10.77.2.2 hub (ports 443, 8443)      the gate forwards nothing
"""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import mitm, small_proxies
from lab.guarded import CLOSED_PORT, OTHER_PORT, PROGRAMS, ROADS, Town
from lab.net import Host, Net
from lab.wait import until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.peer(*PROGRAMS)]

IN_TIME_S = 20.0  # though the account's own deadline is 15 s, nothing here is silent
LIAR = 9100
DIAL_FAILED = 7
NOT_TRUSTED = 6
PORTAL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 44\r\n\r\n"
    b"<html><body>Welcome, please log in</body></html>"
)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Net() as net:
        made = Town(net)
        made.open()
        made.take(ROADS["squid"])
        made.card.up(made.account)  # so the right way does lead there, and the invitation is spent
        made.card.leave(made.account)
        assert "a session began" in made.hub.log()
        yield made
        print(net.logs())


def refused(town: Town, status: int, pattern: str, *, within: float = IN_TIME_S) -> str:
    """`card up` fails with that status, and its one sentence matches; no password is in it. Nobody logs in."""
    before = town.hub.log().count("a session began")
    with town.nothing_left():
        began = time.monotonic()
        done = town.card.ask("card", "up", town.account, timeout_s=60.0)
        took = time.monotonic() - began
    said = done.stderr.strip()
    print(f"{took:.1f} s, status {done.returncode}: {said}")
    assert done.returncode == status
    assert re.search(pattern, said), said
    assert len(said.splitlines()) == 1
    assert took < within
    assert "wrong secret" not in said + town.card.log()
    assert town.hub.log().count("a session began") == before
    return said


def through(town: Town, via: str, **path: str) -> None:
    """Lead the account over `via`, with {gate} for the gate."""
    settings = {"via": via.format(gate=town.gate.host.ipv4), "password": "", "ssh_config": "", "known": []}
    town.card.configure(town.account, {"hub": {"host": town.hub_host.ipv4, "port": 443}, "path": {**settings, **path}})


class Liar:
    """What is no proxy, or one that lies: says its pieces, each after the client has spoken once, then hangs up.

    `silent`: it listens to the end instead.
    """

    def __init__(self, host: Host, *pieces: bytes, silent: bool = False) -> None:
        self._pieces, self._silent = pieces, silent
        with host.inside():
            self._listener = socket.create_server((host.ipv4, LIAR))
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with near, contextlib.suppress(OSError):
                near.settimeout(10.0)
                for piece in self._pieces:
                    self.heard.append(near.recv(4096))
                    near.sendall(piece)
                if not self._silent:
                    near.shutdown(socket.SHUT_WR)
                while piece := near.recv(4096):
                    self.heard.append(piece)


@contextmanager
def lying(town: Town, *pieces: bytes, silent: bool = False) -> Iterator[Liar]:
    liar = Liar(town.gate.host, *pieces, silent=silent)
    try:
        yield liar
    finally:
        liar.close()


# -- HTTP proxies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["squid Basic", "squid Digest", "tinyproxy"])
def test_a_wrong_password(town: Town, name: str) -> None:
    town.take(ROADS[name], password="wrong secret")
    refused(town, DIAL_FAILED, r"http://taro@10\.77\.1\.1:\d+ did not take the user's name or the password")


def test_a_password_that_is_not_there(town: Town) -> None:
    town.take(ROADS["squid Basic"], password="")
    refused(town, DIAL_FAILED, r"lets in only who has a user's name and password \(it takes Basic\)")


def test_a_port_that_the_proxy_opens_to_nobody(town: Town) -> None:
    for name in ("squid, port 443 only", "tinyproxy"):
        town.take(ROADS[name])
        town.card.configure(town.account, {"hub": {"port": OTHER_PORT}})
        refused(town, DIAL_FAILED, rf"does not allow CONNECT to 10\.77\.2\.2:{OTHER_PORT} \(its answer: 403 ")
    town.take(ROADS["squid"])
    town.card.configure(town.account, {"hub": {"port": OTHER_PORT}})
    town.card.up(town.account)  # that port was no lie
    town.card.leave(town.account)


def test_a_proxy_that_says_yes_and_hangs_up(town: Town) -> None:
    through(town, f"http://{{gate}}:{LIAR}")
    with lying(town, b"HTTP/1.1 200 Connection established\r\n\r\n") as liar:
        refused(town, DIAL_FAILED, r"closed the connection instead of answering TLS")
        assert liar.heard[0].startswith(b"CONNECT 10.77.2.2:443 ")
    with lying(town):
        refused(town, DIAL_FAILED, r"hung up without an answer")
    refused(town, DIAL_FAILED, r"10\.77\.1\.1:9100 itself failed: Connection refused")  # nobody there at all


def test_a_captive_portal_instead_of_a_proxy(town: Town) -> None:
    through(town, f"http://{{gate}}:{LIAR}")
    for page in (
        b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 511 Network Authentication Required\r\nContent-Length: 0\r\n\r\n",
    ):
        with lying(town, page):
            refused(town, DIAL_FAILED, r"a page for browsers instead of a tunnel .* wants a login first")
    with lying(town, PORTAL):  # a page is no tunnel, though it begins like one
        refused(town, DIAL_FAILED, r"a page for browsers instead of a tunnel .* wants a login first")


# -- SOCKS ------------------------------------------------------------------------------------------------------------


def test_a_wrong_password_for_socks(town: Town) -> None:
    town.take(ROADS["microsocks"], password="wrong secret")
    refused(town, DIAL_FAILED, r"did not take the user's name or the password")


def test_what_dante_forbids_and_what_it_does_not_reach(town: Town) -> None:
    town.take(ROADS["dante SOCKS5h"])
    town.card.configure(town.account, {"hub": {"port": small_proxies.FORBIDDEN}})
    refused(town, DIAL_FAILED, r"does not allow connections to 10\.77\.2\.2:2525 \(its answer: 2\)")
    town.card.configure(town.account, {"hub": {"port": 1}})
    refused(town, DIAL_FAILED, r"refused the connection")


SOCKS5 = {
    1: "its answer: 1", 2: "does not allow", 3: "no way to the network", 4: "can't reach", 5: "refused the connection",
    6: "got no answer", 7: "its answer: 7", 8: "does not know that kind of address", 9: "its answer: 9",
}  # fmt: skip


@pytest.mark.parametrize(
    "code", [2, 5, *(pytest.param(code, marks=pytest.mark.soak) for code in (1, 3, 4, 6, 7, 8, 9))]
)
def test_a_refusal_of_socks5_by_its_code(town: Town, code: int) -> None:
    through(town, f"socks5h://{{gate}}:{LIAR}")
    answer = bytes([5, code, 0, 1]) + bytes(6)
    with lying(town, b"\x05\x00", answer):
        assert "socks5h://10.77.1.1:9100" in refused(town, DIAL_FAILED, SOCKS5[code])


@pytest.mark.parametrize("code", [91, *(pytest.param(code, marks=pytest.mark.soak) for code in (92, 93))])
def test_a_refusal_of_socks4_by_its_code(town: Town, code: int) -> None:
    through(town, f"socks4://{{gate}}:{LIAR}")
    with lying(town, bytes([0, code]) + bytes(6)):
        assert "socks4://10.77.1.1:9100" in refused(town, DIAL_FAILED, r"identd|refused to connect")


# -- SSH --------------------------------------------------------------------------------------------------------------


def ssh_town(town: Town, name: str, *lines: str, key: bool = True, known: Path | None = None, port: int = 22) -> None:
    config = town.gate.ssh_config(town.folder / name, *lines, key=key, known=known)
    through(town, f"ssh://{{gate}}:{port}", ssh_config=str(config))


def test_a_key_that_the_server_does_not_know(town: Town) -> None:
    assert town.behind is not None
    ssh_town(town, "wrong-key", f"IdentityFile {town.behind.folder}/user", key=False)
    refused(town, DIAL_FAILED, r"did not let us in \(it takes: publickey,password.*authorized_keys")


def test_a_wrong_password_for_ssh(town: Town) -> None:
    town.take(ROADS["ssh, password"], password="wrong secret")
    refused(town, DIAL_FAILED, r"did not let us in .*is the password right")


def test_a_host_key_that_has_changed_and_one_that_is_not_known(town: Town) -> None:
    assert town.behind is not None
    other = town.folder / "other_known"
    other.write_text(f"gate {' '.join((town.behind.folder / 'host.pub').read_text().split()[:2])}\n")
    ssh_town(town, "changed", known=other)
    refused(town, DIAL_FAILED, r"shows another host key than the known one: .* ssh-keygen -R")
    ssh_town(town, "unknown", known=Path("/dev/null"))
    refused(town, DIAL_FAILED, r"host key of the SSH server .* is not known here")


def test_a_server_that_forwards_nothing(town: Town) -> None:
    assert town.gate.closed is not None
    known = town.folder / "closed_known"
    known.write_text(f"gate {' '.join((town.gate.closed.folder / 'host.pub').read_text().split()[:2])}\n")
    lines = [f"IdentityFile {town.gate.closed.folder}/user"]
    ssh_town(town, "closed", *lines, known=known, port=CLOSED_PORT)
    refused(town, DIAL_FAILED, r"does not forward to .*AllowTcpForwarding")


def test_a_hub_that_is_not_behind_the_server(town: Town) -> None:
    ssh_town(town, "gone")
    town.card.configure(town.account, {"hub": {"port": 1}})
    refused(town, DIAL_FAILED, r"refused the connection; does a hub listen")


# -- ends in the middle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "https", "socks5h", "ssh"])
def test_leaving_while_a_proxy_says_nothing(town: Town, kind: str) -> None:
    config = town.gate.ssh_config(town.folder / "silent") if kind == "ssh" else ""
    through(town, f"{kind}://{{gate}}:{LIAR}", ssh_config=str(config))
    with town.nothing_left(), lying(town, silent=True) as liar:
        starting = town.machine.spawn(town.card.argv("card", "up", town.account), env=town.card.env)
        until(lambda: liar.heard, seconds=20, what="the proxy being asked")
        began = time.monotonic()
        town.card.leave(town.account)
        print(f"{kind}: left after {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 5.0
        assert starting.wait(seconds=10) != 0


@pytest.mark.parametrize("name", ["squid inside TLS", "ssh, key"])
def test_a_card_that_was_killed_leaves_no_process_behind(town: Town, name: str) -> None:
    town.take(ROADS[name])
    with town.nothing_left():
        town.card.up(town.account)
        pids = town.machine.pids()
        assert any(Path(f"/proc/{pid}/comm").read_text() == "ssh\n" for pid in pids) == (name == "ssh, key")
        os.kill(int(town.card.status()["pid"]), signal.SIGKILL)
        until(lambda: not town.machine.pids(), seconds=20, what="the end of all its processes")
        town.card.run("card", "clean")


# -- somebody who reads along -----------------------------------------------------------------------------------------

INSPECTED = rf"10\.77\.2\.2:443 shows another key .* issued by “{mitm.ISSUER}”: .* inspects TLS\. Nothing was sent"


@contextmanager
def routed(town: Town) -> Iterator[None]:
    """The gate lets everything through, and the card sends everything there."""
    gate, outer = town.gate.host, town.gate.host.addresses[2]
    gate.set_sysctl("net/ipv4/ip_forward", "1")
    town.machine.ip(f"route add default via {gate.ipv4}")
    town.hub_host.ip(f"route add 10.77.1.0/24 via {outer}")
    try:
        yield
    finally:
        town.machine.ip("route del default")
        town.hub_host.ip("route del 10.77.1.0/24")
        gate.set_sysctl("net/ipv4/ip_forward", "0")


def examined(town: Town, status: int) -> str:
    """What `card doctor` says of the one path, in its word for programs."""
    done = town.card.ask("card", "doctor", town.account, "--json", timeout_s=60.0)
    assert done.returncode == status, done.stderr
    return str(json.loads(done.stdout)["kind"])


def visit(town: Town, *words: str) -> str:
    """What a browser that trusts everybody gets."""
    page = f"https://{town.hub_host.ipv4}/"
    return town.machine.run(["curl", "-sk", "--max-time", "20", *words, page], timeout_s=30.0)


@pytest.mark.peer("mitmdump", "curl")
def test_a_proxy_that_inspects_tls_reads_nothing_of_a_login(town: Town) -> None:
    inspector = mitm.Inspector(town.gate.host)
    try:
        through(town, f"http://{{gate}}:{mitm.PORT}")
        refused(town, NOT_TRUSTED, INSPECTED)
        assert examined(town, NOT_TRUSTED) == "other-key"
        assert (inspector.clients, inspector.seen) == (2, [])
        visit(town, "-x", f"http://{town.gate.host.ipv4}:{mitm.PORT}")
        assert inspector.seen == ["GET /"]  # so it does read what is sent to it
    finally:
        inspector.stop()


@pytest.mark.peer("mitmdump", "curl")
def test_a_gateway_that_inspects_tls_reads_nothing_of_a_login(town: Town) -> None:
    with routed(town):
        through(town, "direct:")
        inspector = mitm.Inspector(town.gate.host, transparent=True)
        try:
            refused(town, NOT_TRUSTED, INSPECTED)
            assert examined(town, NOT_TRUSTED) == "other-key"
            assert (inspector.clients, inspector.seen) == (2, [])
            visit(town)
            assert inspector.seen == ["GET /"]
        finally:
            inspector.stop()
        town.card.up(town.account)  # without it the same way leads to the hub
        town.card.leave(town.account)


@pytest.mark.peer("mitmdump")
def test_where_the_direct_way_is_inspected_another_one_is_taken(town: Town) -> None:
    with routed(town):
        through(town, "auto")
        socks = f"socks5h://{town.gate.host.ipv4}:{small_proxies.DANTE_PORT}"
        town.card.configure(town.account, {"path": {"known": [socks]}})
        inspector = mitm.Inspector(town.gate.host, transparent=True)
        try:
            with town.nothing_left():
                town.card.up(town.account)
                row = town.card.status()
                town.card.leave(town.account)
            assert row["via"] == socks
            assert (inspector.clients, inspector.seen) == (1, [])
        finally:
            inspector.stop()


def test_a_captive_portal_in_the_place_of_the_hub(town: Town) -> None:
    gate = town.gate.host
    redirect = mitm.REDIRECT.format(table="portal", port=LIAR)
    with routed(town), lying(town, PORTAL) as liar:
        gate.run(["nft", "-f", "-"], stdin=redirect)
        try:
            through(town, "direct:")
            refused(town, DIAL_FAILED, r"answers in plain HTTP; a hub's port speaks HTTPS")
            assert liar.heard[0].startswith(b"\x16\x03")  # a Client Hello, and no more
            assert len(liar.heard) == 1
        finally:
            gate.run(["nft", "delete", "table", "inet", "portal"])
