"""One end of a session that outlives its links: what it may do when, and the numbers that make resume exact.

`CARD_MOVES` and `HUB_MOVES` are the whole of its behaviour in time; docs/reconnection.en.md draws them. A link is a TCP
connection in tunnelling mode (or one that asks to become it), named by a number that its owner never uses twice. Bytes
of a link that does not carry the session are never given to the session: that is how a link that comes back from the
dead does no harm.

The order on which exactness rests (docs/protocol.md): the card stops reading the old link for good, *then* says how far
it got; the hub lets go of its old link, *then* says how far it got. So each number is final when it is said.

Pure: no sockets, no clock, time is an argument. Another process goes on from a `Saved`.
"""

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from ukihashi.errors import N_, PeerViolation
from ukihashi.session.replay import Kept, ReplayBuffer
from ukihashi.wire.extension import Numbers, Resume

ACK_BYTES: Final = 256 * 1024  # received records that are acknowledged at once
ACK_S: Final = 1.0  # seconds after which fewer are


class State(enum.StrEnum):
    """Where a session stands, seen from one end."""

    ONLINE = "online"  # a link carries it
    SUSPECT = "suspect"  # card: the link is silent, others are dialled beside it
    CUT = "cut"  # no link; records wait
    RESUMING = "resuming"  # card: a new link is asked to carry it, the old one is read no more
    ENDED = "ended"  # said goodbye, or can't be resumed


_ONLINE: Final = State.ONLINE  # asked for with each write; to hash a member costs a call
_SUSPECT: Final = State.SUSPECT


class Event(enum.StrEnum):
    """What happens to a session."""

    SILENT = "silent"  # nothing heard for the suspect time
    HEARD = "heard"  # something came after all
    LOST = "lost"  # the link closed, broke, was silent for the dead time, or its path changed
    ASKED = "asked"  # card: the resume request goes out over a new link; hub: it came
    ANSWERED = "answered"  # the hub's numbers came
    REFUSED = "refused"  # the hub has not what is missing, or no such session
    BYE = "bye"  # either end left, or its time is over


CARD_MOVES: Final[dict[tuple[State, Event], State]] = {
    (State.ONLINE, Event.SILENT): State.SUSPECT,
    (State.ONLINE, Event.LOST): State.CUT,
    (State.ONLINE, Event.BYE): State.ENDED,
    (State.SUSPECT, Event.HEARD): State.ONLINE,
    (State.SUSPECT, Event.LOST): State.CUT,
    (State.SUSPECT, Event.ASKED): State.RESUMING,
    (State.SUSPECT, Event.BYE): State.ENDED,
    (State.CUT, Event.ASKED): State.RESUMING,
    (State.CUT, Event.BYE): State.ENDED,
    (State.RESUMING, Event.ASKED): State.RESUMING,
    (State.RESUMING, Event.LOST): State.CUT,
    (State.RESUMING, Event.ANSWERED): State.ONLINE,
    (State.RESUMING, Event.REFUSED): State.ENDED,
    (State.RESUMING, Event.BYE): State.ENDED,
}
HUB_MOVES: Final[dict[tuple[State, Event], State]] = {
    (State.ONLINE, Event.LOST): State.CUT,
    (State.ONLINE, Event.ASKED): State.ONLINE,
    (State.ONLINE, Event.BYE): State.ENDED,
    (State.CUT, Event.ASKED): State.ONLINE,
    (State.CUT, Event.BYE): State.ENDED,
}


@dataclass(slots=True)
class Ledger:
    """What became of every record, at one end. Frames that are no records yet (in a queue, in the TAP) are not here."""

    sent: int = 0  # given to a link for the first time
    acknowledged: int = 0
    replayed: int = 0  # given to a link once more
    received: int = 0  # each once
    cuts: int = 0
    resumes: int = 0
    lost: int = 0  # sent in a session that could not be resumed, never acknowledged: they may have arrived or not
    dropped: Counter[str] = field(default_factory=Counter)  # by reason; never became a record

    def row(self, waiting: int) -> dict[str, Any]:
        """As shown by commands and pages. `waiting`: records kept that are not acknowledged."""
        return {
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "waiting": waiting,
            "replayed": self.replayed,
            "received": self.received,
            "cuts": self.cuts,
            "resumes": self.resumes,
            "lost": self.lost,
            "dropped": dict(self.dropped),
        }


class Stale(PeerViolation):
    """A resume that was overtaken by a newer one; nothing has changed."""


class CannotResume(PeerViolation):
    """What the other end lacks is not held any more, so this session is over. `numbers` say why."""

    def __init__(self, numbers: Numbers, asked: int) -> None:
        super().__init__(
            N_("the card asks for records from {asked} on, but the hub holds {first} to {end}"),
            asked=asked,
            first=numbers.first,
            end=numbers.end,
        )
        self.numbers = numbers


@dataclass(frozen=True, slots=True)
class Saved:
    """A session's numbers and records as a value, to go on with in another process."""

    have: int
    attempt: int
    kept: Kept
    ledger: dict[str, Any]


class Machine:
    """One end. The owner calls what happens, and writes what `take` and `ack` give to the link that `link` names."""

    __slots__ = ("_ack_at", "_ack_bytes", "_moves", "attempt", "have", "ledger", "link", "out", "state")

    def __init__(self, moves: dict[tuple[State, Event], State], link: int) -> None:
        """A session that has just been opened over `link`. `moves`: CARD_MOVES or HUB_MOVES."""
        self._moves = moves
        self.state = State.ONLINE
        self.link: int | None = link  # that carries the session, or is asked to
        self.attempt = 0  # of the last resume that was asked for
        self.have = 0  # records received; the number of the next
        self.out = ReplayBuffer()
        self.ledger = Ledger()
        self._ack_bytes = 0  # received since we said last how far we got
        self._ack_at: float | None = None

    # -- both ends ------------------------------------------------------------------------------------------------

    def carries(self, link: int) -> bool:
        """Do bytes of `link` belong to this session now?"""
        return link == self.link and (self.state is _ONLINE or self.state is _SUSPECT)

    def send(self, data: bytes, records: int) -> None:
        """An encoded batch to be carried, now or later. The owner bounds it by `out.bytes`."""
        self.out.append(data, records)

    def take(self, limit_bytes: int) -> bytes:
        """What to write to the link next, at most about `limit_bytes`; b"" if nothing."""
        if self.state is not _ONLINE and self.state is not _SUSPECT:
            return b""
        before, cursor = self.out.high, self.out.cursor
        data = self.out.take(limit_bytes)
        fresh = self.out.high - before
        self.ledger.sent += fresh
        self.ledger.replayed += self.out.cursor - cursor - fresh
        return data

    def received(self, records: int, size: int, now: float) -> None:
        """Complete records, `size` bytes in all, came over the link that carries the session."""
        if not records:  # a `have` alone must not be answered by a `have`, or two idle ends never rest
            return
        self.have += records
        self.ledger.received += records
        self._ack_bytes += size
        if self._ack_at is None:
            self._ack_at = now + ACK_S

    def acknowledged(self, have: int) -> None:
        """The peer's `have` came over the link that carries the session. Raises: PeerViolation."""
        self.ledger.acknowledged += self.out.acknowledge(have)

    def ack(self, now: float) -> int | None:
        """The number to send as `have` now, or None if none is due; it counts as sent."""
        if self._ack_at is None or (self._ack_bytes < ACK_BYTES and now < self._ack_at):
            return None
        return self.acknowledge()

    def acknowledge(self) -> int:
        """The number for a keep-alive; it counts as sent."""
        self._ack_bytes, self._ack_at = 0, None
        return self.have

    @property
    def ack_at(self) -> float | None:
        """When `ack` will give a number at the latest; None if nothing is to be acknowledged."""
        return self._ack_at

    def lost(self, link: int) -> bool:
        """`link` is gone. False: it was not the one that matters."""
        if link != self.link or self.state is State.ENDED:
            return False
        asked = self.state is State.RESUMING
        self._move(Event.LOST)
        self.link = None
        self._ack_bytes, self._ack_at = 0, None  # there is nobody to tell; a resume says it
        self.ledger.cuts += not asked  # else it was cut before
        return True

    def bye(self) -> None:
        """It ends on purpose, or its time is over."""
        if self.state is not State.ENDED:
            self._move(Event.BYE)
            self.link = None

    # -- card -----------------------------------------------------------------------------------------------------

    def silent(self) -> bool:
        """The link has been silent for the suspect time. True if that is news."""
        return self._moved(Event.SILENT)

    def heard(self) -> bool:
        """Something came over the link. True if it had been suspect: dials beside it are to be given up."""
        return self._moved(Event.HEARD)

    def ask(self, link: int) -> Resume | None:
        """A new `link` has come so far that it can be asked. None: the old one works, close the new one.

        The old link must not be read any more from here on, whatever becomes of the new one.
        """
        if (self.state, Event.ASKED) not in self._moves:
            return None
        self.ledger.cuts += self.state is State.SUSPECT  # it was cut, only that nobody said so
        self._move(Event.ASKED)
        self.link = link
        self.attempt += 1
        return Resume(self.attempt, self.acknowledge())

    def answered(self, link: int, have: int) -> int | None:
        """The hub goes on over `link`; gives how many records it gets once more. None: not the link that was asked.

        Raises: PeerViolation: it claims what it can't have; the session is over.
        """
        if link != self.link or self.state is not State.RESUMING:
            return None
        if not self.out.holds(have):
            self.refused(link)
            raise PeerViolation(
                N_("the hub wants records from {have} on, but the card holds {first} to {end}"),
                have=have,
                first=self.out.first,
                end=self.out.high,
            )
        self._move(Event.ANSWERED)
        return self._go_on(have)

    def refused(self, link: int) -> bool:
        """The hub knows no such session any more, or can't go on with it. False: not the link that was asked."""
        if link != self.link or self.state is not State.RESUMING:
            return False
        self._move(Event.REFUSED)
        self.link = None
        return True

    def succeed(self, link: int) -> "Machine":
        """A session logged in afresh over `link` after this one: what was never sent goes on in it.

        What was sent and not acknowledged is not sent again (the hub may have had it): it is counted as lost.
        """
        heir = Machine(self._moves, link)
        heir.ledger = self.ledger
        self.ledger.lost += self.out.high - self.out.first
        for batch in self.out.never_sent():
            heir.out.append(batch.data, batch.records)
        return heir

    # -- hub ------------------------------------------------------------------------------------------------------

    def asked(self, link: int, resume: Resume) -> int:
        """A card asks to go on over `link`; the owner has let go of the old link *before* calling this.

        Gives our own `have`, to be answered with.

        Raises:
            Stale: a newer attempt was taken before; ignore this one.
            CannotResume: the session is over.
        """
        self.check(resume)
        self.ledger.cuts += self.state is State.ONLINE  # it was cut, only that nobody here noticed
        self._move(Event.ASKED)
        self.link = link
        self.attempt = resume.attempt
        self._go_on(resume.have)
        return self.acknowledge()

    def check(self, resume: Resume) -> None:
        """Could `asked` be answered? Changes nothing. Raises as `asked` does."""
        if resume.attempt <= self.attempt or self.state is State.ENDED:
            raise Stale(
                N_("resume attempt {attempt} came after attempt {last}"), attempt=resume.attempt, last=self.attempt
            )
        if not self.out.holds(resume.have):
            raise CannotResume(Numbers(self.attempt, self.have, self.out.first, self.out.high), resume.have)

    def lose(self, reason: str) -> None:
        """Let go of every record (there is no memory for them): a card that lacks some can't resume any more."""
        self.ledger.lost += self.out.high - self.out.first
        self.ledger.dropped[reason] += self.out.end - self.out.high
        self.out.clear()

    # -- another process ------------------------------------------------------------------------------------------

    def save(self) -> Saved:
        """Numbers and records; the owner has let go of the link before."""
        return Saved(self.have, self.attempt, self.out.keep(), self.ledger.row(0))

    @classmethod
    def restore(cls, moves: dict[tuple[State, Event], State], saved: Saved) -> "Machine":
        """Go on with a saved session, which has no link."""
        machine = cls(moves, 0)
        machine.state, machine.link = State.CUT, None
        machine.have = saved.have
        machine.attempt = saved.attempt
        machine.out = ReplayBuffer(saved.kept)
        row = {name: value for name, value in saved.ledger.items() if name != "waiting"}
        machine.ledger = Ledger(**{**row, "dropped": Counter(row["dropped"])})
        return machine

    # -- inside ---------------------------------------------------------------------------------------------------

    def _go_on(self, have: int) -> int:
        released = have - self.out.first
        again = self.out.rewind(have)
        self.ledger.acknowledged += released
        self.ledger.resumes += 1
        return again

    def _moved(self, event: Event) -> bool:
        if (self.state, event) not in self._moves:
            return False
        self._move(event)
        return True

    def _move(self, event: Event) -> None:
        self.state = self._moves[self.state, event]
