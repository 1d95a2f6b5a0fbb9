"""Rule 5: connections that began before the capture are known by their timers alone, so these must speak clearly."""

from dataclasses import replace
from typing import Final

from ukihashi.detect import model
from ukihashi.detect.evidence import (
    Headers,
    complete,
    connection_of,
    evidence_packets,
    make_finding,
    no_headers,
    own_shape,
    session_key,
)
from ukihashi.detect.flow import Flow, Half
from ukihashi.detect.model import Timing
from ukihashi.detect.reasons import steps, timer_reason
from ukihashi.detect.record import Family, Finding, Verdict
from ukihashi.errors import N_

MAX_TOGETHER: Final = 64  # connections of one key looked at together
MAX_KEYS: Final = 16_384  # keys found; the oldest is forgotten
PROBABLE_GAPS: Final = 12
MAX_SERVERS: Final = 16_384  # ends known to serve; the oldest is forgotten


class Midstream:
    """The flows without a begin, by client address, server address and port; one finding for each."""

    def __init__(self, headers: Headers = no_headers) -> None:
        self._headers = headers
        self._flows: dict[bytes, list[Flow]] = {}
        self._done: dict[bytes, None] = {}
        self._probable: dict[bytes, None] = {}  # keys whose connections show one direction only, so far
        self._servers: dict[bytes, None] = {}
        self._shared: dict[bytes, dict[Flow, None]] = {}  # the flows of an address and port to one other address

    def serves(self, flow: Flow) -> None:
        """The begin of `flow` was seen, so that its server is known for one."""
        self._serves(_ends(flow)[1])

    def _serves(self, end: bytes) -> None:
        if end not in self._servers and len(self._servers) >= MAX_SERVERS:
            del self._servers[next(iter(self._servers))]
        self._servers[end] = None

    def join(self, flow: Flow) -> None:
        """A flow whose begin was not seen: its roles are guessed by its ports, until other flows tell more.

        Several connections of two hosts have one port in common, the server's.
        """
        client, server = _ends(flow)
        for shared in _shares(flow):
            self._shared.setdefault(shared, {})[flow] = None
        known = client in self._servers
        if server in self._servers or not (known or self._is_shared_by_client(flow)):
            self._put_in(flow)
            return
        for other in [flow] if known else list(self._shared[_shares(flow)[0]]):
            if _ends(other)[0] == client:
                self._take_out(other)
                other.swap()
                self._put_in(other)
        self._serves(client)

    def _is_shared_by_client(self, flow: Flow) -> bool:
        by_client, by_server = (len(self._shared[shared]) for shared in _shares(flow))
        return by_client > by_server

    def _put_in(self, flow: Flow) -> None:
        flows = self._flows.setdefault(session_key(flow), [])
        if len(flows) >= MAX_TOGETHER:
            oldest = flows[0]
            self.leave(oldest)
            oldest.drop()
            flows = self._flows.setdefault(session_key(flow), [])
        flows.append(flow)

    def _take_out(self, flow: Flow) -> None:
        key = session_key(flow)
        flows = self._flows.get(key, [])
        if flow in flows:
            flows.remove(flow)
            if not flows:
                del self._flows[key]

    def leave(self, flow: Flow) -> None:
        """It ended."""
        self._take_out(flow)
        for shared in _shares(flow):
            flows = self._shared.get(shared, {})
            flows.pop(flow, None)
            if not flows:
                self._shared.pop(shared, None)

    def judge(self, half: Half, now: float) -> Finding | None:
        """A message of a watched flow begins: is it enough now? A key is found once."""
        flow = half.flow
        key = session_key(flow)
        if key in self._done or len(half.messages) < 6:
            return None
        found = self._softether(key, now)
        if found is not None:
            return found
        directions = [complete(flow.client), complete(flow.server)]
        each = [model.ukihashi_timing([messages]) for messages in directions]
        timing = model.ukihashi_timing(directions)
        limit = model.UKIHASHI_WAIT_S + model.UKIHASHI_LOST_S
        if (
            min(one.gaps for one in each) >= 6
            and timing.gaps >= 14
            and timing.score >= 28.0
            and timing.coupled <= 0.4
            and all(own_shape(one) for one in each)
            and max(flow.client.longest, flow.server.longest) <= limit
        ):
            return self._found(key, [flow], Family.UKIHASHI, "own, begin unseen", timing, now)
        return None

    def _softether(self, key: bytes, now: float) -> Finding | None:
        units = list[tuple[Flow, bool, Timing]]()
        for flow in self._flows.get(key, []):
            for half in (flow.client, flow.server):
                if len(half.messages) < 6:
                    continue
                timing = model.softether_timing([complete(half)])
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
            every = model.softether_timing([complete(half) for flow in flows for half in (flow.client, flow.server)])
            return self._found(key, flows, Family.SOFTETHER, "5", every._replace(score=score, gaps=gaps), now)
        if not both and gaps >= PROBABLE_GAPS and len(flows) >= 2 and key not in self._probable:
            halves = [flow.client if from_client else flow.server for flow, from_client, _ in units]
            every = model.softether_timing([complete(half) for half in halves])
            if len(self._probable) >= MAX_KEYS:
                del self._probable[next(iter(self._probable))]
            self._probable[key] = None
            finding = self._finding(key, flows, "5", every._replace(score=score, gaps=gaps), now)
            return replace(finding, verdict=Verdict.PROBABLE)
        return None

    def _found(self, key: bytes, flows: list[Flow], family: Family, rule: str, timing: Timing, now: float) -> Finding:
        finding = replace(self._finding(key, flows, rule, timing, now, family), again=key in self._probable)
        if len(self._done) >= MAX_KEYS:
            del self._done[next(iter(self._done))]
        self._done[key] = None
        self._probable.pop(key, None)
        for flow in list(self._flows.get(key, [])):
            self.leave(flow)
            flow.drop()
        return finding

    def _finding(
        self,
        key: bytes,
        flows: list[Flow],
        rule: str,
        timing: Timing,
        now: float,
        family: Family = Family.SOFTETHER,
    ) -> Finding:
        flows = sorted(flows, key=lambda flow: flow.begin)
        directions = [complete(half) for flow in flows for half in (flow.client, flow.server)]
        connections = [connection_of(flow) for flow in flows]
        reason = timer_reason(N_("keep-alive timers"), timing, own=family is Family.UKIHASHI)
        finding = make_finding(flows[0], connections, now, rule, (reason,), directions)
        packets = [packet for flow in self._flows.get(key, flows) for packet in self._headers(flow)]
        return replace(
            finding,
            family=family,
            timeline=steps({}, dict(enumerate(flows))),
            packets=evidence_packets(packets, now),
        )


def _ends(flow: Flow) -> tuple[bytes, bytes]:
    """Client and server: address and port."""
    key = flow.client.key
    size = (len(key) - 4) // 2
    return key[:size] + key[-4:-2], key[size:-4] + key[-2:]


def _shares(flow: Flow) -> tuple[bytes, bytes]:
    """The client's address and port and the server's address; the server's, and the client's address."""
    client, server = _ends(flow)
    return client + server[:-2], server + client[:-2]
