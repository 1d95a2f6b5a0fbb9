"""A session as a value: what another process needs to go on with it. Plain, so that it can travel as MessagePack."""

from typing import Final

import msgspec

from ukihashi.hub.udp import SavedUdp
from ukihashi.session.machine import Saved
from ukihashi.switch.rules import PortRules
from ukihashi.wire.messages import Node
from ukihashi.wire.policy import DEFAULT, Policy

BRIDGE: Final = "bridge"  # `Member.mode`: any number of stations behind it
MONITOR: Final = "monitor"  # hears everything and says nothing


class Member(msgspec.Struct, frozen=True):
    """What was settled at the login."""

    session: str  # SID-USER-n
    connection: str  # CID-n of the connection that logged in
    key: bytes  # secret: whoever has it can go on with the session
    user: str
    peer: str  # of the connection that logged in
    client: str  # product string
    extension: int  # ukihashi version spoken; 0 = a standard peer
    timeout_s: float  # T
    max_connections: int
    since: float  # seconds since 1970
    mode: str = ""  # "", BRIDGE or MONITOR
    group: str = ""
    policy: Policy = DEFAULT  # as it is in force: with what a normal client may not, and what was not asked for
    half_duplex: bool = False
    compression: bool = False
    encrypted: bool = True
    client_version: int = 0
    client_build: int = 0
    node: Node = Node()
    super_frames: int = 0  # kinds (`ether.offload.Kind`) that go both ways

    @property
    def rules(self) -> PortRules:
        """For its port. A card of ours may have a network behind it, though no bridge."""
        return PortRules(
            policy=self.policy,
            user=self.user,
            group=self.group,
            bridge=self.mode == BRIDGE,
            monitor=self.mode == MONITOR,
            over_ipv6=self.peer.startswith("["),
            confined=self.mode != BRIDGE and not self.extension,
        )


class Counters(msgspec.Struct):
    """Frames and bytes so far, from the member (in) and to it (out)."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    tls_writes: int = 0


class SavedStation(msgspec.Struct, frozen=True, array_like=True):
    """A station behind the session's port; ages in seconds."""

    key: bytes  # as in `switch.mac_table`
    created: float
    seen: float


class SavedAddress(msgspec.Struct, frozen=True, array_like=True):
    """An IP address behind the session's port; ages in seconds."""

    address: bytes  # 4 or 16
    created: float
    seen: float
    leased: bool  # by DHCP


class SavedResume(msgspec.Struct, frozen=True):
    """What a session with exact resume has beside."""

    machine: Saved
    cut_s: float  # seconds without a link so far
    heard: bool  # something came over some link


class SavedGuard(msgspec.Struct, frozen=True):
    """How a port stands that is guarded against loops (`guarding`)."""

    id: bytes  # of the virtual hub, in its probes
    secret: bytes
    because: str | None  # blocked: the name of the other port of the loop


class SavedSession(msgspec.Struct, frozen=True):
    """See the module."""

    hub: str
    hub_sessions: int  # numbers that the virtual hub has given to sessions so far
    member: Member
    peer: str  # of the newest connection
    count: Counters
    stations: list[SavedStation]
    drops: dict[str, int]  # frames at the port's way in, by reason
    queue: list[bytes]  # frames that wait for a connection
    queue_drops: dict[str, int]
    resume: SavedResume | None = None
    udp: SavedUdp | None = None
    told: Counters = msgspec.field(default_factory=Counters)  # of `count`, what control has heard of
    addresses: list[SavedAddress] = []
    guard: SavedGuard | None = None
