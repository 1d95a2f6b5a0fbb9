"""Rule 6: tunnels inside an SSH connection, known by the TLS handshake and the opening dialogue that run inside it.

All connections of a session are channels of one TCP connection, often beside a shell and other forwardings, so every
turn is a possible end of a dialogue. SSH adds some 40 bytes to a message and rounds its size; both are allowed for. The
other rule is the one of 2004: the client names itself in a list that the administrator keeps.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from ukihashi.detect import model, own
from ukihashi.detect.evidence import (
    Headers,
    complete,
    coupling,
    ends_of,
    evidence_packets,
    make_finding,
    never_silent,
    no_headers,
)
from ukihashi.detect.features import Outer, ssh_client, ssh_wrong_way
from ukihashi.detect.flow import Flow, Message, Turn
from ukihashi.detect.reasons import Opening, dialogue_reason, steps, timer_reason
from ukihashi.detect.record import Attached, Connection, Family, Finding, Reason, Verdict, bare
from ukihashi.errors import N_

LOGIN_MIN: Final = 6.5
LOGIN_ALONE: Final = 7.5
FURTHER_MIN: Final = 3.5
FURTHER_WITHIN_S: Final = 90.0
APART_S: Final = 0.7  # a client waits a second at least before it opens one more
TIMER_MIN: Final = 6.0
DISTINCT: Final = 0.5  # share of distinct sizes; SSH rounds them up to 8 or 16 bytes
OWN_LOGIN_MIN: Final = 5.0
OWN_LOGIN_MAX: Final = 7.0  # more says nothing here: what is seen need not be TLS
PROBABLE_AFTER_S: Final = 75.0
COUPLED_MAX: Final = 0.85
GIVE_UP_S: Final = 300.0
LOOK_S: Final = 5.0
OPENING_TURNS: Final = 20  # in which the roles show themselves, and the size of the smallest packet
NAMED_BY: Final = 4  # turns after which the client has said its name
SAME_TURNS: Final = 4  # two readings closer than this are one login

WRAP: Final = 44  # bytes that SSH adds to a message; less, or with other ciphers more, the spans have room for
HELLO: Final = model.Span(230, 2500)  # bytes of the client hello inside
HELLO_AGAIN: Final = model.Span(100, 2500)  # of a further connection's, which compression shrinks
FLIGHT_MIN: Final = 800  # bytes of the server's hello and certificate
FLIGHT_AGAIN_MIN: Final = 150
FLIGHT_OWN_MIN: Final = 400
SMALLEST_MIN: Final = 28  # bytes of the smallest packet, "login accepted", with the usual cipher
SMALLEST_MAX: Final = 84  # the same with other ciphers
ALIVE_MORE: Final = 28  # bytes by which "are you there?" may be larger; a tunnel's keep-alive is larger still
SMALL_TURN: Final = 120  # bytes; key strokes, window adjustments, keep-alives of SSH itself
NOISE_COST: Final = 1.0  # of a reading without the small turns
_REACH: Final = 48  # turns looked back
_PLACES: Final = (5, 7, 9)  # where the client hello may stand, turns before the welcome
_LONGEST: Final = 12  # turns from a client hello to the welcome
_LOGINS: Final = range(330 - model.SOFT_BELOW, 4200 + model.SOFT_ABOVE + 4 * WRAP)
_ANSWERS: Final = range(300 - model.SOFT_BELOW, 1750 + model.SOFT_ABOVE + 4 * WRAP)

DIALOGUES: Final = {
    Family.SOFTETHER: (model.SOFTETHER_LOGIN, model.SOFTETHER_AT_OURS),
    Family.UKIHASHI: (model.UKIHASHI_LOGIN, model.OURS_AT_SOFTETHER, model.UKIHASHI_FURTHER),
}

LOGIN: Final = N_("login dialogue inside SSH")
FURTHER: Final = N_("further connection inside SSH")
TIMERS: Final = N_("keep-alive timers")
NEVER_SILENT: Final = N_("never silent for long")
IDENTIFICATION: Final = N_("SSH client identification")


Reading = tuple[Sequence[Turn], float]
"""Turns as they are inside SSH, and what this way of reading them costs."""


class Nested:
    """An opening dialogue inside an SSH connection."""

    __slots__ = ("begin", "family", "finding", "login", "matched", "opening", "place", "turns")

    def __init__(self, family: Family, login: float, place: int, turns: Sequence[Turn], matched: float) -> None:
        self.family = family
        self.login = login
        self.place = place  # turns of the SSH connection until then
        self.begin = turns[0].begin
        self.turns = tuple(turn.size for turn in turns)
        self.opening = Opening.read(self.begin, turns, 0, DIALOGUES[family])
        self.matched = matched
        self.finding: Finding | None = None


class Shell:
    """What is known of one SSH connection."""

    __slots__ = (
        "count",
        "counted",
        "fired",
        "flow",
        "joined",
        "latest",
        "named",
        "next_look",
        "own",
        "pending",
        "smallest",
    )

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.count = 0  # turns so far
        self.named: Finding | None = None  # by the client's identification
        self.counted = False  # its line stands for one of the tunnels inside
        self.latest: Nested | None = None  # the last login of SoftEther
        self.pending: Nested | None = None  # the same, until it is confirmed or given up
        self.own: Nested | None = None  # the latest dialogue like ours, until its timers have been judged
        self.fired = False  # a tunnel of ours was confirmed
        self.joined = 0.0  # when the welcome of the last dialogue of SoftEther began
        self.next_look = 0.0
        self.smallest = SMALLEST_MAX  # bytes of a packet, by the server's first answers

    def watch(self, time: float) -> None:
        """Record messages from now on, without those by which SSH asks whether the other end is there."""
        self.flow.watch(time, turns=True)
        self.flow.noise = max(self.smallest, SMALLEST_MIN) + ALIVE_MORE
        self.flow.small = own.SMALL_SSH


class Ssh:
    """All SSH connections. The methods are those of `flow.Watcher`; each gives what was found."""

    def __init__(
        self,
        clients: Iterable[str] = (),
        headers: Headers = no_headers,
        follow: Callable[[Finding, Sequence[Flow]], None] | None = None,
    ) -> None:
        """Watch.

        Args:
            clients: patterns, as file names have them, of client identifications that are always reported.
            headers: gives the packets that were kept of a flow.
            follow: told of each finding that is a session of its own, and its flow.
        """
        self._clients = tuple(clients)
        self._headers = headers
        self._follow = follow
        self._shells: dict[int, Shell] = {}

    def begin(self, flow: Flow, time: float) -> list[Finding | Attached]:
        """The turns so far show that `flow` is SSH."""
        shell = Shell(flow)
        flow.case = shell
        flow.watch(time, turns=True)
        self._shells[id(flow)] = shell
        return self.turned(shell, time)

    def turned(self, shell: Shell, time: float) -> list[Finding | Attached]:
        """The last turn is complete."""
        turns = shell.flow.turns
        shell.count += 1
        if shell.count <= OPENING_TURNS:
            if ssh_wrong_way(turns[-1]):
                shell.flow.swap()
            if not turns[-1].toward_server:
                shell.smallest = min(shell.smallest, turns[-1].size)
        found = self._name(shell, time) if self._clients and shell.named is None and shell.count <= NAMED_BY else []
        if turns[-1].toward_server or turns[-1].size < model.UKIHASHI_FURTHER.s2.low or len(turns) < _PLACES[0] + 1:
            return found
        readings = [(_unwrapped(turns[-_LONGEST:]), 0.0)] if _may_end_a_dialogue(turns) else []
        thin = _without_noise(turns[-_REACH:])
        if _may_end_a_dialogue(thin):
            readings.append((_unwrapped(thin[-_LONGEST:]), NOISE_COST))
        if not readings:
            return found
        return found + self._softether(shell, readings, time) + self._own(shell, readings, time)

    def spoke(self, shell: Shell, now: float) -> list[Finding | Attached]:
        """A message begins."""
        return self._judge(shell, now) if shell.pending is not None or shell.own is not None else []

    def closed(self, flow: Flow) -> None:
        """The connection ended."""
        self._shells.pop(id(flow), None)

    def tick(self, now: float) -> list[Finding | Attached]:
        """About once a second."""
        found: list[Finding | Attached] = []
        for key, shell in list(self._shells.items()):
            if shell.flow.case is not shell:
                del self._shells[key]
            elif now >= shell.next_look and (shell.pending is not None or shell.own is not None):
                shell.next_look = now + LOOK_S
                found += self._judge(shell, now)
        return found

    def finish(self, now: float) -> list[Finding | Attached]:
        """The capture ends: say what is still open and probable."""
        found: list[Finding | Attached] = []
        for shell in self._shells.values():
            if shell.flow.case is shell and not shell.flow.closed:
                found += self._judge(shell, now, last=True)
        return found

    # -- what fired ----------------------------------------------------------------------------------------------

    def _name(self, shell: Shell, time: float) -> list[Finding | Attached]:
        """The rule of 2004."""
        name = ssh_client(shell.flow.turns)
        if not name or not any(fnmatchcase(name, pattern) for pattern in self._clients):
            return []
        reasons = (Reason(IDENTIFICATION, 0.0),)
        connection = Connection(ends_of(shell.flow)[0], shell.flow.begin)
        finding = make_finding(shell.flow, [connection], time, "identification", reasons, ())
        shell.named = replace(finding, outer=Outer.SSH, target=name)
        if self._follow is not None:
            self._follow(shell.named, [shell.flow])
        return [shell.named]

    def _softether(self, shell: Shell, readings: Sequence[Reading], time: float) -> list[Finding | Attached]:
        if shell.fired:  # what a tunnel of ours carries can look like the dialogues, too
            return []
        login, turns = _best(readings, DIALOGUES[Family.SOFTETHER], HELLO, FLIGHT_MIN)
        latest = shell.latest
        if login >= LOGIN_MIN:
            if latest is not None and shell.count - latest.place < SAME_TURNS:
                latest.login = max(latest.login, login)
                return []
            if shell.pending is None and shell.own is None:
                shell.watch(time)
            shell.joined = turns[-1].begin
            shell.latest = shell.pending = Nested(Family.SOFTETHER, login, shell.count, turns, time)
            return []
        if latest is None or time - latest.matched > FURTHER_WITHIN_S:
            return []
        further, turns = _best(readings, (model.SOFTETHER_FURTHER,), HELLO_AGAIN, FLIGHT_AGAIN_MIN)
        if further < FURTHER_MIN or shell.count - latest.place < SAME_TURNS or turns[0].end < shell.joined + APART_S:
            return []
        shell.joined = turns[-1].begin
        connection = Connection(ends_of(shell.flow)[0], turns[0].begin)
        if latest.finding is not None and latest.finding.verdict is Verdict.CONFIRMED:
            return [Attached(latest.finding, connection)]
        joined = Opening.read(turns[0].begin, turns, 0, (model.SOFTETHER_FURTHER,))
        reason = dialogue_reason(FURTHER, further, joined, (model.SOFTETHER_FURTHER,))
        return self._confirm(shell, latest, time, "6", (reason,), extra=connection, joined=joined)

    def _own(self, shell: Shell, readings: Sequence[Reading], time: float) -> list[Finding | Attached]:
        """Remember a dialogue like ours; many are, so the timers decide."""
        if shell.fired or shell.pending is not None:
            return []
        login, turns = _best(readings, DIALOGUES[Family.UKIHASHI], HELLO, FLIGHT_OWN_MIN)
        # Traffic of a tunnel can look like one more dialogue; the better one stays, and what followed it.
        if login >= OWN_LOGIN_MIN and (shell.own is None or login > shell.own.login):
            shell.watch(time)
            shell.own = Nested(Family.UKIHASHI, login, shell.count, turns, time)
        return []

    # -- verdicts ------------------------------------------------------------------------------------------------

    def _judge(self, shell: Shell, now: float, *, last: bool = False) -> list[Finding | Attached]:
        flow, pending = shell.flow, shell.pending
        if pending is None:
            return self._judge_own(shell, now)
        since = pending.matched
        directions = [[m for m in complete(half) if m.time >= since] for half in (flow.client, flow.server)]
        inside = [_messages_inside(messages) for messages in directions]
        timing = model.softether_timing(inside)
        if timing.gaps >= 6 and timing.score >= TIMER_MIN and ssh_timer_shape(timing):
            return self._confirm(shell, pending, now, "2, SSH", (timer_reason(TIMERS, timing),), directions)
        if pending.login >= LOGIN_ALONE:
            if never_silent(flow, directions, since, now):
                return self._confirm(shell, pending, now, "6b", (Reason(NEVER_SILENT, 0.0),), directions)
            named = shell.named is not None and not shell.counted
            open_for_long = last or now - since >= PROBABLE_AFTER_S
            if open_for_long and pending.finding is None and not named and coupling(flow, directions) <= COUPLED_MAX:
                return self._confirm(shell, pending, now, "6, alone", (), directions, Verdict.PROBABLE)
        if now - since > GIVE_UP_S:
            shell.pending = None
        return []

    def _judge_own(self, shell: Shell, now: float) -> list[Finding | Attached]:
        opened, flow = shell.own, shell.flow
        if opened is None:
            return []
        if max(max(half.longest, now - half.heard) for half in (flow.client, flow.server)) > own.DEAD_S:
            shell.own = None
            return []
        directions = [complete(half) for half in (flow.client, flow.server)]
        inside = [_messages_inside(messages) for messages in directions]
        login = min(opened.login, OWN_LOGIN_MAX)
        proof = own.prove(own.Opened(flow, login, opened.matched, inside, ssh=True, distinct=DISTINCT), now)
        if proof is None or (
            proof.family is Family.SOFTETHER and shell.latest is not None
        ):  # whose timers are here, too
            return []
        opened.family = proof.family
        return self._confirm(shell, opened, now, f"{proof.rule}, SSH", proof.reasons, directions)

    def _confirm(
        self,
        shell: Shell,
        nested: Nested,
        now: float,
        rule: str,
        reasons: tuple[Reason, ...],
        directions: Iterable[Sequence[Message]] = (),
        verdict: Verdict = Verdict.CONFIRMED,
        *,
        extra: Connection | None = None,
        joined: Opening | None = None,
    ) -> list[Finding | Attached]:
        connections = [Connection(ends_of(shell.flow)[0], nested.begin), *([extra] if extra else [])]
        named = shell.named is not None and not shell.counted and verdict is Verdict.CONFIRMED
        if named:
            shell.counted = True
            reasons = (*reasons, Reason(IDENTIFICATION, 0.0))
        login = dialogue_reason(LOGIN, nested.login, nested.opening, DIALOGUES[nested.family])
        finding = make_finding(shell.flow, connections, now, rule, (login, *reasons), directions)
        finding = replace(
            finding,
            family=nested.family,
            verdict=verdict,
            outer=Outer.SSH,
            turns=nested.turns,
            again=nested.finding is not None or named,
            lined=named,
            timeline=steps(dict(enumerate(filter(None, (nested.opening, joined)))), {0: shell.flow}),
            packets=evidence_packets(self._headers(shell.flow), now),
        )
        nested.finding = bare(finding)
        if verdict is Verdict.CONFIRMED:
            shell.fired = shell.fired or nested is shell.own
            shell.pending = shell.own = None
        if self._follow is not None and not named:
            self._follow(nested.finding, [shell.flow])
        return [finding]


def ssh_timer_shape(timing: model.Timing) -> bool:
    """As `evidence.timer_shape`, for sizes that SSH rounds to 8 or 16 bytes."""
    return 0.2 <= timing.atom <= 0.85 and timing.coupled <= 0.5 and timing.distinct >= DISTINCT


def _best(
    readings: Sequence[Reading], dialogues: Sequence[model.Dialogue], hello: model.Span, flight: int
) -> tuple[float, Sequence[Turn]]:
    """The best dialogue that ends with the last turn, and its turns from the client hello on."""
    best, where = model.IMPOSSIBLE, readings[0][0]
    for turns, cost in readings:
        for place in _PLACES:
            at = len(turns) - 1 - place
            if (
                at >= 0
                and hello.low <= turns[at].size + WRAP <= hello.high
                and turns[at + 1].size + WRAP >= flight
                and _are_preliminaries(turns[at + 2 : at + place - 3])
            ):
                score = model.best_score(turns, at, dialogues) - cost
                if score > best:
                    best, where = score, turns[at:]
    return best, where


def _are_preliminaries(turns: Sequence[Turn]) -> bool:
    """Between the hellos and C1: TLS 1.2's key exchange, tickets that cut C1, a probe of SoftEther's; all small."""
    return all(
        (answer.size <= 350 and asked.size <= 3000) or (answer.size <= 700 and asked.size <= 700)
        for asked, answer in zip(turns[::2], turns[1::2], strict=False)
    )


def _unwrapped(turns: Sequence[Turn]) -> list[Turn]:
    """The turns as they are inside SSH, about."""
    inside = []
    for turn in turns:
        one = Turn(turn.begin, toward_server=turn.toward_server)
        one.end = turn.end
        one.size, one.first = max(1, turn.size - WRAP), max(1, turn.first - WRAP)
        inside.append(one)
    return inside


def _may_end_a_dialogue(turns: Sequence[Turn]) -> bool:
    """Could the last two turns before the last be an answer and a login? Nearly none are."""
    return len(turns) > _PLACES[0] and turns[-2].size in _LOGINS and turns[-3].size in _ANSWERS


def _without_noise(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without the small ones, neighbours joined; nothing if there are no small ones."""
    kept = list[Turn]()
    for turn in turns:
        if turn.size <= SMALL_TURN:
            continue
        if kept and kept[-1].toward_server == turn.toward_server:
            joined = Turn(kept[-1].begin, toward_server=turn.toward_server)
            joined.end, joined.size, joined.first = turn.end, kept[-1].size + turn.size, kept[-1].first
            kept[-1] = joined
        else:
            kept.append(turn)
    return kept if len(kept) != len(turns) and kept and not kept[-1].toward_server else []


def _messages_inside(messages: Iterable[Message]) -> list[Message]:
    """The messages as they are inside SSH, about."""
    return [Message(m.time, m.gap, max(1, m.size - WRAP), coupled=m.coupled) for m in messages]
