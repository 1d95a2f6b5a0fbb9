"""The newest lines of the hub's own log, for tools that ask for log files: ours is a stream, not a file."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ukihashi.auth.names import name_key

MAX_LINES: Final = 2000
MAX_LINE: Final = 1024  # characters


class Line(NamedTuple):
    """One event, as a line of JSON."""

    hub: str  # key of the virtual hub that it is about; "" = of none
    text: str


class LogRing:
    """Keeps the newest `MAX_LINES`; the oldest goes first. Empty after a start."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)

    def note(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""
        hub = event.get("hub")
        text = json.dumps(dict(event), ensure_ascii=False, default=str)
        self._lines.append(Line(name_key(hub) if isinstance(hub, str) else "", text[:MAX_LINE]))

    def text(self, hub: str = "") -> bytes:
        """All lines, or those about one virtual hub."""
        key = name_key(hub)
        lines = [line.text for line in self._lines if not hub or line.hub == key]
        return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
