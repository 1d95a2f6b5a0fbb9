"""Other people's tunnels: OpenVPN, AnyConnect (ocserv), stunnel, socat."""

from typing import TYPE_CHECKING, Final

import trustme

from lab.look_alikes import shells
from lab.look_alikes.scene import Scene
from lab.net import run
from lab.sshd import on_host

if TYPE_CHECKING:
    from pathlib import Path

OPENVPN: Final = """\
dev ovpn
dev-type {device}
ca {pki}/ca.pem
cert {pki}/{name}.pem
key {pki}/{name}.key
data-ciphers AES-128-GCM
keepalive 10 60
verb 3
ifconfig 10.98.0.{own} {other}
{more}
"""
OCSERV: Final = """\
auth = "plain[passwd={folder}/passwd]"
listen-host = {address}
tcp-port = 443
{udp}
run-as-user = nobody
run-as-group = daemon
socket-file = {folder}/socket
pid-file = {folder}/pid
server-cert = {certificate}
server-key = {key}
isolate-workers = false
use-occtl = false
device = vpns
ipv4-network = 10.97.0.0
ipv4-netmask = 255.255.255.0
keepalive = 20
dpd = 12
try-mtu-discovery = false
"""
UP: Final = """\
#!/bin/sh
[ "$reason" = connect ] || exit 0
ip link set "$TUNDEV" up mtu "$INTERNAL_IP4_MTU"
ip addr add "$INTERNAL_IP4_ADDRESS/24" dev "$TUNDEV"
"""
STUNNEL: Final = "foreground = yes\npid =\nsyslog = no\n[it]\n{lines}\n"


def inside(scene: Scene, address: str) -> None:
    """Somebody works in the tunnel: pings of many sizes, pages of a plain server."""
    pages = scene.folder(scene.server, "pages")
    for size in (2_000, 40_000, 300_000):
        (pages / str(size)).write_bytes(bytes(range(256)) * (size // 256))
    server: list[str | Path] = ["python3", "-m", "http.server", "--bind", "0.0.0.0", "--directory", pages, "8000"]
    scene.serve(server, 8000, log="pages")
    script = """
        n=$((n + 1)); ping -q -c 1 -W 1 -s $((n * 131 % 1300)) "$1" >/dev/null; sleep $((n % 4))
        for size in 2000 40000 300000; do curl -s -m 5 -o /dev/null "http://$1:8000/$size"; done; sleep $((n % 9))
    """
    scene.shell(scene.client, script, address)


def _openvpn(scene: Scene, device: str, server: str, client: str, port: int, *, busy: bool) -> None:
    pki = scene.folder(scene.server, "vpn", mode=0o700)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(pki / "ca.pem"))
    for own, (name, host, more) in enumerate((("hub", scene.server, server), ("card", scene.client, client)), start=1):
        issued = authority.issue_cert(f"{name}.lab.invalid", common_name=name)
        issued.cert_chain_pems[0].write_to_path(str(pki / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(pki / f"{name}.key"))
        other = f"10.98.0.{3 - own}" if device == "tun" else "255.255.255.0"
        text = OPENVPN.format(device=device, pki=pki, name=name, own=own, other=other, more=more)
        process = host.spawn(["openvpn", "--config", scene.file(host, "openvpn.conf", text)], log="openvpn")
        if own == 1 and "tcp-server" in more:
            scene.listening(port, process)
    if busy:
        inside(scene, "10.98.0.1")


def _over_tcp(scene: Scene, device: str, port: int, *, busy: bool, more: str = "") -> None:
    _openvpn(
        scene, device,
        f"proto tcp-server\nport {port}\ntls-server\ndh none",
        f"proto tcp-client\nremote {scene.address} {port}\nnobind\ntls-client\nconnect-retry 1 2\n{more}",
        port, busy=busy,
    )  # fmt: skip


def openvpn_tun(scene: Scene) -> None:
    """OpenVPN over TCP, in use."""
    _over_tcp(scene, "tun", 1194, busy=True)


def openvpn_tap(scene: Scene) -> None:
    """OpenVPN with Ethernet over TCP 443, idle."""
    _over_tcp(scene, "tap", 443, busy=False)


def openvpn_tap_busy(scene: Scene) -> None:
    """OpenVPN with Ethernet over TCP 443, in use."""
    _over_tcp(scene, "tap", 443, busy=True)


def openvpn_proxy(scene: Scene) -> None:
    """OpenVPN through Squid."""
    from lab.squid import PORTS, Squid

    assert scene.proxy is not None
    Squid(scene.proxy).start()
    _over_tcp(scene, "tun", 443, busy=True, more=f"http-proxy {scene.proxy.ipv4} {PORTS['open']}")


def datagrams_in_tls(scene: Scene) -> None:
    """A tunnel made for UDP, its datagrams carried by a TLS connection (socat)."""
    pki = scene.authority
    there = f"OPENSSL-LISTEN:443,bind={scene.address},reuseaddr,fork,cert={pki.chain},verify=0"
    scene.serve(["socat", there, "UDP:127.0.0.1:1194"], 443)
    here = f"OPENSSL:{scene.address}:443,cafile={pki.root},nodelay"
    scene.client.spawn(["socat", "UDP-LISTEN:1194,bind=127.0.0.1,reuseaddr", here])
    _openvpn(
        scene, "tun", "proto udp\nlocal 127.0.0.1\nport 1194\ntls-server\ndh none",
        "proto udp\nremote 127.0.0.1 1194\nnobind\ntls-client", 1194, busy=True,
    )  # fmt: skip


def frames_in_tls(scene: Scene) -> None:
    """Ethernet frames in a TLS connection by socat alone."""
    pki, tap = scene.authority, "TUN:10.96.0.{0}/24,tun-type=tap,tun-name=wire,iff-up,iff-no-pi"
    there = f"OPENSSL-LISTEN:443,bind={scene.address},reuseaddr,fork,cert={pki.chain},verify=0,nodelay"
    scene.serve(["socat", there, tap.format(1)], 443)
    scene.client.spawn(["socat", tap.format(2), f"OPENSSL:{scene.address}:443,cafile={pki.root},nodelay"])
    ping = "n=$((n + 1)); ping -q -c 2 -W 1 -s $((n * 131 % 1200)) 10.96.0.1 >/dev/null; sleep $((n % 7))"
    scene.shell(scene.client, ping)


def _anyconnect(scene: Scene, *, udp: bool, busy: bool) -> None:
    folder, pki = scene.folder(scene.server, "ocserv", mode=0o755), scene.authority
    run(["ocpasswd", "-c", str(folder / "passwd"), "taro"], stdin="s3cret\ns3cret\n")
    text = OCSERV.format(
        folder=folder, address=scene.address, certificate=pki.certificate, key=pki.key, udp="udp-port = 443" * udp
    )
    scene.serve(["ocserv", "-f", "-c", scene.file(scene.server, "ocserv.conf", text)], 443)
    up = scene.file(scene.client, "up", UP, mode=0o755)
    options: list[str | Path] = ["--cafile", pki.root, "--script", up, "--user", "taro", "--passwd-on-stdin"]
    if not udp:
        options.append("--no-dtls")
    argv: list[str | Path] = ["sh", "-c", 'echo s3cret | exec openconnect --non-inter "$@"', "sh", *options]
    argv.append(f"https://{scene.address}")
    scene.client.spawn(argv, log="openconnect")
    if busy:
        inside(scene, "10.97.0.1")


def anyconnect(scene: Scene) -> None:
    """openconnect at ocserv, TLS only, in use."""
    _anyconnect(scene, udp=False, busy=True)


def anyconnect_idle(scene: Scene) -> None:
    """openconnect at ocserv, TLS only, idle."""
    _anyconnect(scene, udp=False, busy=False)


def anyconnect_dtls(scene: Scene) -> None:
    """openconnect at ocserv, DTLS on, in use."""
    _anyconnect(scene, udp=True, busy=True)


def _stunnel(scene: Scene, port: int, target: int) -> int:
    pki = scene.authority
    there = f"accept = {scene.address}:{port}\nconnect = 127.0.0.1:{target}\ncert = {pki.chain}"
    here = f"client = yes\naccept = 127.0.0.1:7000\nconnect = {scene.address}:{port}"
    here += f"\nCAfile = {pki.root}\nverifyChain = yes"
    scene.serve(["stunnel4", scene.file(scene.server, "stunnel.conf", STUNNEL.format(lines=there))], port)
    scene.client.spawn(["stunnel4", scene.file(scene.client, "stunnel.conf", STUNNEL.format(lines=here))])
    scene.reaches(7000)
    return 7000


def stunnel_ssh(scene: Scene) -> None:
    """A person at a terminal, ssh inside TLS."""
    server = on_host(scene.server, password="s3cret")
    words: list[str | Path] = [*shells.words(server), "-p", str(_stunnel(scene, 443, 22))]
    words += ["-o", f"HostKeyAlias={scene.address}"]
    scene.python(scene.client, "typist", "ssh", "-tt", *words, "127.0.0.1", "sh")


def stunnel_text(scene: Scene) -> None:
    """A plain text protocol inside TLS, both ends speak when they like."""
    scene.listening(7001, scene.python(scene.server, "text_pair", "serve", "127.0.0.1", 7001))
    scene.python(scene.client, "text_pair", "join", "127.0.0.1", _stunnel(scene, 5000, 7001))
