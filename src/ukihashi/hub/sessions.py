"""All virtual hubs of a worker and the sessions in them: who may begin one, who has it, and all of them as values."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final

from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop
from ukihashi.hub.memory import ResumeMemory
from ukihashi.hub.messages import HubPut, LoginAnswered, SessionClosed, SessionCut, SessionOpened, SessionResumed
from ukihashi.hub.ports import Outbox, VirtualHub
from ukihashi.hub.resumable import ResumableSession
from ukihashi.hub.saved import Member, SavedSession
from ukihashi.hub.session import Session
from ukihashi.wire.constants import MAX_SESSION_TIMEOUT_S, MIN_SESSION_TIMEOUT_S, SESSION_KEY_LENGTH, Code
from ukihashi.wire.extension import Reason
from ukihashi.wire.messages import Login, Welcome

BRIDGE_WORDS: Final = ("server", "bridge")  # in a client's name: it bridges (section 9.1, trap T18)

Tell = Callable[[SessionOpened | SessionClosed | SessionCut | SessionResumed], object]


class Sessions:
    """All virtual hubs of a worker and the sessions in them."""

    def __init__(self, loop: Loop, limits: Limits, outbox: Outbox, tell: Tell) -> None:
        self.loop = loop
        self.limits = limits
        self.memory = ResumeMemory(limits.resume_memory)
        self.outbox = outbox
        self.tell = tell
        self.hubs: dict[str, VirtualHub] = {}  # by name without regard to case
        self._by_name: dict[tuple[str, str], Session] = {}  # hub (casefolded), session name
        # by digest of the key, so that the time of a look-up says nothing about a key
        self._by_key: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_name.values()))

    def set_limits(self, limits: Limits) -> None:
        """Other bounds and times, for sessions that exist too."""
        self.limits = limits
        self.memory.limit = limits.resume_memory
        for session in self:
            session.set_limits()

    def of_hub(self, hub: str) -> list[Session]:
        """The sessions of one virtual hub."""
        return [session for (name, _), session in self._by_name.items() if name == hub.casefold()]

    def put_hub(self, settings: HubPut) -> VirtualHub:
        """Make a virtual hub, or give it other settings; going offline ends its sessions."""
        hub = self.hubs.get(settings.hub.casefold())
        if hub is None:
            hub = self.hubs[settings.hub.casefold()] = VirtualHub(settings, self.outbox)
        hub.settings = settings
        if not settings.online:
            for session in self.of_hub(hub.name):
                session.close("virtual hub offline", Reason.OFFLINE)
        return hub

    def remove_hub(self, name: str) -> None:
        """End its sessions and forget it."""
        hub = self.hubs.pop(name.casefold(), None)
        if hub is not None:
            for session in self.of_hub(name):
                session.close("virtual hub deleted", Reason.OFFLINE)
            if hub.host is not None:
                hub.host.close()

    def open(self, login: Login, answer: LoginAnswered, extension: int, peer: str) -> tuple[Session, Welcome] | Code:
        """Make the session that control has allowed, or say why it can't be."""
        hub = self.hubs.get(answer.hub.casefold())
        if hub is None:
            return Code.HUB_NOT_FOUND
        if not hub.settings.online:
            return Code.HUB_STOPPING
        if answer.max_sessions and len(self.of_hub(hub.name)) >= answer.max_sessions:
            return Code.HUB_IS_BUSY
        if login.bridge_mode and answer.policy.no_bridge and answer.policy.no_routing:
            return Code.BRIDGE_MODE_DENIED
        resumes = bool(extension and login.resume)
        session = self._plug(hub, _member(hub, login, answer, extension, peer, self.limits), resumes=resumes)
        member = session.member
        self.tell(SessionOpened(session.name, hub.name, member.user, peer, member.client, extension, member.since))
        confined = int(not member.bridges)
        return session, Welcome(
            session_name=session.name,
            connection_name=member.connection,
            session_key=member.key,
            max_connection=member.max_connections,
            timeout_ms=int(member.timeout_s * 1000),
            policy={
                **answer.policy.to_wire(),
                "NoBridge": confined,
                "NoRouting": confined,
                "MaxConnection": member.max_connections,
                "TimeOut": int(member.timeout_s),
                "NoQoS": 1,
            },
            extension=extension,
            grace_s=session.granted_s,
        )

    def _plug(self, hub: VirtualHub, member: Member, *, resumes: bool) -> Session:
        session = (ResumableSession if resumes else Session)(self, hub, member)
        self._by_name[hub.name.casefold(), session.name] = session
        self._by_key[_digest(member.key)] = session
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
        session = self._plug(hub, saved.member, resumes=saved.resume is not None)
        session.go_on(saved)
        return session

    def find(self, key: bytes) -> Session | None:
        """The session with this key."""
        session = self._by_key.get(_digest(key))
        return session if session is not None and hmac.compare_digest(session.member.key, key) else None

    def named(self, hub: str, name: str) -> Session | None:
        """The session `name` of `hub`; with `hub` "" the first of that name in any."""
        for session in self.of_hub(hub) if hub else self:
            if session.name == name.upper():
                return session
        return None

    def forget(self, session: Session) -> None:
        """It has ended: its name and key are nobody's."""
        self._by_name.pop((session.hub.name.casefold(), session.name), None)
        self._by_key.pop(_digest(session.member.key), None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _member(hub: VirtualHub, login: Login, answer: LoginAnswered, extension: int, peer: str, limits: Limits) -> Member:
    number = hub.next_session()
    most = 1 if extension and login.resume else limits.max_connections  # exact resume counts on one stream of records
    return Member(
        session=f"SID-{answer.user.upper()}-{number}",
        connection=f"CID-{number}",
        key=secrets.token_bytes(SESSION_KEY_LENGTH),
        user=answer.user,
        peer=peer,
        client=login.client,
        extension=extension,
        bridges=login.bridge_mode or any(word in login.client.lower() for word in BRIDGE_WORDS),
        timeout_s=min(max(hub.settings.session_timeout_s, MIN_SESSION_TIMEOUT_S), MAX_SESSION_TIMEOUT_S),
        max_connections=min(login.max_connection, most),
        since=time.time(),
    )
