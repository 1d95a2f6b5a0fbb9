"""What of a bounded table is whose: a port that floods it with forged entries loses its own, never others'."""

from collections.abc import Iterable

from ukihashi.units import PortId


class Shares:
    """The keys of each port, in the order in which they came."""

    def __init__(self) -> None:
        self._of: dict[PortId, dict[bytes, None]] = {}

    def add(self, port: PortId, key: bytes) -> None:
        """`key` belongs to `port`."""
        self._of.setdefault(port, {})[key] = None

    def discard(self, port: PortId, key: bytes) -> None:
        """It does no more."""
        self._of[port].pop(key, None)

    def count(self, port: PortId) -> int:
        """How many keys are the port's."""
        return len(self._of.get(port, ()))

    def of(self, port: PortId) -> Iterable[bytes]:
        """The port's keys."""
        return self._of.get(port, {}).keys()

    def drop(self, port: PortId) -> Iterable[bytes]:
        """Forget the port; gives the keys that were its."""
        return self._of.pop(port, {}).keys()

    def victim(self, port: PortId, limit: int) -> bytes | None:
        """Of a table with `limit` entries, all used: the key that makes room for one of `port`.

        It is the newest of the port that has most: in a flood, a forged one. None if `port` has its share already.
        """
        held = [len(keys) for keys in self._of.values() if keys]
        if self.count(port) >= limit // max(1, len(held) + (not self.count(port))):
            return None
        most = max(self._of, key=self.count)
        return next(reversed(self._of[most]))
