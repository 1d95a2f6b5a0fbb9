"""Real small proxies on lab hosts: tinyproxy (HTTP), Dante and microsocks (SOCKS), each a Debian package.

    tinyproxy(host)                     # Basic, CONNECT to port 443 only
    dante(host, external="to-hub")      # SOCKS 4, 4a, 5 for everybody; never to FORBIDDEN
    microsocks(host)                    # SOCKS 5 with user and password

Each returns when it listens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.net import Host, Process
from lab.own_files import with_files
from lab.wait import until

PACKAGES: Final = {"tinyproxy": "tinyproxy", "danted": "dante-server", "microsocks": "microsocks"}
TINYPROXY_PORT: Final = 8888
DANTE_PORT: Final = 1080
MICROSOCKS_PORT: Final = 1081
USER: Final = "taro"
SECRET: Final = "s3cret"
FORBIDDEN: Final = 2525  # a port that Dante connects to for nobody
TINYPROXY: Final = """\
Port {port}
Timeout 600
LogLevel Info
MaxClients 20
BasicAuth {user} {secret}
ConnectPort 443
"""
DANTE: Final = """\
errorlog: stderr
logoutput: stderr
internal: {address} port = {port}
internal: {address6} port = {port}
external: {external}
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{
    from: 0/0 to: 0/0
}}
socks block {{
    from: 0/0 to: 0/0 port = {forbidden}
}}
socks pass {{
    from: 0/0 to: 0/0
    command: connect
    protocol: tcp
}}
"""


def tinyproxy(host: Host) -> Process:
    """An HTTP proxy with a password that opens tunnels to port 443 only."""
    config = host.folder / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(port=TINYPROXY_PORT, user=USER, secret=SECRET))
    return _listening(host, host.spawn(["tinyproxy", "-d", "-c", config]), TINYPROXY_PORT)


def dante(host: Host, *, external: str, files: Mapping[str, Path] | None = None) -> Process:
    """A SOCKS server without passwords; `external` is the interface that it leaves by. `files`: see `with_files`."""
    config = host.folder / "danted.conf"
    config.write_text(
        DANTE.format(address=host.ipv4, address6=host.ipv6, port=DANTE_PORT, external=external, forbidden=FORBIDDEN)
    )
    argv = with_files(["danted", "-f", config, "-p", host.folder / "danted.pid"], files or {})
    return _listening(host, host.spawn(argv, log="danted"), DANTE_PORT)


def microsocks(host: Host) -> Process:
    """A SOCKS 5 server with a password."""
    argv = ["microsocks", "-i", "::", "-p", str(MICROSOCKS_PORT), "-u", USER, "-P", SECRET]
    return _listening(host, host.spawn(argv), MICROSOCKS_PORT)


def _listening(host: Host, process: Process, port: int) -> Process:
    def look() -> bool:
        assert process.running, process.output()
        return f":{port} " in host.run(["ss", "-Hltn"])

    until(look, seconds=20.0, what=f"{process.log.stem} listening", step_s=0.1)
    return process
