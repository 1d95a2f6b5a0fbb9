"""A session goes from one worker to another when its member comes back there. Nothing is lost, doubled or exchanged.

    taker   a connection brings a key that it doesn't know: `Want` to all others
    giver   lets go of the session's connections, sends its value (`Given`), and puts a `Ghost` in its place
    taker   goes on with it behind a `Gate`, and sends a `Mark` to the giver
    others  told by the giver (`Moved`), send a `Mark` to both: what they send to the session from then on goes directly
    giver   passes everything that came before a mark on over its link to the taker, then says so (`Marked`)

So for each worker there is one moment at which its frames change ways: its mark. What it sent before that goes by the
ghost and by the ghost only, what it sends later directly and directly only; of a flood, which takes both ways, the gate
drops the one copy and the ghost the other. What comes directly is held back at the gate until the giver has passed on
what came before. The member is answered when all that is done, or after MOVE_S; the rest is waited for longer.
"""

import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from ukihashi.hub.gates import PART, Gate, Ghost
from ukihashi.hub.loop import Timer
from ukihashi.hub.mesh import Given, Link, Mark, Marked, Moved, NotHere, Refused, Want
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.saved import SavedSession
from ukihashi.hub.session import Session
from ukihashi.hub.sessions import Sessions, digest
from ukihashi.hub.trunk import OWN, MeshedHub
from ukihashi.session.machine import CannotResume, Stale
from ukihashi.switch.mac_table import Station
from ukihashi.wire.constants import Code
from ukihashi.wire.extension import Numbers, Resume

MOVE_S: Final = 3.0  # until the member is answered, whoever hasn't said a word
GHOST_S: Final = 30.0  # until nobody is waited for; a process that has no time for so long is as good as dead
GONE_MOST: Final = 4096  # sessions of which it is remembered where they went

Found = Callable[[int, Numbers | None], None]  # a code of protocol section 11; 0: the session is here now

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SavedSession).decode
_log = structlog.get_logger()


class House(Protocol):
    """What moves need of the worker."""

    number: int

    @property
    def links(self) -> dict[int, Link]:
        """To the others, by their numbers."""

    def took(self, session: Session) -> None:
        """It is here now; control is told."""

    def settled(self, session: Session) -> None:
        """The others send to it directly; they may be told of its stations."""


@dataclass(eq=False)
class _Search:
    number: int
    digest: bytes
    found: Found
    asked: Counter[int]  # questions that a worker has not answered
    want: Want
    comes: bool = False  # it has been given to us, for another search
    timer: Timer | None = None


class Moves:
    """All searches and moves of a worker."""

    def __init__(self, house: House, sessions: Sessions, *, waits: bool = False) -> None:
        """`waits`: sessions may still come from the program before; until `begin` nobody hears that one isn't here."""
        self._house = house
        self._sessions = sessions
        self._loop = sessions.loop
        self._numbers = itertools.count(1)
        self._searches: dict[int, _Search] = {}
        self._parts: dict[tuple[int, int], list[bytes]] = {}  # by giver and move
        self._ghosts: dict[int, Ghost] = {}  # by move
        self._gates: dict[tuple[int, int], Gate] = {}  # by giver and move
        self._gone: OrderedDict[bytes, int] = OrderedDict()  # by digest: the worker it went to
        self._later: list[tuple[int, Want]] = []  # can't be answered yet
        self._waits = waits
        self._parts_with_all = False  # sessions that are here are left to the program after this

    def begin(self) -> None:
        """All sessions that there are, are here."""
        self._waits = False
        self._look_again()

    def part(self) -> None:
        """From here on no session leaves."""
        self._parts_with_all = True

    def push(self) -> None:
        """Hand on what waits for sessions that have gone."""
        for ghost in self._ghosts.values():
            ghost.push()

    def ghosts(self, link: Link) -> list[Ghost]:
        """Those that pass on over this link."""
        return [ghost for ghost in self._ghosts.values() if ghost.link is link]

    # -- the taker ------------------------------------------------------------------------------------------------

    def seek(self, key: bytes, resume: Resume | None, found: Found) -> None:
        """Bring the session with this key here, if another worker has it; `found` is called within MOVE_S."""
        number = next(self._numbers)
        links = {worker: link for worker, link in self._house.links.items() if not link.is_new}
        want = Want(number, digest(key))
        if resume is not None:
            want = Want(number, digest(key), resume.attempt, resume.have)
        search = self._searches[number] = _Search(number, want.digest, found, Counter(links.keys()), want)
        search.timer = self._loop.at(self._loop.now + MOVE_S, lambda: self._give_up(search))
        for link in links.values():
            link.tell(want)
        self._look_at(search)

    def not_here(self, link: Link, note: NotHere) -> None:
        """One of those that were asked has it not."""
        search = self._searches.get(note.search)
        if search is None:
            return
        search.asked[link.number] -= 1
        if note.gone_to == self._house.number:
            search.comes = True
        elif note.gone_to in self._house.links:
            search.asked[note.gone_to] += 1
            self._house.links[note.gone_to].tell(msgspec.structs.replace(search.want, sure=True))
        self._look_at(search)

    def _give_up(self, search: _Search) -> None:
        is_here = self._sessions.by_digest(search.digest) is not None
        self._finish(search, Code.NONE if is_here else Code.SESSION_TIMEOUT)

    def refused(self, note: Refused) -> None:
        """Who has it says no."""
        search = self._searches.get(note.search)
        if search is not None:
            self._finish(search, note.code, Numbers(*note.numbers) if note.numbers is not None else None)

    def given(self, link: Link, note: Given) -> None:
        """A part of it has come; with the last it is ours, whether somebody waits for it still or not."""
        parts = self._parts.setdefault((link.number, note.move), [])
        parts.append(note.part)
        if not note.last:
            return
        del self._parts[link.number, note.move]
        try:
            saved = _decode(b"".join(parts))
        except msgspec.DecodeError as error:
            _log.error("state_lost", reason=str(error))
            return
        hub = self._sessions.hubs.get(saved.hub.casefold())
        if isinstance(hub, MeshedHub) and link.number in hub.trunks:  # what it brings along is no longer there
            stations, addresses = [one.key for one in saved.stations], [one.address for one in saved.addresses]
            hub.switch.lose(hub.trunks[link.number].port, stations, addresses)
        session = self._sessions.restore(saved)
        self._gone.pop(digest(session.member.key), None)
        self._put_gate(session, link, note)
        self._house.took(session)
        self._look_at_all()

    def _put_gate(self, session: Session, link: Link, note: Given) -> None:
        hub = session.hub
        assert isinstance(hub, MeshedHub)
        marks = [worker for worker in note.marks if worker in self._house.links]
        gate = self._gates[link.number, note.move] = Gate(session, hub, link.number, note.move, marks)
        gate.timer = self._loop.at(self._loop.now + MOVE_S, lambda: self._answer_early(gate))
        if link.number in hub.trunks:
            hub.trunks[link.number].push()
        link.tell(Mark(link.number, note.move))

    def _look_at(self, search: _Search) -> None:
        """A session that has come goes on when its gate is open: what it sends then comes behind all that it sent."""
        session = self._sessions.by_digest(search.digest)
        if session is not None:
            if not any(gate.session is session and not gate.is_answered for gate in self._gates.values()):
                self._finish(search, Code.NONE)
        elif not +search.asked and not search.comes:
            self._finish(search, Code.SESSION_TIMEOUT)

    def _look_at_all(self) -> None:
        for search in list(self._searches.values()):
            self._look_at(search)

    def _finish(self, search: _Search, code: int, numbers: Numbers | None = None) -> None:
        if self._searches.pop(search.number, None) is None:
            return
        if search.timer is not None:
            search.timer.cancel()
        search.found(code, numbers)
        self._look_again()

    def moved_came(self, giver: int, move: int, frames: list[bytes]) -> None:
        """For a session that has come; for one that has ended meanwhile, nothing."""
        gate = self._gates.get((giver, move))
        if gate is not None:
            gate.pass_on(frames)

    def marked(self, giver: int, note: Marked) -> None:
        """The giver has passed on what that worker had sent; its own number: it was the last time."""
        gate = self._gates.get((giver, note.move))
        if gate is None:
            return
        if note.worker == giver:
            gate.mark(giver, marked=True, passed=True)
        else:
            gate.mark(OWN if note.worker == self._house.number else note.worker, passed=True)
        if not gate.ways:
            self._open(gate)

    def _answer_early(self, gate: Gate) -> None:
        gate.is_answered = True
        gate.timer = self._loop.at(self._loop.now + 2 * GHOST_S, lambda: self._open(gate))
        self._look_at_all()

    def _open(self, gate: Gate) -> None:
        if self._gates.pop((gate.giver, gate.move), None) is None:
            return
        if gate.timer is not None:
            gate.timer.cancel()
        gate.open()
        if gate.session.is_open:
            self._house.settled(gate.session)
        self._look_at_all()
        self._look_again()

    # -- the giver ------------------------------------------------------------------------------------------------

    def wanted(self, link: Link, note: Want) -> None:
        """Another worker asks for a session."""
        session = self._sessions.by_digest(note.digest)
        if session is None:
            coming = any(search.digest == note.digest for search in self._searches.values())
            if self._waits or (note.sure and coming and not self._parts_with_all):
                self._later.append((link.number, note))
            else:
                link.tell(NotHere(note.search, self._gone.get(note.digest, -1)))
        elif self._parts_with_all or any(gate.session is session for gate in self._gates.values()):
            self._later.append((link.number, note))
        else:
            self._answer(link, note, session)

    def _answer(self, link: Link, note: Want, session: Session) -> None:
        try:
            if isinstance(session, ResumableSession) and note.attempt >= 0:
                session.machine.check(Resume(note.attempt, note.have))
            elif not session.has_room:
                link.tell(Refused(note.search, Code.TOO_MANY_CONNECTION))
                return
        except Stale:
            assert isinstance(session, ResumableSession)
            link.tell(Refused(note.search, Code.INVALID_PROTOCOL, _told(session.numbers())))
        except CannotResume as impossible:
            link.tell(Refused(note.search, Code.SESSION_TIMEOUT, _told(impossible.numbers)))
            session.close(f"can't be resumed: {impossible}")
        else:
            self._give(link, note, session)

    def _give(self, link: Link, note: Want, session: Session) -> None:
        hub, move, others = session.hub, next(self._numbers), self._house.links
        assert isinstance(hub, MeshedHub)
        for trunk in hub.trunks.values():  # what the session has sent must not come behind the news that it has gone
            trunk.push()
        stations = hub.switch.stations(session.port)
        with hub.moving(session.port):
            saved = session.save()
        ghost = self._ghosts[move] = Ghost(session, stations, hub, link, move)
        ghost.awaited = set(others)
        ghost.timer = self._loop.at(self._loop.now + GHOST_S, lambda: self._end(ghost))
        value, marks = _encode(saved), tuple(worker for worker in others if worker != link.number)
        for at in range(0, len(value), PART):
            link.tell(Given(note.search, value[at : at + PART], at + PART >= len(value), move, marks))
        self._gone[note.digest] = link.number
        if len(self._gone) > GONE_MOST:
            self._gone.popitem(last=False)

    def mark(self, worker: int, note: Mark) -> None:
        """`worker` sends to the session directly from here on."""
        if note.giver != self._house.number:
            gate = self._gates.get((note.giver, note.move))
            if gate is not None:
                gate.mark(worker, marked=True)
                if not gate.ways:
                    self._open(gate)
            return
        ghost = self._ghosts.get(note.move)
        if ghost is not None:
            if worker == ghost.link.number:  # it has the session
                told = [(one.key, one.created, one.seen) for one in ghost.stations]
                for other in [one for one in self._house.links.values() if one is not ghost.link]:
                    other.tell(Moved(ghost.move, ghost.hub.name, worker, told))
            self._pass_mark(ghost, worker)

    def _pass_mark(self, ghost: Ghost, worker: int) -> None:
        ghost.push()
        ghost.link.tell(Marked(ghost.move, worker))
        ghost.awaited.discard(worker)
        if not ghost.awaited:
            self._end(ghost)

    def _end(self, ghost: Ghost) -> None:
        if self._ghosts.pop(ghost.move, None) is None:
            return
        if ghost.timer is not None:
            ghost.timer.cancel()
        ghost.push()
        hub, taker = ghost.hub, ghost.hub.trunks.get(ghost.link.number)
        stations = hub.switch.stations(ghost.port)
        hub.unplug_silently(ghost.port)
        if taker is not None:
            hub.switch.hear(taker.port, stations)
            taker.queue.dropped.update(ghost.queue.dropped)
            taker.push()
        ghost.link.tell(Marked(ghost.move, self._house.number))

    # -- the others -----------------------------------------------------------------------------------------------

    def moved(self, link: Link, note: Moved) -> None:
        """A session has gone from one worker to another: from here on it is reached there."""
        hub, taker = self._sessions.hubs.get(note.hub.casefold()), self._house.links.get(note.to)
        if isinstance(hub, MeshedHub):
            old, new = hub.trunks.get(link.number), hub.trunks.get(note.to)
            stations = [Station(*station) for station in note.stations]
            if old is not None:
                old.push()
                hub.switch.lose(old.port, [station.key for station in stations])
            if new is not None:
                new.push()
                hub.switch.hear(new.port, stations)
        for one in (link, taker):
            if one is not None:
                one.tell(Mark(link.number, note.move))

    # -- both -----------------------------------------------------------------------------------------------------

    def lost(self, worker: int) -> None:
        """That worker is gone: nobody waits for it."""
        for ghost in list(self._ghosts.values()):
            if ghost.link.number == worker:
                self._ghosts.pop(ghost.move)
                ghost.hub.unplug(ghost.port)
            elif worker in ghost.awaited:
                self._pass_mark(ghost, worker)
        for gate in list(self._gates.values()):
            if gate.giver == worker:
                self._open(gate)
            else:
                gate.mark(worker, marked=True, passed=True)
                if not gate.ways:
                    self._open(gate)
        for key in [key for key in self._parts if key[0] == worker]:
            del self._parts[key]
        for search in self._searches.values():
            search.asked.pop(worker, None)
        self._look_at_all()

    def close(self) -> None:
        """The worker lets go of everything: what was held back goes into the sessions' queues."""
        for gate in list(self._gates.values()):
            self._open(gate)

    def _look_again(self) -> None:
        later, self._later = self._later, []
        for worker, note in later:
            link = self._house.links.get(worker)
            if link is not None:
                self.wanted(link, note)


def _told(numbers: Numbers) -> tuple[int, int, int, int]:
    return numbers.attempt, numbers.have, numbers.first, numbers.end
