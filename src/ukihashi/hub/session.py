"""A session: a member's place in a virtual hub, and the connections that carry it (sections 9 to 14).

It outlives its connections: with none left it keeps its port, queue and key for the session timeout T, and
`additional_connect` with the key goes on with it. `hub/resumable.py` is the kind that loses nothing meanwhile.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from ukihashi.errors import PeerViolation
from ukihashi.ether.offload import Kind, names
from ukihashi.ether.segment import finish_all
from ukihashi.hub.connection import Connection
from ukihashi.hub.limits import Limits
from ukihashi.hub.messages import SessionClosed, Traffic
from ukihashi.hub.ports import Encodings, VirtualHub
from ukihashi.hub.saved import BRIDGE, Counters, Member, SavedAddress, SavedSession, SavedStation
from ukihashi.hub.tunnel import Tunnel
from ukihashi.hub.udp import NO_UDP, UdpPort
from ukihashi.switch import loop_guard
from ukihashi.switch.ip_table import AddressRow
from ukihashi.switch.mac_table import Station
from ukihashi.switch.queue import FairQueue, PortQueue
from ukihashi.wire.blocks import decompress
from ukihashi.wire.constants import Direction
from ukihashi.wire.extension import Reason
from ukihashi.wire.udp import UdpGrant, UdpOffer

if TYPE_CHECKING:
    from ukihashi.hub.sessions import Sessions

COMPRESSED_BATCH: Final = 64 * 1024  # bytes of frames that are compressed at once: others wait meanwhile

# A reason of drops at the way in, beside those of the switch: a block that gives no frame when it is decompressed.
INFLATE: Final = "inflate"


class Session:
    """One member: a port of the switch. `close` ends it for good."""

    def __init__(self, owner: "Sessions", hub: VirtualHub, member: Member) -> None:
        self._owner = owner
        self._loop = owner.loop
        self.hub = hub
        self.member = member
        self.name = member.session
        self.peer = member.peer  # of the newest connection
        self.queue: PortQueue = FairQueue(owner.limits.queue_bytes)
        self.tunnels: list[Tunnel] = []  # the newest last
        self.udp: UdpPort | None = None  # beside them
        self.heard = self._loop.now  # when any connection delivered something
        self.count = Counters()
        self._told = Counters()  # of these, what control has heard of
        self._cut_at = self.heard  # when the last connection went, if there is none
        self.port = hub.plug(self, member.rules, kinds=Kind(member.super_frames))
        if hub.guard is not None and member.mode == BRIDGE:
            hub.guard.guard(self.port, loop_guard.Kind.MEMBER, member.since)
        self._watch = self._loop.at(self.heard + member.timeout_s, self._on_watch)
        self.is_open = True

    @property
    def limits(self) -> Limits:
        """Those of the worker."""
        return self._owner.limits

    def set_limits(self) -> None:
        """The worker's limits have changed."""
        self.queue.bound(self.limits.queue_bytes)
        for tunnel in self.tunnels:
            tunnel.set_limits(self.limits)

    # -- connections ----------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Takes one more connection: one above what was granted, as the protocol's own servers do (13.2, trap T9)."""
        return len(self.tunnels) <= self.member.max_connections

    def direction(self, *, first: bool = False) -> Direction:
        """What the next connection may carry; `first`: it is the one that logged in (13.3)."""
        if not self.member.half_duplex:
            return Direction.BOTH
        there = Counter(tunnel.direction for tunnel in self.tunnels)
        if first or there[Direction.TO_CLIENT] > there[Direction.TO_SERVER]:
            return Direction.TO_SERVER
        return Direction.TO_CLIENT

    def attach(self, connection: Connection, unread: bytes, direction: Direction = Direction.BOTH) -> None:
        """`connection` carries this session from now on; `unread`: tunnel bytes that came with its last request."""
        if not connection.is_open:  # it broke under our answer
            return
        if not self.member.encrypted:
            unread += connection.leave_tls()
        tunnel = self._tunnel(connection, direction)
        self.tunnels.append(tunnel)
        self.peer = connection.peer
        tunnel.start()
        self._owner.outbox.mark(self)  # what waited for a connection goes out now
        if unread and connection.is_open:
            try:
                tunnel.received(unread, self._loop.now)
            except PeerViolation as violation:
                connection.close(str(violation))

    def _tunnel(self, connection: Connection, direction: Direction) -> Tunnel:
        return Tunnel(self, connection, self._loop, self.limits, direction)

    def grant_udp(self, offer: UdpOffer, connection: Connection) -> UdpGrant | None:
        """A path over UDP beside the connections, if there may be one: what to tell the member that offers it."""
        ends, made = connection.ends, None
        if ends is not None:
            made = self._owner.udp.grant(offer, local=ends[0], peer=ends[1], encrypted=self.member.encrypted)
        if made is None:
            return None
        self._use_udp(made[0])
        return made[1]

    def _use_udp(self, udp: UdpPort) -> None:
        self.udp = udp
        udp.deliver_to(self.take)

    def detach(self, tunnel: Tunnel, reason: str) -> None:  # noqa: ARG002 - for those who need it
        """`tunnel` is gone; the session waits for another until T has passed."""
        self.tunnels.remove(tunnel)
        self._cut_at = self._loop.now

    def cut_since(self) -> float:
        """When the last connection went; later than any such moment while there is one."""
        return math.inf if self.tunnels else self._cut_at

    @property
    def granted_s(self) -> int:
        """Exact resume for so many seconds after a cut, as the welcome says it; 0 = not granted."""
        return 0

    # -- frames ---------------------------------------------------------------------------------------------------

    def inflated(self, blocks: list[bytes]) -> list[bytes]:
        """The frames in blocks of the member (12.4); what is none, or longer than any, is dropped and counted."""
        if not self.member.compression:
            return blocks
        frames = [frame for block in blocks if (frame := decompress(block)) is not None]
        if len(frames) < len(blocks) and self.is_open:
            self.hub.switch.drops[self.port][INFLATE] += len(blocks) - len(frames)
        return frames

    def take(self, frames: Sequence[bytes], now: float) -> PortQueue | None:
        """Frames from the member. Gives a queue on their way in which much waits already."""
        if not self.is_open:
            return None
        self.count.frames_in += len(frames)
        self.count.bytes_in += sum(map(len, frames))
        if self.udp is not None:
            frames = self.udp.clamp(list(frames))
        return self.hub.forward(frames, self.port, now)

    def can_write(self) -> None:
        """A connection can take something again."""
        if self.queue:
            self._owner.outbox.mark(self)

    def flush(self, encodings: Encodings) -> bool:
        """One batch on one connection: the newest that waits for nothing (12.5). True if more could go at once."""
        if self.queue and self.udp is not None and self.udp.is_ready:
            return self._flush_by_udp(self.udp, encodings)
        if not self.queue or (tunnel := self._writable()) is None:
            return False
        batch, _ = self._next_batch(encodings)
        self.count.tls_writes += 1
        tunnel.write(batch, self._loop.now)
        return bool(self.queue) and self._writable() is not None

    def _flush_by_udp(self, udp: UdpPort, encodings: Encodings) -> bool:
        """As `flush`; what is too long for a datagram goes over a connection, or waits for one."""
        frames = udp.clamp(self.queue.take(self.limits.batch_bytes))
        rest = udp.send(frames)
        if rest and (tunnel := self._writable()) is not None:
            self.count.tls_writes += 1
            tunnel.write(encodings.batch(rest, compressed=self.member.compression), self._loop.now)
            rest = []
        self.queue.put_back(rest, {})
        self.count.frames_out += len(frames) - len(rest)
        self.count.bytes_out += sum(map(len, frames)) - sum(map(len, rest))
        return bool(self.queue) and len(rest) < len(frames)

    def _next_batch(self, encodings: Encodings) -> tuple[bytes, int]:
        """The oldest frames of the queue, encoded, and their number."""
        compressed, most = self.member.compression, self.limits.batch_bytes
        frames = self.queue.take(min(most, COMPRESSED_BATCH) if compressed else most)
        if self.udp is not None:
            frames = self.udp.clamp(frames)
        self.count.frames_out += len(frames)
        self.count.bytes_out += sum(map(len, frames))
        return encodings.batch(frames, compressed=compressed), len(frames)

    def _writable(self) -> Tunnel | None:
        for tunnel in reversed(self.tunnels):
            if tunnel.is_writable:
                return tunnel
        return None

    def report(self) -> None:
        """Tell control what was moved since it heard last; what it can't hear now it hears the next time."""
        count, told = self.count, self._told
        if (count.frames_in, count.frames_out) == (told.frames_in, told.frames_out):
            return
        traffic = Traffic(
            session=self.name,
            hub=self.hub.name,
            user=self.member.user,
            frames_in=count.frames_in - told.frames_in,
            bytes_in=count.bytes_in - told.bytes_in,
            frames_out=count.frames_out - told.frames_out,
            bytes_out=count.bytes_out - told.bytes_out,
        )
        if self._owner.tell(traffic):
            self._told = copy(count)

    # -- the end --------------------------------------------------------------------------------------------------

    def _on_watch(self) -> None:
        """No timer a frame: looked at once per T, and then again when T after the last delivery has come."""
        if self._loop.now >= self._ends_at:
            self.close("nothing heard" if self.tunnels else "no connection left")
        else:
            self._watch = self._loop.at(self._ends_at, self._on_watch)

    def close(self, reason: str, why: Reason = Reason.LEFT) -> None:  # noqa: ARG002 - for the kind that says it
        """End it: port, addresses, key and connections go. A second call does nothing. `why` is for the member."""
        if not self.is_open:
            return
        drops = self.drops.total()
        self._leave(reason)
        self.report()
        self._owner.tell(
            SessionClosed(
                session=self.name,
                hub=self.hub.name,
                user=self.member.user,
                reason=reason,
                frames_in=self.count.frames_in,
                bytes_in=self.count.bytes_in,
                frames_out=self.count.frames_out,
                bytes_out=self.count.bytes_out,
                dropped=drops,
                lost=self.lost,
                at=time.time(),
            )
        )

    def _leave(self, reason: str) -> None:
        """Nothing of it is left in this process."""
        self.is_open = False
        self._watch.cancel()
        self._owner.forget(self)
        self.hub.unplug(self.port)
        if self.udp is not None:
            self.udp.close()
        for tunnel in list(self.tunnels):
            tunnel.close(reason)

    # -- another process ------------------------------------------------------------------------------------------

    def save(self) -> SavedSession:
        """Its value, for `Sessions.restore` in another process. It ends here, untold, its connections in good order."""
        now = self._loop.now
        self.is_open = False
        for tunnel in list(self.tunnels):  # first of all: what is counted from here on must not change any more
            tunnel.close("the hub goes on in another process")
        saved = SavedSession(
            hub=self.hub.name,
            hub_sessions=self.hub.sessions_so_far,
            member=self.member,
            peer=self.peer,
            count=self.count,
            stations=[
                SavedStation(station.key, now - station.created, now - station.seen)
                for station in self.hub.switch.stations(self.port)
            ],
            drops=dict(self.hub.switch.drops[self.port]),
            queue=finish_all(self.queue.frames),
            queue_drops=dict(self.queue.dropped),
            udp=self.udp.save() if self.udp is not None else None,
            told=self._told,
            addresses=[
                SavedAddress(row.address, now - row.created, now - row.seen, row.leased)
                for row in self.hub.switch.addresses(self.port)
            ],
            guard=self.hub.guard.save(self.port) if self.hub.guard is not None else None,
        )
        self._leave("the hub goes on in another process")
        return saved

    def go_on(self, saved: SavedSession) -> None:
        """Have what `saved` has; just made, with no connection yet."""
        now = self._loop.now
        self.peer = saved.peer
        self.count, self._told = saved.count, saved.told
        switch = self.hub.switch
        switch.put_back(self.port, [Station(one.key, now - one.created, now - one.seen) for one in saved.stations])
        switch.put_back_addresses(
            self.port,
            [
                AddressRow(0, one.address, self.port, now - one.created, now - one.seen, one.leased)
                for one in saved.addresses
            ],
        )
        switch.drops[self.port].update(saved.drops)
        self.queue.put_back(saved.queue, saved.queue_drops)
        udp = self._owner.udp.restore(saved.udp) if saved.udp is not None else None
        if udp is not None:
            self._use_udp(udp)

    # -- what is told of it ---------------------------------------------------------------------------------------

    @property
    def drops(self) -> Counter[str]:
        """Frames dropped by reason: at this port's way in (as `switch.forward` names them) and at its queue."""
        drops = Counter(self.hub.switch.drops.get(self.port, {}))
        drops.update(self.queue.dropped)
        if self.udp is not None:
            drops.update(self.udp.frames_dropped)
        return +drops

    @property
    def lost(self) -> int:
        """Records sent of which nobody knows whether they came; a standard peer can't even tell that there are any."""
        return 0

    @property
    def _ends_at(self) -> float:
        """When it is over if it stays without a connection."""
        return self.heard + self.member.timeout_s

    def row(self, now: float) -> dict[str, Any]:
        """For listings."""
        tls = self.tunnels[-1].connection.tls if self.tunnels else None
        count, member, node = self.count, self.member, self.member.node
        return {
            "session": self.name,
            "hub": self.hub.name,
            "user": member.user,
            "group": member.group,
            "peer": self.peer,
            "client": member.client,
            "extension": member.extension,
            "mode": member.mode,
            "vlan": member.policy.vlan_id,
            "state": "online" if self.tunnels else "cut",
            "cut_s": 0.0 if self.tunnels else round(now - self._cut_at, 1),
            "grace_left_s": 0.0 if self.tunnels else round(max(0.0, self._ends_at - now), 1),
            "resumes": 0,
            "tls_version": tls.version if tls else "",
            "tls_cipher": tls.cipher if tls else "",
            "congestion": self.tunnels[-1].connection.congestion if self.tunnels else "",
            "encrypted": member.encrypted,
            "compression": member.compression,
            "half_duplex": member.half_duplex,
            **(self.udp.row() if self.udp is not None else NO_UDP),
            **(self.hub.guard.row(self.port) if self.hub.guard is not None else {}),
            "connections": len(self.tunnels),
            "max_connections": member.max_connections,
            "offload": names(member.super_frames),
            "since": member.since,
            "last_heard": round(time.time() - (now - self.heard), 3),
            "node": {
                "host": node.host,
                "system": node.system,
                "client": member.client,
                "client_version": member.client_version,
                "client_build": member.client_build,
                "ip": node.ip,
                "unique_id": node.unique_id.hex(),
            },
            "frames_in": count.frames_in,
            "bytes_in": count.bytes_in,
            "frames_out": count.frames_out,
            "bytes_out": count.bytes_out,
            "tls_writes": count.tls_writes,
            "frames_written": count.frames_out,
            "frames_per_tls_write": round(count.frames_out / count.tls_writes, 2) if count.tls_writes else 0.0,
            "drops": dict(self.drops),
            "ledger": {"dropped": dict(self.drops)},
            "waiting_bytes": self.queue.bytes,
            "queued_bytes": self.queue.bytes,
            "idle_s": round(now - self.heard, 1),
        }
