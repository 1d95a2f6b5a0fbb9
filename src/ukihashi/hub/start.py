"""How a hub is to run, and what its control process is given."""

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ukihashi.hub.bridges import Wanted
from ukihashi.hub.limits import Limits
from ukihashi.hub.live_options import LiveOptions
from ukihashi.hub.pulse import Manager, Nobody
from ukihashi.net.suites import NO_PICK, Pick


@dataclass(frozen=True, slots=True)
class ControlStart:
    """What the control process is given, already open. Its working folder is the state folder."""

    supervisor: socket.socket  # SEQPACKET
    workers: Mapping[int, socket.socket]  # streams, by number; a new worker's comes as `PeerLink`
    web: socket.socket  # listening, Unix: page requests from the worker
    admin: socket.socket  # listening, Unix: commands
    state_dir: Path
    endpoints: tuple[tuple[str, int], ...]  # what the hub really listens on
    host_ports: bool  # may ask for host ports (we are root)


@dataclass(frozen=True, slots=True)
class CascadeStart:
    """What a cascade's process is given."""

    name: str  # "HUB/CASCADE"
    cable: socket.socket  # SEQPACKET: frames (`tap.frame_pipe`)
    control: socket.socket  # SEQPACKET: what to join, and how it stands (`config.cascade`)
    give_up: Callable[[], None]  # all rights; to be called before a byte is read


@dataclass(frozen=True, slots=True)
class Supervisor:
    """How a hub is to run."""

    listen: Sequence[tuple[str, int]]  # literal address and port; port 0 takes a free one
    state_dir: Path  # of the control process
    runtime_dir: Path  # for the sockets
    certificate: Path
    key: Path
    program: Sequence[str] = ()  # what an upgrade executes: this very command; empty: there are no upgrades
    options: LiveOptions | None = None  # None: nothing can be changed while it runs
    control_user: str = "ukihashi"
    worker_user: str = "ukihashi-worker"
    cascade_user: str = "ukihashi-card"
    cascade: Callable[[CascadeStart], int] | None = None  # a cascade's life, in a process of its own; its exit status
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    congestion: str = ""  # TCP congestion control of the connections accepted; "" = the machine's own
    pick: Pick = NO_PICK  # cipher suites
    uplinks: Mapping[str, frozenset[str]] = field(default_factory=dict)  # `HubConfig.uplinks` at the start
    bridges: Mapping[str, Wanted] = field(default_factory=dict)  # `wanted_bridges` at the start
    tell: Callable[[str], object] = lambda sentence: print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    manager: Manager = field(default_factory=Nobody)  # who started the hub and wants to know how it is
    handed_over: Sequence[int] = ()  # listening TCP sockets that the manager has opened: in the place of `listen`
    ready: Callable[[Sequence[tuple[str, int]]], object] = lambda _endpoints: None  # both serve; the real addresses
