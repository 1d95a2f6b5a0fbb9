"""Loops through the ports of all workers of a hub, found and cut (`switch.loop_guard`).

Each worker watches its own switches: what comes in that is a probe of this hub, and stations that jump from port to
port, as they do on a loop. Worker 0 judges, for every virtual hub: the others tell it of their guarded ports and what
came back, and it tells them what to send and what to block. So no two ports are judged by two.

Guarded are cascades, bridges and members that bridge. Any other port only while something points at it: a probe of ours
comes in there, or stations jump. Who idles gets no probes.
"""

import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from ukihashi.hub.loop import Loop, Timer
from ukihashi.hub.mesh import (
    GuardBack,
    GuardHurry,
    GuardKey,
    GuardNote,
    GuardOther,
    GuardPort,
    GuardProbe,
    GuardState,
)
from ukihashi.hub.saved import SavedGuard
from ukihashi.switch import loop_guard
from ukihashi.switch.loop_guard import LOOP, Age, Change, Kind, LoopGuard, State, read_probe
from ukihashi.units import PortId

if TYPE_CHECKING:
    from ukihashi.hub.ports import VirtualHub

JUDGE: Final = 0  # the worker that judges; there always is one with that number
JUMPS: Final = 6  # of stations to or from one port, within JUMPS_S: that looks like a loop
JUMPS_S: Final = 2.0
HURRY_S: Final = 0.1  # between two words about that
SUSPECT_S: Final = 30.0  # a port that does not bridge is guarded so long after something pointed at it
BACKS: Final = 64  # probes that came back and wait for judgement; more at once say no more

_log = structlog.get_logger()


@dataclass(slots=True)
class _Guarded:
    key: str  # of the port, for the judge: no other has had it
    name: str  # for people
    age: Age
    until: float = math.inf  # of one that is only suspected
    because: str | None = None  # blocked: the name of the other port of the loop
    since: float = 0.0  # blocked
    last_back: bytes = b""  # the last probe that came in here
    hurried_at: float = -math.inf


class HubGuard:
    """The guarded ports that one worker has of one virtual hub."""

    def __init__(self, hub: "VirtualHub", guarding: "Guarding") -> None:
        self.hub: Final = hub
        self.id = b""  # in probes of this hub; b"": nothing of it is guarded yet
        self.secret = b""
        self._guarding = guarding
        self._ports: dict[PortId, _Guarded] = {}
        self._numbers: dict[str, PortId] = {}  # by key
        self._adopted: dict[str, str | None] = {}  # ports that were blocked elsewhere: because of which
        self._jumps: dict[PortId, tuple[int, float]] = {}  # how many, since when
        hub.switch.watch = self

    # -- ports ----------------------------------------------------------------------------------------------------

    def guard(self, port: PortId, kind: Kind, since: float, *, key: str = "", until: float = math.inf) -> None:
        """Look for loops through `port`.

        Args:
            since: of two of one kind the larger gives way.  key: the port's own, wherever it goes; else its name.
            until: the moment from which it is guarded no more.
        """
        self.unguard(port)
        name = self.hub.ports[port].name
        one = self._ports[port] = _Guarded(f"{kind.name} {key or name}", name, (int(kind), since), until)
        self._numbers[one.key] = port
        one.because, one.since = self._adopted.pop(name, None), self._guarding.now
        self.hub.switch.watch_port(port, blocked=one.because is not None)
        self._announce(one)

    def unguard(self, port: PortId) -> None:
        """It is gone, or not to be guarded any more; it is blocked no more then. An unknown port is no error."""
        self._jumps.pop(port, None)
        one = self._ports.pop(port, None)
        if one is not None:
            del self._numbers[one.key]
            self.hub.switch.watch_port(port, guarded=False)
            self._guarding.tell(GuardPort(self.hub.name, one.key, one.name, one.age, there=False))

    def announce(self) -> None:
        """Say everything to a judge that is new."""
        if self.id:
            self._guarding.tell(GuardKey(self.hub.name, self.id, self.secret))
        for one in self._ports.values():
            self._announce(one)

    def save(self, port: PortId) -> SavedGuard | None:
        """How a guarded port stands, for `adopt` in another process."""
        one = self._ports.get(port)
        return SavedGuard(self.id, self.secret, one.because) if one is not None else None

    def adopt(self, name: str, saved: SavedGuard) -> None:
        """The port of that name, to be guarded next, stood so in another process."""
        if saved.id and not self.id:
            self._guarding.tell(GuardKey(self.hub.name, saved.id, saved.secret))
        self._adopted = {name: saved.because}

    def because(self, port: PortId) -> str | None:
        """Of a blocked port the name of the other one of the loop; None: it is not blocked."""
        one = self._ports.get(port)
        return one.because if one is not None else None

    def row(self, port: PortId) -> dict[str, Any]:
        """How a port stands, for listings; nothing of one that isn't guarded."""
        one = self._ports.get(port)
        if one is None:
            return {"loop": "", "loop_with": "", "loop_s": 0.0}
        blocked = one.because is not None
        return {
            "loop": str(State.BLOCKED if blocked else State.OPEN),
            "loop_with": one.because or "",
            "loop_s": round(self._guarding.now - one.since, 1) if blocked else 0.0,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Every blocked port, for listings."""
        return [
            {"hub": self.hub.name, "port": one.name, "with": one.because, "seconds": self.row(port)["loop_s"]}
            for port, one in self._ports.items()
            if one.because is not None
        ]

    def _announce(self, one: _Guarded) -> None:
        self._guarding.tell(GuardPort(self.hub.name, one.key, one.name, one.age, because=one.because))

    # -- what the judge says --------------------------------------------------------------------------------------

    def send(self, key: str, frame: bytes) -> None:
        """A probe, before all that waits."""
        port = self.hub.ports.get(self._numbers.get(key, PortId(0)))
        if port is not None:
            port.queue.jump(frame)
            self.hub.outbox.mark(port)

    def set_state(self, key: str, because: str | None) -> None:
        """A port is blocked because of another, or open (None)."""
        number = self._numbers.get(key)
        one = self._ports.get(number) if number is not None else None
        if one is None or number is None or one.because == because:
            return
        changed = (one.because is None) != (because is None)
        one.because = because
        port = self.hub.ports[number]
        if changed:
            one.since = self._guarding.now
            self.hub.switch.watch_port(number, blocked=because is not None)
            if because is not None:
                port.queue.clear(LOOP)
                self.hub.forget_stations(number)
        tell = getattr(port, "tell_loop", None)
        if tell is not None:
            tell(because)

    # -- what the switch sees -------------------------------------------------------------------------------------

    def probe_came(self, frame: bytes, port: PortId, now: float) -> bool:
        """See `switch.forward.Watch`."""
        probe = read_probe(frame)
        if probe is None:
            return False
        if probe.hub != self.id:
            self._guarding.other(self.hub.name, probe.hub)
            return False
        one = self._look_at(port, now)
        if one is not None and probe.body != one.last_back:
            one.last_back = probe.body
            self._guarding.tell(GuardBack(self.hub.name, one.key, probe.body))
        return True

    def station_moved(self, before: PortId, after: PortId, now: float) -> None:
        """See `switch.forward.Watch`."""
        for port in (before, after):
            count, since = self._jumps.get(port, (0, now))
            if now - since > JUMPS_S:
                count, since = 0, now
            self._jumps[port] = count + 1, since
            if count + 1 >= JUMPS:
                one = self._look_at(port, now)
                if one is not None and now - one.hurried_at >= HURRY_S:
                    one.hurried_at = now
                    self._guarding.tell(GuardHurry(self.hub.name, one.key))

    def look(self, now: float) -> None:
        """Whom nothing has pointed at for long is guarded no more."""
        for port, one in list(self._ports.items()):
            if now >= one.until and one.because is None:
                self.unguard(port)

    def _look_at(self, number: PortId, now: float) -> _Guarded | None:
        """Guard a port that something points at, if it isn't guarded."""
        one = self._ports.get(number)
        if one is None:
            rules = self.hub.switch.rules_of(number)
            if rules.is_trunk:
                return None
            kind, since = (Kind.BRIDGE, 0.0) if rules.is_hub_port else (Kind.SUSPECT, now)
            self.guard(number, kind, since, until=now + SUSPECT_S)
            self._guarding.look_at(now + SUSPECT_S)
        elif one.until < math.inf:
            one.until = now + SUSPECT_S
        return self._ports[number]


@dataclass(slots=True)
class _Judge:
    """Of one virtual hub."""

    hub: str  # as it is spelled
    guard: LoopGuard
    owners: dict[str, int] = field(default_factory=dict)  # which worker has which port
    names: dict[str, str] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)  # blocked

    def name(self, port: str) -> str:
        return self.names.get(port, port)


class Guarding:
    """Of one worker; of worker 0 also the judge."""

    def __init__(self, loop: Loop, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.worker = JUDGE  # which one this is
        self.send: Callable[[int, GuardNote], None] = lambda _worker, _note: None  # to another
        self.others: Callable[[], Iterable[int]] = tuple  # which there are
        self._loop = loop
        self._random = random
        self._hubs: dict[str, HubGuard] = {}  # by virtual hub, casefolded
        self._keys: dict[str, tuple[bytes, bytes]] = {}  # also of hubs that are not here yet
        self._judges: dict[str, _Judge] = {}
        self._backs: dict[tuple[str, str, bytes], None] = {}
        self._heard: dict[tuple[str, bytes], float] = {}  # other hubs
        self._timer: Timer | None = None
        self._timer_at = math.inf

    @property
    def now(self) -> float:
        return self._loop.now

    def watch(self, hub: "VirtualHub") -> HubGuard:
        """Look after the ports of a new virtual hub."""
        made = self._hubs[hub.name.casefold()] = HubGuard(hub, self)
        made.id, made.secret = self._keys.get(hub.name.casefold(), (b"", b""))
        return made

    def forget(self, hub: str) -> None:
        """A virtual hub is gone."""
        key = hub.casefold()
        for kept in (self._hubs, self._keys, self._judges):
            kept.pop(key, None)

    def rows(self) -> list[dict[str, Any]]:
        """Every blocked port of this worker."""
        return [row for hub in self._hubs.values() for row in hub.rows()]

    def look_at(self, when: float) -> None:
        """Call `HubGuard.look` then."""
        self._loop.at(when, self._look)

    def other(self, hub: str, its_id: bytes) -> None:
        """A probe of another hub came in."""
        last = self._heard.get((hub, its_id), -math.inf)
        if self.now - last >= loop_guard.HURRY_S:
            if len(self._heard) >= loop_guard.MAX_OTHERS:
                self._heard.clear()
            self._heard[hub, its_id] = self.now
            self.tell(GuardOther(hub, its_id))

    def tell(self, note: GuardNote) -> None:
        """Say something to the judge."""
        if self.worker == JUDGE:
            self._judge(JUDGE, note)
        else:
            self.send(JUDGE, note)

    # -- other workers --------------------------------------------------------------------------------------------

    def linked(self, worker: int) -> None:
        """There is a link to another worker, which may be a new one."""
        if self.worker == JUDGE:
            for judge in self._judges.values():
                self.send(worker, GuardKey(judge.hub, judge.guard.id, judge.guard.key))
        elif worker == JUDGE:
            for hub in self._hubs.values():
                hub.announce()

    def lost(self, worker: int) -> None:
        """That worker is gone, with all its ports."""
        for judge in self._judges.values():
            for port in [port for port, owner in judge.owners.items() if owner == worker]:
                del judge.owners[port]
                judge.guard.remove(port, self.now)

    def heard(self, worker: int, note: GuardNote) -> None:
        """Another worker says so."""
        if self.worker == JUDGE:
            self._judge(worker, note)
            return
        hub = self._hubs.get(note.hub.casefold())
        if isinstance(note, GuardKey):
            self._set_key(note.hub, note.id, note.secret)
        elif hub is not None and isinstance(note, GuardProbe):
            hub.send(note.port, note.frame)
        elif hub is not None and isinstance(note, GuardState):
            hub.set_state(note.port, note.because)

    def _set_key(self, hub: str, its_id: bytes, secret: bytes) -> None:
        self._keys[hub.casefold()] = its_id, secret
        known = self._hubs.get(hub.casefold())
        if known is not None:
            known.id, known.secret = its_id, secret

    # -- the judge ------------------------------------------------------------------------------------------------

    def _judge(self, worker: int, note: GuardNote) -> None:
        judge = self._judges.get(note.hub.casefold())
        if isinstance(note, GuardKey):
            if judge is None:
                self._begin(note.hub, note.id, note.secret)
            return
        if judge is None:
            if not isinstance(note, GuardPort) or not note.there:
                return
            judge = self._begin(note.hub, self._random(loop_guard.ID_BYTES), self._random(loop_guard.KEY_BYTES))
        match note:
            case GuardPort():
                self._port(judge, worker, note)
            case GuardBack():
                if len(self._backs) < BACKS:
                    self._backs[note.hub.casefold(), note.port, note.body] = None
                self._soon(self.now)
            case GuardHurry():
                judge.guard.hurry(note.port, self.now)
                self._soon(judge.guard.due_at)
            case GuardOther():
                judge.guard.other(note.id, self.now)

    def _begin(self, hub: str, its_id: bytes, secret: bytes) -> _Judge:
        judge = self._judges[hub.casefold()] = _Judge(hub, LoopGuard(hub_id=its_id, key=secret))
        self._set_key(hub, its_id, secret)
        for worker in self.others():
            self.send(worker, GuardKey(hub, its_id, secret))
        return judge

    def _port(self, judge: _Judge, worker: int, note: GuardPort) -> None:
        guard, port = judge.guard, note.port
        if note.there:
            judge.owners[port], judge.names[port] = worker, note.name
            guard.add(port, age=note.age, now=self.now, blocked_for=note.because or "")
            if note.because is not None:
                judge.since.setdefault(port, self.now)
            if guard.is_blocked(port) != (note.because is not None):
                self._say_state(judge, port)
            self._soon(guard.due_at)
        elif judge.owners.get(port) == worker:
            del judge.owners[port]
            guard.remove(port, self.now)
            self._soon(guard.due_at)

    def _say_state(self, judge: _Judge, port: str) -> None:
        because = judge.name(judge.guard.because(port)) if judge.guard.is_blocked(port) else None
        owner = judge.owners.get(port)
        if owner == self.worker:
            hub = self._hubs.get(judge.hub.casefold())
            if hub is not None:
                hub.set_state(port, because)
        elif owner is not None:
            self.send(owner, GuardState(judge.hub, port, because))

    def _soon(self, when: float) -> None:
        """Judge then, or earlier."""
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._loop.at(when, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at, now = None, math.inf, self.now
        backs, self._backs = self._backs, {}
        for hub, port, body in backs:
            if hub in self._judges:
                self._judges[hub].guard.returned(body, port, now)
        for judge in self._judges.values():
            for port, frame in judge.guard.tick(now):
                owner = judge.owners.get(port)
                if owner == self.worker:
                    self._hubs[judge.hub.casefold()].send(port, frame)
                elif owner is not None:
                    self.send(owner, GuardProbe(judge.hub, port, frame))
            changes, judge.guard.changes = judge.guard.changes, []
            for change in changes:
                self._changed(judge, change)
            for port in [port for port in judge.names if not judge.guard.knows(port)]:
                del judge.names[port]
        due = min((judge.guard.due_at for judge in self._judges.values()), default=math.inf)
        if due < math.inf:
            self._soon(due)

    def _changed(self, judge: _Judge, change: Change) -> None:
        self._say_state(judge, change.port)
        if change.blocked:
            judge.since[change.port] = self.now
            _log.warning(
                "loop_found",
                hub=judge.hub,
                blocked=judge.name(change.port),
                loop_with=judge.name(change.because),
                sent_by=judge.name(change.sent),
                back_at=judge.name(change.back),
            )
        else:
            since = judge.since.pop(change.port, self.now)
            _log.warning(
                "loop_gone",
                hub=judge.hub,
                port=judge.name(change.port),
                loop_with=judge.name(change.because),
                seconds=round(self.now - since, 1),
            )

    def _look(self) -> None:
        for hub in self._hubs.values():
            hub.look(self.now)
