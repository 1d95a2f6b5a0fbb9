"""What a worker leaves to the next one at `hub upgrade`: a sealed piece of memory with a value for each session.

    state := value*      value := u32 length (big-endian), MessagePack
    value 0              `Heading`; then one value for each virtual hub, then one for each session

The descriptor goes from worker to worker through the supervisor, which never reads it. Sealed: what is restored can't
change any more. Times are the machine's monotonic ones, which both processes share.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from ukihashi.errors import N_, UkihashiError
from ukihashi.hub.messages import HubPut
from ukihashi.hub.saved import SavedSession
from ukihashi.hub.sessions import Sessions

FORM: Final = 2  # of the state, and of what a supervisor leaves to the next one
CHUNK: Final = 1 << 20  # bytes of one write

_LENGTH: Final = struct.Struct("!I")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Heading(msgspec.Struct, frozen=True):
    """Value 0 of a state."""

    form: int
    let_go_at: float  # monotonic: when the first link was let go
    hubs: int  # values that follow; the rest are sessions


class SavedHub(msgspec.Struct, frozen=True):
    """A virtual hub."""

    settings: HubPut
    sessions_so_far: int  # numbers given to sessions


class StateUnusable(UkihashiError):
    """A state can't be written or read: cards log in afresh."""


def write_state(values: Iterable[Any]) -> int:
    """A new sealed descriptor, which the caller owns. Values are taken one by one. Raises: StateUnusable."""
    try:
        state = os.memfd_create("ukihashi-sessions", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            for value in values:
                data = msgspec.msgpack.encode(value)
                _write(state, _LENGTH.pack(len(data)))
                _write(state, data)
            fcntl.fcntl(state, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(state)
            raise
    except (OSError, OverflowError, struct.error) as error:
        raise StateUnusable(N_("the sessions can't be saved: {reason}"), reason=error) from error
    return state


def read_state(state: int) -> Iterator[memoryview]:
    """The values, still encoded, without a copy. Raises: StateUnusable: cut short."""
    size = os.fstat(state).st_size
    if not size:
        return
    # private: before Linux 6.7 what is sealed against writing can't be mapped otherwise, even for reading
    data, at = memoryview(mmap.mmap(state, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)), 0
    while at < size:
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= size else size + 1
        if at > size:
            raise StateUnusable(N_("the saved sessions are cut short"))
        yield data[start:at]


def save(sessions: Sessions) -> int:
    """All virtual hubs and sessions, which end here, as a state; the caller owns it. Raises: StateUnusable."""
    hubs = [SavedHub(hub.settings, hub.sessions_so_far) for hub in sessions.hubs.values()]

    def values() -> Iterator[Any]:
        yield Heading(FORM, time.monotonic(), len(hubs))
        yield from hubs
        yield from sessions.save()

    return write_state(values())


def restore(sessions: Sessions, state: int) -> float:
    """Go on with a state; gives the monotonic time at which the old worker let go.

    Raises: StateUnusable: nothing, or not everything, could be restored.
    """
    values = read_state(state)
    try:
        heading = msgspec.msgpack.decode(next(values, b""), type=Heading)
        if heading.form != FORM:
            raise StateUnusable(
                N_("the saved sessions have form {form}, this hub reads form {known}"), form=heading.form, known=FORM
            )
        for _ in range(heading.hubs):
            saved = msgspec.msgpack.decode(next(values, b""), type=SavedHub)
            hub = sessions.put_hub(saved.settings)
            hub.sessions_so_far = max(saved.sessions_so_far, hub.sessions_so_far)  # several workers may have left one
        decode = msgspec.msgpack.Decoder(SavedSession).decode
        for value in values:
            sessions.restore(decode(value))
    except msgspec.DecodeError as error:
        raise StateUnusable(N_("the saved sessions can't be read: {reason}"), reason=error) from error
    return heading.let_go_at


def _write(state: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(state, view[:CHUNK]) :]
