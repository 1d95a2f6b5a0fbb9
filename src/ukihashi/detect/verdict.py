"""From flows to findings: the rules of docs/detection.md, section 3, for TLS connections, direct or through a proxy.

A *session* is what one login opens: its connection, and those that join it later. Key: client address, server address,
server port. A connection whose opening was seen and did not match is never judged by its keep-alives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import exp
from typing import Final

from ukihashi.detect import model
from ukihashi.detect.features import Beginning, Outer, beginning
from ukihashi.detect.flow import COUPLED_S, LONG_TURN, Flow, Half, Message
from ukihashi.detect.model import Timing
from ukihashi.detect.record import Attached, Connection, Endpoint, Family, Finding, Reason, Verdict
from ukihashi.errors import N_

# Rules 1 to 4, SoftEther.
LOGIN_MIN: Final = 6.5
LOGIN_ALONE: Final = 7.2
FURTHER_MIN: Final = 4.0
FURTHER_WITHIN_S: Final = 120.0
HELLO_DIFFERENCE: Final = 64  # bytes between client hellos of one client
TIMER_MIN: Final = 6.0
SILENCE_TEST_S: Final = 60.0
SILENT_S: Final = 10.7  # half the usual session timeout, and a margin
SENDS_MIN: Final = 12
SMALL: Final = 640  # bytes
COUPLED_MAX: Final = 0.85
PROBABLE_AFTER_S: Final = 75.0

# Our own family: an opening of small turns, which many dialogues could have, so the timer decides.
OWN_LOGIN_MIN: Final = 5.0
OWN_FURTHER_MIN: Final = 4.0
OWN_TIMER_MIN: Final = 12.0
OWN_DISTINCT: Final = 0.75
OWN_SPREAD: Final = 75.0  # bytes; 148 is the deviation of the law, 75 the lowest that six draws reach
OWN_BEYOND: Final = 0.1
OWN_ANSWERING: Final = 0.4

OWN_SOON_S: Final = 20.0  # a card whose connection was cut is back within this time
OWN_SOON_SCORE: Final = 1.5

SESSION_GONE_S: Final = 35.0  # session timeout and a margin: later connections are not of this session
RESUME_S: Final = 300.0  # how long a hub of ours keeps a session that was cut
LOOK_S: Final = 5.0
MAX_SESSIONS: Final = 16_384
MAX_MIDSTREAM: Final = 64  # connections per key looked at together


class Case:
    """What is known of one flow while it is a candidate."""

    __slots__ = ("beginning", "family", "flow", "further", "login", "matched", "session", "turns")

    def __init__(self, flow: Flow, start: Beginning) -> None:
        self.flow = flow
        self.beginning = start
        self.family = Family.SOFTETHER
        self.login = model.IMPOSSIBLE
        self.further = model.IMPOSSIBLE
        self.matched = 0.0  # when the opening matched
        self.turns: tuple[int, ...] = ()
        self.session: Session | None = None


class Session:
    """A login and what joined it."""

    __slots__ = ("case", "closed", "connections", "finding", "further", "hello_size", "latest", "next_look")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.hello_size = case.beginning.hello_size
        self.further = 0.0  # best score of a connection that joined
        self.connections = [_connection(case.flow)]
        self.finding: Finding | None = None
        self.closed: float | None = None  # when the connection that is judged ended
        self.latest = case.flow  # the connection that joined last
        self.next_look = case.matched + LOOK_S  # rules that wait for time to pass; messages are judged as they come

    @property
    def confirmed(self) -> bool:
        """Its log line is decided."""
        return self.finding is not None and self.finding.verdict is Verdict.CONFIRMED


class Detector:
    """Watches the flows of one `FlowTable`; `drain` gives what was found since the last call."""

    def __init__(self) -> None:
        self._found: list[Finding | Attached] = []
        self._sessions: dict[bytes, list[Session]] = {}
        self._midstream: dict[bytes, list[Flow]] = {}
        self._midstream_done: dict[bytes, Finding] = {}

    def drain(self) -> list[Finding | Attached]:
        """Findings in the order they were decided."""
        found, self._found = self._found, []
        return found

    # -- Watcher -------------------------------------------------------------------------------------------------

    def turned(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        turns = flow.turns
        start = beginning(turns)
        if start is None:
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
        flows = self._midstream.setdefault(_key(flow), [])
        if len(flows) >= MAX_MIDSTREAM:
            flows.pop(0).drop()
        flows.append(flow)

    def spoke(self, half: Half, time: float) -> None:
        """See `flow.Watcher`."""
        case = half.flow.case
        if not isinstance(case, Case):
            self._judge_midstream(half, time)
        elif case.session is not None and not case.session.confirmed:
            self._judge(case.session, time)

    def closed(self, flow: Flow, time: float) -> None:
        """See `flow.Watcher`."""
        case = flow.case
        if isinstance(case, Case) and case.session is not None:
            case.session.closed = time
        elif case is None:
            flows = self._midstream.get(_key(flow))
            if flows is not None and flow in flows:
                flows.remove(flow)
                if not flows:
                    del self._midstream[_key(flow)]

    def tick(self, now: float) -> None:
        """See `flow.Watcher`."""
        for key, sessions in list(self._sessions.items()):
            for session in sessions[:]:
                if self._is_over(session, now):
                    sessions.remove(session)
                elif not session.confirmed and session.closed is None and now >= session.next_look:
                    session.next_look = now + LOOK_S
                    self._judge(session, now)
            if not sessions:
                del self._sessions[key]

    @staticmethod
    def _is_over(session: Session, now: float) -> bool:
        """Nothing can come of it any more."""
        flow, latest = session.case.flow, session.latest
        if session.closed is None and flow.closed:
            session.closed = flow.last
        if session.case.family is Family.UKIHASHI and not session.confirmed and session.closed is None:
            # Many dialogues open like ours. One that was silent for so long keeps neither law: look at it no more.
            silent = max(flow.client.longest, flow.server.longest, now - min(flow.client.heard, flow.server.heard))
            if silent > SILENT_S:
                flow.drop()
                return True
        keep = SESSION_GONE_S if latest.closed and session.case.family is Family.SOFTETHER else RESUME_S
        return now - max(latest.last, flow.last) > keep

    def finish(self, now: float) -> None:
        """The capture ends: say what is still open and probable."""
        for sessions in self._sessions.values():
            for session in sessions:
                if not session.confirmed and session.closed is None:
                    self._judge(session, now, last=True)

    # -- openings ------------------------------------------------------------------------------------------------

    def _match(self, flow: Flow, start: Beginning, time: float) -> bool:
        """Does an opening dialogue end with the last turn? Then the flow belongs to a session, or to nothing."""
        turns, hello = flow.turns, start.hello
        case = Case(flow, start)
        case.login = model.best_score(turns, hello, (model.SOFTETHER_LOGIN, model.SOFTETHER_AT_OURS))
        case.further = model.dialogue_score(turns, hello, model.SOFTETHER_FURTHER)
        if case.login < LOGIN_MIN and case.further < FURTHER_MIN:
            case.family = Family.UKIHASHI
            case.login = model.best_score(turns, hello, (model.UKIHASHI_LOGIN, model.OURS_AT_SOFTETHER))
            case.further = model.dialogue_score(turns, hello, model.UKIHASHI_FURTHER)
            if case.login < OWN_LOGIN_MIN and case.further < OWN_FURTHER_MIN:
                return False
        case.matched = time
        case.turns = tuple(turn.size for turn in turns[hello:])
        flow.turns = []
        flow.case = case
        flow.watch(time)
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
        self._sessions.setdefault(_key(case.flow), []).append(case.session)

    def _join(self, case: Case, time: float) -> None:
        """A further connection: of the latest login with this key that it fits, else of nobody."""
        for session in reversed(self._sessions.get(_key(case.flow), [])):
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
        connection = _connection(case.flow)
        late = connection.begin - session.connections[0].begin > FURTHER_WITHIN_S
        session.connections.append(connection)
        session.latest = case.flow
        if session.finding is not None and session.confirmed:
            self._found.append(Attached(session.finding, connection))
        elif not late and case.family is Family.SOFTETHER:
            session.further = max(session.further, case.further)
            self._judge(session, time)
        case.flow.drop()

    def _own(self, case: Case, time: float) -> None:
        """A login of our family or a resume: their sizes overlap, so it counts how soon after an end it came."""
        for session in reversed(self._sessions.get(_key(case.flow), [])):
            if session.case.family is case.family:
                soon = case.flow.begin - session.latest.last <= OWN_SOON_S
                if case.further - case.login + (OWN_SOON_SCORE if soon else -OWN_SOON_SCORE) > 0:
                    self._resume(session, case, time)
                    return
        case.login = max(case.login, case.further)  # a resume of a login that was not captured is judged like one
        if case.login >= OWN_LOGIN_MIN:
            self._open(case)
        else:
            case.flow.drop()

    def _resume(self, session: Session, case: Case, time: float) -> None:
        """The session goes on with another connection; if it has no line yet, that one is judged from now on."""
        if session.confirmed:
            self._attach(session, case, time)
            return
        session.connections.append(_connection(case.flow))
        session.case.flow.drop()
        case.login = max(case.login, session.case.login)
        case.session, session.case, session.latest, session.closed = session, case, case.flow, None

    # -- rules ---------------------------------------------------------------------------------------------------

    def _judge(self, session: Session, now: float, *, last: bool = False) -> None:
        case = session.case
        if case.family is Family.UKIHASHI:
            self._judge_own(session, now)
            return
        login = Reason(N_("login dialogue"), case.login)
        if session.further >= FURTHER_MIN:
            self._confirm(session, now, "1", (login, Reason(N_("further connection"), session.further)), ())
            return
        flow = case.flow
        directions = [_complete(half) for half in (flow.client, flow.server)]
        timing = model.softether_timing(directions)
        if timing.gaps >= 6 and timing.score >= TIMER_MIN and _timer_shape(timing):
            self._confirm(session, now, "2", (login, Reason(N_("keep-alive timers"), timing.score)), directions)
            return
        if case.login < LOGIN_ALONE:
            return
        messages = [message for messages in directions for message in messages]
        coupled = sum(message.coupled for message in messages) / len(messages) if len(messages) >= 4 else 0.0
        if coupled > COUPLED_MAX:
            return
        if now - case.matched >= SILENCE_TEST_S and self._never_silent(case, directions, now):
            self._confirm(session, now, "3", (login, Reason(N_("never silent for long"), 0.0)), directions)
        elif session.finding is None and (last or now - case.matched >= PROBABLE_AFTER_S):
            self._confirm(session, now, "4", (login,), directions, Verdict.PROBABLE)

    def _never_silent(self, case: Case, directions: Sequence[Sequence[Message]], now: float) -> bool:
        """Rule 3: no silence beyond the law, and small uncoupled messages in both directions."""
        for half in (case.flow.client, case.flow.server):
            if half.sends < SENDS_MIN or half.longest > SILENT_S or now - half.heard > SILENT_S:
                return False
        small = [sum(m.size <= SMALL and not m.coupled for m in messages) for messages in directions]
        return min(small) >= 2 and sum(small) >= 7

    def _judge_own(self, session: Session, now: float) -> None:
        case = session.case
        flow = case.flow
        directions = [_complete(half) for half in (flow.client, flow.server)]
        timing = model.ukihashi_timing(directions)
        limit = model.UKIHASHI_WAIT_S + model.UKIHASHI_LOST_S
        login = Reason(N_("login dialogue"), case.login)
        silent = any(half.longest > limit or now - half.heard > limit for half in (flow.client, flow.server))
        if not silent and _own_timer(timing, directions, _answering(flow, now)):
            self._confirm(session, now, "own", (login, Reason(N_("keep-alive timers"), timing.score)), directions)
            return
        timing = model.softether_timing(directions)  # our card at a SoftEther server keeps that one's law
        if timing.gaps >= 8 and timing.score >= OWN_TIMER_MIN and timing.beyond == 0 and _timer_shape(timing):
            case.family = Family.SOFTETHER
            self._confirm(
                session, now, "2, our card", (login, Reason(N_("keep-alive timers"), timing.score)), directions
            )

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
        finding = _finding(case.flow, session.connections, now, rule, reasons, directions)
        finding = replace(
            finding,
            family=case.family,
            verdict=verdict,
            outer=case.beginning.outer,
            target=case.beginning.target,
            turns=case.turns,
            again=session.finding is not None,
        )
        session.finding = finding
        self._found.append(finding)
        if session.confirmed:
            case.flow.drop()

    # -- connections that began before the capture -----------------------------------------------------------------

    def _judge_midstream(self, half: Half, now: float) -> None:
        flow = half.flow
        key = _key(flow)
        if key in self._midstream_done or len(half.messages) < 6:
            return
        if self._softether_midstream(key, now):
            return
        directions = [_complete(flow.client), _complete(flow.server)]
        each = [model.ukihashi_timing([messages]) for messages in directions]
        timing = model.ukihashi_timing(directions)
        limit = model.UKIHASHI_WAIT_S + model.UKIHASHI_LOST_S
        if (
            min(one.gaps for one in each) >= 6
            and timing.gaps >= 14
            and timing.score >= 28.0
            and timing.coupled <= 0.4
            and all(_own_shape(one) for one in each)
            and max(flow.client.longest, flow.server.longest) <= limit
        ):
            self._confirm_midstream(key, [flow], Family.UKIHASHI, "own, begin unseen", timing.score, now)

    def _softether_midstream(self, key: bytes, now: float) -> bool:
        units = list[tuple[Flow, bool, Timing]]()
        for flow in self._midstream.get(key, []):
            for half in (flow.client, flow.server):
                if len(half.messages) < 6:
                    continue
                timing = model.softether_timing([_complete(half)])
                if (
                    timing.gaps >= 6
                    and timing.score >= 12.0
                    and 0.18 <= timing.atom <= 0.8
                    and timing.coupled <= 0.4
                    and timing.distinct >= 0.75
                    and timing.beyond <= 0.1
                ):
                    units.append((flow, half is flow.client, timing))
        gaps = sum(timing.gaps for _, _, timing in units)
        score = sum(timing.score for _, _, timing in units)
        flows = list({id(flow): flow for flow, _, _ in units}.values())
        both = len({toward_server for _, toward_server, _ in units}) == 2
        if both and gaps >= 14 and score >= 28.0 and (len(flows) >= 2 or gaps >= 20):
            self._confirm_midstream(key, flows, Family.SOFTETHER, "5", score, now)
            return True
        return False

    def _confirm_midstream(
        self, key: bytes, flows: list[Flow], family: Family, rule: str, score: float, now: float
    ) -> None:
        flows = sorted(flows, key=lambda flow: flow.begin)
        directions = [_complete(half) for flow in flows for half in (flow.client, flow.server)]
        connections = [_connection(flow) for flow in flows]
        finding = _finding(flows[0], connections, now, rule, (Reason(N_("keep-alive timers"), score),), directions)
        finding = replace(finding, family=family)
        if len(self._midstream_done) >= MAX_SESSIONS:
            del self._midstream_done[next(iter(self._midstream_done))]
        self._midstream_done[key] = finding
        for flow in self._midstream.pop(key, []):
            flow.drop()
        self._found.append(finding)


def _timer_shape(timing: Timing) -> bool:
    """Rule 2's further conditions."""
    return 0.2 <= timing.atom <= 0.85 and timing.coupled <= 0.5 and timing.distinct >= 0.7


def _own_timer(timing: Timing, directions: Sequence[Sequence[Message]], answering: float) -> bool:
    """Do the silences of both directions follow our law, with sizes drawn at random?"""
    if timing.gaps < 6 or timing.score < OWN_TIMER_MIN or not _own_shape(timing):
        return False
    each = [model.ukihashi_timing([messages]) for messages in directions]
    fewest = min(one.gaps for one in each)
    if answering <= OWN_ANSWERING:
        return fewest >= 2 or timing.gaps >= 8
    # Data that passes sets both timers back at once, so that they beat together: then the sizes must carry it.
    return fewest >= 5 and all(_own_shape(one) for one in each)


def _answering(flow: Flow, now: float) -> float:
    """How much of what the more independent side says comes beside words of the other, beyond chance: 0..1.

    Near 1 both sides speak only together, as question and answer do.
    """
    least = 1.0
    for half in (flow.client, flow.server):
        messages = _complete(half)
        if len(messages) >= 3:
            share = sum(message.coupled for message in messages) / len(messages)
            rate = half.peer.sends / max(now - flow.watched, 1.0)
            least = min(least, share - (1.0 - exp(-2 * COUPLED_S * rate)))
    return least


def _own_shape(timing: Timing) -> bool:
    """Sizes drawn at random, and no silence beyond the law."""
    return timing.distinct >= OWN_DISTINCT and timing.spread >= OWN_SPREAD and timing.beyond <= OWN_BEYOND


def _complete(half: Half) -> list[Message]:
    """The messages of a direction, without one that may still grow."""
    messages = list(half.messages)
    return messages[:-1] if half.message is not None else messages


def _key(flow: Flow) -> bytes:
    """Client address, server address, server port."""
    key = flow.client.key
    return key[:-4] + key[-2:]


def _ends(flow: Flow) -> tuple[Endpoint, Endpoint]:
    key = flow.client.key
    size = (len(key) - 4) // 2
    return (
        Endpoint(key[:size], int.from_bytes(key[-4:-2])),
        Endpoint(key[size : 2 * size], int.from_bytes(key[-2:])),
    )


def _connection(flow: Flow) -> Connection:
    return Connection(_ends(flow)[0], flow.begin)


def _finding(
    flow: Flow,
    connections: Sequence[Connection],
    now: float,
    rule: str,
    reasons: tuple[Reason, ...],
    directions: Iterable[Sequence[Message]],
) -> Finding:
    messages = [message for messages in directions for message in messages if message.gap >= 1.9]
    return Finding(
        family=Family.SOFTETHER,
        verdict=Verdict.CONFIRMED,
        outer=Outer.TCP,
        client=connections[0].client,
        server=_ends(flow)[1],
        target="",
        begin=connections[0].begin,
        decided=now,
        rule=rule,
        score=sum(reason.score for reason in reasons),
        reasons=reasons,
        turns=(),
        gaps=tuple(message.gap for message in messages[:64]),
        sizes=tuple(message.size for message in messages[:64]),
        connections=tuple(connections),
        lost=flow.lost,
    )
