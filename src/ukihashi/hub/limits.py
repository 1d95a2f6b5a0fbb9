"""How long the hub's worker waits and how much it holds. All are options; the defaults are decisions D7, D8 and D12."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from ukihashi.config.hub import HubConfig
from ukihashi.hub.messages import LOGIN_DEADLINE
from ukihashi.wire.constants import MAX_CONNECTIONS

KIB: Final = 1024
MIB: Final = 1024 * KIB


def an_eighth_of_ram() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker; times in seconds."""

    opening_s: float = 15.0  # for each step of an opening: TLS with the first request, then each further request
    login_s: float = LOGIN_DEADLINE  # for control's answer to a login
    relay_s: float = 10.0  # for the page server's answer
    linger_s: float = 2.0  # for the peer to take our last words and hang up too
    idle_s: float = 5.0  # silence before a keep-alive, between two ukihashi ends
    dead_s: float = 15.0  # silence that ends a connection, between two ukihashi ends
    first_s: float = 2.5  # our first keep-alive after the card's, so that the directions don't beat together (D4)

    half_open: int = 4096  # connections that are no tunnel yet; beyond it the one that stood still longest is closed
    relays: int = 128  # page requests at once; more get 503
    queue_bytes: int = 512 * KIB  # plaintext that waits for one port; beyond it the newest frames are dropped
    batch_bytes: int = 256 * KIB  # plaintext of one TLS write
    asking: int = 1024  # logins that wait for control at once; more are told that the hub is busy
    asking_of_one: int = 128  # the same of one address, so that it can't take all places
    sessions: int = 16384  # of all virtual hubs; more are told that the hub is busy
    tools: int = 64  # administration tools that are let in at once
    tool_s: float = 30.0  # for control's answer to a tool's call, and for the tool to take it or send the rest of one
    traffic_s: float = 10.0  # between two reports of what a session moved

    super_frames: bool = True  # granted to who offers them
    proxies: Sequence[str] = ()  # networks of load balancers; connections of theirs begin with a PROXY header

    # Of official clients ([standard] in hub.toml).
    max_connections: int = MAX_CONNECTIONS  # TCP connections granted to one session
    half_duplex: bool = True
    compression: bool = True
    udp_acceleration: bool = True
    udp_first: int = 40000
    udp_last: int = 44999
    allow_plaintext: bool = False

    grace_s: float = 300.0  # a session with exact resume waits so long for its card
    resume_buffer: int = 8 * MIB  # bytes toward one card, records not acknowledged and frames that wait for a link
    resume_memory: int = field(default_factory=an_eighth_of_ram)  # bytes, the same of all sessions together

    @classmethod
    def of(cls, config: HubConfig) -> Self:
        """As `hub.toml` says."""
        standard = config.standard
        udp_first, udp_last = standard.udp_range()
        return cls(
            opening_s=config.limits.opening_s,
            half_open=config.limits.half_open,
            idle_s=config.times.keepalive_s,
            dead_s=config.times.dead_s,
            first_s=config.times.keepalive_s / 2,
            grace_s=config.resume.grace_s,
            resume_buffer=config.resume.buffer_kib * KIB,
            resume_memory=config.resume.memory_mib * MIB or an_eighth_of_ram(),
            super_frames=config.super_frames,
            proxies=config.front.proxies,
            max_connections=standard.max_connections,
            half_duplex=standard.half_duplex,
            compression=standard.compression,
            udp_acceleration=standard.udp_acceleration,
            udp_first=udp_first,
            udp_last=udp_last,
            allow_plaintext=standard.allow_plaintext,
        )
