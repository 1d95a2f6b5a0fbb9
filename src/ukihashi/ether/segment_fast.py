"""Super-frames split by numpy: all segments of full size as the rows of one table. See `segment`, which imports this
when the first large one is to be split."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ukihashi.ether import segment
from ukihashi.ether.segment import CWR, FIN, FLAGS, IDENTIFICATION, IP_CHECKSUM, PSH, SEQUENCE, Cut

_BIG_U16: Final = np.dtype(">u2")
_BIG_U32: Final = np.dtype(">u4")
_LITTLE_U16: Final = np.dtype("<u2")


def split(cut: Cut) -> list[bytes]:
    """The segments; `cut.each` is even."""
    frame, version, at, start, begin, end, each, check, is_udp = cut
    count = (end - begin) // each
    head = segment.head_of(cut, each)
    width = begin + each
    payload = np.frombuffer(frame, np.uint8, count * each, begin).reshape(count, each)
    rows = np.empty((count, width), np.uint8)
    rows[:, :begin] = np.frombuffer(head.template, np.uint8)
    rows[:, begin:] = payload
    number = np.arange(count, dtype=np.int64)
    total = payload.view(_LITTLE_U16).sum(axis=1, dtype=np.uint32).astype(np.int64)
    total *= 256
    total += head.sum
    if version == 4:
        identification = (number + head.identification) & 0xFFFF
        _put(rows, at + IDENTIFICATION, identification, _BIG_U16)
        _put(rows, at + IP_CHECKSUM, -(identification + head.ip_sum) % 65535, _BIG_U16)
    if is_udp:
        total = -total % 65535
        total[total == 0] = 65535
    else:
        sequence = (number * each + head.sequence) & 0xFFFFFFFF
        flags = np.full(count, head.flags & ~(CWR | FIN | PSH), np.int64)
        flags[0] |= head.flags & CWR
        if count * each == end - begin:
            flags[-1] |= head.flags & (FIN | PSH)
        _put(rows, start + SEQUENCE, sequence, _BIG_U32)
        rows[:, start + FLAGS] = flags
        total = -(total + sequence + flags) % 65535
    _put(rows, check, total, _BIG_U16)
    whole = rows.tobytes()
    frames = [whole[place : place + width] for place in range(0, count * width, width)]
    return frames if begin + count * each == end else frames + segment.split(cut, count)


def _put(rows: NDArray[np.uint8], column: int, numbers: NDArray[np.int64], form: np.dtype[Any]) -> None:
    """A number into each row."""
    new = numbers.astype(form).view(np.uint8).reshape(-1, form.itemsize)
    rows[:, column : column + form.itemsize] = new
