"""The sensor's counters for Prometheus, in its text format (version 0.0.4), at /metrics of a port of its own."""

import platform
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

from ukihashi import __version__
from ukihashi.alert.eve import Stats
from ukihashi.detect.record import Found
from ukihashi.errors import N_, EnvironmentLacks

REQUEST_S: Final = 5.0  # a client that is slower is cut off
TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# name -> kind, help, attribute of Stats
_COUNTERS: Final = {
    "uptime_seconds": ("gauge", "Seconds since the capture began.", "uptime"),
    "packets_total": ("counter", "Packets read.", "packets"),
    "dropped_packets_total": ("counter", "Packets lost by the kernel or the card for lack of time.", "drops"),
    "gap_bytes_total": ("counter", "TCP bytes that never reached the sensor, by the sequence numbers.", "gaps"),
    "coverage_ratio": ("gauge", "Share of the traffic that was seen since the capture began.", "coverage"),
    "flows": ("gauge", "TCP connections known now.", "flows"),
    "flows_total": ("counter", "TCP connections seen.", "flows_total"),
    "flows_forgotten_total": ("counter", "Connections dropped because the table was full.", "flows_forgotten"),
}


def text(stats: Stats | None, cards: Iterable[str] = ()) -> str:
    """The page."""
    lines: list[str] = []

    def put(name: str, kind: str, words: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> None:
        lines.append(f"# HELP ukihashi_alert_{name} {words}")
        lines.append(f"# TYPE ukihashi_alert_{name} {kind}")
        lines.extend(f"ukihashi_alert_{name}{_labels(labels)} {_number(value)}" for labels, value in rows)

    build = {"version": __version__, "python": platform.python_version(), "cards": ",".join(cards)}
    put("build_info", "gauge", "Version of the sensor; always 1.", [(build, 1)])
    if stats is not None:
        for name, (kind, words, attribute) in _COUNTERS.items():
            put(name, kind, words, [({}, getattr(stats, attribute))])
        rows = []
        for key, count in sorted(stats.findings.items()):
            family, _space, rest = key.partition(" ")
            allowed = rest.endswith(" allowed")
            transport, _space, verdict = rest.removesuffix(" allowed").rpartition(" ")
            labels = {
                "family": family,
                "transport": transport,
                "verdict": verdict,
                "allowed": "yes" if allowed else "no",
            }
            rows.append((labels, count))
        put("findings_total", "counter", "Tunnels found.", rows)
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    pairs = ",".join(f'{name}="{quoted(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}".rstrip("0").rstrip(".")


class Metrics:
    """A gauge that answers HTTP requests, in a thread of its own."""

    def __init__(self, host: str, port: int, cards: tuple[str, ...] = ()) -> None:
        """Listen. Raises: EnvironmentLacks: the port can't be had."""
        self._stats: Stats | None = None
        page = self

        class Handler(_Handler):
            def page(self) -> bytes:
                return text(page._stats, cards).encode()

        kind = _Server6 if ":" in host else _Server
        try:
            self._server = kind((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise EnvironmentLacks(
                N_("metrics can't be offered at {host}:{port}: {reason}"),
                host=host,
                port=port,
                reason=getattr(error, "strerror", None) or error,
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._server.server_address[0], self._server.server_address[1]  # type: ignore[return-value]

    def take(self, found: Found) -> None:
        """See `Sink`; findings are counted by the sensor."""

    def count(self, stats: Stats) -> None:
        """See `Gauge`."""
        self._stats = stats

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server_version = "ukihashi"
    sys_version = ""

    def page(self) -> bytes:
        raise NotImplementedError

    def do_GET(self) -> None:
        """The page, or 404."""
        found = self.path.partition("?")[0] == "/metrics"
        body = self.page() if found else b"see /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", TYPE if found else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is nothing to tell of."""


class _Server6(_Server):
    import socket

    address_family = socket.AF_INET6
