"""Real OpenVPN on lab hosts (Debian package openvpn): Ethernet (TAP) with TLS, a server that is a switch.

    server = Server(hub)
    server.start()
    client = Client(card, server, "c", remote=("10.77.2.1", 1194))
    client.start()                      # the interface is up; frames pass to every other client

Over TCP, or over UDP where the server is told so. Set as a careful administrator does who wants it back soon after a
cut, and who trusts nobody:

- `keepalive 2 8`: a ping after 2 s of silence; 8 s without one and the client begins anew (the server after 16 s). Less
  begins to restart healthy sessions on a slow line.
- `connect-retry 1 2`, `connect-timeout 4`, `hand-window 10`: the next try comes after 1 s, the shortest pause there is,
  and a try that gets no answer is given up soon.
- `persist-tun`, `persist-key`: the interface and the keys stay while it reconnects.
- `tcp-nodelay`, `data-ciphers AES-128-GCM`, no compression; a CA of the lab certifies all, `remote-cert-tls` each way.
- one client a name: a new connection of the same client ends the server's half of the old one at once.
"""

import shutil
from typing import Final

from lab.net import Host, LabError, Process, run
from lab.wait import until

PACKAGE: Final = "openvpn"
PORT: Final = 1194
SWITCH: Final = "tap-s"  # the server's own interface
PATIENCE_S: Final = 30.0
COMMON: Final = """\
dev-type tap
dev {interface}
ca {pki}/ca.pem
cert {pki}/{name}.pem
key {pki}/{name}.key
tls-version-min 1.2
data-ciphers AES-128-GCM
persist-tun
persist-key
hand-window 10
verb 3
"""
SERVER: Final = """\
mode server
tls-server
port {port}
dh none
remote-cert-tls client
client-to-client
keepalive 2 8
push "ping 2"
push "ping-restart 8"
"""
TCP_SERVER: Final = """\
proto tcp-server
tcp-nodelay
"""
CLIENT: Final = """\
tls-client
pull
remote {address} {port}
nobind
remote-cert-tls server
connect-retry 1 2
connect-retry-max unlimited
resolv-retry infinite
"""
TCP_CLIENT: Final = """\
proto tcp-client
connect-timeout 4
socket-flags TCP_NODELAY
"""
UDP: Final = "proto udp\n"


def missing() -> str:
    """Which Debian package must be installed; empty if it is there."""
    return "" if shutil.which("openvpn", path="/usr/sbin:/usr/bin:/sbin") else PACKAGE


def version() -> str:
    """The installed version as Debian names it, for reports."""
    return run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE])


class Server:
    """The server: `client-to-client` makes it a switch for its clients."""

    def __init__(self, host: Host, *, port: int = PORT, udp: bool = False) -> None:
        import trustme  # of the development environment; nothing but this wants it here

        if gone := missing():
            raise LabError(f"missing Debian packages: {gone}")
        self.host: Final = host
        self.port: Final = port
        self.udp: Final = udp
        self.pki: Final = host.net.folder / f"openvpn-{host.name}"
        self.pki.mkdir(mode=0o700)
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.pki / "ca.pem"))
        self.process: Process | None = None

    def issue(self, name: str) -> None:
        """A key and a certificate for `name`."""
        issued = self._authority.issue_cert(f"{name}.lab.invalid", common_name=name)
        issued.cert_chain_pems[0].write_to_path(str(self.pki / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(self.pki / f"{name}.key"))

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.issue("server")
        config = COMMON.format(interface=SWITCH, pki=self.pki, name="server") + SERVER.format(port=self.port)
        config += UDP if self.udp else TCP_SERVER
        self.process = _spawn(self.host, config, "openvpn-server")
        self.process.wait_for("Initialization Sequence Completed", seconds=PATIENCE_S)
        self.host.ip(f"link set {SWITCH} up")  # while it is down, the server holds up everybody's frames


class Client:
    """A client of that server; its interface is `tap-NAME`."""

    def __init__(self, host: Host, server: Server, name: str, *, remote: tuple[str, int]) -> None:
        self.host: Final = host
        self.name: Final = name
        self.interface: Final = f"tap-{name}"
        self._server, self._remote = server, remote
        self.process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it is connected; the interface is up then."""
        self._server.issue(self.name)
        address, port = self._remote
        config = COMMON.format(interface=self.interface, pki=self._server.pki, name=self.name)
        config += CLIENT.format(address=address, port=port) + (UDP if self._server.udp else TCP_CLIENT)
        self.process = _spawn(self.host, config, f"openvpn-{self.name}")
        self.process.wait_for("Initialization Sequence Completed", seconds=PATIENCE_S)
        until(lambda: self.host.has_interface(self.interface), seconds=5.0, what=f"{self.interface} existing")
        self.host.ip(f"link set {self.interface} up")

    def stop(self) -> None:
        """End it; its interface goes with it."""
        if self.process is not None:
            self.process.stop()
            self.process = None


def _spawn(host: Host, config: str, name: str) -> Process:
    path = host.folder / f"{name}.conf"
    path.write_text(config)
    return host.spawn(["openvpn", "--config", path], log=name)
