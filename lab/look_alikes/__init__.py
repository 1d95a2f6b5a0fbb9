"""Harmless traffic that resembles a tunnel's, made with real servers, recorded on the client's wire.

    for made in record(folder, seconds=75):
        ...made.path, or made.skipped: the Debian packages that are not there

TABLE says what there is. Each look-alike has hosts and wires of its own; all run at once. What Debian has no program
for is not here: relays of Tailscale (DERP), gRPC's own libraries, commercial conferencing.
"""

import contextlib
import csv
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from lab.capture import Capture
from lab.look_alikes import pcap, services, shells, tunnels, web
from lab.look_alikes.scene import Scene
from lab.net import LabError, Net
from lab.wait import TimeOver, pause

SECONDS: Final = 75.0
LEAST_PACKETS: Final = 10  # with payload, of a file that shows anything
LEAST_SHARE: Final = 0.5  # of the time, between the first and the last of them
TLS, SSH, HTTP, SOCKS = "tls", "ssh", "http-proxy", "socks"
NGINX: Final = ("nginx", "curl")
OPENSSH: Final = ("openssh-server", "openssh-client")


class LookAlike(NamedTuple):
    """One row."""

    name: str
    port: int  # of the server, as the client's wire shows it
    runs: str
    packages: tuple[str, ...]  # Debian's
    start: Callable[[Scene], None]
    transport: str = TLS
    delay_s: float = 0.0  # of the wire, one way
    vpn: bool = False  # somebody else's tunnel
    imitates: bool = False  # made to have a tunnel's sizes, which no ordinary program has


class Made(NamedTuple):
    """What became of one row."""

    row: LookAlike
    path: Path | None = None
    skipped: str = ""  # packages that are missing
    failed: str = ""
    packets: int = 0
    seconds: float = 0.0


TABLE: Final = (
    LookAlike("wss-fixed", 9443, "WebSocket, pings of 5 s from both ends", (), web.websocket_fixed),
    LookAlike("wss-padded", 443, "WebSocket, heart-beats of random period and size", (), web.websocket_padded),
    LookAlike("wss-chat", 443, "WebSocket, chat", (), web.websocket_chat, delay_s=0.02),
    LookAlike("wss-login", 8443, "WebSocket, large login, random heart-beats", (), web.websocket_login, delay_s=0.01),
    LookAlike("h2-download", 443, "nginx, HTTP/2 download", NGINX, web.download),
    LookAlike("h2-multiplex", 443, "nginx, HTTP/2 requests at once", ("nginx", "nghttp2-client"), web.multiplexed),
    LookAlike("h2-segments", 443, "nginx, film in pieces of 4 s", NGINX, web.segments, delay_s=0.015),
    LookAlike("h2-streams", 443, "HTTP/2 streams as gRPC's, pings of 10 s", ("python3-h2",), web.streams),
    LookAlike("git-https", 443, "git http-backend behind nginx", (*NGINX, "git", "fcgiwrap"), web.git),
    LookAlike("long-poll", 443, "uvicorn, long poll", (), web.long_poll, delay_s=0.03),
    LookAlike("server-events", 443, "uvicorn, server-sent events", (), web.events),
    LookAlike("json-5s", 443, "uvicorn, a JSON call each 5 s", (), web.rpc),
    LookAlike("api", 443, "uvicorn, three connections of calls with tokens", (), web.api),
    LookAlike("api-far", 443, "the same, 25 ms away", (), web.api, delay_s=0.025),
    LookAlike("api-crowd", 443, "uvicorn, a connection a second, a few calls each", (), web.api_crowd, delay_s=0.008),
    LookAlike("imitation", 443, "uvicorn, the sizes of SoftEther's opening", (), web.imitation, imitates=True),
    LookAlike("imitation-far", 443, "the same, 25 ms away", (), web.imitation, delay_s=0.025, imitates=True),
    LookAlike("upload", 443, "uvicorn, files that go up", (), web.upload),
    LookAlike("browser", 443, "Chromium, direct", ("chromium",), web.browser),
    LookAlike("browser-squid", 3128, "Chromium through Squid", ("chromium", "squid"), web.browser_squid, HTTP),
    LookAlike("browser-dante", 1080, "Chromium through Dante", ("chromium", "dante-server"), web.browser_dante, SOCKS),
    LookAlike("imap-idle", 993, "Dovecot, IMAP IDLE", ("dovecot-imapd",), services.imap_idle),
    LookAlike("mqtt", 8883, "Mosquitto, keep-alive 5 s", ("mosquitto", "mosquitto-clients"), services.mqtt),
    LookAlike("postgres", 5432, "PostgreSQL, psql", ("postgresql",), services.postgres),
    LookAlike("redis", 6380, "Redis, a ping each 5 s", ("redis-server", "redis-tools"), services.redis),
    LookAlike("irc", 6697, "ngIRCd, a channel", ("ngircd",), services.irc),
    LookAlike("xmpp", 5223, "Prosody, two people", ("prosody",), services.xmpp, delay_s=0.02),
    LookAlike("ldaps", 636, "OpenLDAP, searches", ("slapd", "ldap-utils"), services.ldaps),
    LookAlike("ldap-starttls", 389, "OpenLDAP, a replica", ("slapd", "ldap-utils"), services.ldap_starttls),
    LookAlike("submission", 587, "Exim, mail with STARTTLS", ("exim4-daemon-light",), services.submission),
    LookAlike("dns-tls", 853, "Unbound, DNS over TLS", ("unbound",), services.dns_tls),
    LookAlike("dns-https", 443, "Unbound, DNS over HTTPS", ("unbound", "knot-dnsutils"), services.dns_https),
    LookAlike("turn-tls", 5349, "coturn, media through TURN over TLS", ("coturn",), services.media_relay),
    LookAlike(
        "screen", 5901, "TigerVNC inside TLS, a clock",
        ("tigervnc-standalone-server", "tigervnc-viewer", "x11-apps"), services.screen,
    ),
    LookAlike("ssh-terminal", 22, "ssh, a person types", OPENSSH, shells.terminal, SSH),
    LookAlike("ssh-terminal-far", 22, "ssh, a person types, 20 ms away", OPENSSH, shells.terminal, SSH, 0.02),
    LookAlike("ssh-alive", 22, "ssh, ServerAliveInterval 5", OPENSSH, shells.alive, SSH),
    LookAlike("ssh-both-alive", 22, "ssh, both ends ask each 5 s", OPENSSH, shells.both_alive, SSH),
    LookAlike("scp", 22, "scp", OPENSSH, shells.copy, SSH),
    LookAlike("sftp", 22, "sftp", (*OPENSSH, "openssh-sftp-server"), shells.transfer, SSH),
    LookAlike("rsync", 22, "rsync over ssh", (*OPENSSH, "rsync"), shells.mirror, SSH),
    LookAlike("ssh-L-poll", 22, "ssh -L, HTTPS long poll", OPENSSH, shells.forwarded_poll, SSH),
    LookAlike("ssh-L-api", 22, "ssh -L, HTTPS calls with tokens", OPENSSH, shells.forwarded_api, SSH),
    LookAlike("ssh-L-crowd", 22, "ssh -L, a connection of HTTPS calls a second", OPENSSH, shells.forwarded_crowd, SSH),
    LookAlike(
        "ssh-L-imitation", 22, "the imitation through ssh -L", OPENSSH, shells.forwarded_imitation, SSH, imitates=True
    ),
    LookAlike("ssh-L-browse", 22, "ssh -L, HTTPS pages", OPENSSH, shells.forwarded_browse, SSH, 0.01),
    LookAlike("ssh-D-browse", 22, "ssh -D, HTTPS pages", (*OPENSSH, *NGINX), shells.proxied, SSH),
    LookAlike("ssh-w", 22, "ssh -w, Ethernet", OPENSSH, shells.tunnel, SSH, vpn=True),
    LookAlike("openvpn-tun", 1194, "OpenVPN over TCP, in use", ("openvpn",), tunnels.openvpn_tun, vpn=True),
    LookAlike("openvpn-tap", 443, "OpenVPN, Ethernet over TCP, idle", ("openvpn",), tunnels.openvpn_tap, vpn=True),
    LookAlike(
        "openvpn-tap-busy", 443, "OpenVPN, Ethernet over TCP, in use", ("openvpn",), tunnels.openvpn_tap_busy,
        delay_s=0.015, vpn=True,
    ),
    LookAlike(
        "openvpn-squid", 3128, "OpenVPN through Squid", ("openvpn", "squid"), tunnels.openvpn_proxy, HTTP, vpn=True
    ),
    LookAlike(
        "datagrams-in-tls", 443, "a tunnel of datagrams inside TLS", ("openvpn", "socat"), tunnels.datagrams_in_tls,
        vpn=True,
    ),
    LookAlike("frames-in-tls", 443, "socat, Ethernet inside TLS", ("socat",), tunnels.frames_in_tls, vpn=True),
    LookAlike("anyconnect", 443, "openconnect, TLS only", ("ocserv", "openconnect"), tunnels.anyconnect, vpn=True),
    LookAlike(
        "anyconnect-idle", 443, "openconnect, TLS only, idle", ("ocserv", "openconnect"), tunnels.anyconnect_idle,
        delay_s=0.02, vpn=True,
    ),
    LookAlike(
        "anyconnect-dtls", 443, "openconnect, DTLS on", ("ocserv", "openconnect"), tunnels.anyconnect_dtls, vpn=True
    ),
    LookAlike("stunnel-ssh", 443, "stunnel around ssh", ("stunnel4", *OPENSSH), tunnels.stunnel_ssh),
    LookAlike("stunnel-text", 5000, "stunnel around a plain text protocol", ("stunnel4",), tunnels.stunnel_text),
)  # fmt: skip
QUICK: Final = ("wss-fixed", "json-5s", "ssh-alive")  # need nothing that other tests don't


def rows(names: Iterable[str]) -> list[LookAlike]:
    """The rows of these names. Raises: KeyError."""
    known = {row.name: row for row in TABLE}
    return [known[name] for name in names]


def missing(packages: Sequence[str]) -> list[str]:
    """Those Debian packages that are not installed; all, where there is no dpkg."""
    if not packages:
        return []
    ask = ["dpkg-query", "-W", "-f", "${Package}=${db:Status-Status}\\n", *packages]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
    except FileNotFoundError:
        return list(packages)
    return [name for name in packages if f"{name}=installed" not in said]


def record(
    folder: Path,
    *,
    seconds: float = SECONDS,
    chosen: Sequence[LookAlike] = TABLE,
    whole: bool = False,
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> list[Made]:
    """Run all rows at once, for `seconds` after the last has begun; each gets a file NAME.pcap.gz in `folder`.

    Args:
        whole: keep every byte; else later packets are cut, see `pcap.shorten`.
        tell: gets a line of progress now and then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Made] = []
    running: list[tuple[LookAlike, Capture]] = []
    with Net() as net, contextlib.ExitStack() as stack:
        for number, row in enumerate(chosen, start=1):
            if gone := missing(row.packages):
                made.append(Made(row, skipped=" ".join(gone)))
                tell(f"look-alikes: {row.name} skipped, not installed: {made[-1].skipped}")
                continue
            tell(f"look-alikes: {number} of {len(chosen)}: {row.name}")
            try:
                scene = Scene(net, number, proxy=row.transport in (HTTP, SOCKS), delay_s=row.delay_s)
                capture = stack.enter_context(scene.capture(net.folder / f"{row.name}.pcap"))
                row.start(scene)
            except (LabError, TimeOver, OSError, subprocess.SubprocessError) as error:
                made.append(Made(row, failed=str(error)))
                tell(f"look-alikes: {row.name} failed: {error}")
                continue
            running.append((row, capture))
        tell(f"look-alikes: {len(running)} run; {seconds:g} s of them")
        pause(seconds)
        for row, capture in running:
            capture.close()
            made.append(_keep(row, capture, folder / f"{row.name}.pcap.gz", seconds, whole=whole))
            if made[-1].failed:
                tell(f"look-alikes: {row.name} failed: {made[-1].failed}")
                if len(chosen) == 1:
                    tell(net.logs())
    return made


def write_labels(folder: Path, made: Iterable[Made]) -> None:
    """`labels.csv` beside the files, as `./run bench alert FOLDER` reads it."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "transport", "client", "server", "description"])
        for one in made:
            if one.path is not None:
                writer.writerow(label(one, pcap.read(one.path), one.path.name))


def label(one: Made, packets: Iterable[pcap.Packet], name: str) -> list[str]:
    """Its row of `labels.csv`."""
    kind, ends = "imitation" if one.row.imitates else "other", pcap.opened(packets)[:4]
    server = ends[0][1] if ends else ""
    return [name, kind, one.row.transport, ";".join(end[0] for end in ends), server, f"expect=0; {one.row.runs}"]


def _keep(row: LookAlike, capture: Capture, target: Path, seconds: float, *, whole: bool) -> Made:
    packets = pcap.read(capture.path)
    times = [packet.time for packet in packets if pcap.payload(packet)]
    span = times[-1] - times[0] if times else 0.0
    failed = "" if len(times) >= LEAST_PACKETS and span >= LEAST_SHARE * seconds else "it fell silent"
    if capture.missed:
        failed = f"{capture.missed} packets were not recorded"
    pcap.write(target, packets if whole else pcap.shorten(packets))
    return Made(row, target, failed=failed, packets=len(packets), seconds=span)
