"""Cascades in the worker: each is a port of its virtual hub whose frames go over a cable to a process that joins the
other hub with them (`card/cascade.py`). Loops are found here (`switch/loop_guard.py`).

A cable that is full is a full port: frames wait in its queue, the newest are dropped and counted. While no session
carries them, nothing waits at all: what is old when it comes back would only mislead.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from ukihashi.errors import EnvironmentLacks
from ukihashi.hub.loop import READ, WRITE, Loop, Timer
from ukihashi.hub.messages import CascadeUp, CascadeWanted, HubPut
from ukihashi.hub.ports import Encodings, Outbox, VirtualHub
from ukihashi.hub.sessions import Sessions
from ukihashi.switch import loop_guard
from ukihashi.switch.loop_guard import LoopGuard
from ukihashi.switch.queue import PortQueue
from ukihashi.switch.rules import PortRules
from ukihashi.tap.frame_pipe import FramePipe

DOWN: Final = "cascade_down"  # reason of drops: no session carries frames

_log = structlog.get_logger()


class CascadePort:
    """One cascade's place in its virtual hub."""

    def __init__(
        self,
        hub: VirtualHub,
        wanted: CascadeWanted,
        pipe: FramePipe,
        loop: Loop,
        *,
        queue_bytes: int,
        guard: LoopGuard,
        stirred: Callable[[], None],
    ) -> None:
        """`stirred`: called when the guard has seen a probe of ours come back."""
        self.hub = hub
        self.wanted: Final = wanted
        self.guard: Final = guard
        self.name = wanted.name
        self.queue = PortQueue(queue_bytes)
        self.up = False
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self._pipe = pipe
        self._loop = loop
        self._outbox: Outbox = hub.outbox
        self._stirred = stirred
        self._closed = False
        self._probes: list[bytes] = []  # go before all that waits
        self._looped: Counter[str] = Counter()  # dropped at the guard while it was up before
        self._waiting = False  # for room in the cable
        self.port = hub.plug(self, PortRules(policy=wanted.policy, user=wanted.name, bridge=True))
        loop.watch(pipe.fileno(), READ, self._on_events)

    @property
    def drops(self) -> Counter[str]:
        """Frames dropped at this port, by reason."""
        drops = Counter(self.hub.switch.drops.get(self.port, {}))
        drops.update(self.queue.dropped)
        drops.update(self._looped)
        drops.update(self.guard.dropped.get(self.wanted.cascade, {}))
        return +drops

    def set_up(self, up: bool) -> None:
        """A session carries its frames from now on, or none does."""
        if up == self.up:
            return
        self.up, number, now = up, self.wanted.cascade, self._loop.now
        if up:
            self.guard.add(number, age=number, now=now)
        else:
            self._looped.update(self.guard.dropped.get(number, {}))
            self.guard.remove(number, now)
            self._probes = []
            self.queue.clear(DOWN)
            self.forget_stations()

    def forget_stations(self) -> None:
        """What was learned here is reached another way, or not at all: frames to it must not end at this port."""
        self.hub.forget_stations(self.port)

    def probe(self, frame: bytes) -> None:
        """Send a frame of the loop guard, before all that waits. One that could not go yet would be too old."""
        self._probes = [frame]
        self._outbox.mark(self)

    def flush(self, encodings: Encodings) -> bool:  # noqa: ARG002 - a cable takes frames
        """Hand on what waits as far as it goes."""
        if not self.up:
            self.queue.clear(DOWN)
            return False
        frames = self.queue.take()
        leaving = self.guard.outward(frames, self.wanted.cascade, self._loop.now)
        self._look_at_guard()
        try:
            del self._probes[: self._pipe.offer(self._probes)]
            went = 0 if self._probes else self._pipe.offer(leaving)
        except EnvironmentLacks:  # its process is gone; the supervisor starts another
            self.close()
            return False
        self.frames_out += went
        self.bytes_out += sum(map(len, leaving[:went]))
        rest = leaving[went:]
        if rest:
            self.queue.put_back(rest, {})
        if bool(rest or self._probes) != self._waiting:
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
            frames: Sequence[bytes] = self._pipe.read_frames()
        except EnvironmentLacks:
            self.close()
            return
        if not self.up:
            return
        self.frames_in += len(frames)
        self.bytes_in += sum(map(len, frames))
        frames = self.guard.inward(frames, self.wanted.cascade, self._loop.now)
        self._look_at_guard()
        if frames:
            self.hub.forward(frames, self.port, self._loop.now)

    def _look_at_guard(self) -> None:
        if self.guard.stirred:
            self.guard.stirred = False
            self._stirred()


class CascadePorts:
    """All of a worker."""

    def __init__(self, loop: Loop, sessions: Sessions, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._loop = loop
        self._sessions = sessions
        self._random = random
        self._ports: dict[int, CascadePort] = {}  # by number
        self._ups: set[int] = set()  # those with a session; control may say so before the supervisor gives the cable
        self._guards: dict[str, LoopGuard] = {}  # by virtual hub, casefolded
        self._timer: Timer | None = None

    def plug(self, wanted: CascadeWanted, fd: int) -> None:
        """A cascade's process was started, or we were; the descriptor is ours."""
        self.unplug(wanted.cascade)
        key = wanted.hub.casefold()
        hub = self._sessions.hubs.get(key) or self._sessions.put_hub(HubPut(wanted.hub))  # settings follow
        guard = self._guards.get(key)
        if guard is None:
            guard = self._guards[key] = LoopGuard(
                hub_id=self._random(loop_guard.ID_BYTES), key=self._random(loop_guard.KEY_BYTES)
            )
        limit = self._sessions.limits.queue_bytes
        pipe = FramePipe(fd, wanted.name)
        self._ports[wanted.cascade] = CascadePort(
            hub, wanted, pipe, self._loop, queue_bytes=limit, guard=guard, stirred=self._soon
        )
        self._set_up(wanted.cascade)

    def unplug(self, cascade: int) -> None:
        """It is not wanted any more."""
        port = self._ports.pop(cascade, None)
        if port is not None:
            port.close()
            self._tick()  # what was blocked because of it need wait no longer

    def set_up(self, message: CascadeUp) -> None:
        """See `CascadePort.set_up`."""
        (self._ups.add if message.up else self._ups.discard)(message.cascade)
        self._set_up(message.cascade)

    def rows(self) -> list[dict[str, Any]]:
        """Every one, for listings."""
        now = self._loop.now
        return [
            port.row() | (port.guard.row(number, now, self._name) if port.up else {})
            for number, port in self._ports.items()
        ]

    def close(self) -> None:
        """Let go of all."""
        for cascade in list(self._ports):
            self.unplug(cascade)
        if self._timer is not None:
            self._timer.cancel()

    def _set_up(self, cascade: int) -> None:
        port = self._ports.get(cascade)
        if port is not None:
            port.set_up(cascade in self._ups)
            self._tick()

    def _soon(self) -> None:
        self._loop.at(self._loop.now, self._tick)

    def _tick(self) -> None:
        """Send the probes that are due, tell what was found, and come again."""
        for guard in self._guards.values():
            for number, frame in guard.tick(self._loop.now):
                self._ports[number].probe(frame)
            self._tell(guard)
        due = min((guard.due_at for guard in self._guards.values()), default=float("inf"))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.at(due, self._tick) if due < float("inf") else None

    def _tell(self, guard: LoopGuard) -> None:
        found, guard.found = guard.found, []
        for one in found:
            port = self._ports.get(one.blocked)
            if port is not None:
                port.forget_stations()
            _log.warning(
                "loop_found",
                hub=port.hub.name if port is not None else "",
                blocked=self._name(one.blocked),
                seconds=one.seconds,
                sent_by=self._name(one.sent),
                back_at=self._name(one.back) if one.back is not None else "a member",
            )

    def _name(self, cascade: int) -> str:
        port = self._ports.get(cascade)
        return port.name if port is not None else str(cascade)
