"""What control may ask the worker for, and order it to do, about what is there at the moment (`messages.Asked`)."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ukihashi.hub.bridge_ports import BridgePorts
from ukihashi.hub.cascade_port import CascadePorts
from ukihashi.hub.connection import Connection
from ukihashi.hub.front import FrontDoor
from ukihashi.hub.messages import MAX_MESSAGE, Answered, Asked, encode
from ukihashi.hub.ports import VirtualHub
from ukihashi.hub.session import Session
from ukihashi.hub.sessions import Sessions
from ukihashi.wire.extension import Reason

if TYPE_CHECKING:
    from ukihashi.hub.neighbours import Neighbours

NO_SUCH_HUB: Final = "no such hub"  # `Answered.error`
TOO_MUCH: Final = "too much to tell at once"
MANY_ROWS: Final = MAX_MESSAGE // 8192  # fewer fit into a message whatever peers call themselves

Row = dict[str, Any]
Order = Callable[[Asked], Iterable[Row]]


class Orders:
    """Answers each `Asked`."""

    def __init__(self, sessions: Sessions, door: FrontDoor, cascades: CascadePorts, bridges: BridgePorts) -> None:
        self._sessions = sessions
        self._door = door
        self._bridges = bridges
        self._loop = sessions.loop
        self._started = self._loop.now
        self.neighbours: Neighbours | None = None  # if there are several workers
        self._orders: Mapping[str, Order] = {
            "sessions": self._session_rows,
            "connections": self._connection_rows,
            "mac_table": lambda asked: self._rows_of_hubs(asked, lambda hub, now: hub.mac_rows(now)),
            "ip_table": lambda asked: self._rows_of_hubs(asked, lambda hub, now: hub.ip_rows(now)),
            "status": self._status_rows,
            "cascades": lambda _asked: cascades.rows(),
            "disconnect": self._disconnect,
            "end_connection": self._end_connection,
            "forget_mac": lambda asked: self._forget(asked, lambda hub, key: hub.forget_station(key)),
            "forget_ip": lambda asked: self._forget(asked, lambda hub, key: hub.forget_address(key)),
        }

    def answer(self, asked: Asked) -> Answered:
        """Rows, or the reason why there are none."""
        order = self._orders.get(asked.what)
        if order is None:
            return Answered(asked.ask, error=f"unknown question {asked.what!r}")
        if asked.hub and asked.hub.casefold() not in self._sessions.hubs:
            return Answered(asked.ask, error=NO_SUCH_HUB)
        answered = Answered(asked.ask, list(order(asked)))
        if len(answered.rows) > MANY_ROWS and len(encode(answered)) > MAX_MESSAGE:
            return Answered(asked.ask, error=TOO_MUCH)
        return answered

    def _hubs(self, asked: Asked) -> list[VirtualHub]:
        hubs = self._sessions.hubs
        return [hubs[asked.hub.casefold()]] if asked.hub else list(hubs.values())

    def _session_rows(self, asked: Asked) -> list[Row]:
        sessions = self._sessions.of_hub(asked.hub) if asked.hub else list(self._sessions)
        return [session.row(self._loop.now) for session in sessions]

    def _rows_of_hubs(self, asked: Asked, rows: Callable[[VirtualHub, float], Iterable[Row]]) -> Iterator[Row]:
        for hub in self._hubs(asked):
            for row in rows(hub, self._loop.now):
                yield {"hub": hub.name, **row}

    def _connections(self) -> Iterator[tuple[Connection, str, Session | None]]:
        """Every TCP connection that is not ending, what it is for, and its session."""
        for caller in self._door.callers():
            yield caller.connection, caller.kind, None
        for tool in self._door.tools:
            yield tool.connection, "admin", None
        for session in self._sessions:
            for tunnel in session.tunnels:
                first = tunnel.connection.name == session.member.connection
                yield tunnel.connection, "login" if first else "additional", session

    def _connection_rows(self, asked: Asked) -> Iterator[Row]:
        """Those of strangers belong to no virtual hub, and are only among all."""
        for connection, kind, session in self._connections():
            member = session.member if session is not None else None
            hub = session.hub.name if session is not None else ""
            if asked.hub and hub.casefold() != asked.hub.casefold():
                continue
            yield {
                "connection": connection.name,
                "kind": kind,
                "peer": connection.peer,
                "since": connection.since,
                "hub": hub,
                "session": member.session if member else "",
                "user": member.user if member else "",
                "client": member.client if member else "",
                "client_version": member.client_version if member else 0,
                "client_build": member.client_build if member else 0,
                "host": member.node.host if member else "",
            }

    def _status_rows(self, _asked: Asked) -> list[Row]:
        sessions, door = self._sessions, self._door
        tunnels = sum(len(session.tunnels) for session in sessions)
        return [
            {
                "connections": tunnels + door.half_open + len(door.tools),
                "half_open": door.half_open,
                "evicted": door.evicted,
                "tools": len(door.tools),
                "sessions": len(sessions),
                "cut": sum(not session.tunnels for session in sessions),
                "resume_memory": {"used": sessions.memory.used, "limit": sessions.memory.limit},
                "hubs": len(sessions.hubs),
                "host_ports": [hub.host.row() for hub in sessions.hubs.values() if hub.host is not None],
                "bridges": self._bridges.rows(),
                "loops": sessions.guarding.rows(),
                "faults": self._loop.faults,
                "pid": os.getpid(),
                "uid": os.getuid(),
                "uptime_s": round(self._loop.now - self._started, 1),
                **({"trunks": self.neighbours.rows()} if self.neighbours is not None else {}),
            }
        ]

    def _disconnect(self, asked: Asked) -> list[Row]:
        session = self._sessions.named(asked.hub, asked.name)
        if session is None:
            return []
        session.close(asked.reason or "ended by the admin", Reason.REMOVED)
        return [{"session": session.name, "hub": session.hub.name}]

    def _end_connection(self, asked: Asked) -> list[Row]:
        """One TCP connection only: its session lives on."""
        for connection, kind, _session in list(self._connections()):
            if connection.name == asked.name.upper():
                connection.close(asked.reason or "ended by the admin")
                return [{"connection": connection.name, "kind": kind}]
        return []

    def _forget(self, asked: Asked, forget: Callable[[VirtualHub, int], bool]) -> list[Row]:
        """An entry of a table, by its `key` as text."""
        try:
            key = int(asked.name)
        except ValueError:
            return []
        return [{"hub": hub.name, "key": key} for hub in self._hubs(asked) if forget(hub, key)]
