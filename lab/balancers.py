"""Real HAProxy and real nginx on lab hosts, with the configurations of the guide (docs/behind-others.*.md).

    balancer = HAProxy(host, hub=machine)
    balancer.start()                    # listens on 443, IPv4 and IPv6

Debian packages haproxy, nginx and libnginx-mod-stream.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.net import Host, LabError, Process, run
from lab.wait import until

GUIDE: Final = Path(__file__).resolve().parents[1] / "docs" / "behind-others.en.md"
STREAM: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
SEARCH: Final = "/usr/sbin:/usr/bin:/sbin"

# The guide's example addresses.
HUB: Final = "192.0.2.10"
BALANCER: Final = "192.0.2.20"
SITE: Final = "www.example.jp"
TLS_SITE: Final = "127.0.0.1:8443"
WEB_ROOT: Final = "/var/www/html"

NGINX: Final = """\
{load}daemon off;
user root;
pid {folder}/pid;
error_log stderr notice;
events {{ worker_connections 256; }}
{body}
"""
HTTP: Final = """\
http {{
    log_format lab '$remote_addr $request_method $uri $http_x_forwarded_proto $host $status';
    access_log {folder}/access.log lab;
    types {{ text/html html; }}
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def missing() -> str:
    """Which Debian packages must be installed; empty if all are there."""
    gone = [name for name in ("haproxy", "nginx") if shutil.which(name, path=SEARCH) is None]
    return " ".join([*gone, *([] if STREAM.exists() else ["libnginx-mod-stream"])])


def snippets(guide: Path = GUIDE) -> dict[str, list[str]]:
    """The guide's configurations, by the file that the first line of each names."""
    found: dict[str, list[str]] = {}
    for text in re.findall(r"^```\w+\n(# /etc/.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL):
        found.setdefault(text.partition("\n")[0].removeprefix("# "), []).append(text)
    return found


def snippet(file: str, values: Mapping[str, str]) -> str:
    """The guide's configuration of that file with other values in the place of its own; each must be there."""
    (text,) = snippets()[file]
    for example, value in values.items():
        if example not in text:
            raise LabError(f"the guide's {file} does not hold {example!r}")
        text = text.replace(example, value)
    return text


class _Daemon:
    """A program with one configuration file."""

    name: str

    def __init__(self, host: Host, name: str = "") -> None:
        if gone := missing():
            raise LabError(f"missing Debian packages: {gone}")
        self.host: Final = host
        self.folder: Final = host.folder / (name or self.name)
        self.process: Process | None = None

    def _start(self, argv: list[str | Path], text: str, port: int) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "conf").write_text(text)
        self.process = process = self.host.spawn(argv, log=self.folder.name)

        def look() -> bool:
            if not process.running:
                raise LabError(f"{self.folder.name} has ended: {process.output()}")
            return f":{port} " in self.host.run(["ss", "-Hltn"])

        until(look, seconds=20.0, what=f"{self.folder.name} listening", step_s=0.1)

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.stop()


class HAProxy(_Daemon):
    """As a balancer on port 443, which sends the web site's visitors to `TLS_SITE` on its own host."""

    name = "haproxy"

    def start(self, hub: Host, *, version: int = 2) -> None:
        """Start it and wait until it listens. `version`: of the PROXY protocol."""
        values = {HUB: hub.ipv4} | ({} if version == 2 else {"send-proxy-v2": "send-proxy"})
        text = "global\n    log stdout format raw local0 info\n\n" + snippet("/etc/haproxy/haproxy.cfg", values)
        self._start(["haproxy", "-db", "-f", self.folder / "conf"], text, 443)


class Nginx(_Daemon):
    """As a balancer on port 443, or as a web server."""

    name = "nginx"

    def balance(self, hub: Host) -> None:
        """Start it as a balancer."""
        load = f"load_module {STREAM};\n"
        body = snippet("/etc/nginx/nginx.conf", {HUB: hub.ipv4})
        self._run(load, body, 443)

    def serve(self) -> Path:
        """Start it as the web server of the guide, on 127.0.0.1:8080; the folder that it shows."""
        root = self.folder / "html"
        server = snippet("/etc/nginx/sites-enabled/www", {WEB_ROOT: str(root)})
        self._site(server, root, 8080)
        return root

    def serve_tls(self) -> Path:
        """Start it as the web site behind HAProxy; the folder that it shows."""
        root = self.folder / "html"
        self.folder.mkdir()
        words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={SITE}"]
        run(["openssl", "req", *words, "-keyout", str(self.folder / "key"), "-out", str(self.folder / "pem")])
        tls = f"ssl_certificate {self.folder}/pem; ssl_certificate_key {self.folder}/key;"
        self._site(f"server {{ listen {TLS_SITE} ssl; root {root}; {tls} }}", root, 8443)
        return root

    def _site(self, server: str, root: Path, port: int) -> None:
        root.mkdir(parents=True)
        self._run("", HTTP.format(folder=self.folder, server=server), port)

    def _run(self, load: str, body: str, port: int) -> None:
        text = NGINX.format(load=load, folder=self.folder, body=body)
        self._start(["nginx", "-e", "stderr", "-c", self.folder / "conf"], text, port)

    def log(self) -> list[str]:
        """What it was asked, a line each: address, method, path, scheme, host, status."""
        return (self.folder / "access.log").read_text().splitlines()
