"""Why something was dropped on a UDP path: short words for counters, and what people read."""

from collections.abc import Mapping
from typing import Final

from ukihashi.errors import N_

FOREIGN: Final = "udp_foreign"  # a datagram not sealed by the peer, or not whole: anybody may have sent it
LATE: Final = "udp_late"  # older than the newest by more than the window
UNREADABLE: Final = "udp_unreadable"  # the peer's own, but its frame can't be unpacked
UNREAD: Final = "udp_unread"  # came while the socket's buffer was full; counted by the kernel
FULL: Final = "udp_full"  # a frame for which the socket had no room: the way is narrower than what it shall carry

WORDS: Final[Mapping[str, str]] = {
    LATE: N_("too late by UDP"),
    UNREADABLE: N_("unreadable by UDP"),
    UNREAD: N_("faster by UDP than it could be read"),
    FULL: N_("no room in the UDP socket"),
}
"""Of those that may be frames of the session; FOREIGN ones are not."""
