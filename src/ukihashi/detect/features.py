"""What a connection's first turns show in the clear: the layer outside TLS, where TLS begins, the size of its hello."""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from ukihashi.detect.flow import Turn


class Outer(Enum):
    """How the tunnel travels; the value is the word of the log line."""

    TCP = "TCP"
    HTTP = "HTTP Proxy"
    SOCKS = "SOCKS Proxy"
    SSH = "SSH"


class Beginning(NamedTuple):
    """Where TLS begins inside the connection."""

    outer: Outer
    hello: int  # index of the turn with the client hello; -1 = not there yet
    hello_size: int  # bytes of that turn
    target: str  # host:port asked of a proxy, "" if none or not captured


MAX_OUTER_TURNS: Final = 8  # of a proxy's dialogue before TLS begins
_MIN_HELLO: Final = 90  # bytes; no client hello is smaller
_USUAL_HELLO: Final = 180
_USUAL_FLIGHT: Final = 500  # bytes of the answer to it
_TOLD_BY: Final = 3  # turns; by then it is clear whether a small first one was a proxy's
_SHORT_REQUEST: Final = 40  # bytes; only SOCKS asks in so few
_SSH: Final = (b"SSH-2.0-", b"SSH-1.99-")
_KEXINIT: Final = 20
_OF_CLIENT: Final = (30, 32, 34)  # exchange begins; 30 is also what an old group exchange asks with
_OF_SERVER: Final = (31, 33)


def beginning(turns: Sequence[Turn]) -> Beginning | None:
    """Read the complete turns so far; None: this is no TLS, nor TLS through a proxy.

    A turn whose head was not captured is taken for what its neighbours allow.
    """
    first = turns[0]
    if not first.toward_server:
        return None
    outer = _outer(first.head) if first.head else _outer_by_others(turns)
    if outer is None:
        return None
    if outer is Outer.TCP:
        if first.size >= _MIN_HELLO:
            return Beginning(outer, 0, first.size, "")
        return Beginning(outer, -1, 0, "") if not first.head and len(turns) < _TOLD_BY else None
    target = _target(first.head) if outer is Outer.HTTP else ""
    earliest = 4 if outer is Outer.SOCKS and len(turns) > 1 and turns[1].size == 2 else 2
    for index in range(2, min(len(turns), MAX_OUTER_TURNS + 1), 2):
        turn, answer = turns[index], turns[index + 1] if index + 1 < len(turns) else None
        unseen = not turn.head and turn.size >= _USUAL_HELLO and index >= earliest
        if (
            _is_hello(turn.head, 1)
            or (answer is not None and _is_hello(answer.head, 2))
            or (unseen and answer is not None and not answer.head and answer.size >= _USUAL_FLIGHT)
        ):
            return Beginning(outer, index, turn.size, target)
    return Beginning(outer, -1, 0, target) if len(turns) <= MAX_OUTER_TURNS else None


def is_ssh(turns: Sequence[Turn]) -> bool:
    """Has one side named its SSH version, or offered its algorithms, directly or through a proxy?"""
    return any(turn.head.startswith(_SSH) or _ssh_message(turn.head) == _KEXINIT for turn in turns[:MAX_OUTER_TURNS])


def ssh_client(turns: Sequence[Turn]) -> str:
    """The client's identification string (RFC 4253, 4.2), as far as it was captured; "" if it was not."""
    for turn in turns:
        if turn.toward_server and turn.head.startswith(_SSH):
            name = turn.head.split(b"\n", 1)[0].rstrip(b"\r").decode("ascii", "replace")
            return name if name.isascii() and name.isprintable() else ""
    return ""


def ssh_wrong_way(turn: Turn) -> bool:
    """A message of the key exchange that only the other side sends (RFC 4253, 8; RFC 4419, 3; RFC 5656, 4)."""
    return _ssh_message(turn.head) in (_OF_SERVER if turn.toward_server else _OF_CLIENT)


def _ssh_message(head: bytes) -> int:
    """The number of the message that an SSH packet in the clear begins with; -1 if this is none (RFC 4253, 6)."""
    if len(head) < 6 or head[:2] != b"\0\0":
        return -1
    size = int.from_bytes(head[:4])
    return head[5] if 12 <= size <= 35_000 and (size + 4) % 8 == 0 and 4 <= head[4] < size else -1


def _is_hello(head: bytes, kind: int) -> bool:
    """A TLS record with a hello message: kind 1 of a client, 2 of a server (RFC 8446, 4)."""
    return len(head) > 5 and head[0] == 0x16 and head[1] == 3 and head[5] == kind


def _outer(request: bytes) -> Outer | None:
    if _is_hello(request, 1):
        return Outer.TCP
    if request.startswith(b"CONNECT "):
        return Outer.HTTP
    return Outer.SOCKS if request[:2] == b"\x04\x01" or _is_socks5(request) else None


def _outer_by_others(turns: Sequence[Turn]) -> Outer | None:
    """The same where the first request was not captured."""
    for index, turn in enumerate(turns[: MAX_OUTER_TURNS + 1]):
        head = turn.head
        if not head:
            continue
        if turn.toward_server:
            if head[:3] == b"\x05\x01\x00":
                return Outer.SOCKS
            if _is_hello(head, 1):
                break
        elif head.startswith(b"HTTP/1."):
            return Outer.HTTP
        elif head[:2] == b"\x00\x5a" or (head[0] == 5 and len(head) == 2):
            return Outer.SOCKS
        elif index == 1:
            return Outer.TCP if _is_hello(head, 2) else None
        elif _is_hello(head, 2):
            break
    else:
        return Outer.TCP
    return Outer.SOCKS if turns[0].size <= _SHORT_REQUEST else Outer.HTTP


def _is_socks5(request: bytes) -> bool:
    """Version 5, then a list of methods that fills the message (RFC 1928, 3)."""
    return len(request) > 2 and request[0] == 5 and len(request) == 2 + request[1]


def _target(request: bytes) -> str:
    """The host:port of a CONNECT request; only printable ASCII is taken."""
    words = request.split(b"\r\n", 1)[0].split(b" ")
    text = words[1].decode("ascii", "replace") if len(words) > 2 else ""
    return text if text.isascii() and text.isprintable() else ""
