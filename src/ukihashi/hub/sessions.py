"""Sessions: a member of a virtual hub, the connections that carry it, and how it begins and ends (sections 9 to 14).

A session outlives its connections: with none left it keeps its port, queue and key for the session timeout T, and
`additional_connect` with the key goes on with it. Exact resume between two ukihashi ends will attach here.
"""

import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ukihashi.hub.connection import Connection
from ukihashi.hub.limits import Limits
from ukihashi.hub.loop import Loop, Timer
from ukihashi.hub.messages import HubPut, LoginAnswered, SessionClosed, SessionOpened
from ukihashi.hub.ports import QUEUE_FULL, Encodings, Outbox, VirtualHub
from ukihashi.hub.tunnel import Tunnel
from ukihashi.switch.queue import PortQueue
from ukihashi.wire.constants import MAX_SESSION_TIMEOUT_S, MIN_SESSION_TIMEOUT_S, SESSION_KEY_LENGTH, Code
from ukihashi.wire.messages import Login, Welcome

STATIONS_WITHOUT_BRIDGE: Final = 3  # source addresses of a session that is no bridge (section 18.2)
BRIDGE_WORDS: Final = ("server", "bridge")  # in a client's name: it bridges (section 9.1, trap T18)

Tell = Callable[[SessionOpened | SessionClosed], object]


class Session:
    """One member's place in a virtual hub: a port of its switch. `close` ends it for good."""

    def __init__(
        self, owner: "Sessions", hub: VirtualHub, user: str, login: Login, *, extension: int, peer: str
    ) -> None:
        number = hub.next_session()
        self._owner = owner
        self._loop = owner.loop
        self._limits = owner.limits
        self.hub = hub
        self.user = user
        self.peer = peer  # of the connection that logged in
        self.client = login.client
        self.extension = extension
        self.bridges = login.bridge_mode or any(word in login.client.lower() for word in BRIDGE_WORDS)
        self.name = f"SID-{user.upper()}-{number}"
        self.connection_name = f"CID-{number}"
        self.key = secrets.token_bytes(SESSION_KEY_LENGTH)
        self.timeout_s = min(max(hub.settings.session_timeout_s, MIN_SESSION_TIMEOUT_S), MAX_SESSION_TIMEOUT_S)
        self.max_connections = min(login.max_connection, self._limits.max_connections)
        self.since = time.time()
        self.queue = PortQueue(self._limits.queue_bytes)
        self.tunnels: list[Tunnel] = []  # the newest last
        self.heard = self._loop.now  # when any connection delivered something
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = self.tls_writes = 0
        self.port = hub.plug(self, max_stations=0 if self.bridges else STATIONS_WITHOUT_BRIDGE)
        self._watch: Timer = self._loop.at(self.heard + self.timeout_s, self._on_watch)
        self.is_open = True

    # -- connections ----------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Takes one more connection: one above what was granted, as the protocol's own servers do (13.2, trap T9)."""
        return len(self.tunnels) <= self.max_connections

    def attach(self, connection: Connection, unread: bytes) -> None:
        """`connection` carries this session from now on; `unread`: tunnel bytes that came with its last request."""
        if not connection.is_open:  # it broke under our answer
            return
        self.tunnels.append(Tunnel(self, connection, self._loop, self._limits))
        self._owner.outbox.mark(self)  # what waited for a connection goes out now
        if unread:
            self.tunnels[-1].received(unread, self._loop.now)

    def detach(self, tunnel: Tunnel) -> None:
        """`tunnel` is gone; the session waits for another until T has passed."""
        self.tunnels.remove(tunnel)

    # -- frames ---------------------------------------------------------------------------------------------------

    def take(self, frames: Sequence[bytes], now: float) -> None:
        """Frames from the member."""
        if self.is_open:
            self.frames_in += len(frames)
            self.bytes_in += sum(map(len, frames))
            self.hub.forward(frames, self.port, now)

    def can_write(self) -> None:
        """A connection can take something again."""
        if self.queue:
            self._owner.outbox.mark(self)

    def flush(self, encodings: Encodings) -> bool:
        """One batch on one connection: the newest that waits for nothing (12.5). True if more could go at once."""
        if not self.queue or (tunnel := self._writable()) is None:
            return False
        frames = self.queue.take(self._limits.batch_bytes)
        self.frames_out += len(frames)
        self.bytes_out += sum(map(len, frames))
        self.tls_writes += 1
        tunnel.write(encodings.batch(frames), self._loop.now)
        return bool(self.queue) and self._writable() is not None

    def _writable(self) -> Tunnel | None:
        for tunnel in reversed(self.tunnels):
            if tunnel.is_writable:
                return tunnel
        return None

    # -- the end --------------------------------------------------------------------------------------------------

    def _on_watch(self) -> None:
        """No timer a frame: looked at once per T, and then again when T after the last delivery has come."""
        due = self.heard + self.timeout_s
        if self._loop.now >= due:
            self.close("nothing heard" if self.tunnels else "no connection left")
        else:
            self._watch = self._loop.at(due, self._on_watch)

    def close(self, reason: str) -> None:
        """End it: port, addresses, key and connections go. A second call does nothing."""
        if not self.is_open:
            return
        self.is_open = False
        self._watch.cancel()
        drops = self.drops.total()
        self._owner.forget(self)
        self.hub.unplug(self.port)
        for tunnel in list(self.tunnels):
            tunnel.close(reason)
        self._owner.tell(
            SessionClosed(
                session=self.name,
                hub=self.hub.name,
                user=self.user,
                reason=reason,
                frames_in=self.frames_in,
                bytes_in=self.bytes_in,
                frames_out=self.frames_out,
                bytes_out=self.bytes_out,
                dropped=drops,
                at=time.time(),
            )
        )

    # -- what is told of it ---------------------------------------------------------------------------------------

    @property
    def drops(self) -> Counter[str]:
        """Frames dropped by reason: at this port's way in (as `switch.forward` names them) and at its queue."""
        drops = Counter(self.hub.switch.drops.get(self.port, {}))
        drops[QUEUE_FULL] += self.queue.dropped_frames
        return +drops

    def row(self, now: float) -> dict[str, Any]:
        """For listings."""
        tls = self.tunnels[-1].connection.tls if self.tunnels else None
        return {
            "session": self.name,
            "hub": self.hub.name,
            "user": self.user,
            "peer": self.tunnels[-1].connection.peer if self.tunnels else self.peer,
            "client": self.client,
            "extension": self.extension,
            "tls_version": tls.version if tls else "",
            "tls_cipher": tls.cipher if tls else "",
            "connections": len(self.tunnels),
            "since": self.since,
            "frames_in": self.frames_in,
            "bytes_in": self.bytes_in,
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "tls_writes": self.tls_writes,
            "frames_written": self.frames_out,
            "frames_per_tls_write": round(self.frames_out / self.tls_writes, 2) if self.tls_writes else 0.0,
            "drops": dict(self.drops),
            "queued_bytes": self.queue.bytes,
            "idle_s": round(now - self.heard, 1),
        }


class Sessions:
    """All virtual hubs of a worker and the sessions in them."""

    def __init__(self, loop: Loop, limits: Limits, outbox: Outbox, tell: Tell) -> None:
        self.loop = loop
        self.limits = limits
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
                session.close("virtual hub offline")
        return hub

    def remove_hub(self, name: str) -> None:
        """End its sessions and forget it."""
        hub = self.hubs.pop(name.casefold(), None)
        if hub is not None:
            for session in self.of_hub(name):
                session.close("virtual hub deleted")
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
        if login.bridge_mode and answer.policy.get("NoBridge") and answer.policy.get("NoRouting"):
            return Code.BRIDGE_MODE_DENIED
        session = Session(self, hub, answer.user, login, extension=extension, peer=peer)
        self._by_name[hub.name.casefold(), session.name] = session
        self._by_key[_digest(session.key)] = session
        self.tell(SessionOpened(session.name, hub.name, session.user, peer, session.client, extension, session.since))
        confined = int(not session.bridges)
        return session, Welcome(
            session_name=session.name,
            connection_name=session.connection_name,
            session_key=session.key,
            max_connection=session.max_connections,
            timeout_ms=int(session.timeout_s * 1000),
            policy={
                "Access": 1,
                "NoBridge": confined,
                "NoRouting": confined,
                "MaxConnection": session.max_connections,
                "TimeOut": int(session.timeout_s),
                "NoQoS": 1,
                **answer.policy,
            },
            extension=extension,
        )

    def find(self, key: bytes) -> Session | None:
        """The session with this key."""
        session = self._by_key.get(_digest(key))
        return session if session is not None and hmac.compare_digest(session.key, key) else None

    def named(self, hub: str, name: str) -> Session | None:
        """The session `name` of `hub`; with `hub` "" the first of that name in any."""
        for session in self.of_hub(hub) if hub else self:
            if session.name == name.upper():
                return session
        return None

    def forget(self, session: Session) -> None:
        """It has ended: its name and key are nobody's."""
        self._by_name.pop((session.hub.name.casefold(), session.name), None)
        self._by_key.pop(_digest(session.key), None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
