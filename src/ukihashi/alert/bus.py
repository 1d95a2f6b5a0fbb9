"""Where other programs hear of findings as they are made: a Unix socket that gives JSON lines (docs/alert-outputs.md).

A reader connects and reads; first comes `hello` with the last findings, then every event as it happens. A thread of its
own does the writing, so that no reader can delay the packets: one that does not read is cut off.
"""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ukihashi import __version__
from ukihashi.alert import eve
from ukihashi.config import places
from ukihashi.detect.record import Finding, Found
from ukihashi.errors import N_, DaemonUnreachable, EnvironmentLacks

MODE: Final = 0o600
MAX_READERS: Final = 16
MAX_UNSENT: Final = 1 << 20  # bytes behind the hello; a reader that lets more gather is cut off
MAX_QUEUE: Final = 8 << 20  # bytes between the detector and the writing thread; the oldest events are dropped
REMEMBERED: Final = 256  # findings in the hello
MAX_LINE: Final = 16 << 20  # bytes a reader accepts
_CHUNK: Final = 1 << 16


def default_path() -> Path:
    """The bus of this machine's sensor."""
    return places.runtime_dir() / "alert.sock"


class _Reader:
    __slots__ = ("cut", "limit", "unsent")

    def __init__(self, hello: bytes) -> None:
        self.unsent = bytearray(hello)
        self.limit = len(hello) + MAX_UNSENT
        self.cut = False


class Bus:
    """The sensor's end. A sink as any other, and a gauge: it is told the counters each second."""

    wants_probable = True  # a reader chooses for itself

    def __init__(self, path: Path, cards: tuple[str, ...], maker: eve.Eve) -> None:
        """Listen.

        Raises:
            EnvironmentLacks: another sensor has this path, or the socket can't be made.
        """
        self.path: Final = path
        self.dropped = 0  # events that the writing thread was too slow for
        self.cut = 0  # readers that were cut off
        self._eve = maker
        self._hello: eve.Event = {
            "event_type": "hello",
            "version": __version__,
            "pid": os.getpid(),
            "cards": list(cards),
            "started": eve.utc(time.time()),
        }
        self._known: deque[eve.Event] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ending = False
        self._listener, self._inode = _listen(path)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._readers: dict[socket.socket, _Reader] = {}
        self._thread = threading.Thread(target=self._work, name="bus", daemon=True)
        self._thread.start()

    @property
    def readers(self) -> int:
        """How many listen now."""
        return len(self._readers)

    def take(self, found: Found) -> None:
        """See `Sink`."""
        event = self._eve.event(found)
        if isinstance(found, Finding):
            event = eve.explained(event, found)
        with self._lock:
            self._remember(event)
            self._enqueue(event)
        self._kick()

    def count(self, stats: eve.Stats) -> None:
        """The counters of this second."""
        with self._lock:
            self._enqueue(self._eve.stats(stats))
        self._kick()

    def _remember(self, event: eve.Event) -> None:
        kind, flow_id = event["event_type"], event.get("flow_id")
        if kind not in ("alert", "vpn_end"):
            return
        known = next((one for one in reversed(self._known) if one["flow_id"] == flow_id), None)
        if kind == "vpn_end":
            if known is not None:
                known["ukihashi"]["ended"] = event["timestamp"]
            return
        if known is not None and event["ukihashi"]["again"]:  # in the place of what was only PROBABLE
            self._known.remove(known)
        self._known.append(event)

    def _enqueue(self, event: eve.Event) -> None:
        line = eve.line(event).encode() + b"\n"
        self._queue.append(line)
        self._queued += len(line)
        while self._queued > MAX_QUEUE:
            self._queued -= len(self._queue.popleft())
            self.dropped += 1

    def close(self) -> None:
        """Give readers what is left, for half a second at most; take the socket away. Twice does nothing more."""
        if self._ending:
            return
        self._ending = True
        self._kick()
        self._thread.join(2.0)
        self._listener.close()
        self._wake.close()
        self._woken.close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    def _kick(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x", socket.MSG_DONTWAIT)

    # -- the writing thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            deadline = float("inf")
            while not self._ending or (time.monotonic() < deadline and self._has_unsent()):
                ready = selector.select(0.1 if self._ending else None)
                if self._ending and deadline == float("inf"):
                    deadline = time.monotonic() + 0.5
                for key, mask in ready:
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fileobj is self._woken:
                        with contextlib.suppress(OSError):
                            self._woken.recv(_CHUNK)
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        if mask & selectors.EVENT_READ:
                            self._listen_to(key.fileobj)
                self._hand_out(selector)
            for reader in list(self._readers):
                self._cut(selector, reader)

    def _has_unsent(self) -> bool:
        return bool(self._readers) and (bool(self._queue) or any(reader.unsent for reader in self._readers.values()))

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        if len(self._readers) >= MAX_READERS:
            connection.close()
            self.cut += 1
            return
        connection.setblocking(False)
        with self._lock:
            self._gather()  # what waits is in the snapshot: it goes to the others only
            hello = eve.line({**self._hello, "timestamp": eve.utc(time.time()), "findings": list(self._known)})
        self._readers[connection] = _Reader(hello.encode() + b"\n")
        selector.register(connection, selectors.EVENT_READ)

    def _listen_to(self, connection: socket.socket) -> None:
        """Readers have nothing to say; their end is heard."""
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._readers[connection].cut = True

    def _gather(self) -> None:
        lines = b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        for reader in self._readers.values():
            reader.unsent += lines

    def _hand_out(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            self._gather()
        for connection, reader in list(self._readers.items()):
            if not reader.cut and reader.unsent:
                try:
                    del reader.unsent[: connection.send(reader.unsent)]
                except BlockingIOError:
                    pass
                except OSError:
                    reader.cut = True
            if reader.cut or len(reader.unsent) > reader.limit:
                self.cut += not reader.cut
                self._cut(selector, connection)
            else:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if reader.unsent else 0)
                if selector.get_key(connection).events != wanted:
                    selector.modify(connection, wanted)

    def _cut(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        selector.unregister(connection)
        del self._readers[connection]
        connection.close()


def _listen(path: Path) -> tuple[socket.socket, int]:
    """The socket that listens, and its inode. One that nobody answers on is left over and taken away."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                try:
                    probe.connect(str(path))
                except (ConnectionRefusedError, FileNotFoundError):
                    path.unlink(missing_ok=True)
                else:
                    raise EnvironmentLacks(
                        N_("a sensor runs already with the bus {path}; give this one another with --bus, or --bus off"),
                        path=path,
                    )
        before = os.umask(0o777 & ~MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(MAX_READERS)
        listener.setblocking(False)
        return listener, path.stat().st_ino
    except OSError as error:
        listener.close()
        raise EnvironmentLacks(
            N_("the bus {path} can't be made: {reason}"), path=path, reason=error.strerror or error
        ) from error
    except EnvironmentLacks:
        listener.close()
        raise


class Events:
    """A reader's end: iterate over it, or give `fileno` to a selector and call `read`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._begun = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when events wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def read(self) -> list[eve.Event] | None:
        """The events that one read brings, perhaps none yet; None: the sensor has ended, or cut us off."""
        try:
            data = self._socket.recv(_CHUNK)
        except OSError:
            return None
        if not data:
            return None
        self._begun += data
        if len(self._begun) > MAX_LINE:
            return None
        *lines, rest = self._begun.split(b"\n")
        self._begun = rest
        return [event for event in map(_parsed, lines) if event is not None]

    def __iter__(self) -> Iterator[eve.Event]:
        while (events := self.read()) is not None:
            yield from events


def _parsed(line: bytes | bytearray) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def connect(path: Path | None = None) -> Events:
    """Events of the sensor that runs on this machine, `hello` first.

    Raises:
        DaemonUnreachable: none listens on `path`, or it may not be read.
    """
    path = path or default_path()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise DaemonUnreachable(
            N_("no sensor answers on {path} ({reason}); start one: ukihashi alert -i CARD"),
            path=path,
            reason=error.strerror or error,
        ) from error
    return Events(connection)
