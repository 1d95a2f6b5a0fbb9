"""Record the captures of our own family for the detector's corpus: real sessions of ours, and look-alikes beside them.

    ./run bench record FOLDER [--seconds 100]

Every session has a host of its own and is recorded there, on the wire; all run at once. Kept are the first 200 packets
of a file whole and 128 bytes of each later one, gzip. The rows for `labels.csv` are printed.
"""

import argparse
import contextlib
import csv
import gzip
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trustme

from lab import peers
from lab.capture import Capture
from lab.net import Host, Net
from lab.ukihashi import Card, Hub, gateway
from lab.wait import until
from ukihashi.capture.pcap import CaptureFile

WHOLE: Final = 200  # packets
FIRST_SNAP: Final = 1514  # bytes of each of those
SNAP: Final = 128  # bytes of each packet after those
RESTART_S: Final = 45.0
TLS12: Final = (
    "openssl_conf = main\n[main]\nssl_conf = tls\n[tls]\nsystem_default = all\n[all]\nMaxProtocol = TLSv1.2\n"
)
WEBSOCKET_SERVER: Final = """
import asyncio, ssl, sys, websockets
async def serve(socket):
    async for _ in socket: pass
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1])
    async with websockets.serve(serve, "0.0.0.0", 9443, ssl=context, ping_interval=5): await asyncio.Future()
asyncio.run(main())
"""
WEBSOCKET_CLIENT: Final = """
import asyncio, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[1]); context.check_hostname = False
    async with websockets.connect(f"wss://{sys.argv[2]}:9443", ssl=context, ping_interval=5): await asyncio.Future()
asyncio.run(main())
"""


@dataclass
class Recording:
    """One file of the corpus."""

    name: str
    label: str
    transport: str
    expect: int
    description: str
    capture: Capture
    client: Host
    server: str


def shorten(source: Path, target: Path, *, seconds: float = float("inf"), snap: int = SNAP) -> None:
    """Copy a capture, later packets cut to `snap` bytes; nothing after so many seconds."""
    with (gzip.open if source.suffix == ".gz" else open)(source, "rb") as file:
        head = file.read(24)
    with source.open("rb") as file, gzip.open(target, "wb", compresslevel=9) as out:
        out.write(head)
        count, end = 0, float("inf")
        for batch in CaptureFile(file, str(source)):
            for moment, at, captured, length in batch.packets:
                end = min(end, moment + seconds)
                if moment > end:
                    return
                size = min(captured, FIRST_SNAP if count < WHOLE else snap)
                count += 1
                whole = int(moment)
                fields = (whole, round((moment - whole) * 1e6), size, length)
                out.write(b"".join(value.to_bytes(4, "little") for value in fields))
                out.write(bytes(batch.buffer[at : at + size]))


def first_client(path: Path) -> str:
    """Address and port that opened the first connection, by tshark."""
    fields = ["-T", "fields", "-E", "separator= ", "-e", "ip.src", "-e", "ipv6.src", "-e", "tcp.srcport"]
    argv = ["tshark", "-r", str(path), "-Y", "tcp.flags.syn==1 && tcp.flags.ack==0", *fields]
    ends = dict.fromkeys(
        (f"[{words[0]}]:{words[1]}" if ":" in words[0] else f"{words[0]}:{words[1]}")
        for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        if len(words := line.split()) == 2
    )
    return ";".join(list(ends)[:4])


class Stage:
    """The hosts, and what is recorded."""

    def __init__(self, net: Net, stack: contextlib.ExitStack, names: list[str]) -> None:
        self.net = net
        self.stack = stack
        self.hosts = dict(zip(names, net.lan(*names), strict=True))
        self.recordings: list[Recording] = []

    def record(
        self,
        host: str,
        server: Host,
        port: int,
        *,
        name: str,
        label: str,
        expect: int,
        description: str,
        version: int = 4,
    ) -> None:
        """Begin a file with what `host` and `server` say on `port`."""
        client = self.hosts[host]
        address = server.ipv4 if version == 4 else server.ipv6
        capture = Capture(client, "eth0", expression=f"tcp port {port} and host {address}")
        self.stack.enter_context(capture)
        end = f"{address}:{port}" if version == 4 else f"[{address}]:{port}"
        transport = {"softether": "direct", "ukihashi": "direct"}.get(label, "ssh" if port == 22 else "tls")
        self.recordings.append(Recording(name, label, transport, expect, description, capture, client, end))


def ours(stage: Stage) -> Iterator[Callable[[], None]]:
    """Sessions between our own ends; gives what keeps each busy, to be called again and again."""
    hub, old = Hub(stage.hosts["hub"]), Hub(stage.hosts["hub12"])
    hub.start()
    conf = old.folder / "openssl.cnf"
    conf.write_text(TLS12)
    conf.chmod(0o644)
    old.start(env={"OPENSSL_CONF": str(conf)})
    other = Hub(stage.hosts["hub-re"])
    other.start()
    cards: dict[str, Card] = {}
    for host, at, version, expect, words in (
        ("idle4", hub, 4, 1, "idle, IPv4"),
        ("idle6", hub, 6, 1, "idle, IPv6"),
        ("tls12", old, 4, 1, "idle, TLS 1.2"),
        ("light", hub, 4, 1, "an echo each 17 s"),
        ("browse", hub, 4, 1, "pages with pauses of 8 s"),
        ("bulk", hub, 4, 1, "20 MB, then idle"),
        ("restart", other, 4, 2, "idle; the hub is started anew and the card logs in afresh"),
    ):
        stage.record(
            host, at.host, 443, name=f"uk-{host}", label="ukihashi", expect=expect, description=words, version=version
        )
        cards[host] = Card(stage.hosts[host])
        cards[host].join(at.invite(host, address=at.host.ipv4 if version == 4 else at.host.ipv6))
    server = gateway(cards["browse"].address(4))
    pages = hub.host.folder / "pages"
    pages.mkdir()
    for size in (3_000, 40_000, 20_000_000):
        (pages / str(size)).write_bytes(bytes(size))
    hub.host.spawn([sys.executable, "-m", "http.server", "--bind", server, "--directory", pages, "8000"], log="pages")
    page = ["curl", "-s", "-o", "/dev/null", f"http://{server}:8000/3000"]
    until(lambda: cards["browse"].host.ask(page).returncode == 0, seconds=10, what="pages inside the tunnel")
    cards["bulk"].host.run(["curl", "-s", "-o", "/dev/null", f"http://{server}:8000/20000000"], timeout_s=60)
    begin = time.monotonic()
    last = {"browse": begin, "light": begin, "restart": 0.0}

    def busy() -> None:
        now = time.monotonic()
        if not last["restart"] and now - begin >= RESTART_S:
            last["restart"] = now
            other.stop()
            other.start(first=False)
        if now - last["browse"] >= 8:
            last["browse"] = now
            for size in (3_000, 40_000):
                cards["browse"].host.run(["curl", "-s", "-o", "/dev/null", f"http://{server}:8000/{size}"])
        if now - last["light"] >= 17:
            last["light"] = now
            cards["light"].host.run(["ping", "-c", "1", server])

    yield busy
    plain_user(stage, hub)
    at_a_standard_server(stage)


def plain_user(stage: Stage, hub: Hub) -> None:
    """A standard client at our hub, and our card at a standard server."""
    host = stage.hosts["vpnclient"]
    hub.run(
        "hub", "user", "create", "std", "--hub", "LAN", "--standard-hash", "--password-file", "-", stdin="Standard-77\n"
    )
    stage.record(
        "vpnclient",
        hub.host,
        443,
        name="uk-vpnclient",
        label="softether",
        expect=1,
        description="vpnclient at our hub, idle",
    )
    client = peers.Client(host)
    client.start()
    client.create_account(
        "std", server=hub.host.ipv4, port=443, hub="LAN", user="std", password="Standard-77", max_tcp=2
    )
    client.connect("std")


def listens(host: Host, port: int) -> bool:
    """A server listens on `port` of `host`."""
    return f":{port} " in host.run(["ss", "-ltn"])


def at_a_standard_server(stage: Stage) -> None:
    """Our card at a SoftEther server."""
    server = peers.Server(stage.hosts["vpnserver"])
    server.start()
    server.create_hub("STD")
    server.create_user("STD", "std", "Standard-77")
    stage.record(
        "atstd",
        server.host,
        443,
        name="uk-at-vpnserver",
        label="softether",
        expect=1,
        description="our card at vpnserver, idle",
    )
    card = Card(stage.hosts["atstd"])
    folder = card.config_dir / "card.d"
    folder.mkdir(parents=True)
    account = folder / "std.toml"
    account.write_text(
        f'[hub]\nhost = "{server.host.ipv4}"\nport = 443\nhub = "STD"\nuser = "std"\n'
        '[trust]\nmode = "first-use"\n[login]\nmethod = "password"\npassword = "Standard-77"\n'
        '[interface]\nname = "ukstd"\nmac = "02:00:00:00:77:01"\naddresses = ["10.9.9.2/24"]\n'
    )
    account.chmod(0o600)
    card.up("std")


def look_alikes(stage: Stage, folder: Path) -> None:
    """Heart-beats of a fixed 5 s: MQTT and WebSocket over TLS, ssh."""
    server = stage.hosts["server"]
    authority = trustme.CA()
    certificate = authority.issue_cert(server.ipv4)
    chain, key, root = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
    chain.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    key.write_bytes(certificate.private_key_pem.bytes())
    authority.cert_pem.write_to_path(root)
    for path in (chain, key, root):
        path.chmod(0o644)
    conf = folder / "mosquitto.conf"
    conf.write_text(f"listener 8883\nallow_anonymous true\ncafile {root}\ncertfile {chain}\nkeyfile {key}\nuser root\n")
    server.spawn(["mosquitto", "-c", conf], log="mosquitto")
    server.spawn([sys.executable, "-c", WEBSOCKET_SERVER, chain], log="websocket")
    host_key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", str(host_key), "-p", "22"]
    server.spawn([*sshd, "-o", f"AuthorizedKeysFile={host_key}.pub", "-o", "StrictModes=no"], log="sshd")
    for port in (8883, 9443, 22):
        until(partial(listens, server, port), seconds=20, what=f"port {port}")
    for host, port, words in (
        ("mqtt", 8883, "MQTT over TLS, keep-alive 5 s"),
        ("wss", 9443, "WebSocket over TLS, ping 5 s from both ends"),
        ("ssh", 22, "ssh, ServerAliveInterval 5"),
    ):
        stage.record(host, server, port, name=f"ng-{host}-5s", label="other", expect=0, description=words)
    topic: list[str | Path] = ["mosquitto_sub", "-h", server.ipv4, "-p", "8883", "--cafile", root, "-k", "5", "-t", "x"]
    if subprocess.run(["which", "mosquitto_sub"], capture_output=True, check=False).returncode:
        topic = [sys.executable, "-c", MQTT_CLIENT, root, server.ipv4]
    stage.hosts["mqtt"].spawn(topic, log="mqtt")
    stage.hosts["wss"].spawn([sys.executable, "-c", WEBSOCKET_CLIENT, root, server.ipv4], log="wss")
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ServerAliveInterval=5"]
    stage.hosts["ssh"].spawn(
        ["ssh", "-N", "-i", host_key, *(word for option in options for word in ("-o", option)), f"root@{server.ipv4}"],
        log="ssh",
    )


MQTT_CLIENT: Final = """
import socket, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[1]); context.check_hostname = False
link = context.wrap_socket(socket.create_connection((sys.argv[2], 8883)))
link.sendall(bytes([0x10, 18, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 5, 0, 6]) + b"client")
link.recv(100)
while True:
    time.sleep(5)
    link.sendall(b"\\xc0\\0")
    link.recv(100)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Record everything, write the files, print the rows."""
    parser = argparse.ArgumentParser(prog="bench record", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=100.0)
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    cards = ["idle4", "idle6", "tls12", "light", "browse", "bulk", "restart", "vpnclient", "vpnserver", "atstd"]
    with Net() as net, contextlib.ExitStack() as stack:
        stage = Stage(net, stack, ["hub", "hub12", "hub-re", "server", *cards, "mqtt", "wss", "ssh"])
        folder = net.folder / "look-alikes"
        folder.mkdir()
        look_alikes(stage, folder)
        jobs = ours(stage)
        busy = next(jobs)
        next(jobs, None)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            busy()
            time.sleep(0.5)
        stack.close()
        writer = csv.writer(sys.stdout, lineterminator="\n")
        for entry in stage.recordings:
            target = options.folder / f"{entry.name}.pcap.gz"
            shorten(entry.capture.path, target)
            client = first_client(entry.capture.path)
            words = f"expect={entry.expect}; {entry.description}"
            writer.writerow([target.name, entry.label, entry.transport, client, entry.server, words])
    return 0


if __name__ == "__main__":
    sys.exit(main())
