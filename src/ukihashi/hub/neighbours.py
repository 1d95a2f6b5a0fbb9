"""The other workers of the hub, as one worker sees them: its links, what is told over them, and who takes whom.

frames      into the switch of their virtual hub, by the trunk (`trunk`)
learned     a station that is new here is told at the end of the turn; what was heard lately, every NEWS_S
gone        what isn't behind a port any more, at once
load        who has how much, so that connections spread (`balance`)
sessions    brought here, or given away (`moving`)
"""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from ukihashi.hub.balance import Balance
from ukihashi.hub.mesh import (
    AnyNote,
    Crowded,
    Given,
    GuardBack,
    GuardHurry,
    GuardKey,
    GuardNote,
    GuardOther,
    GuardPort,
    GuardProbe,
    GuardState,
    Last,
    Link,
    Load,
    Mark,
    Marked,
    Moved,
    NotHere,
    Refused,
    Stations,
    StationsGone,
    TellMe,
    Want,
)
from ukihashi.hub.messages import HubPut, SessionsHere
from ukihashi.hub.moving import Found, Moves
from ukihashi.hub.ports import Outbox
from ukihashi.hub.session import Session
from ukihashi.hub.sessions import Sessions
from ukihashi.hub.trunk import Entry, MeshedHub
from ukihashi.switch.ip_table import AddressRow
from ukihashi.switch.mac_table import Station
from ukihashi.wire.extension import Resume

if TYPE_CHECKING:
    from ukihashi.hub.loop import Loop
    from ukihashi.switch.rules import PortRules

NEWS_S: Final = 3.0  # well below the time for which an address in use is not taken over (`switch.ip_table`)
LOAD_S: Final = 0.02  # between two words about how much there is
ROWS: Final = 4096  # of a table, in one note
WRITTEN_S: Final = 0.002  # between two looks whether others have taken all
LAST_S: Final = 5.0  # for the others to stop sending frames, before sessions are handed over
HEADS: Final = 1024  # kinds of entry that are remembered

_log = structlog.get_logger()


class Neighbours:
    """See the module. It is the ear of every link, and the mesh of every virtual hub."""

    def __init__(
        self, number: int, sessions: Sessions, tell: Callable[[SessionsHere], bool], *, waits: bool = False
    ) -> None:
        self.number = number
        self.balance = Balance()
        self.moves = Moves(self, sessions, waits=waits)
        self._links: dict[int, Link] = {}
        self._sessions = sessions
        self._loop: Loop = sessions.loop
        self._tell = tell
        self._learned: dict[MeshedHub, None] = {}  # that have something to tell at the end of the turn
        self._heads: dict[bytes, tuple[str, PortRules]] = {}  # what those of frames mean
        self._told_at = self._loop.now
        self._load_told: int | None = None
        self._load_waits = False
        self._waits = waits
        self._silent: tuple[set[int], set[int]] = set(), set()  # workers whose first, whose second `Last` has come
        self._passed = False  # we have said the second one
        self._then: Callable[[], None] | None = None  # what waits for all of them
        sessions.make_hub = self._make_hub
        self._guarding = sessions.guarding
        self._guarding.worker, self._guarding.send = number, self._guard
        self._guarding.others = lambda: list(self._links)
        self._loop.at_turn_end(self._at_turn_end)
        self._loop.at(self._loop.now + NEWS_S, self._tell_recent)

    @property
    def links(self) -> dict[int, Link]:
        return self._links

    def add(self, number: int, sock: socket.socket, *, is_new: bool = False) -> None:
        """A stream to another worker, in place of any before. `is_new`: it has just been started, with no session."""
        old = self._links.get(number)
        if old is not None:
            old.close()
            self.lost(old)
        link = Link(number, sock, self._loop, self, is_read=not self._waits, is_new=is_new and not self._waits)
        self._links[number] = link
        self._load_told = None
        for hub in self._hubs():
            hub.connect(link)
            self._tell_whole(link, hub)
        self._guarding.linked(number)

    def seek(self, key: bytes, resume: Resume | None, found: Found) -> None:
        """See `Moves.seek`."""
        self.moves.seek(key, resume, found)

    def begin(self) -> None:
        """All sessions of the program before are here. What others have sent meanwhile has waited in the streams."""
        self._waits = False
        for link in self._links.values():
            link.read_on()
        for hub in self._hubs():
            for link in self._links.values():
                self._tell_whole(link, hub)
        self.moves.begin()

    def part(self, then: Callable[[], None]) -> None:
        """Nothing comes in here any more: let out what waits for others, and wait for what they have for us.

        When all have said so, each has what the others sent to sessions that have moved, and passes that on, too.
        """
        self.moves.part()
        self._say_last(passed=False)
        self._then = then
        self._loop.at(self._loop.now + LAST_S, self._part_anyway)
        self._look_who_is_silent()

    def _say_last(self, *, passed: bool) -> None:
        self.moves.push()
        for hub in self._hubs():
            for trunk in hub.trunks.values():
                trunk.push()
        for link in self._links.values():
            link.tell(Last(passed))

    def _look_who_is_silent(self) -> None:
        if self._then is None:
            return
        first, second = self._silent
        if not self._passed and first >= set(self._links):
            self._passed = True
            self._say_last(passed=True)
        if self._passed and second >= set(self._links):
            self._loop.at(self._loop.now, self._part_when_written)

    def _part_when_written(self) -> None:
        """What others have not taken yet would go with the link."""
        if any(link.waiting for link in self._links.values()):
            self._loop.at(self._loop.now + WRITTEN_S, self._part_when_written)
        else:
            self._part_anyway()

    def _part_anyway(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def tell_control(self) -> None:
        """Which sessions are here, for a new control."""
        numbers = {hub.name: hub.sessions_so_far for hub in self._sessions.hubs.values()}
        self._tell(SessionsHere([_here(session) for session in self._sessions], numbers))

    def load_is(self, count: int) -> None:
        """This worker has so many connections and sessions."""
        self.balance.own = count
        if count != self._load_told and not self._load_waits:
            self._load_waits = True
            self._loop.at(self._loop.now + LOAD_S, self._tell_load)

    def rows(self) -> list[dict[str, Any]]:
        """Every trunk, for listings."""
        return [row for hub in self._hubs() for row in hub.trunk_rows()]

    def close(self) -> None:
        """Let go of everything."""
        self.moves.close()
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _make_hub(self, settings: HubPut, outbox: Outbox) -> MeshedHub:
        for link in self._links.values():
            link.tell(TellMe(settings.hub))
        return MeshedHub(settings, outbox, self)

    def _hubs(self) -> list[MeshedHub]:
        return [hub for hub in self._sessions.hubs.values() if isinstance(hub, MeshedHub)]

    def _hub(self, name: str) -> MeshedHub | None:
        hub = self._sessions.hubs.get(name.casefold())
        return hub if isinstance(hub, MeshedHub) else None

    # -- the ear of links -----------------------------------------------------------------------------------------

    def frames_came(self, link: Link, head: bytes, frames: list[bytes]) -> None:
        known = self._heads.get(head)
        if known is None:
            entry = msgspec.msgpack.decode(head, type=Entry)
            if len(self._heads) >= HEADS:
                self._heads.clear()
            known = self._heads[head] = entry.hub.casefold(), entry.rules
        hub = self._sessions.hubs.get(known[0])
        if isinstance(hub, MeshedHub) and hub.settings.online:
            hub.arrived(link.number, known[1], frames, self._loop.now)

    def moved_came(self, link: Link, move: int, frames: list[bytes]) -> None:
        self.moves.moved_came(link.number, move, frames)

    def heard(self, link: Link, note: AnyNote) -> None:
        match note:
            case Load():
                self.balance.others[link.number] = note.count
            case Stations():
                self._hear_stations(link, note)
            case StationsGone():
                hub = self._hub(note.hub)
                if hub is not None and link.number in hub.trunks:
                    hub.switch.lose(hub.trunks[link.number].port, note.stations)
            case TellMe():
                hub = self._hub(note.hub)
                if hub is not None:
                    self._tell_whole(link, hub)
            case Last():
                self._silent[note.passed].add(link.number)
                self._look_who_is_silent()
            case Crowded():
                hub = self._hub(note.hub)
                if hub is not None:
                    hub.crowd(link.number, note.crowded)
            case Want():
                self.moves.wanted(link, note)
            case NotHere():
                self.moves.not_here(link, note)
            case Refused():
                self.moves.refused(note)
            case Given():
                self.moves.given(link, note)
            case Moved():
                self.moves.moved(link, note)
            case Mark():
                self.moves.mark(link.number, note)
            case Marked():
                self.moves.marked(link.number, note)
            case GuardKey() | GuardPort() | GuardBack() | GuardHurry() | GuardOther() | GuardProbe() | GuardState():
                self._guarding.heard(link.number, note)

    def drained(self, link: Link) -> None:
        for hub in self._hubs():
            if link.number in hub.trunks:
                hub.outbox.mark(hub.trunks[link.number])
            if link.left_out:
                self._tell_whole(link, hub)
        link.left_out = 0
        for ghost in self.moves.ghosts(link):
            ghost.hub.outbox.mark(ghost)

    def lost(self, link: Link) -> None:
        if self._links.get(link.number) is not link:
            return
        del self._links[link.number]
        self.balance.others.pop(link.number, None)
        self.moves.lost(link.number)
        self._guarding.lost(link.number)
        for hub in self._hubs():
            hub.disconnect(link.number)
        self._look_who_is_silent()

    def _hear_stations(self, link: Link, note: Stations) -> None:
        hub = self._hub(note.hub)
        trunk = hub.trunks.get(link.number) if hub is not None else None
        if hub is None or trunk is None:
            return
        if note.whole:
            hub.switch.forget_all(trunk.port)
        addresses = [
            AddressRow(0, one, trunk.port, created, seen, leased) for one, created, seen, leased in note.addresses
        ]
        hub.switch.hear(trunk.port, [Station(*station) for station in note.stations], addresses)

    # -- the mesh of virtual hubs ---------------------------------------------------------------------------------

    def has_news(self, hub: MeshedHub) -> None:
        self._learned[hub] = None

    def gone(self, hub: MeshedHub, stations: Sequence[bytes]) -> None:
        for link in self._links.values():
            link.tell(StationsGone(hub.name, list(stations)), comes_again=True)

    def at(self, after_s: float, hub: MeshedHub) -> None:
        self._loop.at(self._loop.now + after_s, hub.look_at_crowds)

    def now(self) -> float:
        return self._loop.now

    def _guard(self, worker: int, note: GuardNote) -> None:
        if worker in self._links:
            self._links[worker].tell(note, comes_again=not isinstance(note, GuardKey | GuardPort | GuardState))

    # -- of moves -------------------------------------------------------------------------------------------------

    def took(self, session: Session) -> None:
        self._tell(SessionsHere([_here(session)]))

    def settled(self, session: Session) -> None:
        stations = session.hub.switch.stations(session.port)
        addresses = session.hub.switch.addresses(session.port)
        for link in self._links.values():
            self._send(link, session.hub.name, stations, addresses)

    # -- what is told ---------------------------------------------------------------------------------------------

    def _at_turn_end(self) -> bool:
        learned, self._learned = self._learned, {}
        for hub in learned:
            keys, hub.switch.learned = hub.switch.learned or [], []
            stations = [Station(key, self._loop.now, self._loop.now) for key in dict.fromkeys(keys)]
            for link in self._links.values():
                self._send(link, hub.name, stations, ())
        return False

    def _tell_recent(self) -> None:
        since, self._told_at = self._told_at, self._loop.now
        for hub in self._hubs():
            recent, addresses = hub.switch.recent(since)
            stations = [station for port, station in recent if hub.is_told(port)]
            addresses = [row for row in addresses if hub.is_told(row.port)]
            for link in self._links.values():
                self._send(link, hub.name, stations, addresses)
        self._loop.at(self._loop.now + NEWS_S, self._tell_recent)

    def _tell_whole(self, link: Link, hub: MeshedHub) -> None:
        link.tell(Stations(hub.name, [], whole=True))
        self._send(link, hub.name, hub.own_stations(), hub.own_addresses())

    def _send(self, link: Link, hub: str, stations: Sequence[Station], addresses: Sequence[AddressRow]) -> None:
        for at in range(0, max(len(stations), len(addresses)), ROWS):
            rows = [(row.address, row.created, row.seen, row.leased) for row in addresses[at : at + ROWS]]
            told = [(one.key, one.created, one.seen) for one in stations[at : at + ROWS]]
            link.tell(Stations(hub, told, rows), comes_again=True)

    def _tell_load(self) -> None:
        self._load_waits = False
        self._load_told = self.balance.own
        for link in self._links.values():
            link.tell(Load(self.balance.own), comes_again=True)


def _here(session: Session) -> tuple[str, str, str, bytes]:
    member = session.member
    return session.hub.name, session.name, member.user, member.node.unique_id
