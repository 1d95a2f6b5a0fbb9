"""The card's data process: frames between TAP and hub, in a plain epoll loop without any right.

    python -m ukihashi.card.data CONTROL TAP NAME     (descriptors of the socket pair and of the open TAP, its name)

Started by the dialler, which keeps the rights. A frame's way out: the TAP's queue in the kernel -> one batch of all
that wait -> one encoding -> one TLS write. While the socket is full, or no session is open, the TAP is not read: the
kernel's short queue holds what fits and drops the rest, counted there (D8, D12). Nothing queues here.
"""

import codecs
import select
import signal
import socket
import sys
import time
from typing import Final

import msgspec

from ukihashi.card.link import Link, Tally
from ukihashi.card.messages import (
    MAX_MESSAGE,
    AnyMessage,
    Ask,
    Connect,
    Disconnect,
    Failed,
    Lost,
    Message,
    Ready,
    Stop,
    Trouble,
    decode,
    encode,
)
from ukihashi.errors import N_, DialError, EnvironmentLacks, UkihashiError
from ukihashi.net.link import tune
from ukihashi.net.privileges import drop, identity
from ukihashi.tap.device import Tap, adopt_tap

# Python looks these up late; without rights their files may be unreadable.
for _codec in ("ascii", "idna", "latin-1", "utf-8"):
    codecs.lookup(_codec)

USER: Final = "ukihashi-card"  # or the number kept for it
LINGER: Final = 0.5  # seconds a closed link may take to close at the hub's end too
FOREVER: Final = 3600.0  # seconds; the longest sleep of the loop

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class _ToldToEnd(Exception):
    """SIGTERM came."""


class DataProcess:
    """One TAP, one dialler, at most one link."""

    def __init__(self, control: socket.socket, tap: Tap) -> None:
        self._control = control
        self._tap = tap
        self._tally = Tally()
        self._poll = select.epoll()
        self._link: Link | None = None
        self._full = False  # the link's socket takes no more at the moment
        self._tap_watched = False
        self._closing: dict[int, tuple[socket.socket, float]] = {}  # said goodbye, until when to wait for theirs
        self._running = True
        control.setblocking(False)
        self._poll.register(control.fileno(), READ)

    def run(self) -> None:
        """Serve until told to stop or the dialler is gone; the hub has our goodbye then."""
        self._tell(Ready())
        try:
            while self._running:
                self._turn(time.monotonic())
        except _ToldToEnd:
            pass
        self._drop_link()
        last = time.monotonic() + 2 * LINGER
        while self._closing and time.monotonic() < last:
            self._turn(time.monotonic())

    def _turn(self, now: float) -> None:
        for fd, mask in self._poll.poll(self._patience(now)):
            now = time.monotonic()
            if fd == self._tap.fd:
                self._from_tap(now)
            elif self._link is not None and fd == self._link.sock.fileno():
                self._from_link(mask, now)
            elif fd == self._control.fileno():
                self._from_dialler(now)
            elif fd in self._closing:
                self._read_away(fd)
        now = time.monotonic()
        self._tick(now)
        for fd in [fd for fd, (_, until) in self._closing.items() if now >= until]:
            self._close(fd)

    def _patience(self, now: float) -> float:
        due = now + FOREVER
        if self._link is not None:
            due = self._link.due_at
        for _, until in self._closing.values():
            due = min(due, until)
        return max(0.0, due - now)

    # -- frames ---------------------------------------------------------------------------------------------------

    def _from_tap(self, now: float) -> None:
        link = self._link
        if link is None or not self._tap_watched:  # lost or full since the poll; the frames wait where they are
            return
        frames = self._tap.read_frames()
        if frames:
            try:
                link.send(frames, now)
                self._flush(link)
            except UkihashiError as error:
                self._lose(error)

    def _from_link(self, mask: int, now: float) -> None:
        link = self._link
        assert link is not None
        try:
            if mask & ~WRITE:  # readable, or an error that reading tells
                was_open = link.opened is not None
                frames = link.read(now)
                if frames:
                    self._tap.write_frames(frames)
                if link.opened is not None and not was_open:
                    self._tell(link.opened)
                link.check_end()
            self._flush(link)
        except EnvironmentLacks:
            raise  # the TAP is gone, not the link
        except UkihashiError as error:
            self._lose(error)

    def _tick(self, now: float) -> None:
        link = self._link
        if link is None or now < link.due_at:
            return
        try:
            link.tick(now)
            self._flush(link)
        except UkihashiError as error:
            self._lose(error)

    def _flush(self, link: Link) -> None:
        """Write what waits; while the socket is full, watch for room and leave the TAP alone."""
        full = not link.flush()
        if full != self._full:
            self._full = full
            self._poll.modify(link.sock.fileno(), READ | WRITE if full else READ)
        self._watch_tap(link.opened is not None and not full)

    def _watch_tap(self, wanted: bool) -> None:
        if wanted != self._tap_watched:
            self._tap_watched = wanted
            if wanted:
                self._poll.register(self._tap.fd, READ)
            else:
                self._poll.unregister(self._tap.fd)

    # -- the dialler ----------------------------------------------------------------------------------------------

    def _from_dialler(self, now: float) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        sockets = [socket.socket(fileno=fd) for fd in descriptors]
        message: AnyMessage = Stop() if not data else decode(data)  # no data: the dialler is gone
        match message:
            case Connect() if sockets:
                self._connect(message, sockets.pop(), now)
            case Disconnect():
                self._drop_link()
            case Ask():
                backlog = self._link.backlog if self._link is not None else 0
                self._tell(self._tally.message(refused=self._tap.dropped, backlog=backlog))
            case Stop():
                self._running = False
        for unexpected in sockets:
            unexpected.close()

    def _connect(self, order: Connect, sock: socket.socket, now: float) -> None:
        self._drop_link()
        try:
            tune(sock, dead_after=order.dead)
            link = Link(order, sock, self._tally, now)
        except (UkihashiError, OSError) as error:
            sock.close()
            if isinstance(error, OSError):  # e.g. reset before we touched it
                error = DialError(N_("the connection to the hub broke: {reason}"), reason=error.strerror)
            self._tell(Failed(order.attempt, Trouble.of(error)))
            return
        self._link, self._full = link, False
        self._poll.register(sock.fileno(), READ)
        try:
            self._flush(link)
        except UkihashiError as error:
            self._lose(error)

    def _lose(self, error: UkihashiError) -> None:
        link = self._link
        assert link is not None
        kind = Failed if link.opened is None else Lost
        self._drop_link()
        self._tell(kind(link.order.attempt, Trouble.of(error)))

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._watch_tap(False)
        if link is not None:
            link.finish()
            self._poll.modify(link.sock.fileno(), READ)
            self._closing[link.sock.fileno()] = (link.sock, time.monotonic() + LINGER)

    def _read_away(self, fd: int) -> None:
        sock, _ = self._closing[fd]
        try:
            if sock.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(fd)

    def _close(self, fd: int) -> None:
        sock, _ = self._closing.pop(fd)
        self._poll.unregister(fd)
        sock.close()

    def _tell(self, message: Message) -> None:
        """A dialler that does not take its few messages is as good as gone."""
        try:
            self._control.send(encode(message))
        except OSError:
            self._running = False


def main(arguments: list[str]) -> int:
    """Adopt what the dialler passed, give up all rights, serve. Exit status: 0 told to stop, 1 otherwise."""
    control = socket.socket(fileno=int(arguments[0]))
    tap = adopt_tap(int(arguments[1]), arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the dialler says when to stop
    signal.signal(signal.SIGTERM, _end)
    try:
        drop(identity(USER))
        DataProcess(control, tap).run()
    except EnvironmentLacks as error:  # rights could not be given up, or the TAP was removed
        control.setblocking(True)
        control.send(encode(Lost(0, Trouble.of(error))))
        return 1
    except msgspec.MsgspecError:
        return 1
    return 0


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _ToldToEnd


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
