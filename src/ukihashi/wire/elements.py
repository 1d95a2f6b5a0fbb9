"""What every message's `to_pack` and `from_pack` need: elements that must be there, lengths that they must have."""

from typing import Final

from ukihashi.errors import N_, PeerViolation
from ukihashi.wire.constants import MAX_TEXT, Code
from ukihashi.wire.pack import Pack


class MessageViolation(PeerViolation):
    """A PACK that is well formed but says nothing sensible. `code` is what to answer before hanging up."""

    code: Final = Code.PROTOCOL_ERROR


def closed(pack: Pack, pencore: bytes) -> Pack:
    """The PACK with its size camouflage at the end."""
    pack.add_data("pencore", pencore)
    return pack


def require(pack: Pack, *names: str) -> None:
    """Raises: MessageViolation: one of the elements is missing."""
    for name in names:
        if name not in pack:
            raise MessageViolation(N_("a message came without its element {name}"), name=name)


def exact(pack: Pack, name: str, length: int) -> bytes:
    """DATA of that length. Raises: MessageViolation."""
    data = pack.get_data(name)
    if len(data) != length:
        raise MessageViolation(N_("element {name} must be {length} bytes"), name=name, length=length)
    return data


def bounded(pack: Pack, name: str, limit: int) -> bytes:
    """DATA of at most that length. Raises: MessageViolation."""
    data = pack.get_data(name)
    if len(data) > limit:
        raise MessageViolation(N_("element {name} is longer than {limit} bytes"), name=name, limit=limit)
    return data


def text(pack: Pack, name: str) -> str:
    """STR of at most MAX_TEXT bytes. Raises: MessageViolation."""
    value = pack.get_str(name)
    if len(value.encode()) > MAX_TEXT:
        raise MessageViolation(N_("element {name} is longer than {limit} bytes"), name=name, limit=MAX_TEXT)
    return value
