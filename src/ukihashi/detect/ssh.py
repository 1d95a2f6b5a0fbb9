"""Rule 6: tunnels inside an SSH connection, known by the TLS handshake and the opening dialogue that run inside it.

All connections of a session are channels of one TCP connection, often beside a shell and other forwardings, so every
turn is a possible end of a dialogue. SSH adds some 40 bytes to a message and rounds its size; both are allowed for. The
other rule is the one of 2004: the client names itself in a list that the administrator keeps.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from ukihashi.detect import model, own
from ukihashi.detect.evidence import (
    BUSY_S,
    SMALL,
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
from ukihashi.detect.flow import Flow, Half, Message, Turn
from ukihashi.detect.inside import (
    FLIGHT_AGAIN_MIN,
    FLIGHT_MIN,
    FLIGHT_OWN_MIN,
    HELLO,
    HELLO_AGAIN,
    LONGEST,
    NOISE_COST,
    PLACES,
    REACH,
    Reading,
    best_reading,
    may_end_a_dialogue,
    messages_inside,
    unwrapped,
    without_noise,
)
from ukihashi.detect.reasons import Opening, dialogue_reason, steps, timer_reason
from ukihashi.detect.record import Attached, Connection, Family, Finding, Reason, Verdict, bare
from ukihashi.errors import N_

LOGIN_MIN: Final = 6.5
LOGIN_ALONE: Final = 7.5
FURTHER_MIN: Final = 3.5
FURTHER_WITHIN_S: Final = 90.0
APART_S: Final = 0.7  # a client waits a second at least before it opens one more
SOON_S: Final = 4.0  # and opens the first of them at once; those measured came after 1.03 to 1.30 s
TIMER_MIN: Final = 6.0
DISTINCT: Final = 0.5  # share of distinct sizes; SSH rounds them up to 8 or 16 bytes
OWN_LOGIN_MIN: Final = 5.0
OWN_LOGIN_MAX: Final = 7.0  # more says nothing here: what is seen need not be TLS
PROBABLE_AFTER_S: Final = 75.0
COUPLED_MAX: Final = 0.85
GIVE_UP_S: Final = 300.0
# Two dialogues alone are not enough: calls over HTTPS through the same SSH connection have such sizes now and then.
# Asked for in the last minute: keep-alives and polls, which are small and which nothing brought about.
MINUTE_S: Final = 60.0
ALONE_MIN: Final = (2, 3)  # of client and server: small messages with none of the other side close by
UNASKED_MIN: Final = 3  # of both: messages before which the other side was silent, too; one of each at least
SMALL_SHARE: Final = (0.7, 0.6)  # of client and server: of the messages after silences
BEFORE_S: Final = 10.0
STRANGERS_S: Final = 90.0
STRANGERS_MAX: Final = 1  # dialogues in that time that belong to no session
SESSIONS_MAX: Final = 3  # sessions in that time besides this one
STRANGER_LOGIN: Final = 5.0
OPENING_S: Final = 45.0  # for so long, up to 32 connections, one a second, belong to the session
STRANGERS: Final = 32  # kept
UNASKED_KEPT: Final = 32
FURTHER_MAX: Final = 31  # connections of a session besides the first
WAITING_MAX: Final = 4  # sessions that are waited for in one SSH connection
LOOK_S: Final = 5.0
OPENING_TURNS: Final = 20  # in which the roles show themselves, and the size of the smallest packet
NAMED_BY: Final = 4  # turns after which the client has said its name
SAME_TURNS: Final = 4  # two readings closer than this are one login

SMALLEST_MIN: Final = 28  # bytes of the smallest packet, "login accepted", with the usual cipher
SMALLEST_MAX: Final = 84  # the same with other ciphers
ALIVE_MORE: Final = 28  # bytes by which "are you there?" may be larger; a tunnel's keep-alive is larger still

DIALOGUES: Final = {
    Family.SOFTETHER: (model.SOFTETHER_LOGIN, model.SOFTETHER_AT_OURS),
    Family.UKIHASHI: (model.UKIHASHI_LOGIN, model.OURS_AT_SOFTETHER, model.UKIHASHI_FURTHER),
}

LOGIN: Final = N_("login dialogue inside SSH")
FURTHER: Final = N_("further connection inside SSH")
TIMERS: Final = N_("keep-alive timers")
NEVER_SILENT: Final = N_("never silent for long")
UNASKED: Final = N_("each side speaks without being asked")
IDENTIFICATION: Final = N_("SSH client identification")


class Nested:
    """An opening dialogue inside an SSH connection."""

    __slots__ = (
        "begin",
        "connections",
        "family",
        "finding",
        "further",
        "joined",
        "login",
        "matched",
        "opened",
        "opening",
        "place",
        "turns",
    )

    def __init__(self, family: Family, login: float, place: int, turns: Sequence[Turn], matched: float) -> None:
        self.family = family
        self.login = login
        self.place = place  # turns of the SSH connection until then
        self.begin = turns[0].begin
        self.turns = tuple(turn.size for turn in turns)
        self.opening = Opening.read(self.begin, turns, 0, DIALOGUES[family])
        self.matched = matched
        self.finding: Finding | None = None
        self.further: Reason | None = None  # the further connection's dialogue, once there was one
        self.joined: Opening | None = None  # and its turns
        self.opened = matched  # when the last dialogue that the rule needs had matched
        self.connections = list[Connection]()  # further ones


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
        "opened",
        "own",
        "smallest",
        "strangers",
        "unasked",
        "waiting",
    )

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.count = 0  # turns so far
        self.named: Finding | None = None  # by the client's identification
        self.counted = False  # its line stands for one of the tunnels inside
        self.latest: Nested | None = None  # the last login of SoftEther
        self.waiting: list[Nested] = []  # logins of SoftEther that are neither confirmed nor given up
        self.strangers: deque[tuple[float, int]] = deque(maxlen=STRANGERS)  # time and place of other dialogues
        self.opened: deque[float] = deque(maxlen=STRANGERS)  # when sessions had both dialogues
        self.unasked: tuple[deque[float], deque[float]] = (deque(maxlen=UNASKED_KEPT), deque(maxlen=UNASKED_KEPT))
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

    def meet(self, time: float) -> None:
        """A dialogue ends here that is not, or need not be, one of the session before it."""
        if not self.strangers or self.count - self.strangers[-1][1] >= SAME_TURNS:
            self.strangers.append((time, self.count))

    def crowded(self, nested: Nested, now: float) -> bool:
        """Do dialogues come and go around this one, as of a program that makes many connections?"""
        since = max(nested.matched - BEFORE_S, now - STRANGERS_S)
        others = sum(time >= since and place != nested.place for time, place in self.strangers)
        return others > STRANGERS_MAX or sum(time >= since for time in self.opened) > SESSIONS_MAX + 1

    def small(self, directions: Sequence[Sequence[Message]], since: float, now: float) -> bool:
        """Are nearly all messages after silences small? A stream has no silences."""
        since = max(since, now - MINUTE_S)
        for half, messages, share in zip((self.flow.client, self.flow.server), directions, SMALL_SHARE, strict=True):
            sizes = [message.size for message in messages if message.time >= since]
            if half.longest > BUSY_S and sum(size <= SMALL for size in sizes) < share * len(sizes):
                return False
        return True

    def speak(self, directions: Sequence[Sequence[Message]], since: float, now: float) -> bool:
        """Does each side say small things of its own accord?"""
        since = max(since, now - MINUTE_S)
        for messages, least in zip(directions, ALONE_MIN, strict=True):
            if sum(m.time >= since and m.size <= SMALL and not m.coupled for m in messages) < least:
                return False
        return self.unprompted(since)

    def unprompted(self, since: float) -> bool:
        """Did each side speak without being asked? In questions and answers, however slow, none does."""
        client, server = (sum(time > since for time in times) for times in self.unasked)
        return min(client, server) >= 1 and client + server >= UNASKED_MIN

    @property
    def busy(self) -> bool:
        """Does a direction carry a stream?"""
        return min(self.flow.client.longest, self.flow.server.longest) <= BUSY_S


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
        if turns[-1].toward_server or turns[-1].size < model.UKIHASHI_FURTHER.s2.low or len(turns) < PLACES[0] + 1:
            return found
        readings = [(unwrapped(turns[-LONGEST:]), 0.0)] if may_end_a_dialogue(turns) else []
        thin = without_noise(turns[-REACH:])
        if may_end_a_dialogue(thin):
            readings.append((unwrapped(thin[-LONGEST:]), NOISE_COST))
        if not readings:
            return found
        return found + self._softether(shell, readings, time) + self._own(shell, readings, time)

    def spoke(self, shell: Shell, half: Half, now: float) -> list[Finding | Attached]:
        """A message of `half` begins."""
        if not shell.waiting and shell.own is None:
            return []
        if half.peer.heard <= now - half.messages[-1].gap:
            shell.unasked[half is shell.flow.server].append(now)
        return self._judge(shell, now)

    def closed(self, flow: Flow) -> None:
        """The connection ended."""
        self._shells.pop(id(flow), None)

    def tick(self, now: float) -> list[Finding | Attached]:
        """About once a second."""
        found: list[Finding | Attached] = []
        for key, shell in list(self._shells.items()):
            if shell.flow.case is not shell:
                del self._shells[key]
            elif now >= shell.next_look and (shell.waiting or shell.own is not None):
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
        login, turns = best_reading(readings, DIALOGUES[Family.SOFTETHER], HELLO, FLIGHT_MIN)
        latest = shell.latest
        again = latest is not None and shell.count - latest.place < SAME_TURNS
        if login >= LOGIN_MIN:
            if latest is not None and again:
                latest.login = max(latest.login, login)
                return []
            if not shell.waiting and shell.own is None:
                shell.watch(time)
            shell.joined = turns[-1].begin
            shell.latest = Nested(Family.SOFTETHER, login, shell.count, turns, time)
            shell.waiting = [one for one in shell.waiting if one.further is not None][1 - WAITING_MAX :]
            shell.waiting.append(shell.latest)
            shell.meet(time)
            return []
        further, turns = best_reading(readings, (model.SOFTETHER_FURTHER,), HELLO_AGAIN, FLIGHT_AGAIN_MIN)
        if further < FURTHER_MIN or again:
            if login >= STRANGER_LOGIN and not again:
                shell.meet(time)
            return []
        if latest is None or time - latest.matched > FURTHER_WITHIN_S or turns[0].end < shell.joined + APART_S:
            shell.meet(time)
            return []
        if turns[0].begin > shell.joined + SOON_S and latest.further is None:
            shell.meet(time)
            return []
        if time - latest.matched > OPENING_S:
            shell.meet(time)
        shell.joined = turns[-1].begin
        connection = Connection(ends_of(shell.flow)[0], turns[0].begin)
        if latest.finding is not None and latest.finding.verdict is Verdict.CONFIRMED:
            return [Attached(latest.finding, connection)]
        if len(latest.connections) < FURTHER_MAX:
            latest.connections.append(connection)
        if latest.further is None:
            latest.joined = Opening.read(turns[0].begin, turns, 0, (model.SOFTETHER_FURTHER,))
            latest.further = dialogue_reason(FURTHER, further, latest.joined, (model.SOFTETHER_FURTHER,))
            latest.opened = time
            shell.opened.append(time)
            shell.strangers = deque((one for one in shell.strangers if one[1] != latest.place), STRANGERS)
        return []

    def _own(self, shell: Shell, readings: Sequence[Reading], time: float) -> list[Finding | Attached]:
        """Remember a dialogue like ours; many are, so the timers decide."""
        if shell.fired or shell.waiting:
            return []
        login, turns = best_reading(readings, DIALOGUES[Family.UKIHASHI], HELLO, FLIGHT_OWN_MIN)
        # Traffic of a tunnel can look like one more dialogue; the better one stays, and what followed it.
        if login >= OWN_LOGIN_MIN and (shell.own is None or login > shell.own.login):
            shell.watch(time)
            shell.own = Nested(Family.UKIHASHI, login, shell.count, turns, time)
        return []

    # -- verdicts ------------------------------------------------------------------------------------------------

    def _judge(self, shell: Shell, now: float, *, last: bool = False) -> list[Finding | Attached]:
        if not shell.waiting:
            return self._judge_own(shell, now)
        found: list[Finding | Attached] = []
        for nested in shell.waiting[:]:
            found += self._judge_nested(shell, nested, now, last=last)
            if now - nested.matched > GIVE_UP_S and nested in shell.waiting:
                shell.waiting.remove(nested)
        if shell.own is not None and not found:
            found = self._judge_own(shell, now)
        return found

    def _judge_nested(self, shell: Shell, nested: Nested, now: float, *, last: bool) -> list[Finding | Attached]:
        flow, since = shell.flow, nested.matched
        directions = [[m for m in complete(half) if m.time >= since] for half in (flow.client, flow.server)]
        if shell.crowded(nested, now) or not shell.small(directions, nested.opened, now):
            return []
        timing = model.softether_timing([messages_inside(messages) for messages in directions])
        unprompted = shell.unprompted(nested.opened)
        further = (nested.further,) if nested.further is not None else ()
        if unprompted and timing.gaps >= 6 and timing.score >= TIMER_MIN and ssh_timer_shape(timing):
            return self._confirm(shell, nested, now, "2, SSH", (timer_reason(TIMERS, timing), *further), directions)
        if further and shell.speak(directions, nested.opened, now):
            return self._confirm(shell, nested, now, "6", (*further, Reason(UNASKED, 0.0)), directions)
        if nested.login >= LOGIN_ALONE or further:
            if (unprompted or shell.busy) and never_silent(flow, directions, since, now):
                reasons = (*further, Reason(NEVER_SILENT, 0.0))
                return self._confirm(shell, nested, now, "6b", reasons, directions)
            named = shell.named is not None and not shell.counted
            open_for_long = last or now - since >= PROBABLE_AFTER_S
            if open_for_long and nested.finding is None and not named and coupling(flow, directions) <= COUPLED_MAX:
                return self._confirm(shell, nested, now, "6, alone", further, directions, Verdict.PROBABLE)
        return []

    def _judge_own(self, shell: Shell, now: float) -> list[Finding | Attached]:
        opened, flow = shell.own, shell.flow
        if opened is None:
            return []
        if max(max(half.longest, now - half.heard) for half in (flow.client, flow.server)) > own.DEAD_S:
            shell.own = None
            return []
        directions = [complete(half) for half in (flow.client, flow.server)]
        inside = [messages_inside(messages) for messages in directions]
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
    ) -> list[Finding | Attached]:
        connections = [Connection(ends_of(shell.flow)[0], nested.begin), *nested.connections]
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
            timeline=steps(dict(enumerate(filter(None, (nested.opening, nested.joined)))), {0: shell.flow}),
            packets=evidence_packets(self._headers(shell.flow), now),
        )
        nested.finding = bare(finding)
        if verdict is Verdict.CONFIRMED:
            shell.fired = shell.fired or nested is shell.own
            shell.waiting = [] if shell.fired else [one for one in shell.waiting if one is not nested]
            shell.own = None
        if self._follow is not None and not named:
            self._follow(nested.finding, [shell.flow])
        return [finding]


def ssh_timer_shape(timing: model.Timing) -> bool:
    """As `evidence.timer_shape`, for sizes that SSH rounds to 8 or 16 bytes."""
    return 0.2 <= timing.atom <= 0.85 and timing.coupled <= 0.5 and timing.distinct >= DISTINCT
