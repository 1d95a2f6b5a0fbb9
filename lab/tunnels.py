"""Sessions of both families over every way to a hub, in every use, by the real programs in namespaces, each recorded.

    sessions -- wire --+-- our hub           443
                       +-- our hub, TLS 1.2  443
                       +-- vpnserver         443
                       +-- gate: squid 3128, tinyproxy 8888, dante 1080, microsocks 1081, sshd 22

Every session has a host of its own, which is recorded on the wire.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from lab import peers, small_proxies, squid, sshd
from lab.capture import Capture
from lab.guarded import Gate
from lab.net import Host, LabError, Net
from lab.ukihashi import Card, Hub, gateway
from lab.wait import TimeOver, until

SNAP: Final = 256  # bytes of a packet
RATE: Final = "5mbit"  # of a host whose use is bulk
SECRET: Final = "Standard-77"  # of the users at the standard server
USES: Final = ("idle", "browsing", "bulk", "voice", "ping", "cuts")
PAGES: Final = (3_000, 40_000, 400_000)  # bytes
STREAM: Final = 1_000_000_000  # bytes of the file that nobody fetches to its end
VOICE_PORT: Final = 9000
PAGES_PORT: Final = 8000
LOCAL_PORT: Final = 4443  # of a forward by ssh
NETWORK: Final = "10.99"  # of the standard server's hub, /16

PAGES_SERVER: Final = """
import http.server, sys
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        left = int(self.path[1:])
        self.send_response(200); self.send_header("Content-Length", str(left)); self.end_headers()
        while left > 0:
            self.wfile.write(bytes(min(left, 65536))); left -= 65536
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Pages).serve_forever()
"""
VOICE_SERVER: Final = """
import random, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind((sys.argv[1], int(sys.argv[2])))
sock.setblocking(False)
known, due = {}, time.monotonic()
while True:
    due += 0.02; time.sleep(max(0.0, due - time.monotonic()))
    while True:
        try: known[sock.recvfrom(2000)[1]] = time.monotonic()
        except OSError: break
    for other, heard in list(known.items()):
        if time.monotonic() - heard > 1: del known[other]; continue
        try: sock.sendto(bytes(random.randint(160, 200)), other)
        except OSError: pass
"""
VOICE_CLIENT: Final = """
import random, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); due = time.monotonic()
sock.setblocking(False)
while True:
    due += 0.02; time.sleep(max(0.0, due - time.monotonic()))
    try:
        sock.sendto(bytes(random.randint(160, 200)), (sys.argv[1], int(sys.argv[2])))
        while True: sock.recv(2000)
    except OSError: pass
"""
BROWSER: Final = """
import random, subprocess, sys, time
while True:
    for _ in range(random.randint(1, 4)):
        size = random.choice(sys.argv[2:])
        subprocess.run(["curl", "-s", "-m", "20", "-o", "/dev/null", f"{sys.argv[1]}/{size}"])
    time.sleep(random.uniform(0.5, 9))
"""


ROADS: Final = {
    "direct": ("direct",),
    "http-proxy": ("squid", "tinyproxy"),
    "socks": ("dante", "microsocks"),
    "ssh": ("sshd",),
}
PORTS: Final = {
    "direct": 443,
    "squid": squid.PORTS["open"],
    "tinyproxy": small_proxies.TINYPROXY_PORT,
    "dante": small_proxies.DANTE_PORT,
    "microsocks": small_proxies.MICROSOCKS_PORT,
    "sshd": sshd.PORT,
}


TLS12: Final = (
    "openssl_conf = main\n[main]\nssl_conf = tls\n[tls]\nsystem_default = all\n[all]\nMaxProtocol = TLSv1.2\n"
)


class Plan(NamedTuple):
    """A session to be made."""

    family: str  # what the detector should call it
    program: str  # card, vpnclient
    at: str  # hub, vpnserver
    kind: str
    road: str  # which program of that kind
    use: str
    version: int = 4  # of IP
    tls12: bool = False

    @property
    def name(self) -> str:
        """Of its file."""
        parts = [self.program, *(["at", self.at] if (self.program == "card") != (self.at == "hub") else [])]
        parts += [self.road, self.use, *(["ipv6"] if self.version == 6 else []), *(["tls12"] if self.tls12 else [])]
        return "-".join(parts)

    @property
    def words(self) -> str:
        """For people."""
        more = (", IPv6" if self.version == 6 else "") + (", TLS 1.2" if self.tls12 else "")
        return f"{self.program} at {self.at}, {self.road}, {self.use}{more}"


@dataclass
class Session:
    """One plan, being carried out."""

    plan: Plan
    host: Host
    number: int
    capture: Capture | None = None
    card: Card | None = None
    client: peers.Client | None = None
    partner: str = ""  # address on the virtual LAN that answers
    again: Callable[[], None] | None = None  # a cut
    expect: int = 1
    trouble: str = ""


class Town:
    """The servers of all sessions."""

    def __init__(self, net: Net, planned: Sequence[Plan]) -> None:
        names = [f"s{number}" for number in range(len(planned))]
        hosts = {host.name: host for host in net.lan("hub", "hub12", "std", "gate", *names)}
        self.net = net
        self.sessions = [
            Session(plan, hosts[name], number)
            for number, (plan, name) in enumerate(zip(planned, names, strict=True), start=1)
        ]
        self.hubs = {False: Hub(hosts["hub"]), True: Hub(hosts["hub12"])}
        self.server = peers.Server(hosts["std"])
        self.gate = Gate(hosts["gate"], outside="eth0")
        self.lock = threading.Lock()  # of what one program does at a time
        self._served = set[str]()  # hubs whose members have somebody to speak with

    def open(self) -> None:
        """Start them."""
        conf = self.net.folder / "tls12.cnf"
        conf.write_text(TLS12)
        conf.chmod(0o644)
        self.gate.open()
        for tls12, hub in self.hubs.items():
            if any(one.plan.tls12 for one in self.sessions) or not tls12:
                hub.start(env={"OPENSSL_CONF": str(conf)} if tls12 else {})
        self.hubs[False].run(
            *("hub", "user", "create", "std", "--hub", "LAN", "--standard-hash", "--password-file", "-"), stdin=SECRET
        )
        if any(one.plan.at == "vpnserver" for one in self.sessions):
            self.server.start()
            self.server.create_hub("STD")
            self.server.create_user("STD", "std", SECRET)
            self.server.bridge("STD", "lan", cidrs=[f"{NETWORK}.0.1/16"])
            self._serve(self.server.host, f"{NETWORK}.0.1")

    def _serve(self, host: Host, address: str) -> None:
        python = [sys.executable, "-c"]
        host.spawn([*python, PAGES_SERVER, address, str(PAGES_PORT)], log="pages")
        host.spawn([*python, VOICE_SERVER, address, str(VOICE_PORT)], log="voice")

    def serve_hub(self, hub: Hub, address: str) -> None:
        """What the members of a hub of ours speak with, at its own address on the virtual LAN."""
        with self.lock:
            if hub.host.name not in self._served:
                self._served.add(hub.host.name)
                self._serve(hub.host, address)

    # -- a session ------------------------------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """Record it, open it, use it."""
        try:
            self._record(session)
            (self._open_card if session.plan.program == "card" else self._open_client)(session)
            self._use(session)
        except (LabError, TimeOver, OSError, subprocess.SubprocessError, StopIteration) as error:
            session.trouble = f"{session.plan.name}: {error}"

    def far(self, session: Session) -> Host:
        """Where its hub is."""
        return self.server.host if session.plan.at == "vpnserver" else self.hubs[session.plan.tls12].host

    def on_wire(self, session: Session) -> str:
        """The other end of its connections, as its host sees them."""
        host = self.far(session) if session.plan.kind == "direct" else self.gate.host
        address = host.ipv6 if session.plan.version == 6 else host.ipv4
        return f"[{address}]:{PORTS[session.plan.road]}" if ":" in address else f"{address}:{PORTS[session.plan.road]}"

    def _record(self, session: Session) -> None:
        if session.plan.use == "bulk":
            for host, interface in ((session.host, "eth0"), (self.net.hosts["wire"], f"to-{session.host.name}")):
                host.ip(f"link set {interface} txqueuelen 100")
                shaper = ["tbf", "rate", RATE, "burst", "32kb", "latency", "60ms"]
                host.run(["tc", "qdisc", "replace", "dev", interface, "root", *shaper])
        expression = f"tcp port {PORTS[session.plan.road]}"
        capture = Capture(session.host, "eth0", expression=expression, snap_bytes=SNAP)
        capture.__enter__()
        session.capture = capture

    def _open_card(self, session: Session) -> None:
        plan = session.plan
        card = session.card = Card(session.host)
        far = self.far(session)
        address = far.ipv6 if plan.version == 6 else far.ipv4
        path = {"path": {"via": self._via(session), **self._path(session)}}
        hub = self.hubs[plan.tls12]
        if plan.at == "hub":
            with self.lock:
                link = hub.invite(f"user{session.number}", address=address)
            account = card.prepare(link, path)
        else:
            account = "std"
            card.create(
                account,
                {
                    "hub": {"host": address, "port": 443, "hub": "STD", "user": "std"},
                    "login": {"method": "password", "password": SECRET},
                    "interface": {
                        "name": "ukstd",
                        "mac": f"02:00:00:00:77:{session.number:02x}",
                        "addresses": [f"{NETWORK}.2.{session.number}/16"],
                    },
                    "trust": {"mode": "first-use"},
                    **path,
                },
            )
        if plan.tls12 and plan.at != "hub":
            card.env["OPENSSL_CONF"] = str(self.net.folder / "tls12.cnf")
        card.up(account, seconds=90)
        session.partner = f"{NETWORK}.0.1"
        if plan.at == "hub":
            session.partner = gateway(card.address(4))
            self.serve_hub(hub, session.partner)

    def _via(self, session: Session) -> str:
        place = self.gate.host.ipv4
        port = PORTS[session.plan.road]
        match session.plan.road:
            case "squid":
                return f"http://{place}:{port}"
            case "tinyproxy":
                return f"http://{small_proxies.USER}@{place}:{port}"
            case "dante":
                return f"socks5://{place}:{port}"
            case "microsocks":
                return f"socks5h://{small_proxies.USER}@{place}:{port}"
            case "sshd":
                return f"ssh://{place}"
            case _:
                return "direct:"

    def _path(self, session: Session) -> dict[str, str]:
        secrets = {"tinyproxy": small_proxies.SECRET, "microsocks": small_proxies.SECRET}
        found = {}
        if session.plan.road in secrets:
            found["password"] = secrets[session.plan.road]
        if session.plan.road == "sshd":
            found["ssh_config"] = str(self.gate.ssh_config(session.host.folder / "ssh_config"))
        return found

    def _open_client(self, session: Session) -> None:
        plan = session.plan
        client = session.client = peers.Client(session.host)
        client.start()
        far, hub = self.far(session), "STD" if plan.at == "vpnserver" else "LAN"
        address, port = far.ipv6 if plan.version == 6 else far.ipv4, 443
        if plan.kind == "ssh":
            config = self.gate.ssh_config(session.host.folder / "ssh_config")
            forward = f"{session.host.ipv4}:{LOCAL_PORT}:{address}:443"
            session.host.spawn(["ssh", "-F", config, "-N", "-L", forward, self.gate.host.ipv4], log="ssh")
            until(lambda: f":{LOCAL_PORT} " in session.host.run(["ss", "-Hltn"]), seconds=30, what="ssh -L", step_s=0.2)
            address, port = session.host.ipv4, LOCAL_PORT
        at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        proxy = f"{self.gate.host.ipv4}:{PORTS[plan.road]}"
        lines = [
            "NicCreate std",
            f"AccountCreate std /SERVER:{at} /HUB:{hub} /USERNAME:std /NICNAME:std",
            f"AccountPasswordSet std /PASSWORD:{SECRET} /TYPE:standard",
            "AccountRetrySet std /NUM:999 /INTERVAL:5",
            # what it begins with, but for the routes: it would lead one to the near end of an SSH forward
            "AccountDetailSet std /MAXTCP:1 /INTERVAL:1 /TTL:0 /HALF:no /BRIDGE:no /MONITOR:no /NOTRACK:yes /NOQOS:no",
        ]
        match plan.road:
            case "squid":
                lines.append(f"AccountProxyHttp std /SERVER:{proxy}")
            case "tinyproxy":
                user, secret = small_proxies.USER, small_proxies.SECRET
                lines.append(f"AccountProxyHttp std /SERVER:{proxy} /USERNAME:{user} /PASSWORD:{secret}")
            case "dante":
                lines.append(f"AccountProxySocks std /SERVER:{proxy}")
            case "microsocks":
                user, secret = small_proxies.USER, small_proxies.SECRET
                lines.append(f"AccountProxySocks5 std /SERVER:{proxy} /USERNAME:{user} /PASSWORD:{secret}")
        client.say(*lines)
        client.connect("std", seconds=60)
        if plan.at == "vpnserver":
            session.partner, own = f"{NETWORK}.0.1", f"{NETWORK}.1.{session.number}/16"
        else:
            session.partner = self.partner_at_hub()
            own = f"{session.partner.rpartition('.')[0]}.{200 + session.number % 50}/24"
        session.host.add_address("vpn_std", own)

    def partner_at_hub(self) -> str:
        """The hub's own address on its virtual LAN."""
        hub = self.hubs[False]
        for link in json.loads(hub.host.run(["ip", "-j", "-4", "addr"])):
            if link["ifname"].startswith("uk"):
                address = str(link["addr_info"][0]["local"])
                self.serve_hub(hub, address)
                return address
        raise LabError("the hub has no host port")

    # -- use ------------------------------------------------------------------------------------------------------

    def _use(self, session: Session) -> None:
        host, use, python = session.host, session.plan.use, [sys.executable, "-c"]
        pages = f"http://{session.partner}:{PAGES_PORT}"
        match use:
            case "browsing":
                host.spawn([*python, BROWSER, pages, *map(str, PAGES)], log="browser")
            case "bulk":
                host.spawn(
                    ["sh", "-c", f"sleep 1; exec curl -s --retry 9 --retry-connrefused -o /dev/null {pages}/{STREAM}"],
                    log="bulk",
                )
            case "voice":
                host.spawn([*python, VOICE_CLIENT, session.partner, str(VOICE_PORT)], log="voice")
            case "ping":
                host.spawn(["ping", "-n", "-i", "1", session.partner], log="ping")
            case "cuts":
                host.spawn([*python, BROWSER, pages, "3000"], log="browser")
                session.again = lambda: self._cut(session)

    @staticmethod
    def cut(session: Session) -> None:
        """Cut it, if that is its use."""
        try:
            if session.again is not None:
                session.again()
        except (LabError, TimeOver, OSError, subprocess.SubprocessError) as error:
            session.trouble = f"{session.plan.name}: {error}"

    @staticmethod
    def end(session: Session) -> None:
        """End the recording, then at once all that lives on its host: nobody is owed a goodbye."""
        if session.capture is not None:
            session.capture.close()
        for pid in session.host.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if session.card is not None:
            for path in session.card.runtime_dir.glob("card-*.sock"):
                path.unlink()

    def _cut(self, session: Session) -> None:
        """Every connection of the host is reset; of a standard client also the session ends, so there are two."""
        if session.client is not None:
            session.client.say("AccountDisconnect std")
            time.sleep(2)
            session.client.say("AccountConnect std", check=False)
            session.expect += 1
            return
        rules = "".join(
            f"chain {hook} {{\ntype filter hook {hook} priority 0;\nmeta l4proto tcp reject with tcp reset\n}}\n"
            for hook in ("input", "output")
        )
        host = session.host
        host.run(["nft", "-f", "-"], stdin=f"table inet cut {{\n{rules}}}\n")
        time.sleep(4)
        host.run(["nft", "delete", "table", "inet", "cut"])
