"""Real TLS inspection on a lab host: mitmproxy (Debian package mitmproxy), which certifies every server by itself.

inspector = Inspector(host)                     # an HTTP proxy at PORT
inspector = Inspector(host, transparent=True)   # or whatever is routed over the host to port 443
inspector.seen                                  # requests that it read inside TLS
inspector.clients                               # connections that came
inspector.stop()
"""

from typing import Final

from lab.net import Host, Process

PACKAGE: Final = "mitmproxy"
PROGRAM: Final = "mitmdump"
PORT: Final = 8081
ISSUER: Final = "mitmproxy"  # of the certificates that it makes
TABLE: Final = "ukihashi_mitm"
STARTED: Final = r"[Pp]roxy server listening|[Pp]roxy listening"
# what it tells us, with names that do not occur in its own messages
TELLS: Final = """\
def tcp_start(flow): print("INSPECTED tcp", flush=True)
def request(flow): print("INSPECTED", flow.request.method, flow.request.path, flush=True)
def client_connected(client): print("CLIENT connected", flush=True)
"""
REDIRECT: Final = """\
table inet {table} {{
    chain prerouting {{
        type nat hook prerouting priority -100;
        tcp dport 443 redirect to :{port}
    }}
}}
"""


class Inspector:
    """One mitmproxy."""

    def __init__(self, host: Host, *, transparent: bool = False) -> None:
        """It listens when this returns. `transparent`: the host must route."""
        self.host: Final = host
        folder = host.folder / PROGRAM
        folder.mkdir(exist_ok=True)
        (folder / "tells.py").write_text(TELLS)
        mode = "transparent" if transparent else "regular"
        argv = [PROGRAM, "--mode", mode, "--listen-port", str(PORT), "--ssl-insecure", "-s", str(folder / "tells.py")]
        # it would first ask the real server, and hang up on the client if that speaks to it as to a stranger
        argv += ["--set", f"confdir={folder}", "--set", "flow_detail=0", "--set", "connection_strategy=lazy"]
        if transparent:
            host.run(["nft", "-f", "-"], stdin=REDIRECT.format(table=TABLE, port=PORT))
        self.process: Final[Process] = host.spawn(argv, log=PROGRAM, env={"PYTHONUNBUFFERED": "1", "HOME": str(folder)})
        self._transparent = transparent
        self.process.wait_for(STARTED, seconds=60.0)

    @property
    def seen(self) -> list[str]:
        """What was read inside TLS: "METHOD PATH" each, "tcp" for what is no HTTP."""
        lines = self.process.output().splitlines()
        return [line.removeprefix("INSPECTED ") for line in lines if line.startswith("INSPECTED ")]

    @property
    def clients(self) -> int:
        """TCP connections that came."""
        return self.process.output().count("CLIENT connected")

    def stop(self) -> None:
        """End it, and the redirection."""
        self.process.stop()
        if self._transparent:
            self.host.run(["nft", "delete", "table", "inet", TABLE])
