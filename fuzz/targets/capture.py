"""A capture file from a stranger: packets or one typed error, bounded memory; the detector survives what is in it."""

import gzip
import io
from collections import Counter
from random import Random

from lab.scene import Talk, keepalives, pcap, softether_login, ukihashi_login
from ukihashi.alert.eve import event
from ukihashi.capture.pcap import CHUNK, MAX_BLOCK, CaptureFile
from ukihashi.detect.flow import FlowTable
from ukihashi.detect.record import Finding, log_line
from ukihashi.detect.sieve import OPENINGS
from ukihashi.detect.verdict import Detector
from ukihashi.errors import InputUnreadable

ALLOWED = (InputUnreadable,)
TOKENS = [
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
    b"\x06\0\0\0",
    b"\x81\0\0\x07",
    b"\x88\xa8",
    b"\x86\xdd",
    b"\x88\x64",
    b"\x16\x03\x01\x02\0\x01",
    b"CONNECT h:1 HTTP/1.1\r\n",
]
MAX_PACKETS = 4000


def seeds() -> list[bytes]:
    """Whole sessions in several wrappings; gzip too."""
    chance = Random(1)
    plain = Talk(("10.0.0.1", 50000), ("10.0.0.2", 443))
    softether_login(plain, chance)
    tagged = Talk(("fd00::1", 50000), ("fd00::2", 443), tags=(7, 8))
    ukihashi_login(tagged, chance, base=(155, 349, 1215, 792))
    keepalives(tagged, chance, seconds=40)
    files = [pcap(plain.frames), pcap(tagged.frames, order=">"), pcap(plain.frames, nanoseconds=True)]
    files += [pcap([(time, frame[14:]) for time, frame in plain.frames], link_type=101)]
    return [*files, gzip.compress(files[1])]


def run(data: bytes) -> object:
    """Read, decode, judge, and say it."""
    detector = Detector()
    table = FlowTable(detector, limit=256, sieve=OPENINGS if len(data) % 2 else (), max_kept=1 << 16)
    source = CaptureFile(io.BufferedReader(io.BytesIO(data)), "fuzz")
    seen: Counter[str] = Counter()
    last = 0.0
    for batch in source:
        assert len(batch.buffer) <= CHUNK + MAX_BLOCK
        for _time, at, captured, _length in batch.packets:
            assert 0 <= at <= at + captured <= len(batch.buffer)
        table.take(batch.link_type, batch.buffer, list(batch.packets)[:MAX_PACKETS])
        last = batch.packets[-1][0]
        assert len(table) <= 256
    table.advance(last)
    detector.finish(last)
    for entry in detector.drain():
        assert event(entry)
        if isinstance(entry, Finding):
            assert log_line(entry, zone=None)
        seen["findings"] += 1
    return min(table.bytes, 8), seen["findings"], min(table.opened, 5), source.packets > 0
