"""From flows to findings: the rules of docs/detection.md, section 3, for TLS connections, direct or through a proxy.

A *session* is what one login opens: its connection, and those that join it later. Key: client address, server address,
server port. A connection whose opening was seen and did not match is never judged by its keep-alives.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from ukihashi.detect import model, own
from ukihashi.detect.evidence import (
    Headers,
    complete,
    connection_of,
    coupling,
    evidence_packets,
    make_finding,
    never_silent,
    no_headers,
    session_key,
    timer_shape,
)
from ukihashi.detect.features import Beginning, beginning, is_ssh
from ukihashi.detect.flow import LONG_TURN, Flow, Half, Message
from ukihashi.detect.midstream import Midstream
from ukihashi.detect.reasons import MAX_OPENINGS, Opening, dialogue_reason, steps, timer_reason
from ukihashi.detect.record import Attached, Family, Finding, Found, Packet, Reason, Verdict, bare
from ukihashi.detect.ssh import Shell, Ssh
from ukihashi.detect.trail import Trail
from ukihashi.errors import N_

# Rules 1 to 4, SoftEther.
LOGIN_MIN: Final = 6.5
LOGIN_ALONE: Final = 7.2
FURTHER_MIN: Final = 4.0
FURTHER_WITHIN_S: Final = 120.0
FURTHER_STAYS_S: Final = 1.0  # a tunnel's connections stay open; those of a client that makes many calls do not
HELLO_DIFFERENCE: Final = 64  # bytes between client hellos of one client
TIMER_MIN: Final = 6.0
COUPLED_MAX: Final = 0.85
PROBABLE_AFTER_S: Final = 75.0

# Our own family: an opening of small turns, which many dialogues could have, so the timer decides.
OWN_LOGIN_MIN: Final = 5.0
OWN_FURTHER_MIN: Final = 4.0
OWN_RESUME_MAX: Final = 6.5
OWN_SOON_S: Final = 20.0  # a card whose connection was cut is back within this time
OWN_SOON_SCORE: Final = 1.5

# The dialogues that are tried, and how a login must score.
LOGINS: Final = {
    Family.SOFTETHER: (model.SOFTETHER_LOGIN, model.SOFTETHER_AT_OURS),
    Family.UKIHASHI: (model.UKIHASHI_LOGIN, model.OURS_AT_SOFTETHER),
}
FURTHERS: Final = {Family.SOFTETHER: (model.SOFTETHER_FURTHER,), Family.UKIHASHI: (model.UKIHASHI_FURTHER,)}
LOGIN_LEAST: Final = {Family.SOFTETHER: LOGIN_MIN, Family.UKIHASHI: OWN_LOGIN_MIN}

SESSION_GONE_S: Final = 35.0  # session timeout and a margin: later connections are not of this session
RESUME_S: Final = 300.0  # how long a hub of ours keeps a session that was cut
LOOK_S: Final = 5.0
MAX_SESSIONS: Final = 16_384
MAX_PACKETS: Final = 4096  # kept of connections that joined a session before its verdict


class Case:
    """What is known of one flow while it is a candidate."""

    __slots__ = ("beginning", "family", "flow", "further", "login", "matched", "opening", "session", "turns")

    def __init__(self, flow: Flow, start: Beginning) -> None:
        self.flow = flow
        self.beginning = start
        self.family = Family.SOFTETHER
        self.login = model.IMPOSSIBLE
        self.further = model.IMPOSSIBLE
        self.matched = 0.0  # when the opening matched
        self.turns: tuple[int, ...] = ()
        self.opening: Opening | None = None  # once it matched
        self.session: Session | None = None


class Session:
    """A login and what joined it."""

    __slots__ = (
        "case",
        "closed",
        "connections",
        "finding",
        "flows",
        "further",
        "hello_size",
        "joined",
        "judged",
        "latest",
        "next_look",
        "openings",
        "packets",
    )

    def __init__(self, case: Case) -> None:
        self.case = case
        self.hello_size = case.beginning.hello_size
        self.further = 0.0  # best score of a connection that joined
        self.connections = [connection_of(case.flow)]
        self.flows = [case.flow]
        self.finding: Finding | None = None
        self.closed: float | None = None  # when the connection that is judged ended
        self.latest = case.flow  # the connection that joined last
        self.next_look = case.matched + LOOK_S  # rules that wait for time to pass; messages are judged as they come
        self.joined: Case | None = None  # whose score `further` is
        self.judged = 0  # index in `connections` of the case's
        self.openings: dict[int, Opening] = {0: case.opening} if case.opening is not None else {}  # by that index
        self.packets: deque[Packet] = deque(maxlen=MAX_PACKETS)  # of connections that are dropped by now

    @property
    def confirmed(self) -> bool:
        """Its log line is decided."""
        return self.finding is not None and self.finding.verdict is Verdict.CONFIRMED


class Detector:
    """Watches the flows of one `FlowTable`; `drain` gives what was found since the last call."""

    def __init__(self, headers: Headers = no_headers, *, ssh_clients: Sequence[str] = ()) -> None:
        """Watch.

        Args:
            headers: gives the packets that were kept of a flow; a finding carries them as its evidence.
            ssh_clients: patterns of SSH client identifications that are always reported.
        """
        self._found: list[Found] = []
        self._sessions: dict[bytes, list[Session]] = {}
        self._headers = headers
        self._midstream = Midstream(headers)
        self._trail = Trail()
        self._ssh = Ssh(ssh_clients, headers, self._trail.follow)

    def drain(self) -> list[Found]:
        """Findings in the order they were decided."""
        found, self._found = self._found, []
        return found

    # -- Watcher -------------------------------------------------------------------------------------------------

    def turned(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        turns = flow.turns
        if isinstance(flow.case, Shell):
            self._found += self._ssh.turned(flow.case, time)
            return
        if is_ssh(turns):
            self._found += self._ssh.begin(flow, time)
            return
        start = beginning(turns)
        if start is None:
            if turns[0].toward_server or len(turns) > 1:  # an SSH server may speak first
                flow.drop()
            return
        after = len(turns) - 1 - start.hello if start.hello >= 0 else 0
        if after >= model.FIRST_WINDOW + 3 and not turns[-1].toward_server and self._match(flow, start, time):
            return
        if after >= model.WINDOW_TURNS or turns[-1].size > LONG_TURN:  # no opening has such a turn but its last one
            flow.drop()

    def joined(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        del time
        self._midstream.join(flow)

    def spoke(self, half: Half, time: float) -> None:
        """See `flow.Watcher`."""
        case = half.flow.case
        if isinstance(case, Shell):
            self._found += self._ssh.spoke(case, half, time)
        elif not isinstance(case, Case):
            found = self._midstream.judge(half, time)
            if found is not None:
                self._found.append(found)
                self._trail.follow(found, [half.flow])
        elif case.session is not None and not case.session.confirmed:
            self._judge(case.session, time)

    def closed(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        case = flow.case
        if isinstance(case, Case) and case.session is not None:
            case.session.closed = time
        elif isinstance(case, Shell):
            self._ssh.closed(flow)
        elif case is None:
            self._midstream.leave(flow)

    def tick(self, now: float) -> None:
        """See `flow.Watcher`."""
        self._found += self._ssh.tick(now)
        for key, sessions in list(self._sessions.items()):
            for session in sessions[:]:
                if self._is_over(session, now):
                    sessions.remove(session)
                elif not session.confirmed and session.closed is None and now >= session.next_look:
                    session.next_look = now + LOOK_S
                    self._judge(session, now)
            if not sessions:
                del self._sessions[key]
        self._found += self._trail.tick(now)

    @staticmethod
    def _is_over(session: Session, now: float) -> bool:
        """Nothing can come of it any more."""
        flow, latest = session.case.flow, session.latest
        if session.closed is None and flow.closed:
            session.closed = flow.last
        if session.case.family is Family.UKIHASHI and not session.confirmed and session.closed is None:
            # Many dialogues open like ours. One that was silent for so long keeps neither law: look at it no more.
            silent = max(flow.client.longest, flow.server.longest, now - min(flow.client.heard, flow.server.heard))
            if silent > own.DEAD_S:
                flow.drop()
                return True
        keep = SESSION_GONE_S if latest.closed and session.case.family is Family.SOFTETHER else RESUME_S
        return now - max(latest.last, flow.last) > keep

    def finish(self, now: float) -> None:
        """The capture ends: say what is still open and probable."""
        self._found += self._ssh.finish(now)
        for sessions in self._sessions.values():
            for session in sessions:
                if not session.confirmed and session.closed is None:
                    self._judge(session, now, last=True)
        self._found += self._trail.finish(now)

    # -- openings ------------------------------------------------------------------------------------------------

    def _match(self, flow: Flow, start: Beginning, time: float) -> bool:
        """Does an opening dialogue end with the last turn? Then the flow belongs to a session, or to nothing."""
        turns, hello = flow.turns, start.hello
        case = Case(flow, start)
        case.login = model.best_score(turns, hello, LOGINS[case.family])
        case.further = model.best_score(turns, hello, FURTHERS[case.family])
        if case.login < LOGIN_MIN and case.further < FURTHER_MIN:
            case.family = Family.UKIHASHI
            case.login = model.best_score(turns, hello, LOGINS[case.family])
            case.further = model.best_score(turns, hello, FURTHERS[case.family])
            if case.login < OWN_LOGIN_MIN and case.further < OWN_FURTHER_MIN:
                return False
            if case.login < OWN_LOGIN_MIN and turns[-2].size > model.UKIHASHI_FURTHER.c2.high:
                return False  # a probe of SoftEther's and its login so far can look like that
        self._midstream.serves(flow)
        case.matched = time
        case.turns = tuple(turn.size for turn in turns[hello:])
        tried = LOGINS[case.family] if case.login >= LOGIN_LEAST[case.family] else FURTHERS[case.family]
        case.opening = Opening.read(flow.begin, turns, hello, tried)
        flow.turns = []
        flow.case = case
        flow.watch(time)
        if case.family is Family.UKIHASHI:
            flow.small = own.SMALL
        if case.family is Family.SOFTETHER and case.login >= LOGIN_MIN:
            self._open(case)
        elif case.family is Family.SOFTETHER:
            self._join(case, time)
        else:
            self._own(case, time)
        return True

    def _open(self, case: Case) -> None:
        if sum(map(len, self._sessions.values())) >= MAX_SESSIONS:
            case.flow.drop()
            return
        case.session = Session(case)
        self._sessions.setdefault(session_key(case.flow), []).append(case.session)

    def _join(self, case: Case, time: float) -> None:
        """A further connection: of the latest login with this key that it fits, else of nobody."""
        for session in reversed(self._sessions.get(session_key(case.flow), [])):
            first = session.case
            if (
                first.family is case.family
                and first.beginning.outer is case.beginning.outer
                and abs(session.hello_size - case.beginning.hello_size) <= HELLO_DIFFERENCE
                and first.flow.begin <= case.flow.begin
            ):
                self._attach(session, case, time)
                return
        case.flow.drop()

    def _attach(self, session: Session, case: Case, time: float) -> None:
        connection = connection_of(case.flow)
        late = connection.begin - session.connections[0].begin > FURTHER_WITHIN_S
        session.connections.append(connection)
        session.flows.append(case.flow)
        session.latest = case.flow
        if not session.confirmed and not late:
            self._remember(session, case, case.flow)
        if session.finding is not None and session.confirmed:
            self._found.append(Attached(session.finding, connection))
            self._trail.follow(session.finding, [case.flow])
        elif not late and case.family is Family.SOFTETHER:
            if case.further > session.further:
                session.further, session.joined = case.further, case
            self._judge(session, time)
        case.flow.drop()

    def _own(self, case: Case, time: float) -> None:
        """A login of our family or a resume: their sizes overlap, so it counts how soon after an end it came."""
        for session in reversed(self._sessions.get(session_key(case.flow), [])):
            if session.case.family is case.family:
                soon = case.flow.begin - session.latest.last <= OWN_SOON_S
                if case.further - case.login + (OWN_SOON_SCORE if soon else -OWN_SOON_SCORE) > 0:
                    self._resume(session, case, time)
                    return
        # A resume of a login that was not captured is judged like one, but by what follows.
        case.login = max(case.login, min(case.further, OWN_RESUME_MAX))
        if case.login >= OWN_LOGIN_MIN:
            self._open(case)
        else:
            case.flow.drop()

    def _resume(self, session: Session, case: Case, time: float) -> None:
        """The session goes on with another connection; if it has no line yet, that one is judged from now on."""
        if session.confirmed:
            self._attach(session, case, time)
            return
        session.connections.append(connection_of(case.flow))
        session.flows.append(case.flow)
        self._remember(session, case, session.case.flow)
        session.case.flow.drop()
        case.login = max(case.login, session.case.login)
        session.judged = len(session.connections) - 1
        case.session, session.case, session.latest, session.closed = session, case, case.flow, None

    def _remember(self, session: Session, case: Case, dropped: Flow) -> None:
        """For the evidence: how a further connection opened, and the packets of the flow that is dropped next."""
        session.packets.extend(self._headers(dropped))
        if case.opening is not None and len(session.openings) < MAX_OPENINGS:
            session.openings[len(session.connections) - 1] = case.opening

    # -- rules ---------------------------------------------------------------------------------------------------

    def _judge(self, session: Session, now: float, *, last: bool = False) -> None:
        case = session.case
        if case.family is Family.UKIHASHI:
            self._judge_own(session, now, last=last)
            return
        login = dialogue_reason(N_("login dialogue"), case.login, case.opening, LOGINS[case.family])
        joined = session.joined
        if joined is not None and session.further >= FURTHER_MIN:
            stays_until = joined.matched + FURTHER_STAYS_S
            if joined.flow.closed and joined.flow.last < stays_until:
                session.further, session.joined = 0.0, None
            elif now >= stays_until or last:
                further = dialogue_reason(
                    N_("further connection"), session.further, joined.opening, FURTHERS[case.family]
                )
                self._confirm(session, now, "1", (login, further), ())
                return
            else:
                session.next_look = min(session.next_look, stays_until)
        flow = case.flow
        directions = [complete(half) for half in (flow.client, flow.server)]
        timing = model.softether_timing(directions)
        if timing.gaps >= 6 and timing.score >= TIMER_MIN and timer_shape(timing):
            self._confirm(session, now, "2", (login, timer_reason(N_("keep-alive timers"), timing)), directions)
            return
        if case.login < LOGIN_ALONE:
            return
        if coupling(flow, directions) > COUPLED_MAX:
            return
        if never_silent(flow, directions, case.matched, now):
            self._confirm(session, now, "3", (login, Reason(N_("never silent for long"), 0.0)), directions)
        elif session.finding is None and (last or now - case.matched >= PROBABLE_AFTER_S):
            self._confirm(session, now, "4", (login,), directions, Verdict.PROBABLE)

    def _judge_own(self, session: Session, now: float, *, last: bool) -> None:
        case = session.case
        flow = case.flow
        directions = [complete(half) for half in (flow.client, flow.server)]
        proof = own.prove(own.Opened(flow, case.login, case.matched, directions), now, last=last)
        if proof is None or (proof.verdict is Verdict.PROBABLE and session.finding is not None):
            return
        login = dialogue_reason(N_("login dialogue"), case.login, case.opening, LOGINS[case.family])
        case.family = proof.family
        self._confirm(session, now, proof.rule, (login, *proof.reasons), directions, proof.verdict)
        if proof.verdict is Verdict.PROBABLE:
            case.family = Family.UKIHASHI  # it is judged on by our rules

    def _confirm(
        self,
        session: Session,
        now: float,
        rule: str,
        reasons: tuple[Reason, ...],
        directions: Iterable[Sequence[Message]],
        verdict: Verdict = Verdict.CONFIRMED,
    ) -> None:
        case = session.case
        finding = make_finding(case.flow, session.connections, now, rule, reasons, directions)
        finding = replace(
            finding,
            family=case.family,
            verdict=verdict,
            outer=case.beginning.outer,
            target=case.beginning.target,
            turns=case.turns,
            again=session.finding is not None,
            timeline=steps(session.openings, {session.judged: case.flow}),
            packets=evidence_packets([*session.packets, *self._headers(case.flow)], now),
        )
        session.finding = bare(finding)
        self._found.append(finding)
        self._trail.follow(finding, session.flows)
        if session.confirmed:
            case.flow.drop()
