"""A tunnel that leaves TLS after its opening, because the account asked for it (protocol section 2.1).

For one's own laboratory: everybody on the way reads the frames.
"""

from collections.abc import Iterator
from typing import Final

from ukihashi.net.tls import TlsState

_HEAD: Final = 5  # bytes before a TLS record's body: type, version, length (RFC 8446, 5.1)
_TYPES: Final = range(0x14, 0x18)


class ClearChannel:
    """What a link needs of `TlsChannel`, without TLS. No goodbye exists here: TCP's own end is the end."""

    version: Final = ""
    cipher: Final = ""

    def __init__(self) -> None:
        self._unsent = memoryview(b"")
        self._more = bytearray()
        self.state = TlsState.OPEN

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        return bytes(data)

    def receive_end(self) -> None:
        self.state = TlsState.PEER_CLOSED

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self._more += data

    def outgoing(self) -> memoryview:
        if not self._unsent:
            self._unsent, self._more = memoryview(self._more), bytearray()
        return self._unsent

    def sent(self, count: int) -> None:
        self._unsent = self._unsent[count:]

    @property
    def backlog(self) -> int:
        return len(self._unsent) + len(self._more)

    def close(self) -> None:
        """Nothing is said."""


def cut_records(data: bytearray) -> Iterator[bytes]:
    """Take whole TLS records off the front of `data`; what is no TLS at all comes as one piece."""
    while data:
        size = _HEAD + int.from_bytes(data[3:_HEAD], "big") if data[0] in _TYPES else len(data)
        if len(data) < max(size, _HEAD if data[0] in _TYPES else 0):
            return
        record = bytes(data[:size])
        del data[:size]
        yield record
