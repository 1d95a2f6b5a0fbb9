"""The blocker on a real router: nftables of the kernel, a real sensor, a real vpnclient, and connections beside it."""

import contextlib
import json
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import peers
from lab.net import Net, Process
from lab.wait import until

UKIHASHI = [sys.executable, "-m", "ukihashi.cli.main"]
OTHERS = 50  # connections of the same client to the same server, on another port
OTHER_PORT = 8443
ECHO = f"""
import asyncio, socket
async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    for port in ({OTHER_PORT}, 4433):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=200, dualstack_ipv6=True)
        await asyncio.start_server(echo, sock=listener)
    await asyncio.Future()
asyncio.run(main())
"""


class Router:
    """client - router - server; the router forwards, and the sensor and the blocker run on it."""

    def __init__(self, net: Net, *, forwards: bool = True) -> None:
        self.client, self.router, self.server = net.host("client"), net.host("router"), net.host("server")
        self.inside, _ = net.link(self.router, self.client)
        net.link(self.router, self.server)
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self.router.set_sysctl(key, str(int(forwards)))
        here, there = self.router.addresses[:2], self.router.addresses[2:]
        for host, (v4, v6) in ((self.client, here), (self.server, there)):
            host.ip(f"route add default via {v4}")
            host.ip(f"-6 route add default via {v6}")
        self.bus, self.own = self.router.folder / "bus.sock", self.router.folder / "block.sock"

    def block(self, *words: str) -> Process:
        """The blocker, at work."""
        argv = [*UKIHASHI, "alert", "block", "run", "--bus", self.bus, "--socket", self.own, "--json", *words]
        process = self.router.spawn(list(map(str, argv)), log="block")
        process.wait_for("blocking what|dry run")
        return process

    def ask(self, *words: str) -> str:
        return self.router.run([*UKIHASHI, "alert", "block", *words, "--socket", str(self.own)])

    def tables(self) -> str:
        return self.router.run(["nft", "list", "tables"])

    def track(self) -> None:
        """A firewall of the router's own, as most have: with it the kernel tracks connections."""
        self.router.run(["nft", "add table ip own"])
        self.router.run(["nft", "add chain ip own watch { type filter hook forward priority 0; }"])
        self.router.run(["nft", "add rule ip own watch ct state invalid counter"])

    def dial(self, address: str, port: int = 4433, *, seconds: float = 5.0) -> socket.socket:
        """A connection of the client's, closed with the network."""
        with self.client.inside():
            link = socket.create_connection((address, port), timeout=seconds)
        self.client.net.at_close(link.close)
        return link


def said(process: Process, action: str) -> list[dict[str, Any]]:
    """What it told of that kind."""
    lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["action"] == action]


class Sensor:
    """Events from a bus that is no sensor's, for what only the kernel has to show."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._readers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                reader, _ = self._listener.accept()
                reader.sendall(b'{"event_type": "hello", "findings": []}\n')
                self._readers.append(reader)

    def tell(self, event: dict[str, Any]) -> None:
        until(lambda: self._readers, seconds=10, what="the blocker listening")
        self._readers[-1].sendall(json.dumps(event).encode() + b"\n")

    def close(self) -> None:
        for one in (self._listener, *self._readers):
            one.close()


@pytest.fixture
def router(net: Net) -> Router:
    return Router(net)


@pytest.fixture
def sensor(router: Router) -> Iterator[Sensor]:
    made = Sensor(router.bus)
    yield made
    made.close()


def alert(
    link: socket.socket, transport: str = "TCP", kind: str = "alert", session: socket.socket | None = None
) -> dict[str, Any]:
    """As if the sensor had found this connection."""
    (client, port, *_), (server, server_port, *_) = link.getsockname(), link.getpeername()
    name = (session or link).getsockname()[1]
    return {
        "event_type": kind,
        "src_ip": client,
        "src_port": port,
        "dest_ip": server,
        "dest_port": server_port,
        "community_id": f"1:{name}",
        "session": f"1:{name}",
        "ukihashi": {
            "family": "softether", "transport": transport, "verdict": "CONFIRMED", "allowed": None,
            "evidence": {"connections": [{"src_port": port}]},
        },
    }  # fmt: skip


def answers(link: socket.socket, *, seconds: float = 2.0) -> bool:
    link.settimeout(seconds)
    try:
        link.sendall(b"are you there")
        return bool(link.recv(100))
    except OSError:
        return False


def is_deaf(link: socket.socket) -> bool:
    return not answers(link, seconds=0.7)


@pytest.fixture
def echo(router: Router) -> None:
    router.server.spawn([sys.executable, "-c", ECHO], log="echo")
    until(lambda: ":4433" in router.server.run(["ss", "-ltn"]), seconds=10, what="the echo server")


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("version", [4, 6])
def test_a_direct_tunnel_is_out_and_all_else_goes_on(router: Router, sensor: Sensor, version: int) -> None:
    address = router.server.ipv4 if version == 4 else router.server.ipv6
    if version == 4:
        router.track()
    tunnel, again = router.dial(address), router.dial(address)
    other = router.dial(router.server.ipv4, OTHER_PORT)
    assert answers(tunnel)
    process = router.block("--for", "60s", "--no-trial")
    sensor.tell(alert(tunnel))
    until(lambda: said(process, "blocked"), seconds=10, what="the block")
    assert is_deaf(tunnel)
    assert is_deaf(again)  # the whole of client, server and port
    assert answers(other)
    with pytest.raises(OSError, match="timed out"):
        router.dial(address, seconds=1.5)
    preview = said(process, "blocked")[0]["others"]
    assert preview is None if version == 6 else [one["client_port"] for one in preview] == [again.getsockname()[1]]
    assert json.loads(router.ask("list", "--json"))["packets"] > 0
    process.stop(signal.SIGKILL)
    assert "ukihashi" not in router.tables()
    assert answers(router.dial(address))


@pytest.mark.usefixtures("echo")
def test_through_a_relay_one_connection_is_out_and_its_neighbours_live(router: Router, sensor: Sensor) -> None:
    links = [router.dial(router.server.ipv4) for _ in range(4)]
    process = router.block("--no-trial")
    sensor.tell(alert(links[0], "HTTP Proxy"))
    sensor.tell(alert(links[1], "HTTP Proxy", "vpn_connection", session=links[0]))
    until(lambda: said(process, "renewed"), seconds=10, what="the second connection")
    assert is_deaf(links[0])
    assert is_deaf(links[1])
    assert answers(links[2])
    assert answers(links[3])
    assert process.stop(signal.SIGINT) == 0
    assert "ukihashi" not in router.tables()


@pytest.mark.usefixtures("echo")
def test_unconfirmed_it_is_undone_in_time_and_confirmed_it_stays(router: Router, sensor: Sensor) -> None:
    first, second = router.dial(router.server.ipv4), router.dial(router.server.ipv6)
    process = router.block("--trial", "4s")
    sensor.tell(alert(first))
    sensor.tell(alert(second))
    until(lambda: len(said(process, "blocked")) == 2, seconds=10, what="both blocks")
    began = said(process, "blocked")[0]["timestamp"]
    assert is_deaf(first)
    router.ask("confirm", "2")
    undone = until(lambda: said(process, "unconfirmed"), seconds=10, what="the end of the trial")
    assert 3.9 <= undone[0]["timestamp"] - began <= 6.0
    assert answers(router.dial(router.server.ipv4))
    assert is_deaf(second)
    sensor.tell(alert(first))
    until(lambda: said(process, "left_alone"), seconds=10, what="leaving it alone")
    router.ask("undo", "2")
    assert answers(router.dial(router.server.ipv6))


@pytest.mark.usefixtures("echo")
def test_the_kernel_ends_a_block_even_if_the_blocker_hangs(router: Router, sensor: Sensor) -> None:
    link = router.dial(router.server.ipv4)
    process = router.block("--no-trial", "--for", "3s")
    sensor.tell(alert(link))
    until(lambda: said(process, "blocked"), seconds=10, what="the block")
    process_id = process.pid
    router.router.run(["kill", "-STOP", str(process_id)])
    assert is_deaf(link)
    time.sleep(3.5)
    assert answers(router.dial(router.server.ipv4))
    router.router.run(["kill", "-CONT", str(process_id)])


@pytest.mark.usefixtures("echo")
def test_a_dry_run_tells_and_touches_nothing(router: Router, sensor: Sensor) -> None:
    link = router.dial(router.server.ipv4)
    process = router.block("--dry-run")
    sensor.tell(alert(link))
    found = until(lambda: said(process, "would_block"), seconds=10, what="the preview")
    assert found[0]["matches"][0]["server"] == router.server.ipv4
    assert answers(link)
    assert "ukihashi" not in router.tables()


def test_where_nothing_is_forwarded_it_does_not_start(net: Net) -> None:
    router = Router(net, forwards=False)
    ended = router.router.ask([*UKIHASHI, "alert", "block", "run", "--socket", str(router.own)])
    assert ended.returncode == 3
    assert "forwards no traffic" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("sensor")
def test_a_second_blocker_is_refused_and_none_is_told_so(router: Router) -> None:
    ended = router.router.ask([*UKIHASHI, "alert", "block", "list", "--socket", str(router.own)])
    assert (ended.returncode, "no blocker answers" in ended.stderr) == (4, True)
    router.block()
    ended = router.router.ask([*UKIHASHI, "alert", "block", "run", "--socket", str(router.own)])
    assert (ended.returncode, "runs already" in ended.stderr) == (3, True)
    ended = router.router.ask([*UKIHASHI, "alert", "block", "confirm", "9", "--socket", str(router.own)])
    assert (ended.returncode, "no block 9" in ended.stderr) == (2, True)


@pytest.mark.usefixtures("echo")
@pytest.mark.skipif(bool(peers.missing("vpnserver", "vpnclient", "vpncmd")), reason="SoftEther is not installed")
@pytest.mark.timeout(180)
def test_a_real_client_stays_out_and_fifty_connections_beside_it_lose_nothing(router: Router) -> None:
    server = peers.Server(router.server)
    server.start()
    server.create_hub("OUT")
    server.create_user("OUT", "ann", "Secret-77")
    client = peers.Client(router.client)
    client.start()
    client.create_account(
        "ann", server=router.server.ipv4, port=992, hub="OUT", user="ann", password="Secret-77", max_tcp=2
    )
    events = router.router.folder / "eve.json"
    words = ["alert", "-i", router.inside, "--bus", router.bus, "--json", events]
    sensor = router.router.spawn([*UKIHASHI, *map(str, words)], log="alert")
    sensor.wait_for(r"Starting Capture Packets at \[", seconds=120)  # a first start compiles
    blocker = router.block("--no-trial", "--for", "2m")
    links = [router.dial(router.server.ipv4, OTHER_PORT) for _ in range(OTHERS)]
    client.connect("ann")
    blocked = until(lambda: said(blocker, "blocked"), seconds=30, what="the block")[0]
    found = next(one for one in map(json.loads, events.read_text().splitlines()) if one["event_type"] == "alert")
    decided = time.mktime(time.strptime(found["ukihashi"]["decided"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    decided += float(re.sub(r".*(\.\d+)\+0000$", r"\1", found["ukihashi"]["decided"]))
    assert blocked["timestamp"] - decided < 1.0
    number, out_since, latest = 0, 0.0, time.monotonic() + 70.0
    while not out_since or time.monotonic() < out_since + 15.0:  # it retries every few seconds, in vain
        for link in links:
            number += 1
            word = b"%08d" % number
            link.settimeout(5.0)
            link.sendall(word)
            assert link.recv(100) == word
        if client.online("ann"):
            assert not out_since
            assert time.monotonic() < latest
        elif not out_since:
            out_since = time.monotonic()
        time.sleep(0.5)
    assert json.loads(router.ask("list", "--json"))["packets"] > 0
    assert len(said(blocker, "blocked")) == 1
