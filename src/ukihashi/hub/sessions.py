"""All virtual hubs of a worker and the sessions in them: who may begin one, who has it, and all of them as values."""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from ukihashi.hub.connection import Connection
from ukihashi.hub.grant import member, refusal, welcome
from ukihashi.hub.guard_reports import GuardReports
from ukihashi.hub.guarding import Guarding
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Deadlines, Loop
from ukihashi.hub.memory import ResumeMemory
from ukihashi.hub.messages import (
    Caught,
    HubPut,
    LeasesPut,
    LoginAnswered,
    SessionClosed,
    SessionCut,
    SessionOpened,
    SessionResumed,
    Traffic,
)
from ukihashi.hub.ports import Outbox, VirtualHub
from ukihashi.hub.resumable import BURST_S, ResumableSession
from ukihashi.hub.saved import Member, SavedSession
from ukihashi.hub.session import Session
from ukihashi.hub.udp import UdpSockets
from ukihashi.wire.constants import Code
from ukihashi.wire.extension import Reason
from ukihashi.wire.messages import Login, Welcome

if TYPE_CHECKING:
    from ukihashi.hub.lan_service import Services

CONNECTION: Final = "CID-"  # before the number in a connection's name

# Tells control; False: there is none at the moment.
Tell = Callable[[SessionOpened | SessionClosed | SessionCut | SessionResumed | Traffic | Caught], bool]
MakeHub = Callable[[HubPut, Outbox], VirtualHub]


class Sessions:
    """All virtual hubs of a worker and the sessions in them."""

    def __init__(self, loop: Loop, limits: Limits, outbox: Outbox, tell: Tell) -> None:
        self.make_hub: MakeHub = VirtualHub
        self.reports = GuardReports(loop, tell)
        self.services: Services | None = None  # addresses and names
        self.guarding = Guarding(loop)
        self.worker, self.workers = 0, 1  # which of how many this is
        self.loop = loop
        self.limits = limits
        self.memory = ResumeMemory(limits.resume_memory)
        self.bursts = Deadlines[ResumableSession](BURST_S)  # those whose card brings what it has kept, it seems
        self.udp = UdpSockets(loop, limits)
        self.outbox = outbox
        self.tell = tell
        self.hubs: dict[str, VirtualHub] = {}  # by name without regard to case
        self._by_name: dict[tuple[str, str], Session] = {}  # hub (casefolded), session name
        # by digest of the key, so that the time of a look-up says nothing about a key
        self._by_key: dict[bytes, Session] = {}
        self._connections_so_far = 0  # numbers given to connections
        self._on_report()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_name.values()))

    def set_limits(self, limits: Limits) -> None:
        """Other bounds and times, for sessions that exist too."""
        self.limits = limits
        self.memory.limit = limits.resume_memory
        self.udp.limits = limits
        for session in self:
            session.set_limits()

    def _on_report(self) -> None:
        for session in self:
            session.report()
        self.loop.at(self.loop.now + self.limits.traffic_s, self._on_report)

    def of_hub(self, hub: str) -> list[Session]:
        """The sessions of one virtual hub."""
        return [session for (name, _), session in self._by_name.items() if name == hub.casefold()]

    def put_hub(self, settings: HubPut) -> VirtualHub:
        """Make a virtual hub, or give it other settings; going offline ends its sessions."""
        hub = self.hubs.get(settings.hub.casefold())
        if hub is None:
            hub = self.hubs[settings.hub.casefold()] = self.make_hub(settings, self.outbox)
            hub.on_caught = self.reports.look
            hub.guard = self.guarding.watch(hub)
        hub.settings = settings
        if self.services is not None:
            self.services.settle(hub)
        if not settings.online:
            for session in self.of_hub(hub.name):
                session.close("virtual hub offline", Reason.OFFLINE)
        return hub

    def put_leases(self, message: LeasesPut) -> None:
        """For the guards."""
        hub = self.hubs.get(message.hub.casefold())
        if hub is None:
            return
        guards, now = hub.switch.guards, self.loop.now
        if message.whole:
            guards.release_all()
        for address in message.gone:
            guards.release(address)
        for address, mac, left_s in message.held:
            guards.lease(address, mac, now, now + left_s)

    def remove_hub(self, name: str) -> None:
        """End its sessions and forget it."""
        hub = self.hubs.pop(name.casefold(), None)
        if hub is not None:
            if self.services is not None:
                self.services.remove(name)
            for session in self.of_hub(name):
                session.close("virtual hub deleted", Reason.OFFLINE)
            if hub.host is not None:
                hub.host.close()
            self.guarding.forget(name)

    def open(
        self, login: Login, answer: LoginAnswered, extension: int, connection: Connection
    ) -> tuple[Session, Welcome] | Code:
        """Make the session that control has allowed, or say why it can't be."""
        hub = self.hubs.get(answer.hub.casefold())
        if hub is None:
            return Code.HUB_NOT_FOUND
        if not hub.settings.online:
            return Code.HUB_STOPPING
        code = refusal(login, answer, hub, self.of_hub(hub.name))
        if code or len(self) >= self.limits.sessions:
            return code or Code.HUB_IS_BUSY
        if login.monitor_mode and self.workers > 1:  # it would not hear what stays at other workers
            return Code.MONITOR_MODE_DENIED
        so_far = hub.sessions_so_far
        if answer.number:  # control counts for all workers
            hub.sessions_so_far = answer.number - 1
        settled = member(hub, login, answer, extension, connection.peer, connection.name, self.limits)
        hub.sessions_so_far = max(so_far, hub.sessions_so_far)
        session = self._plug(hub, settled, resumes=bool(extension and login.resume))
        self.tell(
            SessionOpened(
                session.name,
                hub.name,
                settled.user,
                settled.peer,
                settled.client,
                extension,
                settled.since,
                settled.node.unique_id,
            )
        )
        udp = session.grant_udp(login.udp, connection) if login.udp is not None and not extension else None
        return session, welcome(session, udp)

    def _plug(self, hub: VirtualHub, member: Member, *, resumes: bool) -> Session:
        session = (ResumableSession if resumes else Session)(self, hub, member)
        self._by_name[hub.name.casefold(), session.name] = session
        self._by_key[digest(member.key)] = session
        return session

    def save(self) -> Iterator[SavedSession]:
        """Every session as a value, the one cut longest first; each ends here at the moment it is asked for."""
        for session in sorted(self, key=Session.cut_since):
            yield session.save()

    def restore(self, saved: SavedSession) -> Session:
        """Go on with a session of another process; give them in the order in which `save` gave them.

        A virtual hub that is not known yet is made with default settings; its own are expected to follow.
        """
        hub = self.hubs.get(saved.hub.casefold()) or self.put_hub(HubPut(saved.hub))
        hub.sessions_so_far = max(hub.sessions_so_far, saved.hub_sessions)
        number = saved.member.connection.removeprefix(CONNECTION)
        self._connections_so_far = max(self._connections_so_far, int(number) if number.isdecimal() else 0)
        if hub.guard is not None and saved.guard is not None:
            hub.guard.adopt(saved.member.session, saved.guard)
        session = self._plug(hub, saved.member, resumes=saved.resume is not None)
        session.go_on(saved)
        return session

    def find(self, key: bytes) -> Session | None:
        """The session with this key."""
        session = self.by_digest(digest(key))
        return session if session is not None and hmac.compare_digest(session.member.key, key) else None

    def by_digest(self, digest: bytes) -> Session | None:
        """The session whose key has it."""
        return self._by_key.get(digest)

    def next_connection(self) -> str:
        """A name for a connection, that none has had, nor any that began a session in another process."""
        self._connections_so_far += 1
        self._connections_so_far += (self.worker - self._connections_so_far) % self.workers
        return f"{CONNECTION}{self._connections_so_far}"

    def listed(self) -> tuple[str, ...]:
        """Names of the virtual hubs that are told to who asks."""
        return tuple(hub.name for hub in self.hubs.values() if hub.settings.listed)

    def named(self, hub: str, name: str) -> Session | None:
        """The session `name` of `hub`; with `hub` "" the first of that name in any."""
        for session in self.of_hub(hub) if hub else self:
            if session.name == name.upper():
                return session
        return None

    def forget(self, session: Session) -> None:
        """It has ended: its name and key are nobody's."""
        self._by_name.pop((session.hub.name.casefold(), session.name), None)
        self._by_key.pop(digest(session.member.key), None)


def digest(key: bytes) -> bytes:
    """Of a session's key."""
    return hashlib.sha256(key).digest()
