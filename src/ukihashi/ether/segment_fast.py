"""Super-frames split by numpy: all segments of full size as the rows of one table. See `segment`, which imports this
when the first large one is to be split."""

from typing import Final

import numpy as np

from ukihashi.ether import segment
from ukihashi.ether.offload import MAX_SEGMENTS
from ukihashi.ether.segment import CWR, FIN, FLAGS, IDENTIFICATION, IP_CHECKSUM, PSH, SEQUENCE, Cut

_NUMBERS: Final = np.arange(MAX_SEGMENTS, dtype=np.int64)
_BIG: Final = np.dtype(">u2")
_LITTLE: Final = np.dtype("<u2")


def split(cut: Cut) -> list[bytes]:
    """The segments; `cut.each` is even, as the length of every header is, so that rows are made of whole words."""
    frame, version, at, start, begin, end, each, check, is_udp = cut
    count = (end - begin) // each
    head = segment.head_of(cut, each)
    if not is_udp:
        head.template[start + FLAGS] = head.flags & ~(CWR | FIN | PSH)
    payload = np.frombuffer(frame, np.uint8, count * each, begin).reshape(count, each)
    rows = np.empty((count, begin + each), np.uint8)
    rows[:, :begin] = np.frombuffer(head.template, np.uint8)
    rows[:, begin:] = payload
    words = rows.view(_BIG)  # numbers put here lose what is above 16 bits
    number = _NUMBERS[:count]
    total = np.add.reduce(payload.view(_LITTLE), 1, np.uint32).astype(np.int64)
    total *= 256
    total += head.sum
    if version == 4:
        identification = (number + head.identification) & 0xFFFF
        words[:, (at + IDENTIFICATION) // 2] = identification
        words[:, (at + IP_CHECKSUM) // 2] = -(identification + head.ip_sum) % 65535
    if is_udp:
        total = -total % 65535
        total[total == 0] = 65535
    else:
        sequence = (number * each + head.sequence) & 0xFFFFFFFF
        words[:, (start + SEQUENCE) // 2] = sequence >> 16
        words[:, (start + SEQUENCE) // 2 + 1] = sequence
        total += sequence
        total += head.template[start + FLAGS]
        ends = [(0, head.flags & CWR)]
        if begin + count * each == end:
            ends.append((count - 1, head.flags & (FIN | PSH)))
        for row, flags in ends:
            rows[row, start + FLAGS] |= flags
            total[row] += flags
        total = -total % 65535
    words[:, check // 2] = total
    frames = [row.tobytes() for row in rows]
    return frames if begin + count * each == end else frames + segment.split(cut, count)
