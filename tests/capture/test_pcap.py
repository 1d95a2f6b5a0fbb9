import contextlib
import gzip
import io
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.scene import Frame, pcap
from ukihashi.capture import pcap as pcap_module
from ukihashi.capture.batch import Batch
from ukihashi.capture.pcap import CHUNK, MAX_BLOCK, MAX_CAPTURED, MAX_INTERFACES, CaptureFile
from ukihashi.detect import compiled
from ukihashi.errors import InputUnreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

FRAMES: list[Frame] = [(1_700_000_000.25, b"first frame"), (1_700_000_001.5, b""), (1_700_000_002.75, b"x" * 3000)]


def read(data: bytes) -> list[tuple[float, bytes, int]]:
    return flat(CaptureFile(io.BufferedReader(io.BytesIO(data)), "test.pcap"))


def flat(source: CaptureFile) -> list[tuple[float, bytes, int]]:
    found = []
    for batch in source:
        found += contents(batch)
    return found


def contents(batch: Batch) -> list[tuple[float, bytes, int]]:
    return [(time, bytes(batch.buffer[at : at + size]), batch.link_type) for time, at, size, _ in batch.packets]


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", *, link_type: int = 1, options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, 0) + options, order)


def packet(ticks: int, data: bytes, order: str = "<", number: int = 0) -> bytes:
    head = struct.pack(order + "5I", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) + 7)
    return block(6, head + data, order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_pcap_of_either_order_and_resolution_plain_or_gzip(order: str, nanoseconds: bool, zipped: bool) -> None:
    data = pcap(FRAMES, order=order, nanoseconds=nanoseconds, link_type=113)
    found = read(gzip.compress(data) if zipped else data)
    assert [(frame, kind) for _, frame, kind in found] == [(frame, 113) for _, frame in FRAMES]
    assert [time for time, _, _ in found] == pytest.approx([time for time, _ in FRAMES])


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_two_interfaces_times_and_blocks_it_does_not_know(order: str) -> None:
    nanoseconds = struct.pack(order + "HHBxxx", 9, 1, 9) + struct.pack(order + "HHq", 14, 8, 100)
    data = section(order) + interface(order) + interface(order, link_type=101, options=nanoseconds)
    data += block(5, b"statistics", order)
    data += packet(1_500_000, b"one", order) + packet(2_000_000_000, b"two", order, number=1)
    data += block(3, struct.pack(order + "I", 4) + b"four", order)
    assert read(data) == [(1.5, b"one", 1), (102.0, b"two", 101), (102.0, b"four", 1)]


def test_pcapng_whose_second_section_has_another_byte_order() -> None:
    data = section("<") + interface("<") + packet(1, b"a", "<") + section(">") + interface(">") + packet(2, b"b", ">")
    assert [frame for _, frame, _ in read(data)] == [b"a", b"b"]


@pytest.mark.parametrize("data", [b"", b"hello world", b"\xd4", b"GIF89a.........."])
def test_what_is_no_capture_says_so(data: bytes) -> None:
    with pytest.raises(InputUnreadable, match=r"test\.pcap is (empty|not a capture)"):
        read(data)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_cut_file_gives_all_before_the_cut_and_names_the_byte(kind: str, zipped: bool) -> None:
    whole = pcap(FRAMES) if kind == "pcap" else section() + interface() + packet(1, b"first") + packet(2, b"x" * 3000)
    before = len(whole) - 3016 if kind == "pcap" else len(whole) - 3032
    data = whole[:-9]
    source = CaptureFile(io.BufferedReader(io.BytesIO(gzip.compress(data) if zipped else data)), "cut")
    found: list[tuple[float, bytes, int]] = []
    with pytest.raises(InputUnreadable, match=f"cut is damaged at byte {before}; [12] packets before it were read"):
        found.extend(entry for batch in source for entry in contents(batch))
    assert [frame for _, frame, _ in found][:1] in ([b"first frame"], [b"first"])


def test_a_cut_gzip_stream_is_damage_too_and_keeps_what_came_before() -> None:
    data = gzip.compress(pcap([(float(n), bytes([n]) * 60) for n in range(200)]))
    source = CaptureFile(io.BufferedReader(io.BytesIO(data[: len(data) // 2])), "cut.gz")
    with pytest.raises(InputUnreadable, match="damaged"):
        flat(source)
    assert source.packets > 0


def test_a_length_no_card_can_capture_is_damage() -> None:
    data = bytearray(pcap(FRAMES))
    struct.pack_into("<I", data, 24 + 8, MAX_CAPTURED + 1)
    with pytest.raises(InputUnreadable, match="damaged at byte 24; 0 packets"):
        read(bytes(data))


@pytest.mark.parametrize("size", [0, 8, 13, 1 << 30])
def test_a_pcapng_block_of_an_impossible_size_is_damage(size: int) -> None:
    data = section() + interface() + packet(1, b"good") + struct.pack("<II", 6, size) + b"\0" * 64
    with pytest.raises(InputUnreadable, match="1 packets before"):
        read(data)


@given(st.lists(st.binary(max_size=200), max_size=30), st.integers(1, 64))
def test_every_split_of_the_stream_gives_the_same_packets(frames: list[bytes], chunk: int) -> None:
    data = pcap([(float(n), frame) for n, frame in enumerate(frames)])

    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = data

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: "Buffer") -> int:
            view = memoryview(buffer)
            piece, self.rest = self.rest[: min(chunk, len(view))], self.rest[min(chunk, len(view)) :]
            view[: len(piece)] = piece
            return len(piece)

    source = CaptureFile(io.BufferedReader(Slow(), chunk), "slow")
    assert [frame for _, frame, _ in flat(source)] == frames
    assert source.packets == len(frames)


@given(st.binary(max_size=400), st.sampled_from([pcap(FRAMES), section() + interface() + packet(1, b"x"), b""]))
def test_hostile_bytes_give_packets_or_one_typed_error(tail: bytes, head: bytes) -> None:
    try:
        for _time, frame, _kind in read(head + tail):
            assert len(frame) <= MAX_CAPTURED
    except InputUnreadable:
        pass


def test_a_file_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(FRAMES))
    with path.open("rb") as file:
        assert len(flat(CaptureFile(file, str(path)))) == 3


def everything(data: bytes, *, fast: bool) -> tuple[list[tuple[float, bytes, int]], int, int, str]:
    """What is read of a file, plainly or by compiled walkers, and how it ends."""
    source = CaptureFile(io.BufferedReader(io.BytesIO(data)), "any")
    if fast:
        source._walkers = pcap_module._compiled()
    found, said = [], ""
    try:
        for batch in source:
            found += contents(batch)
    except InputUnreadable as error:
        said = str(error)
    return found, source.packets, source.offset, said


VARIED = [
    pcap(FRAMES),
    pcap(FRAMES, order=">", nanoseconds=True),
    section()
    + interface()
    + packet(5_000_000, b"one")
    + interface(link_type=101)
    + packet(1 << 63, b"two" * 9, number=1),
    section(">") + interface(">") + packet(7, b"xyz", ">") + block(3, struct.pack(">I", 9) + b"123456789abc", ">"),
    section() + interface() + block(2, struct.pack("<HH4I", 0, 0, 1, 2, 4, 4) + b"abcd") + block(99, bytes(40)),
]


@pytest.mark.skipif(not compiled.is_possible(), reason="numba is not installed")
@settings(deadline=None)
@given(
    st.sampled_from(VARIED),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
    st.binary(max_size=40),
)
def test_compiled_walkers_read_the_same_of_anything(
    data: bytes, changes: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    changed = bytearray(data[:cut] + tail)
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    assert everything(bytes(changed), fast=True) == everything(bytes(changed), fast=False)


@pytest.mark.parametrize("fast", [False, True] if compiled.is_possible() else [False])
@pytest.mark.parametrize(
    "data",
    [
        section() + struct.pack("<II", 1, 0xFFFFFFFC) + bytes(100),  # an interface of 4 GiB
        section() + interface() + struct.pack("<II", 6, MAX_BLOCK + 4) + bytes(100),
        section() + interface() + struct.pack("<II", 6, 0) + bytes(100),  # a block without length goes on for ever
        section() + interface() * (MAX_INTERFACES + 1),
        section() + interface() + packet(1, b"x", number=1),  # of an interface that there is not
        pcap(FRAMES)[:24] + struct.pack("<4I", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(100),
    ],
)
def test_a_bomb_is_damage(data: bytes, fast: bool) -> None:
    assert "damaged" in everything(data, fast=fast)[3]


class Garbage(io.RawIOBase):
    """A file of any size that takes no room: a begin, then the same bytes again and again."""

    def __init__(self, begin: bytes, again: bytes, size: int) -> None:
        self._begin, self._again, self._left = begin, again * (1 + (1 << 20) // len(again)), size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer)
        if self._begin:
            data, self._begin = self._begin, b""
        else:
            data = self._again[self._at :][: min(len(view), self._left)]
            self._left -= len(data)
            self._at = (self._at + len(data)) % len(self._again)
        view[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("megabytes", [1, pytest.param(1024, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"\0"),
        (b"", b"no capture "),
        (pcap(FRAMES), b"\0"),  # packets of no bytes, 16 each
        (section(), section()),  # nothing but sections
        (section() + interface(), block(77, bytes(100))),
    ],
)
def test_garbage_of_any_size_takes_little_memory(begin: bytes, again: bytes, megabytes: int) -> None:
    source = CaptureFile(io.BufferedReader(Garbage(begin, again, megabytes << 20)), "garbage")
    tracemalloc.start()
    try:
        with contextlib.suppress(InputUnreadable):
            for batch in source:
                assert len(batch.buffer) <= CHUNK + MAX_BLOCK
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
