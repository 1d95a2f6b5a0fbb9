"""How long the hub's worker waits and how much it holds. All are options; the defaults are decisions D7, D8 and D12."""

from dataclasses import dataclass
from typing import Final

from ukihashi.hub.messages import LOGIN_DEADLINE

DEFAULT_QUEUE: Final = 1024 * 1024


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
    queue_bytes: int = DEFAULT_QUEUE  # plaintext that waits for one port; beyond it the newest frames are dropped
    batch_bytes: int = 256 * 1024  # plaintext of one TLS write
    max_connections: int = 8  # TCP connections granted to one session
