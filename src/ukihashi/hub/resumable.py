"""A session between two ukihashi ends that loses nothing when its link is cut (docs/protocol.md, "Exact resume").

Frames wait in the port's queue until they become records; records are kept in `machine` until the card has them. One
connection carries it at a time. Without one it waits `grace_s` for the card, and at most `resume_buffer` bytes wait in
queue and machine together; what comes beyond that is dropped and counted.
"""

import math
import os
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ukihashi.ether.offload import MAX_SUPER_FRAME, Kind, sound
from ukihashi.hub.connection import READ_SIZE, Connection
from ukihashi.hub.messages import SessionCut, SessionResumed
from ukihashi.hub.ports import Encodings, VirtualHub
from ukihashi.hub.record_tunnel import RecordTunnel
from ukihashi.hub.saved import Member, SavedResume, SavedSession
from ukihashi.hub.session import Session
from ukihashi.hub.tunnel import Tunnel
from ukihashi.session.catch_up import CatchUp
from ukihashi.session.machine import HUB_MOVES, Machine, State
from ukihashi.switch.queue import CROWDED, PortQueue
from ukihashi.wire.constants import Direction
from ukihashi.wire.extension import (
    MAX_PADDING,
    Blocked,
    Bye,
    Numbers,
    Reason,
    Resume,
    encode_blocked,
    encode_bye,
    encode_have,
    encode_have_keepalive,
)

if TYPE_CHECKING:
    from ukihashi.hub.sessions import Sessions

# Reasons of drops at the way out, beside those of the queue.
RESUME_BUFFER: Final = "resume_buffer"  # all that may wait for this card waits already
RESUME_MEMORY: Final = "resume_memory"  # the sessions of this hub together hold all they may
ENDED: Final = "session_ended"

# At the way in, beside those of the switch: what a super-frame says that is left to do in it can't be true.
OFFLOAD_HEADER: Final = "offload_header"

STALL_S: Final = 0.3  # seconds between two looks at a full link
BURST_S: Final = 5.0  # seconds after a silence in which other members' full queues make the card wait, and drop nothing
BURST_READ: Final = 64 * 1024  # bytes of one read meanwhile, at least
PAUSE_S: Final = 0.005  # seconds of one such wait
FRAME_COST: Final = 48  # bytes of memory that a waiting frame costs beside its own


class ResumableSession(Session):
    """See the module."""

    def __init__(self, owner: "Sessions", hub: VirtualHub, member: Member) -> None:
        super().__init__(owner, hub, member)
        self._watch.cancel()  # it runs while there is no link
        self._link = 1  # number of the newest link
        self.machine = Machine(HUB_MOVES, self._link)
        self._was_heard = False  # something came over some link
        self._catch_up = CatchUp()
        self._stalled = False  # there is a link, but it takes nothing
        self._stall_watched = False
        self._waits_more = False  # the queue's bound is not the usual one
        self._burst_until = 0.0  # what the card kept comes in one go, and is taken no faster than it can be passed on
        self._arrived_at = 0.0
        self._owes_have = False  # an acknowledgement is to go out with the next write
        self._acks = False  # a timer for an acknowledgement runs
        self._kinds = Kind(member.super_frames)

    def set_limits(self) -> None:
        super().set_limits()
        if self.tunnels:
            self._bound_queue()
        else:
            self._wait_for_card()

    # -- connections ----------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Never for a connection beside the one it has: `resume` puts another in its place."""
        return False

    def resume(self, resume: Resume) -> int:
        """The card goes on over another connection, to be attached next. Gives our `have`, for the answer before.

        Raises:
            Stale: nothing has changed.
            CannotResume: nothing has changed either, but it never can.
        """
        self.machine.check(resume)
        for tunnel in list(self.tunnels):  # before any number is said: what it still brings is nobody's
            tunnel.close("replaced by a newer connection")
        self._link += 1
        return self.machine.asked(self._link, resume)

    def numbers(self) -> Numbers:
        """For a card whose resume is refused."""
        machine = self.machine
        return Numbers(machine.attempt, machine.have, machine.out.first, machine.out.high)

    def attach(self, connection: Connection, unread: bytes, direction: Direction = Direction.BOTH) -> None:
        cut_s, resumed = self._loop.now - self._cut_at, self.machine.attempt > 0
        if not connection.is_open:  # it broke under our answer
            self._cut(self._link, "connection lost")
            return
        self._watch.cancel()
        self._owner.memory.linked(self)
        self._begin_catch_up()
        self._arrived_at = 0.0
        if resumed:
            self._owner.tell(
                SessionResumed(
                    session=self.name,
                    hub=self.hub.name,
                    user=self.member.user,
                    peer=connection.peer,
                    cut_s=round(cut_s, 3),
                    again=self.machine.out.waiting,
                    at=time.time(),
                )
            )
        super().attach(connection, unread, direction)
        if resumed and self.hub.guard is not None and self.hub.guard.row(self.port)["loop"]:
            self.tell_loop(self.hub.guard.because(self.port))

    def _tunnel(self, connection: Connection, direction: Direction) -> Tunnel:  # noqa: ARG002 - it is the only one
        return RecordTunnel(self, connection, self._loop, self.limits, self._link)

    def detach(self, tunnel: Tunnel, reason: str) -> None:
        """`tunnel` is gone; the session waits for the card."""
        super().detach(tunnel, reason)
        assert isinstance(tunnel, RecordTunnel)
        self._cut(tunnel.link, reason)

    def _cut(self, link: int, reason: str) -> None:
        self._owes_have = False
        if not self.machine.lost(link) or not self.is_open:
            return
        self._wait_for_card()
        self._owner.tell(
            SessionCut(session=self.name, hub=self.hub.name, user=self.member.user, reason=reason, at=time.time())
        )

    def _wait_for_card(self) -> None:
        self._stalled = False
        self._bound_queue()
        self._owner.memory.cut(self)
        self._owner.outbox.mark(self)  # for what it holds
        self._watch.cancel()
        self._watch = self._loop.at(self._ends_at, self._on_watch)

    @property
    def _ends_at(self) -> float:
        """When a cut session is over. One that never brought anything gets no more than a standard one."""
        return self._cut_at + (self.limits.grace_s if self._was_heard else self.member.timeout_s)

    def _on_watch(self) -> None:
        self.close("its card did not come back")

    # -- from the card --------------------------------------------------------------------------------------------

    def carries(self, link: int) -> bool:
        """What comes over `link` belongs to it."""
        return self.machine.carries(link)

    def arrived(self, frames: Sequence[bytes], size: int, now: float, *, super_frames: bool = False) -> None:
        """Complete records, `size` bytes on the wire. `super_frames`: such are among them."""
        machine = self.machine
        machine.received(len(frames), size, now)
        if machine.ack(now) is not None:  # enough came; a flush for every read would cost more than it does
            self._owes_have = True
            self._owner.outbox.mark(self)
        elif not self._acks:
            self._acks = True
            self._loop.at(machine.ack_at or now, self._on_ack)
        crowded = self.take(self._sound(frames) if super_frames else frames, now)
        if self.tunnels:
            self._hold_burst(self.tunnels[-1].connection, crowded, size, now)

    def _sound(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Without super-frames that nobody must be given."""
        left = sound(frames, self._kinds)
        if len(left) < len(frames) and self.is_open:
            self.hub.switch.drops[self.port][OFFLOAD_HEADER] += len(frames) - len(left)
        return left

    def _hold_burst(self, connection: Connection, crowded: PortQueue | None, size: int, now: float) -> None:
        """What a card has kept while its link took nothing must not be lost at the other members' ports."""
        if now - self._arrived_at >= STALL_S:
            self._burst_until = now + BURST_S
        self._arrived_at = now
        bursts = now < self._burst_until
        connection.read_most = self._burst_read(connection.read_most, size, now) if bursts else READ_SIZE
        if bursts and crowded is not None:
            self._owner.outbox.then(partial(self._wait_for_room, connection, crowded))

    def _wait_for_room(self, connection: Connection, crowded: PortQueue) -> None:
        """What came in this turn has been passed on as far as the other member takes it."""
        if crowded.is_crowded and connection.is_open:
            connection.pause()
            self._loop.at(self._loop.now + PAUSE_S, partial(self._read_on, connection, crowded))

    def _burst_read(self, before: int, size: int, now: float) -> int:
        """Bytes of the next read, when one of `before` gave `size`.

        All that bring much in one turn, each with the end of a frame from before, fit into a queue not yet crowded.
        """
        if self._owner.workers > 1:  # another worker says what is crowded when frames come, not when they have gone
            return BURST_READ
        bursts = self._owner.bursts
        bursts.pop_expired(now)
        if size >= BURST_READ // 4 and self not in bursts:
            bursts.restart(self, now)
        left = self.limits.queue_bytes - self.limits.queue_bytes // CROWDED
        share = left // max(len(bursts), 1) - MAX_SUPER_FRAME
        return max(min(2 * before, share, READ_SIZE), BURST_READ)

    def _read_on(self, connection: Connection, crowded: PortQueue) -> None:
        """The burst goes on when there is room again, or has taken too long."""
        now = self._loop.now
        if crowded.is_crowded and now < self._burst_until and connection.is_open:
            self._loop.at(now + PAUSE_S, partial(self._read_on, connection, crowded))
        else:
            self._arrived_at = now  # the silence was ours
            connection.resume()

    def heard_first(self) -> None:
        """Something came over a link."""
        self._was_heard = True

    def acknowledged(self, have: int) -> None:
        """The card holds every record before `have`. Raises: PeerViolation."""
        self.machine.acknowledged(have)
        self._owner.outbox.mark(self)  # there is room again, and memory

    def left(self, bye: Bye) -> None:
        """The card says goodbye."""
        self.machine.bye()
        self.close("the card left" + (f": {bye.text}" if bye.text else ""))

    # -- to the card ----------------------------------------------------------------------------------------------

    def can_write(self) -> None:
        self._owner.outbox.mark(self)

    def flush(self, encodings: Encodings) -> bool:
        """One write of records and acknowledgement. True if more could go at once."""
        if not self.is_open:  # it was marked, then ended
            return False
        tunnel = self._writable()
        if tunnel is not None:
            more = self._write(tunnel, encodings)
        else:
            more = False
            self._watch_stall()
        self._owner.memory.hold(self, self.held)
        return more

    @property
    def held(self) -> int:
        """Bytes that are kept for the card."""
        waits = self.queue.bytes
        return self.machine.out.bytes + (waits + FRAME_COST * len(self.queue) if waits else 0)

    def keepalive(self) -> bytes:
        """A keep-alive, which acknowledges too."""
        self._owes_have = False
        return encode_have_keepalive(self.machine.acknowledge(), os.urandom(secrets.randbelow(MAX_PADDING + 1)))

    def _write(self, tunnel: Tunnel, encodings: Encodings) -> bool:
        machine, now = self.machine, self._loop.now
        if self._stalled:
            self._begin_catch_up()
        if self._has_new_records():
            machine.send(*self._next_batch(encodings))
        if self._waits_more:
            self._bound_queue()
        data = machine.take(self.limits.batch_bytes)
        if machine.ack(now) is not None or self._owes_have:  # it may have waited for room: how far we got by now
            self._owes_have = False
            data = encode_have(machine.acknowledge()) + data
        if not data:
            return False
        self.count.tls_writes += 1
        tunnel.write(data, now)
        return (machine.out.waiting > 0 or self._has_new_records()) and tunnel.is_writable

    def _has_new_records(self) -> bool:
        """Frames may become records: when all older records are under way, and there is room to keep more."""
        if not self.queue.bytes:
            return False
        out = self.machine.out
        return not out.waiting and (
            not out.bytes or (out.bytes < self.limits.resume_buffer and self._owner.memory.has_room)
        )

    def _bound_queue(self) -> None:
        """While the link is away or stalled, and until what waited then has gone out, more may wait than usual."""
        limits, out = self.limits, self.machine.out
        if self.machine.state is State.CUT:
            usual, self._waits_more = 0, True
        else:
            usual = limits.queue_bytes
            self._waits_more = self._stalled or self._catch_up.lasts(out.cursor, out.end + len(self.queue))
        if self._waits_more:
            self.queue.bound(max(usual, limits.resume_buffer - out.bytes), RESUME_BUFFER)
        else:
            self.queue.bound(usual)

    def _begin_catch_up(self) -> None:
        out = self.machine.out
        self._stalled = False
        self._catch_up.begin(out.cursor, out.end + len(self.queue))
        self._bound_queue()

    def _watch_stall(self) -> None:
        """The link is full. If it takes nothing at all, that is the beginning of a cut (D8), not a slow line (D12)."""
        if self.tunnels and not self._stalled and not self._stall_watched:
            self._stall_watched = True
            self._loop.at(self._loop.now + STALL_S, self._on_stall)

    def _on_stall(self) -> None:
        self._stall_watched = False
        if self.is_open and self.tunnels and self._writable() is None:
            self._stalled = self.tunnels[-1].connection.is_stalled
            self._bound_queue()
            self._watch_stall()

    def _on_ack(self) -> None:
        """The one timer for acknowledgements; most go out earlier, beside other data or for their bytes."""
        at = self.machine.ack_at
        self._acks = at is not None
        if at is not None and at > self._loop.now:
            self._loop.at(at, self._on_ack)
        elif at is not None:
            self._acks = False
            self._owner.outbox.mark(self)

    def shed(self) -> int:
        """There is no memory: first what waits in the queue goes, then every record."""
        self.queue.bound(0, RESUME_MEMORY)
        if self.queue:
            self.queue.clear(RESUME_MEMORY)
        else:
            self.machine.lose(RESUME_MEMORY)
        return self.held

    def tell_loop(self, because: str | None) -> None:
        """The port is blocked because of another, or open again (None): its card hears so, now or when it is back."""
        for tunnel in self.tunnels:
            tunnel.write(encode_blocked(Blocked(because)), self._loop.now)

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self, reason: str, why: Reason = Reason.LEFT) -> None:
        """As any session; a card that has a link hears why, and will not try to resume."""
        if not self.is_open:
            return
        if self.machine.state is not State.ENDED:
            for tunnel in self.tunnels:
                tunnel.write(encode_have(self.machine.acknowledge()) + encode_bye(Bye(why, reason)), self._loop.now)
            self.queue.clear(ENDED)
            self.machine.lose(ENDED)
            self.machine.bye()
        super().close(reason, why)

    def _leave(self, reason: str) -> None:
        super()._leave(reason)
        self._owner.memory.forget(self)
        self._owner.bursts.drop(self)

    # -- another process ------------------------------------------------------------------------------------------

    def save(self) -> SavedSession:
        cut_s = 0.0 if self.tunnels else self._loop.now - self._cut_at
        saved = super().save()
        return replace(saved, resume=SavedResume(self.machine.save(), cut_s, self._was_heard))

    def go_on(self, saved: SavedSession) -> None:
        assert saved.resume is not None
        self.machine = Machine.restore(HUB_MOVES, saved.resume.machine)
        self._was_heard = saved.resume.heard
        self._cut_at = self._loop.now - saved.resume.cut_s
        self._wait_for_card()
        super().go_on(saved)

    # -- what is told of it ---------------------------------------------------------------------------------------

    @property
    def drops(self) -> Counter[str]:
        return super().drops + self.machine.ledger.dropped

    @property
    def lost(self) -> int:
        return self.machine.ledger.lost

    def row(self, now: float) -> dict[str, Any]:
        out = self.machine.out
        return {
            **super().row(now),
            "resumes": self.machine.ledger.resumes,
            "waiting_bytes": out.bytes + self.queue.bytes,
            "ledger": {**self.machine.ledger.row(out.end - out.first), "dropped": dict(self.drops)},
        }

    @property
    def granted_s(self) -> int:
        """The grace as the welcome says it."""
        return math.ceil(self.limits.grace_s)
