"""The card's data process: frames between TAP and hub, in a plain epoll loop without any right.

Started by the dialler, which keeps the rights (`data_main.py`). A frame's way out: the TAP's queue in the kernel -> one
batch of all that wait -> one encoding -> one TLS write. While the socket is full the TAP is not read: the kernel's
short queue holds what fits and drops the rest, counted there (D8, D12). What waits here are the records of an exactly
resumable session that the hub has not acknowledged, up to a bound; also while the link is cut.

One link carries an exactly resumable session; links that shall take over from it are opened beside it. The order in a
turn of the loop is what makes resume exact: what came over the old link is with the TAP before the new one is asked.
A session with a standard hub may have several links at once.
"""

import select
import socket
from typing import Final

from ukihashi.card.clock import Alarm, clock
from ukihashi.card.goodbyes import LINGER, Goodbyes
from ukihashi.card.link import Link
from ukihashi.card.messages import (
    FORGOTTEN,
    MAX_MESSAGE,
    AnyMessage,
    Apply,
    Ask,
    Asked,
    Connect,
    End,
    Failed,
    GiveUp,
    GoOn,
    Greeted,
    LoopFound,
    Lost,
    Message,
    Ready,
    Recovered,
    Settings,
    Sign,
    Signed,
    Stop,
    Suspect,
    Trouble,
    decode,
    encode,
)
from ukihashi.card.opening import Outcome
from ukihashi.card.session import ExactSession
from ukihashi.card.standard import StandardTunnel
from ukihashi.card.tally import Tally
from ukihashi.card.tunnel import Tunnel
from ukihashi.card.udp import CardLane, UdpOffered
from ukihashi.errors import N_, DialError, EnvironmentLacks, PeerViolation, Refused, UkihashiError
from ukihashi.net.link import tune
from ukihashi.session.machine import CARD_MOVES, Machine, State
from ukihashi.tap.device import BATCH
from ukihashi.tap.frame_pipe import Cable

FOREVER: Final = 3600.0  # seconds; the longest sleep of the loop

READS: Final = 16  # batches of super-frames in a turn of the loop, at most one more

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class ToldToEnd(Exception):
    """SIGTERM came."""


class DataProcess:
    """One TAP (or a hub's port), one dialler, one session, and the links that carry it or want to."""

    def __init__(self, control: socket.socket, tap: Cable) -> None:
        self._control = control
        self._tap = tap
        self._tally = Tally()
        self._poll = select.epoll()
        self._links: dict[int, Link] = {}  # by descriptor: opening, asked, or carrying
        self._writing: set[int] = set()  # descriptors that are watched for room
        self._tunnel: Tunnel | None = None
        self._suspect = False  # what the dialler was told last
        self._blocked_by: str | None = None  # the same
        self._tap_watched = False
        self._alarm = Alarm()
        self._goodbyes = Goodbyes(self._poll)
        self._running = True
        control.setblocking(False)
        self._poll.register(control.fileno(), READ)
        self._poll.register(self._alarm.fd, READ)

    def run(self) -> None:
        """Serve until told to stop or the dialler is gone; the hub has our goodbye then.

        Raises: EnvironmentLacks: the TAP was removed. The hub has our goodbye then, too.
        """
        self._tell(Ready())
        gone: EnvironmentLacks | None = None
        try:
            while self._running:
                self._turn()
        except ToldToEnd:
            pass
        except EnvironmentLacks as error:
            gone = error
        if self._tunnel is not None:
            self._tunnel.leave()
        self._finish_all()
        self._tunnel = None
        self._watch()  # the TAP no more
        last = clock() + 2 * LINGER
        while self._goodbyes and clock() < last:
            self._turn()
        self._alarm.close()
        self._poll.close()
        if gone is not None:
            raise gone

    def _turn(self) -> None:
        now = clock()
        due = self._due_at(now)
        for fd, mask in self._poll.poll(max(0.0, due - now)):
            now = clock()
            if fd == self._tap.fd:
                self._from_tap(now)
            elif fd in self._links:
                self._from_link(self._links[fd], mask, now)
            elif fd == self._control.fileno():
                self._from_dialler(now)
            elif fd in self._goodbyes:
                self._goodbyes.read(fd)
            elif fd == self._alarm.fd:
                self._alarm.rang()
            elif self._tunnel is not None and self._tunnel.path is not None and fd == self._tunnel.path.fd:
                self._from_path(self._tunnel.path, now)
        now = clock()
        if now >= due:  # what has become due since is looked after in the next turn
            self._tick(now)
        self._watch()

    def _due_at(self, now: float) -> float:
        """When `_tick` is wanted."""
        due = now + FOREVER
        if self._goodbyes:
            due = min(due, self._goodbyes.due_at)
        if self._tunnel is not None:
            due = min(due, self._tunnel.due_at)
        for link in self._links.values():
            if link.outcome is None:
                due = min(due, link.late_at)
        return due

    # -- frames ---------------------------------------------------------------------------------------------------

    def _from_tap(self, now: float) -> None:
        tunnel = self._tunnel
        if tunnel is None or not tunnel.hungry:  # lost or full since the poll; the frames wait where they are
            return
        link: Link | None = None
        if isinstance(tunnel, ExactSession) and (batch := self._tap.read_batch()) is not None:
            link = tunnel.send_batch(batch, now)
            for _ in range(READS):
                if len(batch.data) < BATCH or not tunnel.to_the_end or not tunnel.hungry:
                    break
                batch = self._tap.read_batch()
                if batch is None:
                    break
                link = tunnel.send_batch(batch, now) or link
        elif frames := self._tally.outward(self._tap.read_frames()):
            link = tunnel.send(frames, now)
        if link is not None:
            self._drive(link, now)

    def _from_link(self, link: Link, mask: int, now: float) -> None:
        try:
            if mask & ~WRITE:  # readable, or an error that reading tells
                plain = link.read(now) if link.outcome is not None else self._talk(link, now)
                if link.outcome is not None:
                    self._take(link, plain, now)
                link.check_end()
        except EnvironmentLacks:
            raise  # the TAP is gone, not the link
        except UkihashiError as error:
            self._lose(link, error)
            return
        if link.sock.fileno() in self._links:
            self._drive(link, now)

    def _from_path(self, path: CardLane, now: float) -> None:
        self._tap.write_frames(self._tally.inward(path.receive(now)))

    def _take(self, link: Link, plain: bytes, now: float) -> None:
        """Bytes of the tunnel: to the TAP first, then what else they say."""
        tunnel = self._tunnel
        lane = tunnel.lane(link) if tunnel is not None else None
        if lane is None:
            return
        if link.heard_at == now:
            lane.heard(now)
        if plain:
            try:
                frames = lane.receive(plain, now)
                if frames:
                    self._tap.write_frames(frames)
                lane.obey(now)
            except PeerViolation:
                if isinstance(tunnel, ExactSession):
                    tunnel.machine.bye()  # it would say the same after a resume
                raise

    def _drive(self, link: Link, now: float) -> None:
        """Give the link what waits for it, and the network what the link has."""
        try:
            lane = self._tunnel.lane(link) if self._tunnel is not None else None
            if lane is not None:
                lane.pump(now)
            link.flush()
        except UkihashiError as error:
            self._lose(link, error)

    def _tick(self, now: float) -> None:
        self._goodbyes.tick(now)
        for opening in [link for link in self._links.values() if link.outcome is None and now >= link.late_at]:
            try:
                opening.check_opening(now)
            except UkihashiError as error:
                self._lose(opening, error)
        tunnel = self._tunnel
        if tunnel is not None and now >= tunnel.due_at:
            if tunnel.path is not None:
                tunnel.path.tick(now)
            for link in tunnel.links:
                self._tick_link(tunnel, link, now)

    def _tick_link(self, tunnel: Tunnel, link: Link, now: float) -> None:
        lane = tunnel.lane(link)
        if lane is None:
            return
        if lane.looks_silent(now):  # if it was us who stood still, what came meanwhile lies in the socket
            self._from_link(link, READ, now)
            if link.sock.fileno() not in self._links:  # its end lay there
                return
        try:
            lane.tick(now)
        except UkihashiError as error:
            self._lose(link, error)
        else:
            self._drive(link, now)

    def _watch(self) -> None:
        """At the end of a turn: what to wait for, and what the dialler should know."""
        tunnel = self._tunnel
        if isinstance(tunnel, ExactSession):
            self._watch_state(tunnel)
        for fd, link in self._links.items():
            lane = tunnel.lane(link) if tunnel is not None else None
            wanted = link.backlog > 0 or (lane is not None and lane.pending)
            if wanted != (fd in self._writing):
                self._writing ^= {fd}
                self._poll.modify(fd, READ | WRITE if wanted else READ)
        if tunnel is not None and tunnel.links and tunnel.silent_at < self._alarm.at:
            self._alarm.set(tunnel.silent_at)  # it may ring too early: the link has spoken since; then it is set anew
        hungry = tunnel is not None and tunnel.hungry
        if hungry != self._tap_watched:
            self._tap_watched = hungry
            if hungry:
                self._poll.register(self._tap.fd, READ)
            else:
                self._poll.unregister(self._tap.fd)

    def _watch_state(self, session: ExactSession) -> None:
        link = session.link
        if session.blocked_by != self._blocked_by:
            self._blocked_by = session.blocked_by
            self._tell(LoopFound(self._blocked_by))
        suspect = session.machine.state is State.SUSPECT
        if link is None or suspect == self._suspect:
            return
        self._suspect = suspect
        if suspect:
            self._tell(Suspect(link.number))
        elif session.machine.state is State.ONLINE:
            self._finish_all(but=link)
            self._tell(Recovered(link.number))

    # -- links ----------------------------------------------------------------------------------------------------

    def _connect(self, order: Connect, sock: socket.socket, udp: UdpOffered | None, now: float) -> None:
        session = self._tunnel if isinstance(self._tunnel, ExactSession) else None
        try:
            if order.exact and (session is None or session.machine.state in {State.ONLINE, State.ENDED}):
                raise DialError(N_("this connection is not needed any more"))
            if not order.exact and not order.waits:
                self._begin_anew(order)
            tune(sock, dead_after=order.settings.dead)
            link = Link(order, sock, now, udp)
        except (UkihashiError, OSError) as error:
            sock.close()
            if udp is not None:
                udp.close()
            if isinstance(error, OSError):  # e.g. reset before we touched it
                error = DialError(N_("the connection to the hub broke: {reason}"), reason=error.strerror)
            self._tell(Failed(order.attempt, Trouble.of(error)))
            return
        self._links[sock.fileno()] = link
        self._poll.register(sock.fileno(), READ)
        self._drive(link, now)

    def _begin_anew(self, order: Connect, but: Link | None = None) -> None:
        """What there was is given up, links that are opening too, unless the order is about the session there is."""
        if not self._is_ours(order.session_key):
            self._end_session(but)

    def _go_on(self, link: Link, now: float) -> None:
        """This one it is, of those that were greeted or will be."""
        self._begin_anew(link.order, link)
        link.go_on()
        if link.challenge:
            self._tell(Sign(link.number, link.challenge))
        self._drive(link, now)

    def _is_ours(self, session_key: bytes) -> bool:
        """Does this key belong to the standard session there is?"""
        return isinstance(self._tunnel, StandardTunnel) and self._tunnel.key == session_key

    def _end_session(self, but: Link | None = None) -> None:
        """What there was is given up; an exact session stays, to be succeeded by the next."""
        self._finish_all(but=but)
        if isinstance(self._tunnel, ExactSession):
            self._tunnel.machine.bye()
            self._tunnel.link = None
        elif self._tunnel is not None:
            self._tunnel.leave()
            self._tunnel = None

    def _ask(self, link: Link, now: float) -> None:
        """The hub has greeted us over a new link: let go of the old one, then ask."""
        session = self._tunnel
        assert isinstance(session, ExactSession)  # `_connect` takes care
        if session.link is not None and session.machine.state is State.SUSPECT:
            self._from_link(session.link, READ, now)  # a last look: does it live?
        old = session.link
        if not session.ask(link):
            raise DialError(N_("this connection is not needed any more"))
        if old is not None:
            self._finish(old)  # read no more, so our number is final
        self._suspect = False
        self._tell(Asked(link.number))

    def _talk(self, link: Link, now: float) -> bytes:
        """Something of the opening talk; gives the tunnel's first bytes behind it."""
        was_challenged = bool(link.challenge)
        plain = link.read(now)
        if link.greeted and link.order.waits:
            self._tell(Greeted(link.number))
        elif link.greeted:
            self._ask(link, now)
        elif (member := link.sent_on) is not None:
            self._drive(link, now)  # our thanks
            self._finish(link)
            self._tell(member)
        elif link.challenge and not was_challenged:
            self._tell(Sign(link.number, link.challenge))
        elif link.outcome is not None:
            self._open(link, now)
        return plain

    def _open(self, link: Link, now: float) -> None:
        """The tunnel begins."""
        order, outcome, old = link.order, link.outcome, self._tunnel
        assert outcome is not None
        lost = carried = 0
        if order.exact:
            assert isinstance(old, ExactSession)
            old.machine.answered(link.number, outcome.have)
            old.go_on(link, now)
            self._finish_all(but=link)
        else:
            past = old if isinstance(old, ExactSession) else None
            if past is not None:
                lost = past.machine.out.high - past.machine.out.first
                carried = past.machine.out.end - past.machine.out.high
            self._tap.set_offload(outcome.kinds)
            if outcome.grace_s:
                machine = past.succeed(link.number, outcome.kinds) if past else Machine(CARD_MOVES, link.number)
                carried = machine.out.end
                self._tunnel = ExactSession(machine, link, self._tally, order.settings, now, outcome.kinds)
            else:
                lost, carried = lost + carried, 0
                standard = self._standard(outcome, order.settings)
                standard.add(link, outcome.direction, now)
                path = link.udp_path(now)
                if path is not None:
                    standard.path = path
                    self._poll.register(path.fd, READ)
        self._suspect = False
        self._tell(link.opened(lost=lost, carried=carried))

    def _standard(self, outcome: Outcome, settings: Settings) -> StandardTunnel:
        """The tunnel of a session without exact resume; a new one, unless it is the one there is."""
        tunnel = self._tunnel
        if not isinstance(tunnel, StandardTunnel) or tunnel.key != outcome.session_key:
            self._tunnel = tunnel = StandardTunnel(outcome, self._tally, settings)
        return tunnel

    def _lose(self, link: Link, error: UkihashiError) -> None:
        """A link is gone; what that means for the session, and what to tell."""
        number, trouble, tunnel = link.number, Trouble.of(error), self._tunnel
        self._finish(link)
        if tunnel is None or tunnel.lane(link) is None:
            self._tell(Failed(number, trouble))
            return
        self._suspect = False
        if isinstance(tunnel, StandardTunnel):
            tunnel.lost(link)
            self._tell(Lost(number, trouble, left=len(tunnel.links)))
            return
        assert isinstance(tunnel, ExactSession)
        asked = link.outcome is None
        if asked and isinstance(error, Refused) and error.code in FORGOTTEN:
            tunnel.machine.refused(number)
        tunnel.lost(link)
        self._tell((Failed if asked else Lost)(number, trouble, over=tunnel.is_over))

    def _finish(self, link: Link) -> None:
        """Say goodbye, and hear no more of what it says."""
        fd = link.sock.fileno()
        if self._links.pop(fd, None) is not None:
            link.finish()
            self._writing.discard(fd)
            self._goodbyes.add(link.sock, clock())

    def _finish_all(self, *, but: Link | None = None) -> None:
        for link in list(self._links.values()):
            if link is not but:
                self._finish(link)

    # -- the dialler ----------------------------------------------------------------------------------------------

    def _from_dialler(self, now: float) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 2)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        sockets = [socket.socket(fileno=fd) for fd in descriptors]
        message: AnyMessage = Stop() if not data else decode(data)  # no data: the dialler is gone
        match message:
            case Connect() if sockets:
                self._connect(message, sockets.pop(0), UdpOffered(sockets.pop()) if sockets else None, now)
            case GiveUp(attempt, trouble):
                for link in [link for link in self._links.values() if link.number == attempt]:
                    self._lose(link, trouble.error())
            case GoOn(attempt):
                for link in [link for link in self._links.values() if link.number == attempt and link.greeted]:
                    self._go_on(link, now)
            case Signed(attempt, signature):
                for link in [link for link in self._links.values() if link.number == attempt]:
                    link.sign(signature)
                    self._drive(link, now)
            case End(trouble):
                self._end(trouble)
            case Apply(settings):
                self._apply(settings, now)
            case Ask():
                self._tell(self._counters())
            case Stop():
                self._running = False
        for unexpected in sockets:
            unexpected.close()

    def _end(self, trouble: Trouble) -> None:
        """The dialler wants the session to end."""
        if self._tunnel is not None:
            self._tunnel.leave()
        self._end_session()
        self._tell(Lost(-1, trouble, over=True))

    def _apply(self, settings: Settings, now: float) -> None:
        if self._tunnel is not None:
            self._tunnel.apply(settings, now)
        for link in self._links.values():
            tune(link.sock, dead_after=settings.dead)

    def _counters(self) -> Message:
        tunnel = self._tunnel
        if tunnel is None:
            return self._tally.message(refused=self._tap.dropped)
        backlog = sum(link.backlog for link in tunnel.links)
        return self._tally.message(refused=self._tap.dropped, backlog=backlog, **tunnel.counted())

    def _tell(self, message: Message) -> None:
        """A dialler that does not take its few messages is as good as gone."""
        try:
            self._control.send(encode(message))
        except OSError:
            self._running = False
