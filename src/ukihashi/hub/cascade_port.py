"""Cascades in the worker: each is a port of its virtual hub whose frames go over a cable to a process that joins the
other hub with them (`card/cascade.py`).

A cable that is full is a full port: frames wait in its queue, the newest are dropped and counted. While no session
carries them, nothing waits at all: what is old when it comes back would only mislead.
"""

from collections import Counter
from typing import Any, Final

from ukihashi.errors import EnvironmentLacks
from ukihashi.hub.loop import READ, WRITE, Loop
from ukihashi.hub.messages import CascadeUp, CascadeWanted, HubPut
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.hub.sessions import Sessions
from ukihashi.switch.loop_guard import Kind
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import PortRules
from ukihashi.tap.frame_pipe import FramePipe

DOWN: Final = "cascade_down"  # reason of drops: no session carries frames


class CascadePort:
    """One cascade's place in its virtual hub."""

    def __init__(self, hub: VirtualHub, wanted: CascadeWanted, pipe: FramePipe, loop: Loop, queue_bytes: int) -> None:
        self.hub = hub
        self.wanted: Final = wanted
        self.name = wanted.name
        self.queue = PortQueue(queue_bytes)
        self.up = False
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self._pipe = pipe
        self._loop = loop
        self._outbox: Outbox = hub.outbox
        self._closed = False
        self._waiting = False  # for room in the cable
        self.port = hub.plug(self, PortRules(policy=wanted.policy, user=wanted.name, bridge=True))
        loop.watch(pipe.fileno(), READ, self._on_events)

    @property
    def drops(self) -> Counter[str]:
        """Frames dropped at this port, by reason."""
        drops = Counter(self.hub.switch.drops.get(self.port, {}))
        drops.update(self.queue.dropped)
        return +drops

    def set_up(self, up: bool) -> None:
        """A session carries its frames from now on, or none does."""
        if up == self.up:
            return
        self.up, guard = up, self.hub.guard
        if guard is not None and up:
            guard.guard(self.port, Kind.CASCADE, self.wanted.cascade, key=str(self.wanted.cascade))
        elif guard is not None:
            guard.unguard(self.port)
        if not up:
            self.queue.clear(DOWN)
            self.hub.forget_stations(self.port)  # it is reached another way, or not at all

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - a cable takes frames
        """Hand on what waits as far as it goes."""
        if not self.up:
            self.queue.clear(DOWN)
            return False
        frames = self.queue.take()
        try:
            went = self._pipe.offer(frames)
        except EnvironmentLacks:  # its process is gone; the supervisor starts another
            self.close()
            return False
        self.frames_out += went
        self.bytes_out += sum(map(len, frames[:went]))
        rest = frames[went:]
        if rest:
            self.queue.put_back(rest, {})
        if bool(rest) != self._waiting:
            self._waiting = not self._waiting
            self._loop.change(self._pipe.fileno(), READ | WRITE if self._waiting else READ)
        return False

    def row(self) -> dict[str, Any]:
        """For listings."""
        return {
            "cascade": self.wanted.cascade,
            "frames_in": self.frames_in,
            "bytes_in": self.bytes_in,
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "drops": dict(self.drops),
            **(self.hub.guard.row(self.port) if self.hub.guard is not None else {}),
        }

    def close(self) -> None:
        """Pull the plug. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.set_up(False)
        self._loop.forget(self._pipe.fileno())
        self.hub.unplug(self.port)
        self._pipe.close()

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            self._outbox.mark(self)
        if not events & ~WRITE:
            return
        try:
            frames = self._pipe.read_frames()
        except EnvironmentLacks:
            self.close()
            return
        if not self.up:
            return
        self.frames_in += len(frames)
        self.bytes_in += sum(map(len, frames))
        self.hub.forward(frames, self.port, self._loop.now)


class CascadePorts:
    """All of a worker."""

    def __init__(self, loop: Loop, sessions: Sessions) -> None:
        self._loop = loop
        self._sessions = sessions
        self._ports: dict[int, CascadePort] = {}  # by number
        self._ups: set[int] = set()  # those with a session; control may say so before the supervisor gives the cable

    def plug(self, wanted: CascadeWanted, fd: int) -> None:
        """A cascade's process was started, or we were; the descriptor is ours."""
        self.unplug(wanted.cascade)
        key = wanted.hub.casefold()
        hub = self._sessions.hubs.get(key) or self._sessions.put_hub(HubPut(wanted.hub))  # settings follow
        pipe, limit = FramePipe(fd, wanted.name), self._sessions.limits.queue_bytes
        self._ports[wanted.cascade] = CascadePort(hub, wanted, pipe, self._loop, limit)
        self._set_up(wanted.cascade)

    def unplug(self, cascade: int) -> None:
        """It is not wanted any more."""
        port = self._ports.pop(cascade, None)
        if port is not None:
            port.close()

    def set_up(self, message: CascadeUp) -> None:
        """See `CascadePort.set_up`."""
        (self._ups.add if message.up else self._ups.discard)(message.cascade)
        self._set_up(message.cascade)

    def rows(self) -> list[dict[str, Any]]:
        """Every one, for listings."""
        return [port.row() for port in self._ports.values()]

    def close(self) -> None:
        """Let go of all."""
        for cascade in list(self._ports):
            self.unplug(cascade)

    def _set_up(self, cascade: int) -> None:
        port = self._ports.get(cascade)
        if port is not None:
            port.set_up(cascade in self._ups)
