"""How much of the TCP bytes was seen: also what the other side's acknowledgements alone tell of."""

from random import Random

import pytest

from lab.replay import session
from lab.scene import Frame
from ukihashi.alert.service import Alert
from ukihashi.capture.batch import ETHERNET, Batch
from ukihashi.capture.health import Coverage


def coverage(frames: list[Frame]) -> Coverage:
    alert = Alert([], tell=lambda _error: None)
    buffer, packets = bytearray(), []
    for time, frame in frames:
        packets.append((time, len(buffer), len(frame), len(frame)))
        buffer += frame
    alert.take(Batch(ETHERNET, buffer, packets))
    return Coverage(0, 1, len(frames), tcp_bytes=alert.tcp_bytes, missing=alert.missing)


def payload(frame: bytes) -> int:
    return len(frame) - 14 - 20 - (frame[46] >> 4) * 4


FRAMES = sorted(
    (frame for number in range(20) for talk in session((f"10.9.1.{number + 1}", 50000)) for frame in talk),
    key=lambda entry: entry[0],
)


def test_a_whole_capture_misses_nothing() -> None:
    got = coverage(FRAMES)
    assert (got.missing, got.share) == (0, 1.0)
    sent = sum(payload(frame) for _, frame in FRAMES)
    assert 0.9 * sent < got.tcp_bytes <= sent  # a connection that was judged is followed no longer


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
def test_the_share_is_that_of_the_packets_that_were_lost(loss: float) -> None:
    chance = Random(int(loss * 100))
    kept = [entry for entry in FRAMES if not payload(entry[1]) or chance.random() >= loss]
    lost = sum(payload(frame) for _, frame in FRAMES) - sum(payload(frame) for _, frame in kept)
    got = coverage(kept)
    assert got.missing == pytest.approx(lost, rel=0.1)
    assert got.share == pytest.approx(1 - loss, abs=0.06)


@pytest.mark.parametrize("side", [1, 2])
def test_a_direction_that_is_not_captured_at_all_is_not_called_lost(side: int) -> None:
    from_server = [entry for entry in FRAMES if entry[1][26:30] == bytes((10, 9, 0, 2))]
    from_client = [entry for entry in FRAMES if entry[1][26:30] != bytes((10, 9, 0, 2))]
    got = coverage(from_client if side == 1 else from_server)
    assert got.missing == 0
