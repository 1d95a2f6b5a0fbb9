"""A connection that began as TLS and goes on without, because both ends asked for it (protocol section 2.1).

For one's own laboratory: everybody on the way can read and change the frames.
"""

from collections.abc import Iterator
from typing import Final

from ukihashi.net.tls import TlsState

_HEAD: Final = 5  # bytes before a TLS record's body: type, version, length (RFC 8446, 5.1)
_TYPES: Final = range(0x14, 0x18)


class ClearChannel:
    """Takes a `TlsChannel`'s place, without TLS. No goodbye exists here: TCP's own end is the end."""

    version: Final = ""
    cipher: Final = ""

    def __init__(self, unsent: bytes = b"") -> None:
        """`unsent`: the last records of TLS, which go out first."""
        self._unsent = memoryview(unsent)
        self._more = bytearray()
        self.state = TlsState.OPEN

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """What came, as it is."""
        return bytes(data)

    def receive_end(self) -> None:
        """Note that the network stream ended."""
        self.state = TlsState.PEER_CLOSED

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Put `data` behind what already waits in `outgoing()`."""
        self._more += data

    def outgoing(self) -> memoryview:
        """Bytes to write to the network now. Tell `sent` how much of it went."""
        if not self._unsent and self._more:
            self._unsent, self._more = memoryview(self._more), bytearray()
        return self._unsent

    def pieces(self) -> list[bytes | memoryview]:
        """The same, for `sendmsg`."""
        first = self.outgoing()
        return [first] if first else []

    def sent(self, count: int) -> None:
        """`count` bytes of the last `outgoing()` or `pieces()` were written."""
        self._unsent = self._unsent[count:]

    @property
    def backlog(self) -> int:
        """Bytes that wait for the network."""
        return len(self._unsent) + len(self._more)

    def close(self) -> None:
        """Nothing is said."""


def cut_records(data: bytearray) -> Iterator[bytes]:
    """Take whole TLS records off the front of `data`, one a step; what is no TLS at all comes as one piece."""
    while data:
        size = len(data)
        if data[0] in _TYPES:
            if size < _HEAD:
                return
            size = _HEAD + int.from_bytes(data[3:_HEAD], "big")
        if len(data) < size:
            return
        record = bytes(data[:size])
        del data[:size]
        yield record
