"""What becomes of the connections of a session after it has its line: when each ends, and when the session does."""

from collections.abc import Iterable
from typing import Final

from ukihashi.detect.evidence import connection_of
from ukihashi.detect.flow import AGE_S, Flow
from ukihashi.detect.record import Connection, Ended, Endpoint, Family, Finding, bare

GONE_S: Final = 35.0  # a SoftEther session's time-out and a margin
RESUME_S: Final = 300.0  # how long a hub of ours keeps a session that was cut
MAX_TRAILS: Final = 16_384  # sessions followed; the oldest is forgotten

_Key = tuple[Endpoint, Endpoint, float]


class _Session:
    __slots__ = ("closed", "finding", "last", "open")

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.open: list[tuple[Flow, Connection]] = []
        self.last = finding.decided  # time of the last packet
        self.closed = False  # the last connection ended in order


class Trail:
    """The sessions that have a line and go on."""

    def __init__(self) -> None:
        self._sessions: dict[_Key, _Session] = {}

    def follow(self, finding: Finding, flows: Iterable[Flow]) -> None:
        """`flows` belong to the session of `finding`; a flow followed already is not followed twice."""
        key = finding.client, finding.server, finding.begin
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= MAX_TRAILS:
                del self._sessions[next(iter(self._sessions))]
            session = self._sessions[key] = _Session(bare(finding))
        session.finding = bare(finding)
        known = {id(flow) for flow, _connection in session.open}
        session.open += [(flow, connection_of(flow)) for flow in flows if id(flow) not in known]

    def tick(self, now: float) -> list[Ended]:
        """What has ended by now."""
        found: list[Ended] = []
        for key, session in list(self._sessions.items()):
            going = []
            for flow, connection in session.open:
                session.last = max(session.last, flow.last)
                if flow.closed or now - flow.last > AGE_S:
                    session.closed = flow.closed
                    found.append(_ended(session.finding, flow, connection, "closed" if flow.closed else "silent"))
                else:
                    going.append((flow, connection))
            session.open = going
            keep = GONE_S if session.finding.family is Family.SOFTETHER else RESUME_S
            if not going and (now - session.last > keep or not session.closed):
                found.append(_session_ended(session, "closed" if session.closed else "silent"))
                del self._sessions[key]
        return found

    def finish(self, now: float) -> list[Ended]:
        """The capture ends: so does everything that is followed."""
        found = self.tick(now)
        for session in self._sessions.values():
            for flow, connection in session.open:
                session.last = max(session.last, flow.last)
                found.append(_ended(session.finding, flow, connection, "capture_end"))
            found.append(_session_ended(session, "capture_end" if session.open else "closed"))
        self._sessions.clear()
        return found


def _ended(finding: Finding, flow: Flow, connection: Connection, reason: str) -> Ended:
    return Ended(finding, connection, flow.last, reason)


def _session_ended(session: _Session, reason: str) -> Ended:
    return Ended(session.finding, session.finding.connections[0], session.last, reason, session=True)
