"""A session that outlives its links: `session.machine` joined with the link that carries it at the moment.

Frames from the TAP become records of the machine; it keeps them until the hub has them, and gives to the link what that
one still needs. While the link is cut, silent or stalled the TAP is read on, up to the bound (D8), also until what
waited then has gone out; else only as fast as the link takes (D12).

The interface's queue in the kernel counts frames, whatever their size: of super-frames it would hold tens of MiB, in
front of every ping. So while such come it is always read to its end, and what has to wait does so here, in a
`FlowQueue` bounded in bytes, before it becomes a record. Other frames wait in the kernel, where that costs least.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from ukihashi.card.flows import FlowQueue
from ukihashi.card.link import Link
from ukihashi.card.messages import Settings
from ukihashi.card.tally import Tally
from ukihashi.card.tunnel import chance, silence
from ukihashi.errors import N_, DialError, Refused, UkihashiError
from ukihashi.ether.offload import NONE, Kind
from ukihashi.ether.segment import finish_all
from ukihashi.session.catch_up import CatchUp
from ukihashi.session.machine import Machine, State
from ukihashi.session.replay import ReplayBuffer
from ukihashi.session.timers import KEEPALIVE_S, Health, KeepAlive, Liveness
from ukihashi.tap.device import Batch
from ukihashi.wire.blocks import BlockDecoder, encode_frames
from ukihashi.wire.constants import Code, sentence
from ukihashi.wire.extension import (
    MAX_PADDING,
    Blocked,
    Bye,
    Have,
    PeerOptions,
    Reason,
    encode_bye,
    encode_have,
    encode_have_keepalive,
    encode_options,
)

WRITE: Final = 128 * 1024  # bytes of one TLS write, at most about that
QUEUE: Final = 1 << 20  # bytes that wait before they become records, while the link is full
AHEAD: Final = 512 * 1024  # bytes that have reached the hub's machine and that the hub has not read yet
LONG_S: Final = 1.0  # after the last super-frame frames count as usual ones again
STALL_S: Final = 0.3  # seconds between two looks at a full link

_ONLINE: Final = State.ONLINE  # asked for in each turn; to hash a member costs a call
_SUSPECT: Final = State.SUSPECT


class ExactSession:
    """See `tunnel.Tunnel` for what the loop calls."""

    def __init__(
        self, machine: Machine, link: Link, tally: Tally, settings: Settings, now: float, kinds: Kind = NONE
    ) -> None:
        """`kinds`: of super-frames that may go either way."""
        self.machine: Final = machine
        self.path: Final = None
        self.blocked_by: str | None = None  # the hub lets no frame pass, because of a loop with that port
        self.link: Link | None = None
        self._tally = tally
        self._settings = settings
        self._kinds: Final = kinds
        self._catch_up = CatchUp()
        self._stalled = False  # the link takes nothing
        self._queue = FlowQueue(QUEUE)
        self._long_until = now  # super-frames come
        self._given = self._read = 0  # bytes over this link, and of them those that the hub has acknowledged
        self._marks = deque[tuple[int, int]]()  # record number, and the bytes given before it
        self.go_on(link, now)

    # -- links ----------------------------------------------------------------------------------------------------

    def go_on(self, link: Link, now: float) -> None:
        """`link` carries the session from here on."""
        self.link = link
        self._decoder = BlockDecoder(extended=True, super_frames=bool(self._kinds))
        self._every = KEEPALIVE_S  # of the hub's silence at most, unless it says otherwise over this link
        self._look_at = now  # when to look whether a full link is stalled
        self._given = self._read = 0
        self._marks.clear()
        self._begin_catch_up()
        self._keepalive = KeepAlive(now, interval=self._settings.keepalive)
        self._liveness = self._law(now)
        if self._settings.keepalive != KEEPALIVE_S:
            self._tell_options(link)

    def ask(self, link: Link) -> bool:
        """Let `link` take over, if it is needed. The link before must have been let go."""
        resume = self.machine.ask(link.number)
        if resume is None:
            return False
        self.link = link
        link.ask(resume)
        return True

    def lost(self, link: Link) -> None:
        """`link`, which carried the session or was asked to, is gone."""
        self._keep_all()
        self.machine.lost(link.number)
        self.link = None

    def succeed(self, number: int, kinds: Kind) -> Machine:
        """For a fresh session over link `number` that grants `kinds`: what no link was given goes on in it."""
        self._keep_all()
        heir = self.machine.succeed(number)
        if self._kinds & ~kinds:
            kept, heir.out = heir.out.never_sent(), ReplayBuffer()
            for batch in kept:
                frames = finish_all(BlockDecoder(extended=True, super_frames=True).feed(batch.data), kinds)
                heir.send(encode_frames(frames), len(frames))
        return heir

    @property
    def is_over(self) -> bool:
        """No link can carry it any more."""
        return self.machine.state is State.ENDED

    @property
    def links(self) -> Sequence[Link]:
        return () if self.link is None else (self.link,)

    def lane(self, link: Link) -> "ExactSession | None":
        """There is one link only, so its lane is the session itself."""
        return self if link is self.link else None

    # -- frames ---------------------------------------------------------------------------------------------------

    @property
    def hungry(self) -> bool:
        if self.machine.out.bytes + self._queue.bytes >= self._settings.buffer or self.is_over:
            return False
        return self._long_until > 0 or self._reads_on or not self._busy

    @property
    def to_the_end(self) -> bool:
        """The interface's queue is to be read until it is empty: what it holds may be long."""
        return self._long_until > 0

    @property
    def pending(self) -> bool:
        out = self.machine.out
        return (out.end > out.cursor or self._queue.frames > 0) and self._is_carried and not self._is_ahead

    @property
    def _reads_on(self) -> bool:
        """What waits becomes records at once, to outlive the link; it would be lost in the interface's queue."""
        machine, out = self.machine, self.machine.out
        if machine.state is not _ONLINE or self.link is None or self._stalled:
            return True
        return self._catch_up.lasts(out.cursor, out.end)

    @property
    def _busy(self) -> bool:
        """The link has enough for now."""
        out = self.machine.out
        return out.end > out.cursor or self.link is None or self.link.backlog > 0 or self._is_ahead

    @property
    def _is_carried(self) -> bool:
        """There is a link that carries it."""
        state = self.machine.state
        return state is _ONLINE or state is _SUSPECT

    @property
    def _is_ahead(self) -> bool:
        """The hub's machine holds more than the hub can read soon; more would only wait there, behind each other."""
        unread = self._given - self._read
        return unread >= AHEAD and self.link is not None and unread - self.link.unsent >= AHEAD

    def send(self, frames: Sequence[bytes], now: float) -> Link | None:  # noqa: ARG002 - as every tunnel
        self._keep_all()
        self.machine.send(encode_frames(frames), len(frames))
        return self.link

    def send_batch(self, batch: Batch, now: float) -> Link | None:
        """As `send`, of frames that are encoded already and not yet counted. None: nothing is new for the link."""
        if not batch.frames:
            self._tally.batch(batch)
            return None
        if batch.long:
            self._long_until = now + LONG_S
        elif now >= self._long_until:
            self._long_until = 0
        if self._reads_on:
            self._keep_all()
        elif self._queue.frames or (self._long_until > 0 and self._busy):
            dropped = self._queue.dropped
            self._tally.oversized += batch.unfit
            self._queue.put(batch.data)
            self._tally.crowded += self._queue.dropped - dropped
            return self.link
        self._keep(batch)
        return self.link

    def _keep(self, batch: Batch) -> None:
        self._tally.batch(batch)
        self.machine.send(batch.data, batch.frames)

    def _keep_all(self) -> None:
        """What waits becomes records now."""
        while self._queue.frames:
            self._keep(self._queue.take(WRITE))

    def pump(self, now: float) -> None:
        link, machine = self.link, self.machine
        if link is None or not self._is_carried or link.backlog:
            return
        out, ahead = machine.out, self._is_ahead
        if self._stalled and not ahead:
            self._begin_catch_up()
        have, data = machine.ack(now), b""
        if not ahead and (self._queue.frames or out.end > out.cursor):
            before = out.cursor
            if before == out.end:
                self._keep(self._queue.take(WRITE // 2))
            data = machine.take(WRITE)
            self._tally.written(out.cursor - before)
            self._given += len(data)
            self._marks.append((out.cursor, self._given))
        if have is not None:
            data = encode_have(have) + data
        if data:
            link.write(data)
            self._keepalive.sent(now)
            self._look_at = now + STALL_S

    def receive(self, plain: bytes, now: float) -> list[bytes]:
        decoder = self._decoder
        keepalives, super_frames = decoder.keepalives, decoder.super_frames
        frames = decoder.feed(plain)
        self.machine.received(len(frames), len(plain), now)
        self._tally.keepalives_in += decoder.keepalives - keepalives
        if decoder.super_frames != super_frames:
            frames = self._tally.checked(frames, self._kinds)
        return self._tally.inward(frames)

    def obey(self, now: float) -> None:
        controls = self._decoder.controls
        if not controls:
            return
        self._decoder.controls = []
        for control in controls:
            match control:
                case Have(number):
                    self.machine.acknowledged(number)
                    while self._marks and self._marks[0][0] <= number:
                        self._read = self._marks.popleft()[1]
                case PeerOptions(milliseconds):
                    self._every = milliseconds / 1000
                    self._liveness = self._law(now - self._liveness.silent_for(now))
                case Blocked(because):
                    self.blocked_by = because
                case Bye():
                    self.machine.bye()
                    raise _said(control)

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def due_at(self) -> float:
        link, machine = self.link, self.machine
        if link is None or not self._is_carried:
            return float("inf")
        due = min(self._keepalive.due_at, self.silent_at)
        if (link.backlog or self._is_ahead) and not self._stalled:
            due = min(due, self._look_at)
        if link.backlog:
            return due
        return due if machine.ack_at is None else min(due, machine.ack_at)

    @property
    def silent_at(self) -> float:
        suspect = self.machine.state is State.SUSPECT
        return self._liveness.dead_at if suspect else self._liveness.suspect_at

    def heard(self, now: float) -> None:
        """A byte came over the link that carries the session."""
        self._liveness.heard(now)
        if self.machine.heard():
            self._begin_catch_up()

    def looks_silent(self, now: float) -> bool:
        return self._is_carried and self._liveness.health(now) is not Health.ALIVE

    def tick(self, now: float) -> None:
        link, machine = self.link, self.machine
        if link is None or not self._is_carried:
            return
        match self._liveness.health(now):
            case Health.DEAD:
                raise silence(self._liveness.silent_for(now))
            case Health.SUSPECT:
                machine.silent()
        if (link.backlog or self._is_ahead) and now >= self._look_at:
            self._stalled = link.is_stalled if link.backlog else True  # nothing read for so long
            self._look_at = now + STALL_S
        if self._keepalive.is_due(now):
            if not link.backlog:  # else the hub will hear from us as soon as anything gets through
                padding = chance.randbytes(chance.randrange(MAX_PADDING + 1))
                link.write(encode_have_keepalive(machine.acknowledge(), padding))
                self._tally.keepalives_out += 1
            self._keepalive.sent(now)
        self.pump(now)

    def apply(self, settings: Settings, now: float) -> None:
        before, self._settings = self._settings, settings
        self._liveness = self._law(now - self._liveness.silent_for(now))
        if settings.keepalive != before.keepalive:
            self._keepalive = KeepAlive(now, interval=settings.keepalive)
            if self.link is not None and self._is_carried:
                self._tell_options(self.link)

    def counted(self) -> dict[str, Any]:
        out = self.machine.out
        return {
            "ledger": self.machine.ledger.row(out.end - out.first + self._queue.frames),
            "waiting_bytes": out.bytes + self._queue.bytes,
        }

    def leave(self) -> None:
        if self.link is not None and self._is_carried:
            self.link.write(encode_bye(Bye(Reason.LEFT)))
        self.machine.bye()

    def _begin_catch_up(self) -> None:
        self._stalled = False
        self._catch_up.begin(self.machine.out.cursor, self.machine.out.end)

    def _law(self, heard: float) -> Liveness:
        """A hub that speaks seldom is given time: twice its period, three times."""
        dead = max(self._settings.dead, 3 * self._every)
        return Liveness(heard, dead=dead, suspect=min(max(self._settings.suspect, 2 * self._every), dead))

    def _tell_options(self, link: Link) -> None:
        link.write(encode_options(PeerOptions(round(self._settings.keepalive * 1000))))


def _said(bye: Bye) -> UkihashiError:
    """The hub ended the session on purpose: what to tell, and what `retry_rule` goes by."""
    match bye.reason:
        case Reason.STOPPING:
            return DialError(N_("the hub's program ends; it is tried again until it is back"))
        case Reason.OFFLINE:
            return Refused(sentence(Code.HUB_STOPPING), code=Code.HUB_STOPPING)
        case Reason.REMOVED:
            return Refused(sentence(Code.SESSION_REMOVED), code=Code.SESSION_REMOVED)
        case _:
            return DialError(N_("the hub ended the session"))
