"""Findings by syslog (RFC 5424): the machine's own socket, UDP (RFC 5426) or TCP with octet counting (RFC 6587).

A thread of its own sends, so that no log server can delay the packets; what it can't take waits, up to a bound. The
detector must stay silent on a card that it captures on: `silence.check_way` finds out beforehand.
"""

import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ukihashi.alert.eve import community_id, signature_id, utc
from ukihashi.alert.sinks import is_line
from ukihashi.detect.record import Found, Verdict, log_line
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError, UsageError

LOCAL: Final = "/dev/log"
UDP_PORT: Final = 514
TCP_PORT: Final = 601  # RFC 3195's, which servers take for plain TCP, too
FACILITY: Final = 16  # local0
WARNING, NOTICE, INFO = 4, 5, 6
MAX_WAITING: Final = 1000  # messages; the oldest are lost, and counted
AGAIN_S: Final = 5.0  # between two attempts
SEND_S: Final = 5.0
TELL_S: Final = 300.0
MAX_MESSAGE: Final = 2048  # bytes that every server takes (RFC 5424, 6.1)


class Target(NamedTuple):
    """Where messages go."""

    kind: str  # unix, udp, tcp
    host: str  # or the path of the socket
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.host if self.kind == "unix" else f"{self.kind}://{host}:{self.port}"


def target(text: str) -> Target:
    """Read `/dev/log`, `HOST`, `HOST:PORT`, `udp://HOST:PORT` or `tcp://HOST:PORT`. Raises: UsageError."""
    if text.startswith("/"):
        return Target("unix", text, 0)
    kind, mark, rest = text.partition("://")
    if not mark:
        kind, rest = "udp", text
    if kind not in ("udp", "tcp") or not rest:
        raise UsageError(
            N_("a syslog server is a path, HOST:PORT, udp://HOST:PORT or tcp://HOST:PORT; not “{text}”"), text=text
        )
    return Target(kind, *address(rest, TCP_PORT if kind == "tcp" else UDP_PORT))


def address(text: str, port: int) -> tuple[str, int]:
    """Read HOST, HOST:PORT, [IPV6] or [IPV6]:PORT; a bare IPv6 address too. Raises: UsageError."""
    host, mark, number = text.rpartition(":")
    if not mark or (":" in host and not host.endswith("]")) or text.endswith("]"):
        host, number = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not number.isascii() or not number.isdecimal() or not 0 < int(number[:9]) < 65536:
        raise UsageError(N_("“{text}” is no address; write HOST:PORT, or [IPV6]:PORT"), text=text)
    return host, int(number)


class Syslog:
    """A sink: a message for each log line, one for each report."""

    def __init__(self, where: Target, *, classic: bool = False) -> None:
        self._where = where
        self._classic = classic
        self._host = socket.gethostname() or "-"
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Condition()
        self._lost = 0
        self._sent = 0
        self._problem = ""
        self._told = float("-inf")
        self._ending = False
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._work, name="syslog", daemon=True)
        self._thread.start()

    @property
    def unwritten(self) -> int:
        """See `Lasting`."""
        return len(self._waiting) + self._lost

    def take(self, found: Found) -> None:
        """See `Sink`."""
        if is_line(found):
            line = log_line(found, zone=None, classic=self._classic)
            number = signature_id(found.family, found.outer, found.verdict)
            severity = WARNING if found.verdict is Verdict.CONFIRMED else NOTICE
            self.say(f"{line} sid={number} community_id={community_id(found.client, found.server)}", severity, "alert")

    def say(self, text: str, severity: int = INFO, kind: str = "stats") -> None:
        """One message. `kind`: its MSGID."""
        data = message(text, severity, kind, self._host, os.getpid(), time.time())
        with self._lock:
            self._waiting.append(data)
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._lock.notify()

    def tick(self) -> Iterator[UkihashiError]:
        """See `Lasting`."""
        with self._lock:
            problem, self._problem = self._problem, ""
        if problem and time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            yield EnvironmentLacks(
                N_("syslog messages can't be sent to {target} ({reason}); {waiting} wait, {lost} were lost"),
                target=self._where,
                reason=problem,
                waiting=len(self._waiting),
                lost=self._lost,
            )

    def reopen(self) -> Iterator[UkihashiError]:
        """See `Lasting`."""
        with self._lock:
            self._hang_up()
        return iter(())

    def close(self) -> None:
        """See `Sink`. Waits two seconds at most for what is not sent yet."""
        with self._lock:
            self._ending = True
            self._lock.notify()
        self._thread.join(2.0)
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _work(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                data = self._waiting[0]
            try:
                self._send(data)
            except (OSError, UnicodeError) as error:
                with self._lock:
                    self._hang_up()
                    self._problem = getattr(error, "strerror", None) or str(error)
                    if self._ending:
                        return
                    self._lock.wait_for(lambda: self._ending, AGAIN_S)
                    if self._ending:
                        return
                continue
            with self._lock:
                self._sent += 1
                if self._waiting and self._waiting[0] is data:
                    self._waiting.popleft()

    def _send(self, data: bytes) -> None:
        connection = self._socket
        if connection is None:
            connection = _connect(self._where)
            with self._lock:
                self._socket = connection
        if self._where.kind == "tcp":
            if select.select([connection], [], [], 0)[0] and not connection.recv(1024):
                raise ConnectionResetError(0, "the server closed the connection")
            connection.sendall(b"%d %b" % (len(data), data))
        else:
            connection.send(data)


def message(text: str, severity: int, kind: str, host: str, process: int, time: float) -> bytes:
    """The bytes of RFC 5424, 6: no structured data, the text in UTF-8."""
    moment = utc(time).replace("+0000", "Z")
    words = text.replace("\n", " ")
    head = f"<{FACILITY * 8 + severity}>1 {moment} {host} ukihashi-alert {process} {kind} - "
    return f"{head}{words}".encode()[:MAX_MESSAGE].decode(errors="ignore").encode()


def _connect(where: Target) -> socket.socket:
    place: object
    if where.kind == "tcp":
        return socket.create_connection((where.host, where.port), SEND_S)
    if where.kind == "udp":
        family, kind, protocol, _name, place = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM)[0]
        connection = socket.socket(family, kind, protocol)
    else:
        if not stat.S_ISSOCK(Path(where.host).stat().st_mode):
            raise OSError(0, "not a socket")
        place = where.host
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connection.settimeout(SEND_S)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection
